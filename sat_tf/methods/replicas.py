"""What replicas tell each other in the middle of a step."""

import tensorflow as tf


def gathered(values: tf.Tensor) -> tf.Tensor:
    """Return the `[batch, ...]` values of all replicas, in the replicas' order."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    return context.all_gather(values, axis=0)


def added(values: list[tf.Tensor]) -> list[tf.Tensor]:
    """Return float tensors of one type and static shapes, each summed over all replicas."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    joined = context.all_reduce("SUM", tf.concat([tf.reshape(each, [-1]) for each in values], 0))  # one message
    parts = tf.split(joined, [each.shape.num_elements() for each in values])
    return [tf.reshape(part, each.shape) for part, each in zip(parts, values, strict=True)]


def own(values: tf.Tensor, count: tf.Tensor | int) -> tf.Tensor:
    """Return this replica's `[count, ...]` of values that `gathered` joined."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values[:count]
    first = tf.cast(context.replica_id_in_sync_group, tf.int32) * count
    return values[first : first + count]
