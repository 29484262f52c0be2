"""A recipe's devices, and the same bits on them."""

import functools
from collections.abc import Iterable

import keras
import tensorflow as tf

from sat_tf import hparams


def make_deterministic(seed: int) -> None:
    """Fix every source of randomness: the same seed on the same machine gives the same bits."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def make_strategy(
    recipe: hparams.Recipe, batches: Iterable[str] = ("batch_size", "eval_batch_size")
) -> tf.distribute.Strategy:
    """Return the recipe's distribution strategy; the `batches` that will be used must split over its replicas."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    mirrored = recipe.strategy == "mirrored" or (
        recipe.strategy == "auto" and len(devices) > 1 and devices[0].device_type == "GPU"
    )
    strategy = mirrored_strategy(tuple(d.name for d in devices)) if mirrored else tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    for name in batches:
        if getattr(recipe, name) % replicas:
            received = f"{name}={getattr(recipe, name)}"
            raise ValueError(f"Expected a multiple of the {replicas} replicas. Received: {received}.")
    return strategy


@functools.cache
def mirrored_strategy(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """Return the one MirroredStrategy of these devices, a tuple of names.

    One a process: a second over the same devices would number its collectives from the start again, and TensorFlow
    would take them for those of the first.
    """
    return tf.distribute.MirroredStrategy(devices)
