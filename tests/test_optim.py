"""What decays, and the update against pencil and paper."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sat_tf import models, optim


def test_only_kernels_decay():
    model = models.build("resnet20", "smoothrelu", 10)
    names = {v.name for v in model.trainable_variables if optim.decays(v)}
    left = {v.name for v in model.trainable_variables if not optim.decays(v)}
    assert names == {"kernel"} and left == {"gamma", "beta", "bias", "raw"}


def test_weight_decay_adds_the_gradient_of_half_the_square():
    kernel, bias = keras.Variable([2.0, -4.0], name="kernel"), keras.Variable([1.0], name="bias")
    gradients = [tf.constant([0.5, 0.5]), tf.constant([3.0])]
    decayed = optim.add_weight_decay(gradients, [kernel, bias], 0.1)
    np.testing.assert_allclose(decayed[0], [0.7, 0.1])
    np.testing.assert_allclose(decayed[1], [3.0])
    assert optim.add_weight_decay(gradients, [kernel, bias], 0.0) is gradients


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_with_momentum_follows_the_schedule(nesterov):
    optimizer = optim.sgd(lambda step: tf.where(step < 1, 0.1, 0.01), momentum=0.5, nesterov=nesterov)
    weight = keras.Variable(1.0)
    velocity, value = 0.0, 1.0
    for rate in (0.1, 0.01, 0.01):
        optimizer.apply([tf.constant(2.0)], [weight])
        velocity = 0.5 * velocity - rate * 2.0
        value += 0.5 * velocity - rate * 2.0 if nesterov else velocity
    np.testing.assert_allclose(weight, value, rtol=1e-6)
    assert int(optimizer.iterations) == 3
