"""Losses, one value an image: what training minimises and attacks climb."""

from collections.abc import Callable

import tensorflow as tf


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return -log softmax(logits)[label]: `[batch, classes]`, int `[batch]` -> float32 `[batch]`.

    Labels may be probabilities, `[batch, classes]`: then it is -sum(labels * log softmax(logits)).
    """
    if is_soft(labels):
        return tf.nn.softmax_cross_entropy_with_logits(tf.cast(labels, tf.float32), tf.cast(logits, tf.float32))
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, tf.float32))


def is_soft(labels: tf.Tensor) -> bool:
    """Say whether labels are probabilities, float `[batch, classes]`, as mixed images have them, and not classes."""
    labels = tf.convert_to_tensor(labels)
    return labels.shape.rank == 2 and labels.dtype.is_floating


def correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return 1 where the largest logit is the label's, of soft labels the most probable one's, else 0: `[batch]`."""
    labels = tf.argmax(labels, -1, tf.int32) if is_soft(labels) else labels
    return tf.cast(tf.argmax(logits, -1, labels.dtype) == labels, tf.float32)


def smoothed_cross_entropy(smoothing: float) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
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


def margin(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return the largest other logit minus the label's, what Carlini & Wagner 2017 climb: positive where wrong."""
    logits = tf.cast(logits, tf.float32)
    others = tf.where(tf.one_hot(labels, tf.shape(logits)[-1]) > 0, -float("inf"), logits)
    return tf.reduce_max(others, -1) - at(logits, labels)


def dlr(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return the difference of logits ratio, which no scaling of the logits changes; three classes or more.

    -(z_label - max of the others) / (z_1st - z_3rd), the logits in falling order. Source: Croce & Hein 2020b, (6).
    """
    top = tf.math.top_k(tf.cast(logits, tf.float32), 3).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_cross_entropy(logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Return log softmax(logits)[target]: what an attack climbs that wants to see one class, int `[batch]`."""
    return -cross_entropy(logits, targets)


def targeted_margin(logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Return the target's logit minus the label's, what FAB brings to zero."""
    logits = tf.cast(logits, tf.float32)
    return at(logits, targets) - at(logits, labels)


def targeted_dlr(logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Return the difference of logits ratio towards a target; four classes or more.

    -(z_label - z_target) / (z_1st - (z_3rd + z_4th) / 2). Source: Croce & Hein 2020b, (7).
    """
    top = tf.math.top_k(tf.cast(logits, tf.float32), 4).values
    return targeted_margin(logits, labels, targets) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def at(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return the logit of one class an image: `[batch]`."""
    return tf.gather(logits, labels, batch_dims=1)
