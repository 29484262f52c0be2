"""Networks that compute activations again: losses, gradients and statistics of the plain one, and less memory."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_methods import attack_of, loop_of, make, network, small_batch, state_of

from sat_tf import half, layers, models, onednn, optim, recomputed, replicas, train
from sat_tf.distribute import precision

SEED = tf.constant([3, 5])


def step_of(model, called, images, labels, training):
    """Return loss, gradients to images and weights, and the statistics after a pass."""

    @tf.function
    def step(images):
        with layers.drawing_from(SEED), tf.GradientTape() as tape:
            tape.watch(images)
            logits = called(images, training=training)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        return loss, tape.gradient(loss, [images, *model.trainable_variables])

    before = [variable.numpy() for variable in model.variables]
    loss, gradients = step(images)
    after = [variable.numpy() for variable in model.non_trainable_variables]
    for variable, value in zip(model.variables, before, strict=True):  # seeds of Keras' own layers among them
        variable.assign(value)
    return loss.numpy(), [each.numpy() for each in gradients], after


def own_network():
    """Return a network of Keras' own layers: normalisation and dropout without a seed of ours, no residual block."""
    keras.utils.set_random_seed(0)
    chain = [keras.Input((8, 8, 3))]
    for number in range(4):
        chain += [keras.layers.Conv2D(4, 3, padding="same"), keras.layers.BatchNormalization(momentum=0.5)]
        chain += [keras.layers.Activation("swish"), keras.layers.Dropout(0.2, seed=number)]
    return keras.Sequential([*chain, keras.layers.Flatten(), keras.layers.Dense(4)])


@pytest.mark.parametrize("name,training", [("resnet8-w8", False), ("efficientnet-b0", True), ("own", True)])
def test_a_pass_is_that_of_the_plain_network(name, training, narrow_b0):
    keras.utils.set_random_seed(0)
    model = own_network() if name == "own" else models.build(name, "smoothrelu", 4, **NOISE.get(name, {}))
    images = tf.random.stateless_uniform([6, 8, 8, 3], [0, 1])
    labels = tf.constant([0, 1, 2, 3, 0, 1])
    called, config = recomputed.Recomputed(model), model.get_config()
    assert len(called.blocks) > 2 and model.get_config() == config
    plain = step_of(model, model, images, labels, training)
    again = step_of(model, called, images, labels, training)
    np.testing.assert_allclose(plain[0], again[0], rtol=1e-6)
    moved = [not np.array_equal(one, now) for one, now in zip(plain[2], model.non_trainable_variables, strict=True)]
    assert any(moved) == training
    for kind in (1, 2):
        for one, other in zip(plain[kind], again[kind], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


NOISE = {"efficientnet-b0": {"dropout": 0.2, "stochastic_depth": 0.2}}


@pytest.mark.parametrize("name", ["h-sat", "free", "sat-awp"])  # of each kind of update one
def test_methods_train_as_by_the_plain_network(name):
    found = []
    for remat in (False, True):
        model = network()
        loop = loop_of(make(name, attack_of(random_start=False)), model, size=8, rate=0.05, remat=remat)
        images, labels = small_batch(size=8)
        ids = tf.range(8) if loop.method.wants_ids else None
        step = tf.function(loop.step)
        losses = [float(step(images, labels, ids)["loss"]) for _ in range(2)]
        found.append((losses, [variable.numpy() for variable in model.variables]))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-4)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["xla", "mixed_float16", "two replicas"])
def test_it_goes_with_all_the_rest(kind, two_replicas):
    strategy = two_replicas if kind == "two replicas" else tf.distribute.get_strategy()
    found = []
    for remat in (False, True):
        with strategy.scope():
            model = network()
            optimizer = optim.sgd(lambda step: tf.constant(0.05), momentum=0.9)
            optimizer.build(model.trainable_variables)
            layers.synchronize(model)
            if kind.startswith("mixed"):
                half.compute_in(model, kind)
                optimizer = precision.scaled(optimizer, kind)
                optimizer.build(model.trainable_variables)
            method = make("sat", attack_of(random_start=False))
            state = state_of(method, model, optimizer, shape=(8, 8, 3))
        loop = train.Loop(state=state, method=method, strategy=strategy, batch_size=8, remat=remat)
        images, labels = replicas.spread(strategy, small_batch(size=8))
        _ = loop._called
        inside = tf.function(loop.step, jit_compile=True) if kind == "xla" else loop.step

        @tf.function
        def step(images, labels, strategy=strategy, inside=inside):
            return strategy.reduce("SUM", strategy.run(inside, args=(images, labels))["loss"], axis=None)

        found.append(([float(step(images, labels)) for _ in range(2)], model.get_weights()))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-2 if kind.startswith("mixed") else 1e-4)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(one, other, **(LOOSE if kind.startswith("mixed") else {"rtol": 1e-3, "atol": 1e-5}))


LOOSE = {"rtol": 0, "atol": 0.01}


@pytest.mark.skipif(not onednn.is_on(), reason="only oneDNN's allocator says what tensors take")
def test_a_step_takes_a_fraction_of_the_memory():
    peaks = []
    for remat in (False, True):
        keras.utils.set_random_seed(0)
        model = models.build("resnet32-w8", "swish", 4)
        loop = loop_of(make("sat", attack_of(1)), model, batch_size=64, size=32, remat=remat)
        steps = loop.compile()
        batches = iter(tf.data.Dataset.from_tensors(small_batch(64, 32)).repeat())
        steps(batches, tf.constant(1))
        before = tf.config.experimental.get_memory_info("CPU:0")["current"]
        tf.config.experimental.reset_memory_stats("CPU:0")
        steps(batches, tf.constant(1))
        peaks.append(tf.config.experimental.get_memory_info("CPU:0")["peak"] - before)
    assert peaks[1] < 0.3 * peaks[0], peaks


def test_what_has_no_blocks_is_refused():
    class Own(keras.Model):
        def call(self, images, training=False):
            return images

    with pytest.raises(ValueError, match="Expected a functional or sequential model with remat=true.* Received: Own"):
        recomputed.Recomputed(Own())
    one = [keras.Input((4,)), keras.layers.Dense(2, activity_regularizer="l2", name="one"), keras.layers.Dense(2)]
    with pytest.raises(ValueError, match="no activity_regularizer with remat=true. Received: one"):
        recomputed.Recomputed(keras.Sequential(one))


def test_blocks_begin_where_several_layers_read():
    called = recomputed.Recomputed(models.build("resnet50", "swish", 10))
    assert len(called.blocks) == 17 and called.kept[0] == called.model.get_layer("pool0").output.shape
    features = recomputed.Recomputed(models.build("resnet8-w8", "swish", 10)).with_features()
    logits, inside = features(tf.zeros([1, 8, 8, 3]), training=False)
    assert logits.shape == (1, 10) and inside.shape == (1, 32)
