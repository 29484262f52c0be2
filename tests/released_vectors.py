"""The random weights on which the release's own network code gave the reference numbers, and the check of these."""

import zlib

import numpy as np
import tensorflow as tf

from sat_tf import attacks, losses


def value(name, shape, kind=None):
    """Draw a variable of the release by its name, as the reference vectors were made.

    `kind`: the name without the suffix of a moving average, where it has one.
    """
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    name = kind or name
    if name.endswith("conv3/bn/gamma"):
        return rng.uniform(0.1, 0.3, shape)
    if name.endswith(("gamma", "variance/EMA", "moving_variance")):
        return rng.uniform(0.5, 1.5, shape)
    if name.endswith(("beta", "mean/EMA", "moving_mean")):
        return rng.normal(0, 0.2, shape)
    if name.endswith(("/b", "bias")):
        return rng.normal(0, 0.1, shape)
    if name.endswith(("linear/W", "dense/kernel")):
        return rng.normal(0, 0.02, shape)
    fan_in = np.prod(shape[:2] if name.endswith("depthwise_kernel") else shape[:-1])
    return rng.normal(0, np.sqrt(2 / fan_in), shape)


def write(prefix, shapes, changed=None, draw=value):
    """Write a checkpoint of `{name: shape}` as TensorFlow 1 does, with the values that the names draw.

    `changed`: `{name: array}` that are written instead or besides; None in place of an array leaves the name out.
    """
    suffix = "/ExponentialMovingAverage"
    values = {name: draw(name, shape, name.removesuffix(suffix)).astype(np.float32) for name, shape in shapes.items()}
    values = {name: array for name, array in (values | (changed or {})).items() if array is not None}
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=[tf.constant(array) for array in values.values()],
    )
    return prefix


def ones(name, shape, kind=None):
    """Return what takes no time to draw, for where values do not matter."""
    return np.ones(shape, np.float32)


def check(model, logits, classes, clean, attacked=None):
    """Compare a model of such weights: first logits, argmax, cross-entropy clean and after PGD-10."""
    images = tf.constant(np.random.RandomState(0).randint(0, 256, [2, 64, 64, 3]) / 255, tf.float32)
    labels = tf.constant([3, 700])
    mine = model(images, training=False).numpy()
    np.testing.assert_allclose(mine[:, :4], logits, atol=1e-4)
    assert mine.argmax(1).tolist() == classes
    loss_fn = lambda x: losses.cross_entropy(model(x, training=False), labels)  # noqa: E731
    np.testing.assert_allclose(loss_fn(images), clean, rtol=1e-4)
    if attacked:
        attack = attacks.PGD(epsilon=4 / 255, step_size=1 / 255, steps=10, random_start=False)
        np.testing.assert_allclose(loss_fn(tf.function(lambda x: attack(loss_fn, x, 0))(images)), attacked, rtol=1e-3)
