"""Every kind of model that can be attacked, with its gradient: Keras, functions, SavedModels."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sat_tf import evaluate
from sat_tf.attacks import input_gradient
from sat_tf.export import signatures

IMAGES = np.random.default_rng(0).random([4, 6, 6, 3]).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.layers.Input([6, 6, 3]),
            keras.layers.Conv2D(4, 3, activation="swish"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


def same(predict, model):
    """Compare logits and gradients with the model's in inference mode."""
    images = tf.constant(IMAGES)
    np.testing.assert_allclose(predict(images), model(images, training=False), atol=1e-5)
    ours, expected = (
        input_gradient(lambda x, f=f: tf.reduce_sum(f(x) ** 2, -1), images)
        for f in (predict, lambda x: model(x, training=False))
    )
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_a_keras_model_is_called_in_inference_mode(model):
    same(evaluate.predictor(model), model)


def test_functions_with_and_without_training(model):
    def evaluated(images, training):
        assert training is False
        return model(images, training=training)

    same(evaluate.predictor(evaluated), model)
    same(evaluate.predictor(lambda images: model(images, training=False)), model)
    same(evaluate.predictor(tf.function(evaluated)), model)


def test_a_keras_file(model, tmp_path):
    model.save(tmp_path / "model.keras")
    same(evaluate.predictor(tmp_path / "model.keras"), model)


@pytest.mark.parametrize("loaded", [False, True])
def test_a_saved_model_of_keras(model, tmp_path, loaded):
    model.export(tmp_path / "saved", verbose=False)
    given = tf.saved_model.load(str(tmp_path / "saved")) if loaded else tmp_path / "saved"
    same(evaluate.predictor(given), model)


def test_a_saved_model_of_ours(model, tmp_path):
    serving = signatures.Serving(model, 6, lambda content, size: tf.zeros([size, size, 3]))
    tf.saved_model.save(serving, str(tmp_path / "saved"), signatures=serving.signatures)
    predict = evaluate.predictor(str(tmp_path / "saved"))
    same(predict, model)
    attacker = evaluate.Attacker(str(tmp_path / "saved"), batch_size=4)
    labels = model(IMAGES, training=False).numpy().argmax(-1)
    examples = evaluate.Examples(images=IMAGES, labels=labels, ids=np.arange(4))
    result = attacker.attack(examples, "pgd-5", epsilon=0.9, step_size=0.3)
    assert result.clean_accuracy == 1 and result.robust_accuracy < 1
    assert attacker.accuracy(IMAGES, labels) == 1


def test_saved_models_that_cannot_be_attacked(tmp_path):
    module = tf.Module()
    module.two = tf.function(
        lambda a, b: {"x": a, "y": b}, input_signature=[tf.TensorSpec([None], name=n) for n in ("a", "b")]
    )
    for name, received in (("other", "signatures of other"), ("serving_default", "inputs a, b, outputs x, y")):
        folder = str(tmp_path / name)
        tf.saved_model.save(module, folder, signatures={name: module.two})
        with pytest.raises(ValueError, match=f"Expected a.* signature.*serving_default.* Received: {received}"):
            evaluate.predictor(folder)
