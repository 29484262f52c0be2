"""Attacks and checks serve models that are not ours: a keras.applications network, its SavedModel, in a few lines."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sat_tf import evaluate

EAGER = True


@pytest.fixture(scope="module")
def network():
    """Return the first blocks of a keras.applications network with random weights, for images in [0, 1]."""
    keras.utils.set_random_seed(0)
    images = keras.Input([32, 32, 3])
    whole = keras.applications.MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, weights=None, include_top=False)
    inner = keras.Model(whole.input, whole.get_layer("block_2_add").output)
    features = inner(keras.layers.Rescaling(2.0, -1.0)(images))
    return keras.Model(images, keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(features)))


@pytest.fixture(scope="module")
def examples(network):
    images = np.random.default_rng(0).random((12, 32, 32, 3)).astype(np.float32)
    return evaluate.Examples(images=images, labels=network(images, training=False).numpy().argmax(-1))


def test_a_keras_application_is_attacked_and_examined(network, examples):
    attacker = evaluate.Attacker(network, batch_size=6)
    result = attacker.attack(examples, "pgd-5", epsilon=8 / 255)
    checks = {check.name: check for check in evaluate.examine(attacker, examples, {"pgd-5": result}, sample=6)}
    assert result.clean_accuracy == 1 and len(result.table()) == 12
    for name in (
        "logits_not_probabilities",
        "finite",
        "same_input_same_output",
        "zero_gradients",
        "radius_respected",
        "epsilon_zero_is_clean",
    ):
        assert checks[name].passed, checks[name]


def test_one_that_ends_in_softmax_is_caught(network, examples):
    attacker = evaluate.Attacker(keras.Sequential([network, keras.layers.Softmax()]), batch_size=6)
    checks = evaluate.examine(attacker, examples, sample=6)
    assert [check.name for check in checks if check.passed is False][:1] == ["logits_not_probabilities"]
    assert not evaluate.trusted(checks)


def test_a_saved_model_is_attacked_like_the_model(network, examples, tmp_path):
    network.export(tmp_path / "saved", verbose=False)
    results = [
        evaluate.Attacker(model, batch_size=6).attack(examples, "pgd-3", epsilon=8 / 255)
        for model in (network, tf.saved_model.load(tmp_path / "saved"), str(tmp_path / "saved"))
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].stage, other.stage)
        np.testing.assert_allclose(results[0].margin, other.margin, atol=1e-4)
