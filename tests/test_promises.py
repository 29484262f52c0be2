"""Every architecture x what the project promises of it: tf.function, restore, SavedModel, two replicas."""

import numpy as np
import pytest
import tensorflow as tf

from sat_tf import attacks, cost, methods, models, optim, preprocess, saving, train
from sat_tf.export import formats

# The deeper ones repeat the same blocks.
ONE_OF_EACH_KIND = ("resnet20", "resnet50", "resnext50-32x4d", "efficientnet-b0", "efficientnet-lite0")
IMAGES = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
LABELS = np.arange(4, dtype=np.int32)


@pytest.fixture(scope="module")
def built():
    return {name: models.build(name, "swish", 10) for name in ONE_OF_EACH_KIND}


@pytest.mark.parametrize("name", models.MODELS)
def test_traces_once_with_its_batch_left_open(name):
    """In a scope without weights: the largest have two gigabytes of them."""
    with cost.weightless():
        model = models.build(name, "swish", 10)
        function = tf.function(
            lambda x: model(x, training=False), input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.float32)]
        )
        assert function.get_concrete_function().structured_outputs.shape.as_list() == [None, 10]


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_eager_and_graph_agree(name, built):
    graph = tf.function(lambda x: built[name](x, training=False))
    np.testing.assert_allclose(graph(IMAGES), built[name](IMAGES, training=False), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_restores(name, built, tmp_path):
    path = saving.save(tmp_path, {"model": saving.by_path(built[name])}, {"step": 0})
    other = models.build(name, "swish", 10)
    assert not np.allclose(other(IMAGES, training=False), built[name](IMAGES, training=False))
    saving.restore(path, {"model": saving.by_path(other)})
    np.testing.assert_array_equal(other(IMAGES, training=False), built[name](IMAGES, training=False))


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_exports(name, built, tmp_path):
    formats.saved_model(built[name], 32, tmp_path / "export", preprocess.resize_crop, ())
    reloaded = tf.saved_model.load(tmp_path / "export")
    logits = reloaded.signatures["serving_default"](images=tf.constant(IMAGES))["logits"]
    np.testing.assert_allclose(logits, built[name](IMAGES, training=False), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_saves_as_keras_file(name, built, tmp_path):
    import keras

    built[name].save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(reloaded(IMAGES, training=False), built[name](IMAGES, training=False), atol=1e-6)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_trains_adversarially_on_two_replicas(name, two_replicas):
    with two_replicas.scope():
        model = models.build(name, "swish", 10)
        optimizer = optim.sgd(lambda step: tf.constant(0.01), momentum=0.9)
        optimizer.build(model.trainable_variables)
    attack = attacks.PGD(epsilon=4 / 255, step_size=4 / 255, steps=1)
    loop = train.Loop(
        state=train.TrainState(model=model, optimizer=optimizer),
        method=methods.sat(attack),
        strategy=two_replicas,
        batch_size=4,
    )
    batches = tf.data.Dataset.from_tensors((IMAGES, LABELS)).repeat().unbatch().batch(2, drop_remainder=True)
    data = two_replicas.distribute_datasets_from_function(lambda context: batches)
    ((_, metrics),) = loop.run(data, until=1)
    assert np.isfinite(metrics).all()
