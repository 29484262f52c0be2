"""What decays, updates and moving averages against pencil and paper."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sat_tf import assembly, hparams, models, optim


def test_only_kernels_decay():
    model = models.build("resnet8-w8", "smoothrelu", 10)
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


def test_rmsprop_against_numpy():
    """Averages of squares start at one, epsilon lies under the root, momentum holds the scaled gradient."""
    optimizer = optim.rmsprop(lambda step: tf.where(step < 1, 0.1, 0.01), momentum=0.9)
    weight = keras.Variable([1.0, -2.0])
    value, square, velocity = np.array([1.0, -2.0]), np.ones(2), np.zeros(2)
    for rate, gradient in ((0.1, [2.0, 0.1]), (0.01, [-1.0, 3.0]), (0.01, [0.5, 0.0])):
        optimizer.apply([tf.constant(gradient)], [weight])
        square = 0.9 * square + 0.1 * np.square(gradient)
        velocity = 0.9 * velocity + rate * np.array(gradient) / np.sqrt(square + 1e-3)
        value = value - velocity
    np.testing.assert_allclose(weight, value, rtol=1e-5)


def test_rmsprop_knows_no_nesterov():
    with pytest.raises(ValueError, match="nesterov=false"):
        optim.rmsprop(lambda step: 0.1, momentum=0.9, nesterov=True)


def test_adamw_against_numpy():
    """Kernels shrink by rate * decay and by nothing else of it; averages are corrected for their start at zero."""
    rates, decay = (0.1, 0.01, 0.01), 0.5
    optimizer = optim.adamw(lambda step: tf.where(step < 1, 0.1, 0.01), momentum=0.9, weight_decay=decay)
    kernel, bias = keras.Variable([1.0, -2.0], name="kernel"), keras.Variable([1.0, -2.0], name="bias")
    values = {"kernel": np.array([1.0, -2.0]), "bias": np.array([1.0, -2.0])}
    first, second = np.zeros(2), np.zeros(2)
    for step, (rate, gradient) in enumerate(zip(rates, ([2.0, 0.1], [-1.0, 3.0], [0.5, 0.0]), strict=True), 1):
        optimizer.apply([tf.constant(gradient)] * 2, [kernel, bias])
        first = 0.9 * first + 0.1 * np.array(gradient)
        second = 0.999 * second + 0.001 * np.square(gradient)
        move = rate * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        for name, value in values.items():
            values[name] = value * (1 - rate * decay * (name == "kernel")) - move
    np.testing.assert_allclose(kernel, values["kernel"], rtol=1e-4)
    np.testing.assert_allclose(bias, values["bias"], rtol=1e-4)
    assert int(optimizer.iterations) == 3


def test_adamw_knows_no_nesterov_and_its_decay_is_its_own():
    with pytest.raises(ValueError, match="nesterov=false"):
        optim.adamw(lambda step: 0.1, momentum=0.9, nesterov=True)
    assert set(optim.DECOUPLED) <= set(optim.OPTIMIZERS)
    for name in optim.OPTIMIZERS:
        recipe = hparams.choose({"optimizer": name, "weight_decay": 0.1})
        assert assembly.added_weight_decay(recipe) == (0.0 if name in optim.DECOUPLED else 0.1)
        assert (assembly.make_optimizer(recipe, 10, 100).weight_decay or 0.0) == (0.1 if name in optim.DECOUPLED else 0)


def test_adamw_on_two_replicas_is_that_on_one(two_replicas):
    def updated(strategy):
        with strategy.scope():
            weight = keras.Variable([1.0, -2.0], name="kernel")
            optimizer = optim.adamw(lambda step: 0.1, momentum=0.9, weight_decay=0.5)
            optimizer.build([weight])
        gradient = tf.constant([1.0, -3.0]) / strategy.num_replicas_in_sync
        step = tf.function(lambda: strategy.run(lambda: optimizer.apply([gradient], [weight])))
        for _ in range(2):
            step()
        return weight.numpy()

    np.testing.assert_allclose(updated(two_replicas), updated(tf.distribute.get_strategy()), rtol=1e-6)


@pytest.mark.parametrize(("name", "kept"), [("sgd", 1), ("rmsprop", 2), ("adamw", 2)])
def test_what_an_optimizer_keeps_beside_each_weight_is_counted(name, kept):
    assert optim.slots(optim.OPTIMIZERS[name](lambda step: 0.1, momentum=0.9)) == kept


def test_what_an_unknown_optimizer_keeps_is_counted():
    assert optim.slots(keras.optimizers.Adam()) == 2 and optim.slots(keras.optimizers.Adam(amsgrad=True)) == 3
    assert optim.slots(keras.optimizers.Lion()) == 1


def small_model():
    model = models.build("resnet8-w8", "swish", 3)
    for i, variable in enumerate(model.variables):
        variable.assign(np.full(variable.shape, i, np.float32))
    return model


def test_moving_average_warms_up_and_holds_everything():
    model = small_model()
    average = optim.MovingAverage(model, 0.9)
    assert list(average.variables) == [variable.path for variable in model.variables]  # statistics, too
    assert any(path.endswith("moving_variance") for path in average.variables)
    wanted = 0.0
    first = average.variables[model.variables[0].path]
    for count, value in ((1, 5.0), (2, -1.0), (200, 7.0)):
        model.variables[0].assign(np.full(model.variables[0].shape, value, np.float32))
        average.update(tf.constant(count))
        decay = min(0.9, (1 + count) / (10 + count))
        wanted = decay * wanted + (1 - decay) * value
        np.testing.assert_allclose(first, np.full(first.shape, wanted), rtol=1e-5)


def test_averages_stand_in_for_a_while():
    model = small_model()
    average = optim.MovingAverage(model, 0.5)
    kept = model.get_weights()
    for variable in model.variables:
        variable.assign(variable + 1.0)
    changed = model.get_weights()
    with pytest.raises(KeyError), average.in_place():
        for mine, old in zip(model.get_weights(), kept, strict=True):
            np.testing.assert_array_equal(mine, old)
        raise KeyError
    for mine, new in zip(model.get_weights(), changed, strict=True):
        np.testing.assert_array_equal(mine, new)


def test_a_decay_of_one_is_refused():
    with pytest.raises(ValueError, match="decay=1"):
        optim.MovingAverage(small_model(), 1)


def test_rates_of_some_variables_are_multiples():
    slow, fast = keras.Variable([1.0], name="slow"), keras.Variable([1.0], name="fast")
    optimizer = optim.sgd(lambda step: tf.where(step < 1, 0.1, 0.01), momentum=0.5)
    optimizer.build([slow, fast])
    optim.scale_rates(optimizer, [1.0, 10.0])
    for _ in range(2):
        optimizer.apply([tf.constant([2.0]), tf.constant([2.0])], [slow, fast])
    np.testing.assert_allclose(slow, [1 - 0.2 - (0.1 + 0.02)], rtol=1e-6)
    np.testing.assert_allclose(fast, [1 - 2.0 - (1.0 + 0.2)], rtol=1e-6)


def test_an_average_leaves_whole_numbers_alone():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
    average = optim.MovingAverage(model, 0.5, names=["a", "b", "c"])
    model.variables[0].assign(model.variables[0] + 1)
    average.update(tf.constant(1))
    by_type = {variable.dtype: variable for variable in average.variables.values()}
    state = next(v for v in model.variables if "int" in str(v.dtype))
    kept = next(value for kind, value in by_type.items() if not kind.is_floating)
    np.testing.assert_array_equal(kept, state)
