"""Gradients through half precision: those of float32, however sure a model is."""

import keras
import numpy as np
import tensorflow as tf

from sat_tf import attacks, half, losses


def sure(policy, scale=20.0):
    """Return a linear model whose logits are far apart."""
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(3, dtype=policy)
    model = keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Flatten(dtype=policy), dense])
    dense.kernel.assign(scale * np.sign(np.random.default_rng(0).normal(size=[12, 3])))
    return model


def test_the_gradient_of_a_sure_model_is_that_of_float32():
    exact, coarse = sure("float32"), sure("mixed_float16")
    assert half.in_half_precision(coarse) and not half.in_half_precision(exact)
    assert not half.in_half_precision(lambda images: images)
    images = tf.random.stateless_uniform([6, 2, 2, 3], [0, 1])
    labels = tf.constant(exact(images).numpy().argmax(-1), tf.int32)

    def gradient(call):
        return attacks.input_gradient(lambda x: losses.cross_entropy(call(x), labels), images).numpy()

    wanted = gradient(exact)
    kept = gradient(half.keeping_gradients(lambda x: coarse(x)))
    lost = gradient(lambda x: coarse(x))
    assert (lost == 0).mean() > (wanted == 0).mean()
    signs = np.sign(kept) == np.sign(wanted)
    assert signs[wanted != 0].mean() > 0.95


def test_what_comes_beside_the_logits_is_handed_on():
    model = sure("mixed_float16")
    both = half.keeping_gradients(lambda x: [model(x), 2 * x])
    images = tf.random.stateless_uniform([2, 2, 2, 3], [0, 1])
    logits, beside = both(images)
    assert logits.dtype == tf.float32
    np.testing.assert_array_equal(beside, 2 * images)
