"""What replicas of one step tell each other, and which part of a batch is theirs.

Random numbers of a batch are those that one device would draw for the whole batch: each replica takes the rows of its
images. So a step gives the same whatever the number of replicas, and no two of them draw the same numbers.
"""

import math
from typing import Any

import tensorflow as tf

PHILOX = 1  # the algorithm of TensorFlow's stateless numbers on CPUs and GPUs, of which one can begin anywhere
BLOCK = 4  # numbers that one count of it gives


def _context():
    """Return the context of a replica among several, None elsewhere."""
    context = tf.distribute.get_replica_context()
    return None if context is None or context.num_replicas_in_sync == 1 else context


def here(strategy: tf.distribute.Strategy) -> int:
    """Return how many of a strategy's replicas this process computes: all but where there are several processes."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return strategy.num_replicas_in_sync
    jobs = strategy.cluster_resolver.cluster_spec().as_dict()
    return strategy.num_replicas_in_sync // max(sum(len(tasks) for tasks in jobs.values()), 1)


def spread(strategy: tf.distribute.Strategy, values: Any) -> Any:
    """Return a structure of tensors or arrays `[batch, ...]` cut over the replicas of this process, in order."""
    parts = here(strategy)
    if strategy.num_replicas_in_sync == 1:
        return tf.nest.map_structure(tf.convert_to_tensor, values)
    flat, spread_out = tf.nest.flatten(values), []
    for value in flat:
        size = len(value) // parts

        def part(context, value=value, size=size):
            first = (context.replica_id_in_sync_group % parts) * size
            return tf.convert_to_tensor(value[first : first + size])

        spread_out.append(strategy.experimental_distribute_values_from_function(part))
    return tf.nest.pack_sequence_as(values, spread_out)


def count() -> int:
    """Return how many replicas compute this step."""
    context = _context()
    return 1 if context is None else context.num_replicas_in_sync


def place() -> tf.Tensor | int:
    """Return the number of this replica, from 0."""
    context = _context()
    return 0 if context is None else tf.cast(context.replica_id_in_sync_group, tf.int32)


def gathered(values: tf.Tensor) -> tf.Tensor:
    """Return the `[batch, ...]` values of all replicas, in the replicas' order."""
    context = _context()
    return values if context is None else context.all_gather(values, axis=0)


def added(values: list[tf.Tensor]) -> list[tf.Tensor]:
    """Return float tensors of one type and static shapes, each summed over all replicas."""
    context = _context()
    if context is None:
        return values
    joined = context.all_reduce("SUM", tf.concat([tf.reshape(each, [-1]) for each in values], 0))  # one message
    parts = tf.split(joined, [each.shape.num_elements() for each in values])
    return [tf.reshape(part, each.shape) for part, each in zip(parts, values, strict=True)]


def own(values: tf.Tensor, count: tf.Tensor | int) -> tf.Tensor:
    """Return this replica's `[count, ...]` of values that `gathered` joined."""
    if _context() is None:
        return values[:count]
    first = place() * count
    return values[first : first + count]


def places(size: tf.Tensor | int) -> tf.Tensor:
    """Return where this replica's images, `size` of them, stand in the whole batch, int32 `[size]`."""
    return tf.range(size) + place() * size


def uniform(
    shape: Any, seed: tf.Tensor, low: float = 0.0, high: float = 1.0, dtype: tf.DType = tf.float32
) -> tf.Tensor:
    """Return this replica's rows of uniform numbers in [low, high) of the whole batch.

    Args:
      shape: of this replica's part, `[batch, ...]`, a tensor or a list.
      seed: int32 `[2]`, the same on all replicas.
      low, high: ends of the range.
      dtype: of the numbers.
    """
    if count() == 1:
        return tf.random.stateless_uniform(shape, seed, low, high, dtype)
    drawn = _from_the_middle(tf.raw_ops.StatelessRandomUniformV2, shape, seed, dtype)
    if drawn is not None:
        return drawn * (high - low) + low
    return own(tf.random.stateless_uniform(_whole(shape), seed, low, high, dtype), shape[0])


def normal(shape: Any, seed: tf.Tensor, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Return this replica's rows of standard normal numbers of the whole batch, as `uniform`."""
    if count() == 1:
        return tf.random.stateless_normal(shape, seed, dtype=dtype)
    drawn = _from_the_middle(tf.raw_ops.StatelessRandomNormalV2, shape, seed, dtype)
    if drawn is not None:
        return drawn
    return own(tf.random.stateless_normal(_whole(shape), seed, dtype=dtype), shape[0])


def _whole(shape):
    return tf.concat([tf.reshape(count() * shape[0], [1]), shape[1:]], 0)


def _from_the_middle(operation, shape, seed, dtype):
    """Return the numbers of this replica's rows without those before; None where that can't be done."""
    shape = tf.convert_to_tensor(shape, tf.int32)
    known = tf.get_static_value(shape)
    if known is None or dtype != tf.float32 or math.prod(known) % BLOCK or tf.config.list_logical_devices("TPU"):
        return None
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    ahead = tf.cast(place(), tf.int64) * (math.prod(known.tolist()) // BLOCK)
    counter = tf.bitcast(tf.bitcast(counter, tf.int64) + tf.stack([ahead, 0]), tf.uint64)
    return operation(shape=shape, key=key, counter=counter, alg=PHILOX, dtype=dtype)
