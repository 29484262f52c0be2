"""Losses against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from sat_tf import losses


def test_cross_entropy():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 20, [50, 7]), rng.integers(0, 7, 50)
    shifted = logits - logits.max(1, keepdims=True)
    expected = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(50), labels]
    for dtype in ("int32", "int64"):
        value = losses.cross_entropy(tf.constant(logits, tf.float32), tf.constant(labels, dtype))
        assert value.shape == (50,) and value.dtype == tf.float32
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


def test_half_precision_logits_give_float32():
    logits = tf.constant([[20000.0, -20000.0]], tf.float16)
    np.testing.assert_allclose(losses.cross_entropy(logits, tf.constant([1])), [40000.0], rtol=1e-3)


def test_smoothed_cross_entropy_is_that_of_smoothed_labels():
    rng = np.random.default_rng(0)
    logits, labels = tf.constant(rng.normal(0, 3, [20, 5]), tf.float32), rng.integers(0, 5, 20)
    smoothed = 0.9 * tf.one_hot(labels, 5) + 0.1 / 5
    wanted = tf.nn.softmax_cross_entropy_with_logits(smoothed, logits)
    np.testing.assert_allclose(losses.smoothed_cross_entropy(0.1)(logits, labels), wanted, rtol=1e-5)
    assert losses.smoothed_cross_entropy(0.0) is losses.cross_entropy
    with pytest.raises(ValueError, match="smoothing=1"):
        losses.smoothed_cross_entropy(1)
