"""TensorFlow's profiler around some steps of a training."""

import os
import pathlib

import tensorflow as tf
from absl import logging


class Profiler:
    """Record the steps of a range, for TensorBoard's profile page; as a context it ends what has begun.

    Args:
      folder: of the logs.
      steps: the first step that is recorded, counted from 0, to the one before the last; an empty range records none.
    """

    def __init__(self, folder: str | os.PathLike, steps: range) -> None:
        self.folder, self.steps, self.going = pathlib.Path(folder), steps, False
        self.stops = (steps.start, steps.stop) if steps else ()  # no call of the loop may run past these

    def at(self, step: int) -> None:
        """Begin or end where the training has come to."""
        if self.steps and not self.going and step == self.steps.start:
            tf.profiler.experimental.start(str(self.folder))
            self.going = True
        elif self.going and step >= self.steps.stop:
            self._end()

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *error: object) -> None:
        if self.going:
            self._end()

    def _end(self):
        tf.profiler.experimental.stop()
        self.going = False
        logging.info("The profile of steps %d to %d lies in %s.", self.steps.start, self.steps.stop, self.folder)
