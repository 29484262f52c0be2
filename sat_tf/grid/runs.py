"""One run in a process of its own: whatever happens to it, the others go on."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import connection
from typing import Any

BUSY = "another process is at work on it"
LOG = "log.txt"  # in the run's folder: what it would have printed
REPORT = "report.json"  # in the run's folder once it has ended
MEASURED = {"": None, "mechanism": "mechanism.json"}  # what else is measured of a run: the file that holds it
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


def files_of(measured: str) -> tuple[str, ...]:
    """Return the names of the files that a run has once it has ended and `measured` was measured of it."""
    return (REPORT, MEASURED[measured]) if measured else (REPORT,)


class Child:
    """A process that trains and evaluates one `Run`.

    Args:
      item: the run.
      options: data_dir, command, and whether it computes in a `single` thread.
    """

    def __init__(self, item: Any, options: dict[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit what TensorFlow's threads hold
        self.item = item
        self._answer, other = context.Pipe(duplex=False)
        self._share = context.Value("d", 0.0, lock=False)
        self.process = context.Process(
            target=_work,
            daemon=True,
            args=(item.recipe, str(item.folder), {**options, "measured": item.measured}, other, self._share),
        )
        self.process.start()
        other.close()

    @property
    def share(self) -> float:
        """How much of the training is done, in [0, 1]; the evaluation is not counted."""
        return self._share.value

    @property
    def over(self) -> bool:
        """Whether its process has ended."""
        return not self.process.is_alive()

    def outcome(self) -> str | None:
        """Return None after a good end, `BUSY`, or what went wrong in a sentence."""
        self.process.join()
        with contextlib.suppress(EOFError):
            if self._answer.poll():
                return self._answer.recv()
        code = self.process.exitcode
        how = f"signal {-code}{', often for want of memory' if code == -9 else ''}" if code < 0 else f"status {code}"
        return f"its process ended with {how}; see {self.item.folder / LOG}."

    def stop(self) -> None:
        """Ask it to save its state and end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGTERM)


def _work(recipe, folder, options, answer, share):
    """Train and evaluate, in the new process; send None, `BUSY` or an error's sentence."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # until the training listens
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if options["single"]:
        os.environ.update(dict.fromkeys(THREADS, "1"))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    outcome = _attempt(recipe, folder, options, share)
    with contextlib.suppress(OSError):  # whoever asked is gone
        answer.send(outcome)


def _attempt(recipe, folder, options, share):
    parts = 2 if options["measured"] else 1  # of a run's work: training, and what else is measured

    def on_progress(done):
        share.value = done / parts

    def on_measuring(done):
        share.value = (1 + done) / parts

    try:
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, LOG), "ab", 0) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        from sat_tf import experiment

        experiment.start()
        if not os.path.exists(os.path.join(folder, REPORT)):  # else it was trained before, or by another process
            experiment.train(
                recipe, folder, data_dir=options["data_dir"], command=options["command"], on_progress=on_progress
            )
        if options["measured"] and not os.path.exists(os.path.join(folder, MEASURED[options["measured"]])):
            experiment.gradients(folder, data_dir=options["data_dir"], on_progress=on_measuring)
    except BlockingIOError:
        return BUSY
    except (ValueError, OSError, ArithmeticError, MemoryError) as error:
        print(error, file=sys.stderr)
        return str(error) or type(error).__name__
    except KeyboardInterrupt:
        return "stopped on demand."
    return None


def _end_with_parent():
    """Ask this process to stop when the one that started it is gone, however that ended."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
