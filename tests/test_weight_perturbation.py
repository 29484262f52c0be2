"""Adversarial weight perturbation: its relative length, its direction, and that nothing of it is left."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_methods import linear, loop_of, make, network, small_batch

from sat_tf import losses, methods


def test_each_kernel_moves_by_gamma_of_its_length_and_vectors_stay():
    variables = [keras.Variable(tf.random.stateless_normal(shape, [0, 1])) for shape in ((3, 3, 2, 4), (6,), (5, 4))]
    gradients = [tf.random.stateless_normal(v.shape, [0, 2]) for v in variables]
    moved = methods.perturbed(variables, gradients, 0.01)
    for variable, gradient, new in zip(variables, gradients, moved, strict=True):
        difference = (new - variable).numpy()
        if len(variable.shape) == 1:
            assert not difference.any()
            continue
        length = np.linalg.norm(variable)
        np.testing.assert_allclose(np.linalg.norm(difference) / length, 0.01, rtol=1e-3)
        np.testing.assert_allclose(
            difference / np.linalg.norm(difference), gradient / np.linalg.norm(gradient), atol=1e-4
        )


def test_without_a_gradient_a_kernel_stays():
    kernel = keras.Variable(tf.ones([2, 2]))
    for gradient in (None, tf.zeros([2, 2])):
        np.testing.assert_array_equal(methods.perturbed([kernel], [gradient], 0.1)[0], kernel)


def test_an_update_is_the_one_written_out_by_hand():
    """The gradient at w + v is applied to w: a linear model without an attack, all in NumPy."""
    model = linear()
    images, labels = small_batch()
    kernel, bias = (each.numpy() for each in model.layers[-1].trainable_variables)
    inputs = images.numpy().reshape(8, -1)

    def gradient(kernel):
        logits = inputs @ kernel + bias
        error = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        error[np.arange(8), labels] -= 1
        return inputs.T @ error / 8, error.mean(0)

    ascent = gradient(kernel)[0]
    worst = kernel + 0.05 * np.linalg.norm(kernel) * ascent / np.linalg.norm(ascent)
    method = methods.at_worst_weights(make("standard"), None, 0.05, 0)
    report = loop_of(method, model).step(images, labels)
    at_worst = gradient(worst)
    np.testing.assert_allclose(model.layers[-1].kernel, kernel - 0.1 * at_worst[0], atol=1e-5)
    np.testing.assert_allclose(model.layers[-1].bias, bias - 0.1 * at_worst[1], atol=1e-5)
    values = losses.cross_entropy(tf.constant(inputs @ worst + bias), labels)
    np.testing.assert_allclose(report["loss"], np.mean(values), rtol=1e-5)


@pytest.mark.parametrize("name", ["sat-awp", "trades-awp"])
def test_without_a_rate_nothing_is_left_of_it_but_statistics_of_one_pass(name):
    model = network()
    loop = loop_of(make(name), model, size=8, rate=0.0)
    before = {v.path: v.numpy() for v in model.variables}
    images, labels = small_batch(size=8)
    loop.step(images, labels)
    for variable in model.trainable_variables:
        np.testing.assert_array_equal(variable, before[variable.path])
    passes = 2 if name == "trades-awp" else 1
    momentum = model.layers[1].momentum
    for variable in model.variables:
        if variable.name == "moving_variance":  # starts at one; each pass keeps `momentum` of it
            assert (variable.numpy() > momentum**passes - 1e-6).all() and (variable.numpy() != 1).all()


def test_no_gamma_is_the_method_itself():
    results = []
    for method in (make("sat-awp", awp_gamma=0.0), make("sat")):
        model = linear()
        loop = loop_of(method, model)
        told = [float(loop.step(*small_batch(seed=each))["loss"]) for each in range(3)]
        results.append((told, model.layers[-1].kernel.numpy()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-6)


def test_it_begins_at_its_epoch():
    length = methods.Length(epochs=10, epoch_steps=4)
    method = make("trades-awp", length=length, awp_begin=2.0)
    assert method.begin == 8 and method.gamma == 0.005 and method.method.beta == 6.0
    assert make("trades-awp", length=methods.Length(epochs=200, epoch_steps=4)).begin == 40
    with pytest.raises(ValueError, match="begins within the 10 epochs"):
        make("sat-awp", length=length, awp_begin=10.0)
    model, plain = linear(), linear()
    late = methods.at_worst_weights(make("sat"), methods.Length(epochs=2, epoch_steps=1), 0.5, 1.0)
    loops = [loop_of(late, model), loop_of(make("sat"), plain)]
    for seed in range(2):
        for loop in loops:
            loop.step(*small_batch(seed=seed))
        same = np.allclose(model.layers[-1].kernel, plain.layers[-1].kernel, atol=1e-6)
        assert same == (seed == 0)


def test_a_model_s_own_regularisation_counts():
    results = []
    for strength in (0.0, 3.0):
        keras.utils.set_random_seed(0)
        dense = keras.layers.Dense(4, kernel_regularizer=keras.regularizers.L2(strength), activity_regularizer="l2")
        model = keras.Sequential([keras.Input([4, 4, 3]), keras.layers.Flatten(), dense])
        loop = loop_of(methods.at_worst_weights(make("standard"), None, 0.0, 0), model)
        before = dense.kernel.numpy()
        loss = float(loop.step(*small_batch())["loss"])
        results.append((loss, dense.kernel.numpy()))
    np.testing.assert_allclose(results[1][0] - results[0][0], 3 * np.square(before).sum(), rtol=1e-3)
    np.testing.assert_allclose(results[1][1] - results[0][1], -0.1 * 2 * 3 * before, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_weights_stay_where_half_precision_cannot_hold_the_gradient(bad):
    kernel = keras.Variable(np.ones([2, 3], np.float32))
    gradient = tf.constant([[1.0, bad, 1.0], [0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(methods.perturbed([kernel], [gradient], 0.1)[0], kernel)
