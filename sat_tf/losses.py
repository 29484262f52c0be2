"""Losses, one value a picture: what training minimises and attacks climb."""

import tensorflow as tf


def cross_entropy(logits, labels):
    """Return -log softmax(logits)[label]: `[batch, classes]`, int `[batch]` -> float32 `[batch]`."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, tf.float32))


def smoothed_cross_entropy(smoothing):
    """Return the cross-entropy to labels smoothed by `smoothing` (Szegedy et al. 2016, Section 7), as a loss.

    (1 - smoothing) * cross_entropy + smoothing * mean over all classes of -log softmax(logits)
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"Expected a smoothing in [0, 1). Received: smoothing={smoothing}.")
    if not smoothing:
        return cross_entropy

    def loss(logits, labels):
        uniform = -tf.reduce_mean(tf.nn.log_softmax(tf.cast(logits, tf.float32)), -1)
        return (1.0 - smoothing) * cross_entropy(logits, labels) + smoothing * uniform

    return loss
