"""How long a training by `fit` is, for methods with a schedule."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from sat_tf import methods
from sat_tf.fit import batches

WANTED = "Expected the length of the training, on which the method's schedule depends."
REMEDY = "Give fit steps_per_epoch, or AdversarialModel length=sat_tf.methods.Length(epochs=..., epoch_steps=...)."
BATCH = 32  # of arrays, where fit is given none


def length_of(given: Mapping[str, Any]) -> methods.Length:
    """Return epochs and batches of an epoch of what `keras.Model.fit` is given.

    Args:
      given: the arguments of `fit` by name, all of them.

    Raises:
      ValueError: the data do not say how many batches they are.
    """
    steps = given["steps_per_epoch"] or _batches_of(given)
    if not steps or steps < 0:
        raise ValueError(f"{WANTED} Received: {type(given['x']).__name__} of unknown length. {REMEDY}")
    return methods.Length(epochs=given["epochs"], epoch_steps=int(steps))


def _batches_of(given):
    x = given["x"]
    if isinstance(x, keras.utils.PyDataset):
        return x.num_batches
    if isinstance(x, (tf.data.Dataset, tf.distribute.DistributedDataset)):
        return int(x.cardinality())
    try:
        images = len(batches.whole(x))
    except TypeError:  # a generator
        return None
    trained = images - int(images * given["validation_split"])
    return math.ceil(trained / (given["batch_size"] or BATCH))
