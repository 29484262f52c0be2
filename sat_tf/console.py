"""What a user sees while an experiment runs: log lines, log.txt, progress, and errors that say what to do."""

import contextlib
import datetime
import logging
import os
import pathlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import tensorflow as tf
from absl import logging as absl_logging
from tqdm import tqdm

from sat_tf import progress as progress_of
from sat_tf.progress import make_progress

__all__ = ["Above", "LogFile", "LogLines", "logged", "make_progress", "naming_failures", "say", "start", "whole_steps"]


class LogLines(logging.Handler):
    """Log records as lines above the progress bar; TensorFlow's own events are not a user's."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if _is_ours(record):
            tqdm.write(record.getMessage(), file=sys.stderr)


class LogFile(logging.Handler):
    """Log records, and whatever else is said, as lines of a file with their time."""

    def __init__(self, file: TextIO) -> None:
        super().__init__()
        self.file = file

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if _is_ours(record):
            self.write(record.getMessage())

    def write(self, text: str) -> None:
        """Write lines."""
        now = datetime.datetime.now().isoformat(" ", "seconds")
        with contextlib.suppress(OSError):  # a full disk is said by what can't do without it
            self.file.writelines(f"{now} {line}\n" for line in text.splitlines())
            self.file.flush()


class Above(logging.Handler):
    """Hand records from a level on to the logger above, if they went there before."""

    def __init__(self, logger: logging.Logger, level: int) -> None:
        super().__init__(level)
        self.above = logger.parent if logger.propagate else None

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on one record."""
        if self.above:
            self.above.handle(record)


def _is_ours(record):
    return record.levelno >= logging.WARNING or "sat_tf" in record.pathname


def start() -> None:
    """Prepare a process that runs experiments: log lines, and the devices, whose notes then come before ours."""
    absl_logging.set_verbosity(absl_logging.INFO)
    logger = absl_logging.get_absl_logger()
    logger.handlers, logger.propagate = [LogLines()], False
    tf.get_logger().setLevel("ERROR")
    tf.config.list_logical_devices()


@contextlib.contextmanager
def logged(path: str | os.PathLike, first: str = "") -> Iterator[None]:
    """Write what is said meanwhile, and the error that ends it, to the end of a file, too.

    Nothing is written twice where the process's stderr is that file already, as in the runs of an experiment.

    Args:
      path: the file.
      first: a line to begin with, such as the command.
    """
    if _is_stderr(path):
        yield
        return
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    logger = absl_logging.get_absl_logger()
    with open(path, "a", encoding="utf-8", errors="replace") as file, _heard(logger):
        handler = LogFile(file)
        logger.addHandler(handler)
        progress_of.LISTENERS.append(handler.write)
        try:
            handler.write(first)
            yield
        except BaseException as error:
            handler.write(str(error) or type(error).__name__)
            raise
        finally:
            progress_of.LISTENERS.remove(handler.write)
            logger.removeHandler(handler)


@contextlib.contextmanager
def _heard(logger):
    """Let information reach the handlers to come, also where a program shows warnings alone: others see no more."""
    least, level, propagate = logger.getEffectiveLevel(), logger.level, logger.propagate
    before = [(handler, handler.level) for handler in logger.handlers]
    if least > logging.INFO:
        logger.setLevel(logging.INFO)
        for handler, own in before:
            handler.setLevel(max(own, least))
        above = Above(logger, least)
        logger.addHandler(above)
        logger.propagate = False
    try:
        yield
    finally:
        if least > logging.INFO:
            logger.removeHandler(above)
        logger.propagate = propagate
        logger.setLevel(level)
        for handler, own in before:
            handler.setLevel(own)


def _is_stderr(path):
    try:
        return os.path.samestat(os.stat(path), os.fstat(2))
    except OSError:
        return False


def say(text: str) -> None:
    """Print a result on stdout, and into what is `logged`."""
    if not progress_of.SILENT:
        print(text, flush=True)
    for listen in progress_of.LISTENERS:
        listen(text)


def whole_steps(progress: Any) -> Callable[[float], None]:
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
        raise MemoryError(
            "Out of memory. --set accumulate_steps=4 takes the images of an update in parts, --set remat=true keeps "
            "less of each; a smaller --batch_size, --set image_size or, while evaluating, --set eval_batch_size needs "
            "less, too."
        ) from error
    except tf.errors.OpError as error:
        unreadable = failing.dataset and failing.dataset.diagnose()
        raise OSError(unreadable or f"TensorFlow failed: {error.message.splitlines()[0]}") from error
