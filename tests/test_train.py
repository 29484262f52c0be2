"""The loop: equals a hand-written update, is reproducible to the bit, resumes, runs on replicas, stops on NaN."""

import dataclasses
import itertools
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_methods import make, state_of

from sat_tf import assembly, attacks, hparams, methods, models, optim, saving, train

ATTACK = attacks.PGD(epsilon=8 / 255, step_size=8 / 255, steps=1)


def make_loop(*, strategy=None, method="sat", seed=0, batch_size=8, weight_decay=1e-3, rate=0.05, network="resnet2-w8"):
    keras.utils.set_random_seed(seed)
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        model = models.build(network, "swish", 10)
        optimizer = optim.sgd(lambda step: rate * tf.ones([]), momentum=0.9)
        optimizer.build(model.trainable_variables)
        method = make(method, ATTACK)
        state = state_of(method, model, optimizer, batch_size=batch_size)
    return train.Loop(
        state=state, method=method, strategy=strategy, batch_size=batch_size, seed=seed, weight_decay=weight_decay
    )


def batches(start=0, size=8, count=64, replicas=1):
    rng = np.random.default_rng(0)
    images = rng.random([count, size, 16, 16, 3]).astype(np.float32)
    labels = rng.integers(0, 10, [count, size]).astype(np.int32)
    data = tf.data.Dataset.from_tensor_slices((images, labels)).skip(start)
    return data.unbatch().batch(size // replicas, drop_remainder=True)


def values(loop):
    return [v.numpy() for v in loop.state.model.variables]


def run(loop, until, **kwargs):
    start = loop.state.step
    return rows(loop.run(batches(start), until=until, **kwargs))


def rows(calls):
    """Return losses and accuracies of all steps, `[n, 2]`."""
    return np.concatenate([np.stack([each["loss"], each["accuracy"]], 1) for _, each in calls])


def test_one_step_is_the_update_written_out_by_hand():
    loop, twin = make_loop(method="standard"), make_loop(method="standard")
    ((loss, accuracy),) = run(loop, 1)
    images, labels = next(iter(batches()))
    model = twin.state.model
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        cross_entropy = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        decay = sum(tf.reduce_sum(tf.square(v)) for v in model.trainable_variables if v.name == "kernel")
        total = tf.reduce_mean(cross_entropy) + 1e-3 / 2 * decay
    for variable, gradient in zip(
        model.trainable_variables, tape.gradient(total, model.trainable_variables), strict=True
    ):
        variable.assign_sub(0.05 * gradient)
    np.testing.assert_allclose(loss, tf.reduce_mean(cross_entropy), rtol=1e-5)
    np.testing.assert_allclose(accuracy, np.mean(np.argmax(logits, -1) == labels))
    for mine, expected in zip(values(loop), values(twin), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-3, atol=1e-5)


def test_same_seed_same_bits_other_seed_other_bits():
    first, again, other = make_loop(), make_loop(), make_loop(seed=1)
    histories = [run(loop, 4, steps_per_call=2) for loop in (first, again, other)]
    np.testing.assert_array_equal(histories[0], histories[1])
    for one, two in zip(values(first), values(again), strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(histories[0], histories[2])


@pytest.mark.parametrize("method", ["sat", "p-sat", "free", "cat"])
def test_steps_per_call_and_resuming_change_nothing(method, tmp_path):
    whole, parts = make_loop(method=method), make_loop(method=method)
    history = run(whole, 6, steps_per_call=6)
    first = run(parts, 3, steps_per_call=2)

    def groups(loop):
        kept = {"memory": loop.state.memory} if loop.state.memory else {}
        return kept | {"model": saving.by_path(loop.state.model), "optimizer": saving.by_path(loop.state.optimizer)}

    path = saving.save(tmp_path, groups(parts), {"step": 3})
    resumed = make_loop(method=method)
    run(resumed, 1)  # whatever it held before is replaced
    saving.restore(path, groups(resumed))
    assert resumed.state.step == 3
    second = run(resumed, 6, steps_per_call=1)
    np.testing.assert_array_equal(history, np.concatenate([first, second]))
    for one, two in zip(values(whole), values(resumed), strict=True):
        np.testing.assert_array_equal(one, two)


def test_calls_end_at_the_callers_pauses():
    loop = make_loop(method="standard")
    steps = [step for step, _ in loop.run(batches(), until=7, steps_per_call=4, pauses=(3,))]
    assert steps == [3, 6, 7]
    assert loop.state.step == 7


@pytest.mark.parametrize("method", methods.METHODS)
def test_two_replicas_train(method, two_replicas):
    strategy = two_replicas
    loop = make_loop(strategy=strategy, method=method, weight_decay=1e-2)
    data = strategy.distribute_datasets_from_function(lambda context: batches(replicas=2))
    metrics = rows(loop.run(data, until=2))
    assert np.isfinite(metrics).all() and loop.state.step == 2
    for variable in loop.state.memory.values():
        np.testing.assert_array_equal(*(copy.numpy() for copy in strategy.experimental_local_results(variable)))
        assert variable.numpy().any()
    for variable in loop.state.model.variables:
        copies = [copy.numpy() for copy in strategy.experimental_local_results(variable.value)]
        assert len(copies) == 2
        np.testing.assert_array_equal(*copies)


def test_two_replicas_sum_what_one_device_computes(two_replicas):
    """Without batch statistics in the way the update is the one of a single device, decay included."""
    results = []
    for replicas, strategy in ((1, tf.distribute.OneDeviceStrategy("CPU:0")), (2, two_replicas)):
        with strategy.scope():
            dense = keras.layers.Dense(10, kernel_initializer=keras.initializers.RandomNormal(seed=1))
            model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten(), dense])
            optimizer = optim.sgd(lambda step: tf.constant(0.1), momentum=0.9)
            optimizer.build(model.trainable_variables)
        attack = attacks.PGD(epsilon=8 / 255, step_size=8 / 255, steps=1, random_start=False)
        loop = train.Loop(
            state=train.TrainState(model=model, optimizer=optimizer),
            strategy=strategy,
            method=methods.sat(attack),
            batch_size=8,
            weight_decay=0.1,
        )
        data = strategy.distribute_datasets_from_function(lambda context, n=replicas: batches(replicas=n))
        metrics = rows(loop.run(data, until=3))
        results.append((metrics, model.get_weights()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    for one, two in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_not_finite_stops_and_names_the_step():
    loop = make_loop(method="standard")
    images, labels = next(iter(batches()))
    bad = tf.concat([images[:1] * float("nan"), images[1:]], 0)
    data = tf.data.Dataset.from_tensor_slices((tf.stack([images] * 4 + [bad] * 3), tf.stack([labels] * 7)))
    with pytest.raises(FloatingPointError, match="step 5 is not finite"):
        list(loop.run(data, until=7, steps_per_call=3))


def test_one_graph_serves_every_number_of_steps():
    loop = make_loop(method="standard")
    steps = loop.compile()
    iterator = iter(batches())
    for count in (1, 3, 2):
        metrics = steps(iterator, tf.constant(count))
        assert {name: each.shape for name, each in metrics.items()} == {"loss": (count,), "accuracy": (count,)}
    assert steps.traces() == 1


def test_calls_fit_into_their_seconds(monkeypatch):
    """By a clock that ticks once a look, so that every call takes a second."""
    loop = make_loop(method="standard")
    ticks = itertools.count()
    monkeypatch.setattr(train, "time", types.SimpleNamespace(perf_counter=lambda: next(ticks)))
    calls = [step for step, _ in loop.run(batches(), until=12, steps_per_call=5, seconds_per_call=2)]
    assert calls == [2, 6, 11, 12]  # two steps in a second, so four in two; five are the most
    assert [step for step, _ in loop.run(batches(), until=15, steps_per_call=5, seconds_per_call=0.1)] == [14, 15]


def test_a_model_s_own_regularisation_counts():
    """One update by hand: the cross-entropy's gradient and that of 3 times the squared kernel."""
    strengths = [0.0, 3.0]
    loops = []
    for strength in strengths:
        keras.utils.set_random_seed(0)
        dense = keras.layers.Dense(10, kernel_regularizer=keras.regularizers.L2(strength) if strength else None)
        model = keras.Sequential([keras.Input([16, 16, 3]), keras.layers.Flatten(), dense])
        optimizer = optim.sgd(lambda step: 0.05 * tf.ones([]), momentum=0.9)
        optimizer.build(model.trainable_variables)
        loops.append(
            train.Loop(
                state=train.TrainState(model=model, optimizer=optimizer),
                method=methods.METHODS["standard"](ATTACK),
                strategy=tf.distribute.get_strategy(),
                batch_size=8,
            )
        )
    before = loops[0].state.model.layers[-1].kernel.numpy()
    (plain, _), (penalised, _) = (run(loop, 1)[0] for loop in loops)
    np.testing.assert_allclose(penalised - plain, 3 * np.square(before).sum(), rtol=1e-4)
    without, with_it = (loop.state.model.layers[-1].kernel.numpy() for loop in loops)
    np.testing.assert_allclose(with_it - without, -0.05 * 2 * 3 * before, rtol=1e-3, atol=1e-5)


def test_a_frozen_layer_keeps_its_statistics():
    loop = make_loop(method="standard", network="resnet8-w8")
    frozen, free = [layer for layer in loop.state.model.layers if hasattr(layer, "moving_mean")][:2]
    frozen.trainable = False
    optimizer = optim.sgd(lambda step: 0.05 * tf.ones([]), momentum=0.9)
    optimizer.build(loop.state.model.trainable_variables)
    loop = dataclasses.replace(loop, state=train.TrainState(model=loop.state.model, optimizer=optimizer))
    kept, moved = [v.numpy() for v in frozen.variables], free.moving_mean.numpy()
    run(loop, 2)
    for variable, value in zip(frozen.variables, kept, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert (free.moving_mean.numpy() != moved).any()


@pytest.mark.parametrize("method", ("standard", "sat", "trades", "cat"))
def test_an_update_in_parts_is_the_update(method):
    """Without batch normalisation, and by an attack that draws nothing."""

    def trained(parts):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input([16, 16, 3]),
                keras.layers.Conv2D(4, 3, 2, activation="tanh", kernel_regularizer="l2"),
                keras.layers.Flatten(),
                keras.layers.Dense(10),
            ]
        )
        optimizer = optim.sgd(lambda step: 0.05 * tf.ones([]), momentum=0.9)
        optimizer.build(model.trainable_variables)
        made = make(method, dataclasses.replace(ATTACK, random_start=False))
        loop = train.Loop(
            state=state_of(made, model, optimizer, batch_size=8),
            method=made,
            strategy=tf.distribute.get_strategy(),
            batch_size=8,
            weight_decay=1e-3,
            accumulate_steps=parts,
        )
        ids = tf.data.Dataset.range(64 * 8).map(lambda n: tf.cast(n, tf.int32)).batch(8)
        data = tf.data.Dataset.zip(batches(), ids).map(lambda both, n: (*both, n)) if made.wants_ids else batches()
        return rows(loop.run(data, until=3)), values(loop)

    (whole, weights), (parts, others) = trained(1), trained(4)
    same = method in ("standard", "sat")  # the others draw: another start, other labels
    np.testing.assert_allclose(whole, parts, rtol=1e-4 if same else 0.2, atol=1e-6 if same else 0.3)
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4 if same else 0, atol=1e-6 if same else 0.05)


def test_parts_are_refused_where_a_batch_is_several_updates():
    recipe = hparams.choose({"method": "free", "accumulate_steps": 4})
    with pytest.raises(ValueError, match="Expected accumulate_steps=1 with the method free"):
        assembly.make_method(recipe)
