"""Replicas: the random numbers of a batch are one device's, and what replicas tell each other."""

import numpy as np
import pytest
import tensorflow as tf
from small_methods import attack_of, make, network, small_batch, state_of

from sat_tf import attacks, layers, optim, replicas, train

SEED = tf.constant([3, -7])


def rows(strategy, function):
    """Return what a function gives on all replicas, joined in their order."""
    run = tf.function(lambda: strategy.run(function))
    return np.concatenate([part.numpy() for part in strategy.experimental_local_results(run())])


@pytest.mark.parametrize("shape", [[4, 8, 8, 3], [3, 5], [2, 3]])  # a block of the generator's, or not
@pytest.mark.parametrize("draw", [replicas.uniform, replicas.normal])
def test_draws_are_those_of_one_device(draw, shape, two_replicas):
    whole = draw([2 * shape[0], *shape[1:]], SEED)
    np.testing.assert_array_equal(rows(two_replicas, lambda: draw(shape, SEED)), whole)
    np.testing.assert_array_equal(rows(two_replicas, lambda: draw(tf.constant(shape), SEED)), whole)


@pytest.mark.parametrize(
    "attack",
    [
        attack_of(random_start=True),
        attack_of(random_start=True, clean_start=0.5),
        attacks.for_training("apgd-2", epsilon=8 / 255),
    ],
    ids=["pgd", "clean start", "apgd"],
)
def test_attacks_of_training_start_at_the_same_points(attack, two_replicas):
    images, _ = small_batch(count=8)
    weights = tf.random.stateless_normal(images.shape[1:], [0, 1])

    def attacked(part):
        return attack(lambda x: tf.reduce_sum(x * weights, [1, 2, 3]), part, SEED)

    def own():
        return attacked(replicas.own(images, 4))

    np.testing.assert_array_equal(rows(two_replicas, own), attacked(images))


def test_layers_drop_the_same(two_replicas):
    inputs = tf.ones([8, 4, 4, 6])
    for layer in (layers.Dropout(0.5, name="drop"), layers.StochasticDepth(0.5, name="depth")):

        def dropped(part, layer=layer):
            with layers.drawing_from(SEED):
                return layer(part, training=True)

        np.testing.assert_array_equal(rows(two_replicas, lambda f=dropped: f(inputs[:4])), dropped(inputs))


def test_batches_are_cut_in_order(two_replicas):
    values = {"a": np.arange(8.0), "b": (np.arange(16).reshape(8, 2),)}
    cut = replicas.spread(two_replicas, values)
    first, second = two_replicas.experimental_local_results(cut["b"][0])
    np.testing.assert_array_equal(np.concatenate([first, second]), values["b"][0])
    assert replicas.here(two_replicas) == 2 and replicas.here(tf.distribute.get_strategy()) == 1


@pytest.mark.parametrize("name", ["sat", "trades", "h-sat", "free", "cat", "sat-awp"])  # of each kind one
def test_two_replicas_are_one_device_with_both_batches(name, two_replicas):
    """With synchronised statistics: the same losses and weights, by every method, random starts and decay included."""
    results = []
    for parts, strategy in ((1, tf.distribute.OneDeviceStrategy("CPU:0")), (2, two_replicas)):
        with strategy.scope():
            model = network()
            layers.synchronize(model)
            optimizer = optim.sgd(lambda step: tf.constant(0.05), momentum=0.9)
            optimizer.build(model.trainable_variables)
            method = make(name)
            state = state_of(method, model, optimizer, shape=(8, 8, 3))
        loop = train.Loop(state=state, method=method, strategy=strategy, batch_size=8, weight_decay=1e-3, seed=5)
        images, labels = zip(*(small_batch(size=8, seed=seed) for seed in range(3)), strict=True)
        ids = tf.range(24, dtype=tf.int64)
        data = tf.data.Dataset.from_tensor_slices((tf.concat(images, 0), tf.concat(labels, 0), ids))
        data = data.batch(8 // parts, drop_remainder=True).repeat()
        data = strategy.distribute_datasets_from_function(lambda context, data=data: data)
        losses = np.concatenate([each["loss"] for _, each in loop.run(data, until=3, check=False)])
        results.append((losses, model.get_weights()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=2e-5)
    for one, two in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=2e-5)


def test_our_own_normalisation_looks_at_the_whole_batch(two_replicas):
    """By NumPy, far from zero, where a difference of squares would lose the variance."""
    inputs = np.random.default_rng(0).normal([100.0, -3.0], [0.5, 2.0], [8, 4, 4, 2]).astype(np.float32)
    with two_replicas.scope():
        norm = layers.Norm(momentum=0.5, synchronized=True)
        norm.build([None, 4, 4, 2])
    norm.moving_mean.assign([99.0, 0.0])
    parts = replicas.spread(two_replicas, inputs)
    outputs = two_replicas.run(tf.function(lambda x: norm(x, training=True)), args=(parts,))
    outputs = np.concatenate([part.numpy() for part in two_replicas.experimental_local_results(outputs)])
    mean, variance = inputs.mean((0, 1, 2), np.float64), inputs.var((0, 1, 2), np.float64)
    np.testing.assert_allclose(outputs, (inputs - mean) / np.sqrt(variance + 1e-5), atol=1e-3)
    np.testing.assert_allclose(norm.moving_mean.numpy(), 0.5 * mean + [49.5, 0.0], rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance.numpy(), 0.5 * variance * 128 / 127 + 0.5, rtol=1e-4)
    assert layers.Norm.from_config(norm.get_config()).synchronized
    assert "synchronized" not in layers.Norm().get_config()
