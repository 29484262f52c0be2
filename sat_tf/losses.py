"""Losses, one value a picture: what training minimises and attacks climb."""

import tensorflow as tf


def cross_entropy(logits, labels):
    """Return -log softmax(logits)[label]: `[batch, classes]`, int `[batch]` -> float32 `[batch]`."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, tf.float32))
