"""The strategy of this process, one for its whole life: one device, several, several hosts, a TPU."""

import contextlib
import functools
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping

import tensorflow as tf
from absl import logging

from sat_tf import memory
from sat_tf.distribute import cluster as cluster_of
from sat_tf.distribute.channel import STOPPED, Channel
from sat_tf.distribute.team import ALONE, Team

TPU_PORT, TPU_SECONDS = 8470, 5.0  # where a TPU's host listens; how long it may take to answer
WHEEL = "pip install tensorflow-tpu==2.20.0 --find-links https://storage.googleapis.com/libtpu-tf-releases/index.html"
CUDA = "pip install 'tensorflow[and-cuda]'"
ENDING = """import os, sys, time
time.sleep(float(sys.argv[1]))
if os.getppid() == int(sys.argv[3]):  # of a process that is gone the number may be another one's
    os.write(2, sys.argv[2].encode())
    os.kill(os.getppid(), 9)
"""
CONNECTING = 45.0  # seconds that TensorFlow may take to connect processes that have met
_state: dict = {"team": ALONE, "strategy": None, "tpu": None}  # of this process, set once at its start


def prepare(strategy: str = "auto", *, channel: Channel | None = None, tpu: str | None = None) -> None:
    """Take the devices of this process before TensorFlow does anything with them, which several hosts must.

    Args:
      strategy: of `cluster.STRATEGIES`.
      channel: to the other processes, where there are any.
      tpu: "local", or a TPU's name or address; None where no flag says one.

    Raises:
      ValueError: there is no such TPU.
      OSError: the other processes are not reached.
    """
    if channel is not None:
        _state["team"] = Team(channel=channel)
        channel.exchange()  # whoever ends before it comes here is heard of; in what follows it is not
        with ending_after(CONNECTING, f"{STOPPED} a worker that TensorFlow could not connect in {CONNECTING:.0f} s."):
            _state["strategy"] = _multiworker(channel.cluster)
    elif strategy == "tpu" or tpu is not None:
        _state["tpu"] = tpu or os.environ.get("TPU_NAME") or "local"
        _state["strategy"] = _tpu(_state["tpu"])


@contextlib.contextmanager
def ending_after(seconds: float, why: str) -> Iterator[None]:
    """End this process with a line should what is done inside take longer.

    TensorFlow holds Python's lock while it connects to other processes, for ever if one is gone: no thread of this
    process could tell, another process can.
    """
    watcher = subprocess.Popen([sys.executable, "-I", "-S", "-c", ENDING, str(seconds), f"{why}\n", str(os.getpid())])
    try:
        yield
    finally:
        watcher.kill()
        watcher.wait()


def team() -> Team:
    """Return the processes that compute together, this one among them."""
    return _state["team"]


def strategy_of(name: str) -> tf.distribute.Strategy:
    """Return the strategy that a name means on the devices of this process.

    Args:
      name: of `cluster.STRATEGIES`; auto: what `prepare` took, else all GPUs where there are several, else one device.

    Raises:
      ValueError: there is none of these devices, or TensorFlow has begun without them.
    """
    if name == "multiworker" and _state["strategy"] is None:
        found = cluster_of.find(name, os.environ)
        remedy = "Start it by the command line, or call sat_tf.experiment.start(...) before TensorFlow is used."
        raise ValueError(f"Expected the {found.size} workers to have met. Received: a process by itself. {remedy}")
    if name == "tpu" and _state["strategy"] is None:
        prepare("tpu")
    if name in ("auto", "multiworker", "tpu") and _state["strategy"] is not None:
        return _state["strategy"]
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    several = len(devices) > 1 and devices[0].device_type == "GPU"
    if name == "mirrored" or (name == "auto" and several):
        return mirrored(tuple(device.name for device in devices))
    return tf.distribute.get_strategy()


@functools.cache
def mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """Return the one MirroredStrategy of these devices, a tuple of names.

    One a process: a second over the same devices would number its collectives from the start again, and TensorFlow
    would take them for those of the first (tensorflow issue 61314).
    """
    memory.keep_freed()
    return tf.distribute.MirroredStrategy(devices)


def _multiworker(cluster):
    """Return the strategy of all processes of a cluster, which have met."""
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.workers)}),
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
        num_accelerators={"GPU": len(tf.config.list_physical_devices("GPU"))},
    )
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except RuntimeError as error:
        raise ValueError(
            "Expected several workers to be asked for before TensorFlow is used in this process. "
            f"Received: {str(error).splitlines()[0]}"
        ) from error
    except tf.errors.OpError as error:
        raise OSError(f"The workers could not connect: {error.message.splitlines()[0]}") from error
    memory.keep_freed()  # not before: the workers must be met before TensorFlow does anything
    return strategy


def _tpu(name):
    """Return the strategy of a TPU."""
    local = name == "local"
    if local and not tf.config.list_physical_devices("TPU") and not _tpu_devices():
        raise ValueError(f"Expected a TPU on this machine with --tpu=local. Received: none. On a TPU VM: {WHEEL}")
    if not local:
        _reach(name)
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        if not local:
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ImportError, OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"Expected a TPU that TensorFlow {tf.__version__} can use with --tpu={name}. Received: {reason} "
            f"On a TPU VM: {WHEEL}"
        ) from error


def _reach(name):
    """Refuse a TPU whose address, or whose cloud, does not answer: TensorFlow would wait for minutes."""
    address = name.removeprefix("grpc://") if name.startswith("grpc://") else "metadata.google.internal:80"
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port or TPU_PORT)), TPU_SECONDS).close()
    except (OSError, ValueError) as error:
        what = "an address that answers" if name.startswith("grpc://") else "a machine of Google Cloud, which knows it"
        raise ValueError(
            f"Expected {what} with --tpu={name}. Received: no answer of {address} ({error}). On a TPU VM: --tpu=local."
        ) from error


def _tpu_devices(root: str | os.PathLike = "/") -> bool:
    """Say whether the system has a TPU's device files."""
    return any(pathlib.Path(root, "dev").glob("accel[0-9]*"))


def unseen_gpu(root: str | os.PathLike = "/", environment: Mapping[str, str] | None = None) -> str | None:
    """Return a line on GPUs that the system has and TensorFlow does not see; None where all is as it should be.

    Args:
      root: of the file system.
      environment: of the process; None for its own.
    """
    environment = os.environ if environment is None else environment
    if tf.config.list_physical_devices("GPU") or environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    root = pathlib.Path(root)
    drivers = {"NVIDIA": root / "proc/driver/nvidia/version", "AMD": root / "dev/kfd"}
    makers = [maker for maker, file in drivers.items() if file.exists()]
    if not makers:
        return None
    if not tf.test.is_built_with_gpu_support():
        return f"no GPU seen: {makers[0]}'s driver is here, but this TensorFlow {tf.__version__} is built for CPUs."
    reasons = {
        "NVIDIA": f"the CUDA libraries of TensorFlow {tf.__version__} are missing or too new for the driver: {CUDA}",
        "AMD": "TensorFlow's own wheels are for NVIDIA: pip install tensorflow-rocm",
    }
    return f"no GPU seen: {makers[0]}'s driver is here, TensorFlow computes on CPUs; {reasons[makers[0]]}"


def tell_unseen() -> None:
    """Warn of GPUs that TensorFlow does not see."""
    if line := unseen_gpu():
        logging.warning(line)
