"""Every kind of model that can be attacked, with its gradient: Keras, functions, SavedModels."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from sat_tf import evaluate, models
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


class Linear(tf.Module):
    """A model of tensors alone, for a batch of `size`, or any."""

    def __init__(self, size=None, dtype=tf.float32):
        super().__init__()
        self.weights = tf.Variable(np.random.default_rng(1).normal(size=[108, 3]), dtype=tf.float32)
        spec = tf.TensorSpec([size, 6, 6, 3], dtype)
        self.serve = tf.function(lambda images: {"logits": self.logits(images)}, input_signature=[spec])

    @tf.function
    def __call__(self, images, training=True):
        return self.logits(images) * (100.0 if training else 1.0)

    def logits(self, images):
        return tf.reshape(tf.cast(images, tf.float32) - 0.5, [-1, 108]) @ self.weights


def test_a_fixed_batch_is_kept_to(tmp_path):
    module = Linear(size=4)
    tf.saved_model.save(module, str(tmp_path), signatures=module.serve)
    found, expected = (evaluate.Attacker(model, batch_size=7) for model in (tmp_path, module.logits))
    for count in (1, 3, 4, 9):
        images = np.random.default_rng(2).random([count, 6, 6, 3]).astype(np.float32)
        labels = module.logits(images).numpy().argmax(-1)
        np.testing.assert_allclose(found.logits(images), expected.logits(images), atol=1e-5)
        examples = evaluate.Examples(images=images, labels=labels)
        results = [one.attack(examples, "pgd-3", epsilon=0.05, step_size=0.02) for one in (found, expected)]
        np.testing.assert_array_equal(*(result.stage for result in results))
        np.testing.assert_allclose(*(result.margin for result in results), atol=1e-4)


class Called(Linear):
    """A model that is saved without signatures, since it is traced for training, too."""

    serve = None

    def __init__(self):
        tf.Module.__init__(self)
        self.weights = tf.Variable(np.random.default_rng(1).normal(size=[108, 3]), dtype=tf.float32)
        for training in (True, False):
            self.__call__.get_concrete_function(tf.TensorSpec([2, 6, 6, 3]), training=training)


def test_a_saved_model_without_signatures_is_called(tmp_path):
    module = Called()
    tf.saved_model.save(module, str(tmp_path))
    assert not tf.saved_model.load(str(tmp_path)).signatures
    np.testing.assert_allclose(evaluate.predictor(tmp_path)(tf.constant(IMAGES)), module.logits(IMAGES), atol=1e-5)


def test_the_signature_says_which_images(tmp_path, model):
    module = Linear(dtype=tf.uint8)
    tf.saved_model.save(module, str(tmp_path), signatures=module.serve)
    with pytest.raises(ValueError, match="images .* of floats, whose gradient attacks follow. Received: .* uint8"):
        evaluate.predictor(tmp_path)
    with pytest.raises(
        ValueError, match=r"Expected images \[n, 6, 6, 3\], as the model takes them. Received: \[2, 8, 6, 3\]"
    ):
        evaluate.Attacker(model).logits(np.zeros([2, 8, 6, 3]))


OUTPUTS = {
    "dictionary of two": (lambda z: {"a": z, "b": z}, "one output .* Received: outputs a, b"),
    "two": (lambda z: [z, z], "one output .* Received: 2 outputs"),
    "one logit": (lambda z: z[:, :1], r"two classes or more. Received: \[4, 1\].*\[0, z\]"),
    "a map": (lambda z: z[:, None, None], "two classes or more"),
    "classes": (lambda z: tf.argmax(z, -1)[:, None] + tf.zeros([1, 3], tf.int64), "floating point. Received: int64"),
    "one row": (lambda z: z[:1], r"each of 4 images. Received: \[1, 3\]"),
    "nothing": (lambda z: None, "a tensor of logits. Received: a NoneType"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_that_are_no_logits(name):
    change, words = OUTPUTS[name]
    attacker = evaluate.Attacker(lambda images: change(Linear().logits(images)), batch_size=4)
    with pytest.raises(ValueError, match=f"Expected .*{words}"):
        attacker.logits(IMAGES)


@pytest.mark.parametrize("wrap", [lambda z: {"logits": z, "features": 2 * z}, lambda z: {"x": z}, lambda z: [z]])
def test_outputs_that_hold_logits(wrap):
    module = Linear()
    found = evaluate.predictor(lambda images: wrap(tf.cast(module.logits(images), tf.float64)))(tf.constant(IMAGES))
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, module.logits(IMAGES), atol=1e-5)


def test_paths_that_name_no_model(tmp_path):
    for name, words in (("m.h5", "keras.saving.load_model and hand the model in"), ("m.txt", "which is none of them")):
        (tmp_path / name).write_bytes(b"?")
        with pytest.raises(ValueError, match=f"Expected a Keras model.*{words}"):
            evaluate.predictor(str(tmp_path / name))
    with pytest.raises(ValueError, match="which is none of them"):
        evaluate.predictor(tmp_path)
    with pytest.raises(FileNotFoundError, match="which does not exist"):
        evaluate.predictor(tmp_path / "absent")
    (tmp_path / "m.keras").write_bytes(b"?")
    with pytest.raises(OSError, match="m.keras cannot be read"):
        evaluate.predictor(tmp_path / "m.keras")
    with pytest.raises(ValueError, match="Expected a Keras model.* Received: a dict"):
        evaluate.predictor({})
    with pytest.raises(ValueError, match="one input, images. Received: 2 inputs"):
        pair = [keras.Input([6, 6, 3]), keras.Input([6, 6, 3])]
        evaluate.predictor(keras.Model(pair, keras.layers.Add()(pair)))


@pytest.mark.parametrize("shape, classes", [([1, 6, 6, 3], 2), ([3, 4, 9, 3], 3), ([2, 5, 3, 1], 2)])
def test_one_image_two_classes_and_images_that_are_not_square(shape, classes):
    rng = np.random.default_rng(0)
    weights = tf.constant(rng.normal(size=[np.prod(shape[1:]), classes]), tf.float32)
    attacker = evaluate.Attacker(lambda x: tf.reshape(x - 0.5, [-1, weights.shape[0]]) @ weights, batch_size=4)
    images = rng.uniform(0.3, 0.7, shape).astype(np.float32)
    examples = evaluate.Examples(images=images, labels=attacker.logits(images).argmax(-1))
    result = attacker.attack(examples, "pgd-5", epsilon=0.5)
    assert result.clean_accuracy == 1 and result.robust_accuracy == 0
    checks = evaluate.examine(attacker, examples)
    assert not [check for check in checks if check.hard and check.passed is False]


FROM_FILE = """
import numpy as np
from sat_tf import evaluate
print(evaluate.Attacker("model.keras").logits(np.full([2, 32, 32, 3], 0.5)).round(3).tolist())
from sat_tf import models
model = models.build("efficientnet-lite0", "relu6", classes=10)
print({str(v.dtype) for v in model.variables}, model(np.zeros([1, 32, 32, 3], "float32"), training=True).shape)
"""


def test_files_of_ours_open_alone_whatever_keras_is_set_to(tmp_path):
    keras.utils.set_random_seed(0)
    network = models.build("resnet8-w8", "smoothrelu", classes=10)
    network.save(tmp_path / "model.keras")
    (tmp_path / ".keras").mkdir()
    settings = {"floatx": "float16", "image_data_format": "channels_first", "backend": "jax", "epsilon": 1e-7}
    (tmp_path / ".keras" / "keras.json").write_text(json.dumps(settings))
    path = str(pathlib.Path(__file__).parents[1])
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": path, "KERAS_BACKEND": "jax", "TF_CONFIG": "{}"}
    run = subprocess.run(
        [sys.executable, "-c", FROM_FILE], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    logits, built = run.stdout.splitlines()
    expected = network(np.full([2, 32, 32, 3], 0.5, np.float32), training=False)
    np.testing.assert_allclose(json.loads(logits), expected, atol=2e-3)
    assert built == "{'float32'} (1, 10)"


def test_settings_are_pinned_while_a_model_is_built_and_the_users_afterwards(narrow_b0):
    before = keras.config.floatx(), keras.config.image_data_format(), keras.config.dtype_policy()
    try:
        keras.config.set_floatx("float64")
        keras.config.set_image_data_format("channels_first")
        keras.config.set_dtype_policy("float64")
        network = models.build(narrow_b0, "swish", classes=3)
        assert {variable.dtype for variable in network.variables} == {"float32"}
        assert network(np.zeros([1, 32, 32, 3], np.float32), training=False).dtype == tf.float32
        assert keras.config.floatx() == "float64" and keras.config.image_data_format() == "channels_first"
        assert keras.config.dtype_policy().name == "float64"
        keras.config.set_dtype_policy("mixed_bfloat16")
        assert models.build("resnet8-w8", "swish", classes=3).get_layer("conv0").compute_dtype == "bfloat16"
    finally:
        for restore, value in zip(
            (keras.config.set_floatx, keras.config.set_image_data_format, keras.config.set_dtype_policy),
            before,
            strict=True,
        ):
            restore(value)
