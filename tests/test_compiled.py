"""What a TPU's compiler refuses stays out of the step: XLA compiles every training attack and method, once."""

import numpy as np
import pytest
import tensorflow as tf
from small_methods import attack_of, loop_of, make, network, small_batch

from sat_tf import attacks, half, losses, methods, models
from sat_tf.assembly import devices
from sat_tf.hparams import Recipe

DYNAMIC = "<="  # how HLO writes a dimension whose size is not known when it is compiled


def hlo(function, *arguments):
    """Return what XLA is given of a function, as text."""
    return function.experimental_get_compiler_ir(*arguments)(stage="hlo")


@pytest.mark.parametrize("name", [name for name, row in attacks.ATTACKS.items() if row.training])
def test_attacks_of_training_compile(name):
    model = network()
    images, labels = small_batch(size=8)
    attack = attacks.for_training(name.replace("-k", "-3"), epsilon=8 / 255, random_start=False)
    loss_fn = lambda x: losses.cross_entropy(model(x, training=False), labels)  # noqa: E731
    plain = tf.function(lambda images, seed: attack(loss_fn, images, seed))
    compiled = tf.function(lambda images, seed: attack(loss_fn, images, seed), jit_compile=True)
    for seed in range(3):
        one, other = (run(images, tf.constant([0, seed])) for run in (plain, compiled))
        assert (np.abs(one - other) < 1e-5).mean() > 0.98  # signs of what is nearly zero may differ
    assert compiled.experimental_get_tracing_count() == 1
    assert DYNAMIC not in hlo(compiled, images, tf.constant([0, 1]))


def losses_of(name, compiled):
    """Return the losses of three steps by a method, which are traced once, and the loop."""
    images, labels = small_batch(count=24, size=8)
    data = tf.data.Dataset.from_tensor_slices((images, labels, tf.range(24, dtype=tf.int64))).batch(8).repeat()
    method = make(name, attack_of(random_start=False))
    loop = loop_of(method, network(), size=8, rate=0.05, weight_decay=1e-3, jit_compile=compiled)
    steps, iterator = loop.compile(), iter(data)
    losses = np.concatenate([steps(iterator, tf.constant(count))["loss"] for count in (2, 1)])
    assert steps.traces() == 1 and loop.state.step == 3
    return losses


@pytest.mark.parametrize("name", methods.METHODS)
def test_methods_compile_whole_steps_once(name):
    assert np.isfinite(losses_of(name, compiled=True)).all()


def test_compiled_losses_are_those_of_tensorflow():
    np.testing.assert_allclose(losses_of("sat", compiled=True), losses_of("sat", compiled=False), rtol=5e-3)


@pytest.mark.parametrize("name", ["sat", "h-sat", "cat"])
def test_no_size_of_a_step_is_left_open(name):
    images, labels = small_batch(size=8)
    loop = loop_of(make(name), network(), size=8, rate=0.05)
    step = tf.function(loop.step, jit_compile=True)
    assert DYNAMIC not in hlo(step, images, labels, tf.range(8, dtype=tf.int64))


def test_a_network_with_half_precision_compiles():
    model = models.build("resnet8-w8", "swish", 4)
    half.compute_in(model, "mixed_bfloat16")
    loop = loop_of(make("sat", attack_of(steps=1)), model, size=8, rate=0.05, jit_compile=True)
    images, labels = small_batch(size=8)
    step = tf.function(loop.step, jit_compile=True)
    assert np.isfinite([float(step(images, labels)["loss"]) for _ in range(2)]).all()


def test_who_can_have_it(two_replicas):
    alone = tf.distribute.get_strategy()
    assert devices.compiles(Recipe(jit_compile="on"), alone)
    assert not devices.compiles(Recipe(), alone) and not devices.compiles(Recipe(jit_compile="off"), two_replicas)
    with pytest.raises(ValueError, match="Expected one replica with jit_compile=on.* Received: 2 replicas"):
        devices.compiles(Recipe(jit_compile="on"), two_replicas)
