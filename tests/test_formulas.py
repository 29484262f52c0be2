"""Formulas with gradients of their own: these are TensorFlow's, also the second, those to a number, and in graphs."""

import math

import numpy as np
import pytest
import tensorflow as tf

from sat_tf import formulas

PLAIN = {
    "swish": (formulas.swish, lambda x: x * tf.sigmoid(x)),
    "tanh_gelu": (formulas.tanh_gelu, lambda x: x * (1 + tf.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2),
    "mish": (formulas.mish, lambda x: x * tf.tanh(tf.nn.softplus(x))),
    "smooth_relu": (
        lambda x: formulas.smooth_relu(x, 4.0),
        lambda x: tf.nn.relu(x) - tf.math.log1p(4 * tf.nn.relu(x)) / 4,
    ),
}


def values(*shape):
    return tf.constant(np.random.default_rng(0).normal(0, 2, shape), tf.float64)


def first_and_second(function, x, upstream):
    """Return values, gradient, and gradient of the gradient's sum."""
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            found = function(x)
        first = tape.gradient(found, x, output_gradients=upstream)
    return found, first, outer.gradient(first, x)


def run_of(function, graph):
    """Return `(x, upstream) -> values and gradients` of a function, op by op or as a graph."""
    run = lambda x, upstream: first_and_second(function, x, upstream)  # noqa: E731
    return tf.function(run, autograph=False) if graph else run


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("name", PLAIN)
def test_values_and_gradients_are_those_of_the_formula(name, graph):
    x, upstream = values(64, 9), values(9, 64)
    found, expected = (run_of(function, graph)(x, tf.transpose(upstream)) for function in PLAIN[name])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9)
    assert expected[2].numpy().any()


@pytest.mark.parametrize("dtype, tolerance", [(tf.float64, 1e-9), (tf.float32, 1e-3)])
@pytest.mark.parametrize("alpha", [1.0, 4.0, 400.0])
def test_smooth_relu_s_gradient_to_its_number(alpha, dtype, tolerance):
    x, upstream, number = values(64, 9), values(9, 64), tf.constant([alpha], dtype)
    with tf.GradientTape() as tape:
        tape.watch(number)
        found = formulas.smooth_relu(tf.cast(x, dtype), number)
    to_number = tape.gradient(found, number, output_gradients=tf.cast(tf.transpose(upstream), dtype))
    positive = np.maximum(x, 0)
    slope = np.log1p(alpha * positive) / alpha**2 - positive / (alpha + alpha**2 * positive)
    expected = (np.transpose(upstream) * slope).sum()
    assert to_number.shape == (1,)
    np.testing.assert_allclose(to_number, [expected], rtol=tolerance, atol=1e-9)
