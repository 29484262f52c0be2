"""A contest of speed: all sides in turn in one run, each in a process of its own, with the same settings and threads.

A benchmark has options, each with one value or several, `--act=relu,swish`. One of them, `--compare=act`, says what
contends: its values are the sides, the first of them the reference. All others are crossed: a contest for each
combination. What a side needs and is not installed leaves it out, with a word.
"""

import argparse
import itertools
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

ROOT = pathlib.Path(__file__).parents[1]
NOT_HERE = "not here"
sys.path.insert(0, str(ROOT))

import sat_tf  # noqa: E402, F401 - before any side loads TensorFlow, which asks once whether oneDNN is wanted


def main(doc: str, make: Callable, options: dict[str, str], compare: str) -> pathlib.Path | None:
    """Hold the contests that the command line asks for; print them, and write JSON and Markdown.

    Args:
      doc: of the benchmark.
      make: `(setting) -> run`, in a side's process: prepares everything and compiles. `run()` is what is timed; after
        it `run.facts()`, a dict of numbers, is reported where there is one. `setting` has one value an option.
      options: `{option: values}` with commas, by default.
      compare: the option whose values contend, by default.

    Returns:
      The folder of what was written; None in a side's process.
    """
    arguments = _arguments(doc, options, compare)
    if arguments.side:
        _work(make, json.loads(arguments.side))
        return None
    values = {name: getattr(arguments, name).split(",") for name in options}
    if arguments.compare not in values:
        sys.exit(f"Expected an option of {', '.join(values)}. Received: compare={arguments.compare}.")
    if arguments.rounds < 1 or arguments.threads < 1:
        sys.exit(f"Expected 1 or more. Received: rounds={arguments.rounds}, threads={arguments.threads}.")
    try:
        pathlib.Path(arguments.out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"Expected a folder to write into. Received: out={arguments.out} ({error.strerror}).")
    crossed = [name for name in values if name != arguments.compare]
    contests = []
    for chosen in itertools.product(*(values[name] for name in crossed)):
        common = dict(zip(crossed, chosen, strict=True))
        contests.append(_contest(common, arguments, values[arguments.compare]))
        print(_table(contests[-1], arguments.compare, varied(values, arguments.compare)), flush=True)
        written = _write(doc, contests, values, arguments)  # after each, so that none is lost
    print(f"\n{written}")
    return pathlib.Path(arguments.out)


def varied(values: dict[str, list[str]], compare: str) -> list[str]:
    """Return the options beside the one that contends of which there are several values."""
    return [name for name, given in values.items() if len(given) > 1 and name != compare]


def _arguments(doc, options, compare):
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in options.items():
        parser.add_argument(f"--{name}", default=value, help=f"one or several with commas; {value or 'none'}")
    parser.add_argument("--compare", default=compare, help=f"the option whose values contend; {compare}")
    parser.add_argument("--rounds", type=int, default=7, help="every side runs so often, in turn; 7")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every side; all cores")
    parser.add_argument("--out", default="runs/benchmarks", help="folder of the JSON and the Markdown; runs/benchmarks")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    return parser.parse_args()


def _contest(common, arguments, names):
    """Return what sides take in rounds, and their facts: `{"setting", "sides": {name: {"seconds", "cpu", ...}}}`."""
    sides = {}
    for name in names:  # one after the other, so that none prepares while another runs
        setting = {**common, arguments.compare: name, "threads": arguments.threads}
        sides[name] = Side(setting, arguments.threads)
    running = {name: side for name, side in sides.items() if not side.missing}
    for turn in range(arguments.rounds):
        order = list(running) if turn % 2 else list(running)[::-1]
        for name in order:
            running[name].run()
    return {"setting": common, "sides": {name: side.close() for name, side in sides.items()}}


def row(table: dict, setting: dict, option: str) -> object:
    """Return the row of a table that an option of a side names; end its process with a word where there is none."""
    if setting[option] not in table:
        sys.exit(f"Expected {option} to be one of {', '.join(table)}. Received: {option}={setting[option]}.")
    return table[setting[option]]


class Side:
    """A process that prepares a side, then runs it whenever it is told to.

    Args:
      setting: of the side.
      threads: that its operations may use.
    """

    def __init__(self, setting: dict, threads: int) -> None:
        names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **dict.fromkeys(names, str(threads))}
        self.process = subprocess.Popen(
            [sys.executable, sys.argv[0], f"--side={json.dumps(setting)}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.runs, self.ready = [], self._answer()
        self.missing = self.ready.get(NOT_HERE)

    def _answer(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"A side ended before it answered, with status {self.process.wait()}; see above.")

    def run(self) -> None:
        """Run the side once."""
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        self.runs.append(self._answer())

    def close(self) -> dict:
        """End the process; return what was measured."""
        self.process.stdin.close()
        self.process.wait()
        if self.missing:
            return self.ready
        last = {name: value for name, value in self.runs[-1].items() if name not in ("seconds", "cpu")}
        times = {name: [each[name] for each in self.runs] for name in ("seconds", "cpu")}
        return {**self.ready, **last, **times}


def _work(make, setting):
    """Prepare a side and run it whenever a line comes in; answer in JSON."""
    begun = time.perf_counter()
    try:
        run = make(setting)
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "sat_tf":  # what is measured may not be missing
            raise
        print(json.dumps({NOT_HERE: str(error)}), flush=True)
        return
    except (ValueError, KeyError) as error:
        sys.exit(str(error) if isinstance(error, ValueError) else f"Expected names that there are. Received: {error}.")
    print(json.dumps({"prepared": time.perf_counter() - begun, "versions": versions()}), flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), _processor()
        run()
        taken = {"seconds": time.perf_counter() - wall, "cpu": _processor() - cpu}
        facts = run.facts() if hasattr(run, "facts") else {}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"peak_mib": peak, **taken, **facts}), flush=True)


def _processor():
    """Return the seconds of processor time of this process and its children."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def versions() -> dict[str, str]:
    """Return the versions of what a side has imported."""
    names = ("tensorflow", "keras", "torch", "torchvision", "torchattacks", "foolbox", "art", "cleverhans", "numpy")
    loaded = {name: sys.modules[name] for name in names if name in sys.modules}
    return {name: str(getattr(module, "__version__", "unknown")) for name, module in loaded.items()}


def ratios(contest: dict, name: str, times: str = "seconds") -> list[float]:
    """Return a side's time over the reference's, round by round, sorted: above 1 the reference is faster."""
    reference = next(side for side in contest["sides"].values() if NOT_HERE not in side)
    side = contest["sides"][name]
    return sorted(one / max(other, 1e-9) for one, other in zip(side[times], reference[times], strict=True))


def _table(contest, compare, shown):
    """Return a contest as a Markdown table."""
    words = ", ".join(f"{name} {contest['setting'][name]}" for name in shown)
    head = (
        f"| {compare}{': ' + words if words else ''} | ms | ratio | from | to | ratio of CPU time | peak MiB | facts |"
    )
    lines = ["", head, "|---|---|---|---|---|---|---|---|"]
    known = {"prepared", "versions", "seconds", "cpu", "peak_mib"}
    for name, side in contest["sides"].items():
        if NOT_HERE in side:
            lines.append(f"| {name} | left out: {side[NOT_HERE]} | | | | | | |")
            continue
        wall, cpu = ratios(contest, name), ratios(contest, name, "cpu")
        facts = ", ".join(f"{key} {value:.4g}" for key, value in side.items() if key not in known)
        lines.append(
            f"| {name} | {1e3 * statistics.median(side['seconds']):.1f} | {statistics.median(wall):.2f} "
            f"| {wall[0]:.2f} | {wall[-1]:.2f} | {statistics.median(cpu):.2f} | {side['peak_mib']:.0f} | {facts} |"
        )
    return "\n".join(lines)


def _write(doc, contests, values, arguments):
    """Write `<benchmark>.json` and `<benchmark>.md`, beside those of other commands."""
    from sat_tf import files, machine

    name = pathlib.Path(sys.argv[0]).stem
    command = " ".join(["python", f"benchmarks/{name}.py", *sys.argv[1:]])
    facts = {"system": platform.platform(), "cores": os.cpu_count(), "processor": _processor_name()}
    folder = pathlib.Path(arguments.out)
    whole = {"command": command, "time": machine.now(), "machine": facts, "versions": machine.versions()}
    settings = {"rounds": arguments.rounds, "threads": arguments.threads, "compare": arguments.compare}
    files.write(folder / f"{name}.json", json.dumps({**whole, **settings, "contests": contests}, indent=1) + "\n")
    found = {**whole["versions"]}
    for contest in contests:
        for side in contest["sides"].values():
            found |= side.get("versions", {})
    shown = varied(values, arguments.compare)
    tables = "\n".join(_table(contest, arguments.compare, shown) for contest in contests)
    text = (
        f"# {doc.partition(chr(10))[0]}\n\n```sh\n{command}\n```\n\n{whole['time']}; {facts['processor']}, "
        f"{facts['cores']} cores, {arguments.threads} threads a side; {arguments.rounds} rounds, sides in turn. "
        f"{', '.join(f'{key} {value}' for key, value in found.items())}. Ratios are of times to the first side's: "
        f"above 1 that one is faster.\n{tables}\n"
    )
    return files.write(folder / f"{name}.md", text)


def _processor_name():
    """Return what the system calls its processor."""
    file = pathlib.Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
