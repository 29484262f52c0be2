"""Mix the images of a batch by pairs, and their labels: what a network sees is between two images, or of both.

A mixture is `(images, labels, seed, *, alpha) -> (images, labels)`: float32 `[batch, h, w, 3]` in [0, 1], probabilities
`[batch, classes]`, an int32 seed `[2]`, and the number of a Beta distribution. The same seed gives the same mixture,
whatever ran before.
"""

from collections.abc import Callable

import tensorflow as tf

Mixture = Callable[..., tuple[tf.Tensor, tf.Tensor]]

fold_in = tf.random.experimental.stateless_fold_in


def mixup(images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, *, alpha: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Return share * one + (1 - share) * another image of the batch, and the same of the labels (MixUp).

    The share is drawn from Beta(alpha, alpha), one for the batch. Source: Zhang et al. 2018, "mixup: Beyond Empirical
    Risk Minimization", Section 2, and the code of its Figure 1.
    """
    share, order = _share(fold_in(seed, 0), alpha), _partners(fold_in(seed, 1), images)
    mixed = share * images + (1.0 - share) * tf.gather(images, order)
    return tf.clip_by_value(mixed, 0.0, 1.0), share * labels + (1.0 - share) * tf.gather(labels, order)


def cutmix(images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, *, alpha: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Paste a box of another image of the batch, and mix the labels by the areas that are left (CutMix).

    The box is the same for the batch; its sides are sqrt(1 - share) of the image's, the share from Beta(alpha, alpha),
    its centre is anywhere, and what lies outside is cut off. Source: Yun et al. 2019, "CutMix: Regularization Strategy
    to Train Strong Classifiers with Localizable Features", Section 3.1 and Algorithm A1.
    """
    share, order = _share(fold_in(seed, 0), alpha), _partners(fold_in(seed, 1), images)
    sides = tf.shape(images)[1:3]
    extent = tf.cast(tf.cast(sides, tf.float32) * tf.sqrt(1.0 - share), tf.int32)
    centre = tf.cast(tf.random.stateless_uniform([2], fold_in(seed, 2)) * tf.cast(sides, tf.float32), tf.int32)
    low = tf.maximum(centre - extent // 2, 0)
    high = tf.minimum(centre - extent // 2 + extent, sides)
    rows, columns = ((tf.range(sides[axis]) >= low[axis]) & (tf.range(sides[axis]) < high[axis]) for axis in (0, 1))
    pasted = (rows[:, tf.newaxis] & columns)[tf.newaxis, :, :, tf.newaxis]
    kept = 1.0 - tf.reduce_mean(tf.cast(pasted, tf.float32))
    mixed = tf.where(pasted, tf.gather(images, order), images)
    return mixed, kept * labels + (1.0 - kept) * tf.gather(labels, order)


MIXTURES = {"mixup": mixup, "cutmix": cutmix}


def mix(
    images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, *, classes: int, alphas: dict[str, float]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a mixed batch and its labels as probabilities.

    Args:
      images: float32 `[batch, h, w, 3]` in [0, 1].
      labels: int `[batch]`.
      seed: int32 `[2]`, of this batch.
      classes: how many there are.
      alphas: `{key of MIXTURES: number of its Beta distribution}`; of several each batch draws one, with equal odds.

    Returns:
      float32 `[batch, h, w, 3]` and float32 `[batch, classes]`.
    """
    soft = tf.one_hot(labels, classes)
    makers = [
        lambda name=name, alpha=alpha: MIXTURES[name](images, soft, fold_in(seed, 0), alpha=alpha)
        for name, alpha in alphas.items()
    ]
    chosen = tf.random.stateless_uniform([], fold_in(seed, 1), 0, len(makers), tf.int32)
    mixed, soft = tf.switch_case(chosen, makers) if len(makers) > 1 else makers[0]()
    return tf.ensure_shape(mixed, images.shape), tf.ensure_shape(soft, [images.shape[0], classes])


def _share(seed, alpha):
    """Return a draw from Beta(alpha, alpha), float32 `[]`: the first of two Gamma draws over their sum."""
    one, other = tf.unstack(tf.random.stateless_gamma([2], seed, alpha, dtype=tf.float64))
    drawn = tf.where(one + other > 0, one / tf.maximum(one + other, 1e-300), 1.0)  # a tiny alpha has both underflow
    return tf.cast(drawn, tf.float32)


def _partners(seed, images):
    return tf.random.experimental.stateless_shuffle(tf.range(tf.shape(images)[0]), seed)
