"""What a user sees while an experiment runs: log lines, progress bars, and errors that say what to do."""

import contextlib
import logging
import sys
import types
from collections.abc import Callable, Iterator

import tensorflow as tf
from absl import logging as absl_logging
from tqdm import tqdm


class LogLines(logging.Handler):
    """Log records as lines above the progress bar; TensorFlow's own events are not a user's."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if record.levelno >= logging.WARNING or "sat_tf" in record.pathname:
            tqdm.write(record.getMessage(), file=sys.stderr)


def start() -> None:
    """Prepare a process that runs experiments: log lines, and the devices, whose notes then come before ours."""
    absl_logging.set_verbosity(absl_logging.INFO)
    logger = absl_logging.get_absl_logger()
    logger.handlers, logger.propagate = [LogLines()], False
    tf.get_logger().setLevel("ERROR")
    tf.config.list_logical_devices()


def make_progress(total: float, what: str, unit: str, done: float = 0, *, passing: bool = False) -> tqdm:
    """Return a progress bar with ETA on stderr; less often where that is a file.

    A `passing` bar disappears when it is done, and is not shown in a file.
    """
    return tqdm(
        total=total,
        initial=done,
        desc=what,
        unit=unit,
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 10,
        smoothing=0.1,
        leave=not passing,
        disable=None if passing else False,
    )


def whole_steps(progress: tqdm) -> Callable[[float], None]:
    """Return a function that adds fractions to a progress bar, which shows whole numbers."""
    done = 0.0

    def add(count):
        nonlocal done
        done += count
        progress.update(int(done + 1e-6) - progress.n)

    return add


@contextlib.contextmanager
def naming_failures() -> Iterator[types.SimpleNamespace]:
    """Turn TensorFlow's errors into what the user can act on: an unreadable image is named, lack of memory explained.

    Yields a namespace whose `dataset` is asked for what is unreadable in it, as soon as it is set.
    """
    failing = types.SimpleNamespace(dataset=None)
    try:
        yield failing
    except tf.errors.ResourceExhaustedError as error:
        if "No space left" in error.message:
            raise OSError(f"The disk is full: {error.message}") from error
        raise MemoryError("Out of memory. A smaller --batch_size (or --set eval_batch_size) needs less.") from error
    except tf.errors.OpError as error:
        unreadable = failing.dataset and failing.dataset.diagnose()
        raise OSError(unreadable or f"TensorFlow failed: {error.message.splitlines()[0]}") from error
