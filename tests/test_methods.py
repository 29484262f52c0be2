"""Every method's contract, and the mode of batch normalisation in attack and update."""

import numpy as np
import pytest
import tensorflow as tf

from sat_tf import attacks, losses, methods, models

ATTACK = attacks.PGD(epsilon=8 / 255, step_size=8 / 255, steps=2)


@pytest.fixture(scope="module")
def model():
    model = models.build("resnet20", "swish", 10)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name in ("moving_mean", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def batch():
    rng = np.random.default_rng(1)
    return tf.constant(rng.random([8, 32, 32, 3]), tf.float32), tf.constant(rng.integers(0, 10, 8), tf.int32)


def statistics(model):
    return [v.numpy() for v in model.variables if v.name in ("moving_mean", "moving_variance")]


@pytest.mark.parametrize("name", methods.METHODS)
def test_contract(name, model):
    images, labels = batch()
    method = methods.METHODS[name](ATTACK)
    adversarial = method.perturb(model, images, labels, tf.constant(0), tf.constant([0, 1]))
    assert adversarial.shape == images.shape and adversarial.dtype == tf.float32
    assert tf.reduce_max(tf.abs(adversarial - images)) <= 8 / 255
    values, report = method.loss(model, images, adversarial, labels)
    assert values.shape == (8,) and values.dtype == tf.float32
    assert report["accuracy"].shape == (8,)


def test_moving_statistics_stand_still_while_attacking_and_move_in_the_update(model):
    images, labels = batch()
    method = methods.METHODS["sat"](ATTACK)
    before = statistics(model)
    adversarial = method.perturb(model, images, labels, tf.constant(0), tf.constant([0, 1]))
    for old, new in zip(before, statistics(model), strict=True):
        np.testing.assert_array_equal(old, new)
    method.loss(model, images, adversarial, labels)
    assert all((old != new).any() for old, new in zip(before, statistics(model), strict=True))


def test_the_attack_sees_inference_mode_and_the_update_training_mode():
    modes = []

    def model(images, training):
        modes.append(training)
        return tf.reshape(images, [-1, 32 * 32 * 3])[:, :10]

    images, labels = batch()
    for name in ("sat", "standard"):
        modes.clear()
        method = methods.METHODS[name](ATTACK)
        adversarial = method.perturb(model, images, labels, 0, tf.constant([0, 1]))
        assert set(modes) <= {False} and bool(modes) == (name == "sat")
        modes.clear()
        method.loss(model, images, adversarial, labels)
        assert modes == [True]


def test_sat_perturbs_with_its_attack_against_its_loss(model):
    images, labels = batch()
    seed = tf.constant([0, 5])
    mine = methods.METHODS["sat"](ATTACK).perturb(model, images, labels, 0, seed)
    expected = ATTACK(lambda x: losses.cross_entropy(model(x, training=False), labels), images, seed)
    np.testing.assert_array_equal(mine, expected)


def test_standard_leaves_images_alone(model):
    images, labels = batch()
    np.testing.assert_array_equal(methods.METHODS["standard"](ATTACK).perturb(model, images, labels, 0, None), images)


@pytest.mark.parametrize("steps,passes", [(1, 5), (3, 9)])
def test_the_cost_of_a_step_is_the_attack_s_and_the_update_s(steps, passes):
    attack = attacks.for_training(f"pgd-{steps}", epsilon=8 / 255)
    assert methods.METHODS["sat"](attack).forward_equivalents == passes
    assert methods.METHODS["standard"](attack).forward_equivalents == 3


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_says_what_others_want_to_know_of_it(name):
    method = methods.METHODS[name](ATTACK)
    assert method.best_by in ("clean", "robust") and method.trains_on in ("clean", "adversarial") and method.words
    assert (method.attack is None) == (method.forward_equivalents == 3)
