"""What gradients are worth: shares, turns and noise on models whose values follow by pencil and paper."""

import math

import numpy as np
import pytest
import tensorflow as tf

from sat_tf import mechanism

EPSILON = 8 / 255
IMAGES = tf.constant(np.random.default_rng(0).uniform(0.2, 0.8, (5, 4, 4, 3)).astype(np.float32))
LABELS = tf.constant([0, 1, 0, 0, 1])
WEIGHTS = tf.constant(np.random.default_rng(1).normal(size=(4, 4, 3)).astype(np.float32))


def linear(images, training=False):
    """Logits [0, <w, x>] of two classes."""
    value = tf.reduce_sum(images * WEIGHTS, [1, 2, 3])
    return tf.stack([tf.zeros_like(value), value], 1)


def bowl(images, training=False):
    """Logits [0, 4 |x - 1/2|^2]: the gradient turns where a step crosses the middle of a value."""
    value = 4 * tf.reduce_sum(tf.square(images - 0.5), [1, 2, 3])
    return tf.stack([tf.zeros_like(value), value], 1)


def test_one_step_is_all_there_is_on_a_linear_model():
    one = {name: value.numpy() for name, value in mechanism.one_step(linear, IMAGES, LABELS, EPSILON).items()}
    many = mechanism.many_steps(linear, IMAGES, LABELS, EPSILON, 50).numpy()
    np.testing.assert_allclose(one["cosine"], 1, atol=1e-6)
    np.testing.assert_allclose(one["after"], many, atol=1e-5)
    assert mechanism.share(one["before"], one["after"], many) == pytest.approx(1, abs=1e-5)
    sides = np.where(LABELS == 0, 1, -1)
    value = np.asarray(linear(IMAGES))[:, 1] * sides
    rise = EPSILON * np.abs(WEIGHTS).sum()
    np.testing.assert_allclose(one["before"], np.log1p(np.exp(value)), rtol=1e-5)
    np.testing.assert_allclose(one["after"], np.log1p(np.exp(value + rise)), rtol=1e-4)
    np.testing.assert_allclose(one["promised"], rise / (1 + np.exp(-value)), rtol=1e-4)


def test_gradients_turn_as_they_do_by_hand():
    images = tf.constant(np.full((1, 2, 2, 3), 0.5, np.float32) + np.float32([0.01, -0.02, 0.03]))
    found = mechanism.one_step(bowl, images, tf.constant([1]), 0.025)  # down the bowl, past the middle of some values
    start = np.tile([0.01, -0.02, 0.03], 4)
    end = start - 0.025 * np.sign(start)
    expected = start @ end / np.linalg.norm(start) / np.linalg.norm(end)
    assert found["cosine"].numpy()[0] == pytest.approx(expected, abs=1e-4) and expected < 0.5


def test_a_gradient_of_zero_has_no_direction_and_a_tiny_one_has():
    flat = lambda images, training: tf.zeros([len(images), 2])  # noqa: E731
    assert mechanism.one_step(flat, IMAGES, LABELS, EPSILON)["cosine"].numpy().tolist() == [0] * 5
    tiny = lambda images, training: 1e-25 * linear(images)  # noqa: E731
    np.testing.assert_allclose(mechanism.one_step(tiny, IMAGES, LABELS, EPSILON)["cosine"], 1, atol=1e-5)


def test_many_steps_stay_in_the_ball_and_one_step_may_fall_short():
    one = mechanism.one_step(bowl, IMAGES, 1 + 0 * LABELS, 0.5)
    many = mechanism.many_steps(bowl, IMAGES, 1 + 0 * LABELS, 0.5, 100).numpy()
    share = mechanism.share(one["before"].numpy(), one["after"].numpy(), many)
    assert share < 0.5  # one step of 1/2 overshoots the middle, steps of 1/200 do not
    np.testing.assert_allclose(many, math.log(2), atol=3e-3)


def test_the_share_of_nothing_is_not_a_number():
    assert math.isnan(mechanism.share(np.ones(3), np.ones(3), np.ones(3)))
    assert mechanism.share(np.array([1.0, 2.0]), np.array([2.0, 2.0]), np.array([3.0, 4.0])) == pytest.approx(0.25)


def test_the_loss_along_a_linear_attack():
    lengths = [0.0, EPSILON, 2 * EPSILON]
    losses, planes = (each.numpy() for each in mechanism.along(linear, IMAGES, LABELS, lengths))
    one = mechanism.one_step(linear, IMAGES, LABELS, EPSILON)
    assert losses.shape == planes.shape == (3, 5)
    np.testing.assert_allclose(losses[0], one["before"], rtol=1e-6)
    np.testing.assert_allclose(losses[1], one["after"], rtol=1e-5)
    np.testing.assert_allclose(planes[1] - planes[0], one["promised"], rtol=1e-4)
    assert (losses[2] >= planes[2] - 1e-5).all()  # the cross-entropy of a linear model is convex
    ends = mechanism.along(linear, IMAGES, LABELS, [5.0])[0].numpy()[0]  # values stay in [0, 1]
    corners = np.where(np.sign(WEIGHTS) * np.where(LABELS == 0, 1, -1)[:, None, None, None] > 0, 1, 0)
    value = (corners * WEIGHTS.numpy()).sum((1, 2, 3)) * np.where(LABELS == 0, 1, -1)
    np.testing.assert_allclose(ends, np.log1p(np.exp(value)), rtol=1e-3, atol=1e-6)


def test_the_noise_of_gradients_by_hand():
    same = [[np.array([3.0, 0.0]), np.array([[4.0]])]] * 3
    assert mechanism.noise(same) == {"noise": 0, "length": 5}
    # means 1 and 0, deviations +-1 in either value: (1 + 1 + 1 + 1) / 1 / 1
    assert mechanism.noise([[np.array([2.0, 1.0])], [np.array([0.0, -1.0])]]) == {"noise": 4, "length": 1}
    random = np.random.default_rng(0).normal(size=(40, 1000))
    assert mechanism.noise([[row] for row in random])["noise"] == pytest.approx(40, rel=0.1)
    assert math.isnan(mechanism.noise([[np.array([1.0])], [np.array([-1.0])]])["noise"])
    with pytest.raises(ValueError, match="Expected the gradients of two batches or more. Received: 1."):
        mechanism.noise(same[:1])
