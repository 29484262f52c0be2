"""Which processes train together: from --workers and --worker_index, from TF_CONFIG, or from Slurm."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence

STRATEGIES = ("auto", "one", "mirrored", "multiworker", "tpu")
SHARED = ("train", "eval")  # what several processes can do together
JOBS = ("chief", "worker")  # of TF_CONFIG that train together, in this order
PORTS, SPAN = 20_000, 10_000  # Slurm's jobs get ports from here on, by their numbers
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):(\d{1,5})")
_TF_CONFIG = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """The processes that train together, one a host as a rule.

    Attributes:
      workers: "host:port" of each; the first is the chief, which alone writes.
      index: of this process.
      source: who says so, for people.
    """

    workers: tuple[str, ...]
    index: int
    source: str = "--workers"

    def __post_init__(self):
        if not self.workers:
            raise ValueError(f"Expected one worker or more in {self.source}. Received: none.")
        for worker in self.workers:
            match = _ADDRESS.fullmatch(worker)
            if not match or not 0 < int(match[2]) < 65536:
                raise ValueError(f"Expected workers as host:port,host:port in {self.source}. Received: {worker!r}.")
        if len(set(self.workers)) < len(self.workers):
            twice = next(worker for worker in self.workers if self.workers.count(worker) > 1)
            raise ValueError(f"Expected every worker once in {self.source}. Received: {twice} twice.")
        if not 0 <= self.index < len(self.workers):
            last = len(self.workers) - 1
            raise ValueError(f"Expected a worker index from 0 to {last} in {self.source}. Received: {self.index}.")

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.index == 0

    @property
    def size(self) -> int:
        """How many processes there are."""
        return len(self.workers)

    def name_of(self, index: int) -> str:
        """Return what to call a worker in a message."""
        return f"worker {index} ({self.workers[index]})"


def find(
    strategy: str,
    environment: Mapping[str, str],
    *,
    workers: Sequence[str] | None = None,
    index: int | None = None,
    tpu: str | None = None,
) -> Cluster | None:
    """Return the cluster that flags and environment describe; None where this process computes alone.

    Args:
      strategy: of `STRATEGIES`. "auto" takes workers from flags or TF_CONFIG where they name several; Slurm counts for
        "multiworker" alone, as a job step may well hold many trainings that have nothing to do with one another.
      environment: of the process.
      workers, index, tpu: what the flags say, None where they say nothing.

    Raises:
      ValueError: they contradict each other, or describe nothing.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"Expected strategy of {', '.join(STRATEGIES)}. Received: strategy={strategy}.")
    _check_flags(strategy, workers, index, tpu)
    if strategy not in ("auto", "multiworker") or tpu is not None:
        return None
    if workers is not None:
        return Cluster(workers=tuple(workers), index=index)
    found = of_tf_config(environment) if environment.get("TF_CONFIG", "").strip() else None
    if strategy == "auto":
        return found if found and found.size > 1 else None
    if found is None and "SLURM_PROCID" in environment:
        found = of_slurm(environment)
    if found is None:
        raise ValueError(
            "Expected --workers=host:port,host:port and --worker_index=i, TF_CONFIG, or a start by Slurm's srun with "
            "--strategy=multiworker. Received: none of them."
        )
    return found


def _check_flags(strategy, workers, index, tpu):
    """Refuse flags of the command line that do not go together."""
    if workers is not None and strategy not in ("auto", "multiworker"):
        raise ValueError(f"Expected --workers with --strategy=multiworker. Received: --strategy={strategy}.")
    if (workers is None) != (index is None):
        given, missing = ("worker_index", "workers") if workers is None else ("workers", "worker_index")
        what = "which of them this process is, from 0" if workers is not None else "host:port,host:port of all"
        raise ValueError(f"Expected --{given} with --{missing}, {what}. Received: --{given} alone.")
    if tpu is not None and strategy not in ("auto", "tpu"):
        raise ValueError(f"Expected --tpu with --strategy=tpu. Received: --strategy={strategy}.")
    if tpu is not None and workers is not None:
        raise ValueError("Expected --workers or --tpu. Received: both.")
    if tpu is not None and not tpu.strip():
        raise ValueError("Expected --tpu=local or the name of a TPU. Received: --tpu=.")


def of_tf_config(environment: Mapping[str, str]) -> Cluster:
    """Return the cluster that TF_CONFIG describes: its chief, if it names one, and its workers."""
    text = environment["TF_CONFIG"]
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ValueError(
            f"Expected JSON such as {_TF_CONFIG} in TF_CONFIG. Received: {text[:80]!r}, {error}."
        ) from None
    try:
        cluster, task = config["cluster"], config["task"]
        kind, index = task["type"], int(task["index"])
        addresses = {job: list(cluster.get(job, ())) for job in JOBS}
        others = [job for job in cluster if job not in JOBS]
        if not all(isinstance(one, str) for job in JOBS for one in addresses[job]):
            raise TypeError
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(f"Expected a TF_CONFIG such as {_TF_CONFIG}. Received: {text[:160]!r}.") from None
    if others or kind not in JOBS:
        jobs = ", ".join(sorted({*others, kind} - set(JOBS)))
        raise ValueError(f"Expected a TF_CONFIG with the jobs chief and worker alone. Received: {jobs}.")
    if not 0 <= index < len(addresses[kind]):
        raise ValueError(
            f"Expected a TF_CONFIG whose task is one of its {len(addresses[kind])} {kind}s. "
            f"Received: {kind} {index}; the first is 0."
        )
    first = len(addresses["chief"]) if kind == "worker" else 0
    return Cluster(workers=(*addresses["chief"], *addresses["worker"]), index=first + index, source="TF_CONFIG")


def of_slurm(environment: Mapping[str, str]) -> Cluster:
    """Return the cluster of the tasks of this step of Slurm's, a port for each that depends on the job.

    Tasks are numbered node by node (Slurm's block distribution, its default); another distribution is refused.
    """
    names = ("SLURM_PROCID", "SLURM_NODEID", "SLURM_LOCALID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE")
    if missing := [name for name in names if not environment.get(name)]:
        raise ValueError(
            f"Expected a process that srun started, with {', '.join(names)}. Received: no {', '.join(missing)}. "
            "Write srun -N4 --ntasks-per-node=1 before the command."
        )
    rank, node, local = (_number(name, environment[name]) for name in names[:3])
    hosts = expand_hosts(environment["SLURM_STEP_NODELIST"])
    counts = expand_counts(environment["SLURM_STEP_TASKS_PER_NODE"])
    if len(hosts) != len(counts):
        raise ValueError(
            f"Expected a number of tasks for each of Slurm's nodes. Received: {len(hosts)} nodes in "
            f"SLURM_STEP_NODELIST, {len(counts)} numbers in SLURM_STEP_TASKS_PER_NODE."
        )
    first = PORTS + _number("SLURM_JOB_ID", environment.get("SLURM_JOB_ID", "0")) % SPAN
    places = [(i, k) for i, count in enumerate(counts) for k in range(count)]
    if not rank < len(places) or places[rank] != (node, local):
        raise ValueError(
            f"Expected Slurm's tasks numbered node by node. Received: task {rank} on node {node}. "
            "Start by srun --distribution=block."
        )
    workers = tuple(f"{hosts[i]}:{first + k}" for i, k in places)
    return Cluster(workers=workers, index=rank, source="Slurm's environment")


def expand_hosts(text: str) -> list[str]:
    """Return the hosts that Slurm writes as "node[01-03,7],login": node01, node02, node03, node7, login."""
    hosts = []
    for part in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", text):
        names = [""]
        for plain, ranges in re.findall(r"([^\[\]]+)|\[([^\]]*)\]", part):
            names = [name + piece for name in names for piece in ([plain] if plain else _ranges(ranges, text))]
        hosts += names
    return hosts


def _ranges(ranges, text):
    """Return the numbers of "01-03,7" as they are written."""
    numbers = []
    for piece in ranges.split(","):
        low, dash, high = piece.partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()):
            raise ValueError(f"Expected a list of nodes such as node[01-04]. Received: SLURM_STEP_NODELIST={text}.")
        numbers += [f"{n:0{len(low)}d}" for n in range(int(low), int(high or low) + 1)]
    return numbers


def expand_counts(text: str) -> list[int]:
    """Return the numbers that Slurm writes as "2(x3),1": 2, 2, 2, 1."""
    counts = []
    for piece in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", piece.strip())
        if not match:
            raise ValueError(f"Expected numbers such as 1(x4). Received: SLURM_STEP_TASKS_PER_NODE={text}.")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _number(name, text):
    if not text.strip().isdecimal():
        raise ValueError(f"Expected a whole number in {name}. Received: {name}={text}.")
    return int(text)


def check_batch(batch_size: int, count: int, what: str = "workers", name: str = "batch_size") -> None:
    """Refuse a global batch that does not split evenly over workers or replicas."""
    if batch_size % count:
        near = max(batch_size // count, 1) * count
        raise ValueError(
            f"Expected a multiple of the {count} {what}. Received: {name}={batch_size}. The nearest below is {near}."
            if near < batch_size
            else f"Expected a multiple of the {count} {what}. Received: {name}={batch_size}. The smallest is {near}."
        )
