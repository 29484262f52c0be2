"""A small model whose numbers do not depend on the batch, images for it, and a short plan of three attacks."""

import functools

import numpy as np
import tensorflow as tf

from sat_tf import attacks, evaluate, losses

COUNT, SIDE, CLASSES = 37, 6, 5
EPSILON = 0.02
RNG = np.random.default_rng(0)
INWARD = tf.constant(RNG.normal(0, 0.5, [SIDE * SIDE * 3, 16]))
OUTWARD = tf.constant(RNG.normal(0, 0.7, [16, CLASSES]))


def model(images):
    """Return logits `[n, 5]`: computed in float64, so that the order of a sum does not show in float32."""
    flat = tf.reshape(tf.cast(images, tf.float64), [-1, SIDE * SIDE * 3])
    return tf.cast(tf.tanh((flat - 0.5) @ INWARD) @ OUTWARD, tf.float32)


@functools.cache
def examples():
    """Return images with ids that are not their places; the model misclassifies every sixth."""
    rng = np.random.default_rng(1)
    images = rng.random([COUNT, SIDE, SIDE, 3]).astype(np.float32)
    labels = model(images).numpy().argmax(-1).astype(np.int32)
    labels[::6] = (labels[::6] + 1) % CLASSES
    return evaluate.Examples(images=images, labels=labels, ids=np.arange(COUNT) * 3 + 5)


def short_plan(terms):
    """Return three stages, each of which breaks some: a weak PGD from two starts, Square, Auto-PGD at targets."""
    return [
        attacks.Stage(
            name="pgd-1",
            attack=lambda ball, step: attacks.Ascent(ball=ball, step_size=step / 8, steps=1),
            loss=attacks.untargeted(losses.cross_entropy),
            runs=2,
        ),
        attacks.Stage(
            name="square",
            attack=lambda ball, step: attacks.Square(ball=ball, steps=30),
            loss=attacks.untargeted(losses.margin),
        ),
        attacks.Stage(
            name="apgd-t",
            attack=lambda ball, step: attacks.APGD(ball=ball, steps=12),
            loss=losses.targeted_dlr,
            runs=terms.classes - 1,
        ),
    ]


def assert_same(result, other, exact=True):
    """Compare what was found of every image."""
    for name in ("ids", "labels", "predictions", "stage", "run", "step"):
        np.testing.assert_array_equal(getattr(result, name), getattr(other, name), err_msg=name)
    for name in ("clean_margin", "margin", "distance", "adversarial"):
        compare = np.testing.assert_array_equal if exact else functools.partial(np.testing.assert_allclose, atol=1e-6)
        compare(getattr(result, name), getattr(other, name), err_msg=name)
