"""Splits -> batches of static shape. Which image comes when, and how it is changed, is a pure function of
(seed, epoch, position in the epoch): not of parallelism, number of hosts, or where the run was resumed.
"""

from collections.abc import Callable

import tensorflow as tf

from sat_tf.data.splits import Split
from sat_tf.names import unknown
from sat_tf.preprocess import AUGMENTATIONS, EVALUATIONS, decode, to_levels

fold_in = tf.random.experimental.stateless_fold_in
_POLICY_SEED = 2  # folded into an image's seed, of which crop and flip use other parts


def steps_per_epoch(split: Split, batch_size: int, hosts: int = 1) -> int:
    """Return the number of whole global batches in an epoch; the rest of each permutation is not used.

    Raises:
      ValueError: if there is none.
    """
    if batch_size < 1 or hosts < 1 or batch_size * hosts > split.size:
        raise ValueError(
            f"Expected batch_size * hosts from 1 to the {split.size} images of the split. "
            f"Received: {batch_size=}, {hosts=}. Choose a smaller batch_size."
        )
    return split.size // (batch_size * hosts)


def train_batches(
    split: Split,
    *,
    batch_size: int,
    image_size: int,
    augment: str | Callable,
    seed: int | tf.Tensor,
    policy: str | Callable | None = None,
    start_step: int = 0,
    host: int = 0,
    hosts: int = 1,
    epochs: int | None = None,
    ids: bool = False,
) -> tf.data.Dataset:
    """Return shuffled, augmented batches, epoch after epoch.

    Position p of an epoch's permutation is the same image with the same augmentation on any number of hosts. In sets
    with random access host h takes positions step * global + h * batch_size + 0, 1, ... of each global batch; record
    sets give each host an even share of the records instead.

    Args:
      split: A Split.
      batch_size: images a batch of this pipeline; the global batch is `hosts` times that.
      image_size: side in pixels.
      augment: key of `AUGMENTATIONS`, or a function `(image uint8 [h, w, 3], size, seed) -> image` like them.
      seed: int, or an integer tensor [2].
      policy: what is done after that: key of `sat_tf.autoaugment.POLICIES`, or a function like them,
        `(image uint8 [image_size, image_size, 3], seed int32 [2]) -> uint8` of that shape. None for nothing.
      start_step: the dataset begins with this batch of the uninterrupted run, at (nearly) no cost; sets that are
        streamed from files read, but do not decode, what they skip.
      host: number of this pipeline, from 0.
      hosts: number of pipelines.
      epochs: how many before the dataset ends, counted from step 0; None for no end.
      ids: whether batches also say which images they hold.

    Returns:
      Dataset of (images float32 [batch_size, image_size, image_size, 3] in [0, 1], labels int32 [batch_size]), and with
      `ids` the images' places in their part of the data, int64 [batch_size].

    Raises:
      ValueError: for a batch larger than the split, or an unknown augmentation or policy.
    """
    steps = steps_per_epoch(split, batch_size, hosts)
    if not 0 <= host < hosts or start_step < 0:
        raise ValueError(f"Expected 0 <= host < hosts and start_step >= 0. Received: {host=}, {hosts=}, {start_step=}.")
    augment_fn = _augmentation(augment, policy, image_size)
    seed = tf.cast(seed, tf.int64)
    seed = seed if seed.shape.rank else tf.stack([0, seed])

    def epoch(number):
        key = fold_in(seed, tf.cast(number, tf.int32))
        start = tf.where(number == start_step // steps, tf.constant(start_step % steps, tf.int64), 0)
        items = split.order(fold_in(key, 0), host, hosts, batch_size, start)
        seeds = _image_seeds(fold_in(key, 1), start, steps, batch_size, host, hosts)
        return tf.data.Dataset.zip(items, seeds)

    def source(item, image_seed):
        source, label, index = split.decode(item)
        return (augment_fn(source, image_seed), label, *([index] if ids else []))

    last = tf.int64.max if epochs is None else epochs
    pairs = tf.data.Dataset.range(start_step // steps, last).flat_map(epoch)
    types = (tf.float32, tf.int32, *([tf.int64] if ids else []))
    return _finished(_batched(pairs, source, split, batch_size, drop_remainder=True, types=types))


def evaluation_batches(
    split: Split, *, batch_size: int, image_size: int, preprocess: str = "resize_crop"
) -> tf.data.Dataset:
    """Return every image exactly once, in natural order; the last batch is filled up with black ones of mask 0.

    Args:
      split: A Split.
      batch_size: images a batch.
      image_size: side in pixels.
      preprocess: key of `EVALUATIONS`.

    Returns:
      Dataset of (images float32 [batch_size, image_size, image_size, 3] in [0, 1], labels int32 [batch_size],
      mask float32 [batch_size], 1 for an image and 0 for filling).

    Raises:
      ValueError: if an image of the split is unreadable: an accuracy over the others would be another number.
    """
    if batch_size < 1:
        raise ValueError(f"Expected a batch_size of at least 1. Received: {batch_size=}.")
    preprocess_fn = _row(EVALUATIONS, preprocess=preprocess)
    if split.unreadable:
        raise ValueError(
            f"Expected to evaluate on every image: an accuracy over fewer is another number. Received: "
            f"{len(split.unreadable)} of {split.size + len(split.unreadable)} unreadable, the first "
            f"{split.unreadable[0]}. Replace what is unreadable by whole copies."
        )

    def source(item):
        source, label, _ = split.decode(item)
        return preprocess_fn(source, image_size), label

    def fill(images, labels):
        count = tf.shape(labels)[0]
        missing = [[0, batch_size - count]]
        images = tf.pad(images, missing + [[0, 0]] * 3)
        mask = tf.cast(tf.range(batch_size) < count, tf.float32)
        shape = [batch_size, image_size, image_size, 3]
        return tf.ensure_shape(images, shape), tf.ensure_shape(tf.pad(labels, missing), [batch_size]), mask

    items = split.order(None, 0, 1, batch_size, 0)
    return _finished(_batched(items, source, split, batch_size, drop_remainder=False).map(fill))


def _augmentation(augment, policy, size):
    """Return `(image, seed) -> image float32 [size, size, 3]`, the augmentation and then the policy."""
    own = callable(augment)
    augment_fn = augment if own else _row(AUGMENTATIONS, augment=augment)
    policy_fn = _policy(policy)

    def apply(source, seed):
        image = augment_fn(decode(source) if own else source, size, seed)
        if policy_fn is None:
            return image
        levels = policy_fn(to_levels(image), fold_in(seed, _POLICY_SEED))
        return tf.cast(tf.ensure_shape(levels, [size, size, 3]), tf.float32) / 255.0

    return apply


def _policy(policy):
    if policy in (None, "none") or callable(policy):
        return None if policy == "none" else policy
    from sat_tf.autoaugment import POLICIES  # not at the top: few pipelines need it

    return _row(POLICIES, policy=policy)


def _row(table, **named):
    """Return the row of a table that the one named argument is the key of."""
    ((argument, key),) = named.items()
    if key not in table:
        raise unknown(f"a known {argument}", argument, key, table)
    return table[key]


def _image_seeds(seed, start, steps, batch_size, host, hosts):
    """Return a dataset of int32 seeds [2]: for position p in the epoch, `fold_in(seed, p)`, a whole step at a time."""
    head = fold_in(seed, 0)[0]  # fold_in is (hash of the seed, p)

    def seeds_of_step(step):
        positions = (step * hosts + host) * batch_size + tf.range(batch_size, dtype=tf.int64)
        return tf.stack([tf.fill([batch_size], head), tf.cast(positions, tf.int32)], axis=1)

    return tf.data.Dataset.range(start, steps).map(seeds_of_step).unbatch()


def _batched(elements, image_fn, split, batch_size, drop_remainder, types=(tf.float32, tf.int32)):
    """Map `image_fn` over the elements and batch them; `types` are those of what it returns.

    Small images in memory go batch by batch: a call of its own for each costs twice as much as the work in it.
    """
    parallel = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
    if not split.in_memory:
        return elements.map(image_fn, **parallel).batch(batch_size, drop_remainder)

    def images(*batch):
        return tf.map_fn(lambda element: image_fn(*element), batch, fn_output_signature=types)

    return elements.batch(batch_size, drop_remainder).map(images, **parallel)


def _finished(dataset):
    """Prefetch in fixed order; batches are placed on hosts here, so tf.distribute must not shard once more."""
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


def one_replica_each(batches: tf.data.Dataset, replicas: int) -> tf.data.Dataset:
    """Cut every batch into one for each of a host's replicas, in order."""
    if replicas == 1:
        return batches

    def cut(*batch):
        parts = [tf.reshape(part, [replicas, part.shape[0] // replicas, *part.shape[1:]]) for part in batch]
        return tf.data.Dataset.from_tensor_slices(tuple(parts))

    return batches.flat_map(cut)
