"""Batches of more than one source: a data set's own images, extra ones beside them, pairs mixed.

As all batches: what comes when is a pure function of seed and step, not of parallelism or where the run was resumed.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from sat_tf.data.batches import fold_in, train_batches
from sat_tf.data.splits import Split
from sat_tf.mixing import mix

_PARALLEL = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
_MIXING_SEED = 3  # folded into a run's seed, beside those of order and augmentation


def composed_batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    host: int = 0,
    hosts: int = 1,
    extra: Split | None = None,
    extra_share: float = 0.0,
    classes: int = 0,
    alphas: dict[str, float] | None = None,
    **options: Any,
) -> tf.data.Dataset:
    """Return batches as `train_batches` does, with a share of extra images in each, and their pairs mixed.

    Own and extra images each go through permutations of their own; both are augmented alike. Their places within a
    batch are fixed and evenly spread, so that every replica has its share of both. Pairs are mixed among the images of
    a host.

    Args:
      split: the data set's own images.
      batch_size, seed, start_step, host, hosts: as `train_batches`.
      extra: images to train on besides.
      extra_share: of each batch, from 0; the number of images is rounded.
      classes: how many there are, where pairs are mixed.
      alphas: `{key of mixing.MIXTURES: number of its Beta distribution}`; empty for none.
      **options: of `train_batches`.

    Returns:
      Dataset of (images float32 [batch_size, h, w, 3] in [0, 1], labels): int32 [batch_size], of mixed pairs float32
      [batch_size, classes].

    Raises:
      ValueError: a share that leaves no image of one source, or images are asked for by their numbers.
    """
    if options.get("ids") and (extra is not None or alphas):
        raise ValueError(
            "Expected a method that need not know which images it sees, with extra or mixed images. Received: one "
            "that does. Choose another --method, or leave extra_share, mixup and cutmix at 0."
        )
    places = {"start_step": start_step, "host": host, "hosts": hosts}
    if extra is None:
        batches = train_batches(split, batch_size=batch_size, seed=seed, **places, **options)
    else:
        count = extra_count(batch_size, extra_share)
        own = train_batches(split, batch_size=batch_size - count, seed=seed, **places, **options)
        more = train_batches(extra, batch_size=count, seed=tf.constant([1, seed]), **places, **options)
        batches = tf.data.Dataset.zip(own, more).map(_spread(batch_size - count, count), **_PARALLEL)
    if not alphas:
        return batches
    key = fold_in(fold_in(tf.constant([0, seed], tf.int64), _MIXING_SEED), host)

    def mixed(step, batch):
        images, labels = batch
        return mix(images, labels, fold_in(key, tf.cast(step, tf.int32)), classes=classes, alphas=alphas)

    steps = tf.data.Dataset.range(start_step, tf.int64.max)
    return tf.data.Dataset.zip(steps, batches).map(mixed, **_PARALLEL).prefetch(tf.data.AUTOTUNE)


def extra_count(batch_size: int, extra_share: float) -> int:
    """Return how many images of a batch are extra ones; a share that leaves none of either is refused."""
    count = round(batch_size * extra_share)
    if not 0 < count < batch_size:
        raise ValueError(
            f"Expected an extra_share that leaves images of both sources in a batch of {batch_size}. "
            f"Received: extra_share={extra_share:g}, {count} extra images."
        )
    return count


def _spread(own, extra):
    """Return a function that joins two batches, the images of both evenly spread over the whole."""
    fractions = np.concatenate([(np.arange(count) + 0.5) / count for count in (own, extra)])
    order = tf.constant(np.argsort(fractions, kind="stable"))

    def join(first, second):
        return tuple(tf.gather(tf.concat(parts, 0), order) for parts in zip(first, second, strict=True))

    return join
