"""Formulas of activations whose gradients pass over memory less often than those that TensorFlow derives."""

import math

import tensorflow as tf


def smooth_relu(x: tf.Tensor, alpha: float | tf.Tensor) -> tf.Tensor:
    """x - log(alpha x + 1) / alpha for x >= 0, 0 below; alpha is a number or a tensor of one."""
    return _smooth_relu_of(x, tf.cast(alpha, x.dtype))


@tf.custom_gradient
def _smooth_relu_of(x, alpha):
    """The gradient to x takes three operations, that to alpha four more, and two tensors are kept until then."""
    positive = tf.nn.relu(x)
    scaled = alpha * positive
    logarithm = tf.math.log1p(scaled)

    def gradient(upstream):
        to_x = upstream * (scaled / (1 + scaled))
        total = tf.reduce_sum(upstream * logarithm) - tf.reduce_sum(to_x)
        return to_x, tf.reshape(total / tf.square(alpha), tf.shape(alpha))

    return positive - logarithm / alpha, gradient


@tf.custom_gradient
def swish(x: tf.Tensor) -> tf.Tensor:
    """x sigmoid(x); its gradient in three operations where `tf.nn.silu` takes five, and as little kept in memory."""

    def gradient(upstream):
        with tf.control_dependencies([upstream]):  # so that the sigmoid is computed again, not kept until here
            gate = tf.sigmoid(x)
        return upstream * (gate + tf.raw_ops.SigmoidGrad(y=gate, dy=x))

    return x * tf.sigmoid(x), gradient


@tf.custom_gradient
def tanh_gelu(x: tf.Tensor) -> tf.Tensor:
    """x sigmoid(2u), which is x (1 + tanh(u)) / 2 without the cancellation in its tail."""
    scale = 2 * math.sqrt(2 / math.pi)
    twice_u = scale * (x + 0.044715 * x**3)
    gate = tf.sigmoid(twice_u)

    def gradient(upstream):
        slope = scale * (1 + 3 * 0.044715 * tf.square(x))
        return upstream * (gate + x * gate * tf.sigmoid(-twice_u) * slope)

    return x * gate, gradient


@tf.custom_gradient
def mish(x: tf.Tensor) -> tf.Tensor:
    """x t with t = tanh(log(1 + exp(x))) as a quotient of polynomials in exp(-|x|), so that 1 - t keeps its digits."""
    e = tf.exp(-tf.abs(x))
    e2 = tf.square(e)
    quotient = 1 / tf.where(x > 0, 1 + 2 * e + 2 * e2, 2 + 2 * e + e2)
    t = tf.where(x > 0, 1 + 2 * e, e2 + 2 * e) * quotient

    def gradient(upstream):
        rest = tf.where(x > 0, 2 * e2, 2.0 * tf.ones_like(x)) * quotient  # 1 - t
        return upstream * (t + x * rest * (1 + t) * tf.sigmoid(x))

    return x * t, gradient
