"""`smooth`: every ReLU-like activation of any model is replaced, its weights are kept, and what is left is told."""

import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import sat_tf
from sat_tf import models

layers = keras.layers
IMAGES = np.random.default_rng(0).random([2, 8, 8, 3]).astype(np.float32)


class Mine(layers.Layer):
    def call(self, x):
        return tf.nn.relu(x)


class Activated(layers.Layer):
    """A custom layer that takes its activation, and says so in its configuration."""

    def __init__(self, activation, **kwargs):
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)

    def call(self, x):
        return self.activation(x)

    def get_config(self):
        return {**super().get_config(), "activation": keras.activations.serialize(self.activation)}


def relu6(x):
    return keras.ops.relu6(x)


SITES = {  # name of the site's kind: layers or operations that hold one ReLU-like activation
    "argument": lambda x: layers.Conv2D(3, 1, activation="relu")(x),
    "function": lambda x: layers.Dense(3, activation=tf.nn.relu)(x),
    "layer as argument": lambda x: layers.Dense(3, activation=layers.LeakyReLU(0.3))(x),
    "Activation": lambda x: layers.Activation("relu6")(x),
    "Activation of a layer": lambda x: layers.Activation(layers.ReLU())(x),
    "ReLU": lambda x: layers.ReLU(max_value=4.0)(x),
    "LeakyReLU": lambda x: layers.LeakyReLU()(x),
    "PReLU": lambda x: layers.PReLU()(x),
    "hard swish": lambda x: layers.Activation("hard_swish")(x),
    "operation": relu6,
    "activation function": lambda x: keras.activations.relu(x, negative_slope=0.1),
    "wrapper": lambda x: layers.TimeDistributed(layers.Dense(3, activation="relu"))(x),
    "wrapped layer": lambda x: layers.TimeDistributed(layers.ReLU())(x),
    "custom": lambda x: Activated("relu")(x),
    "nested": lambda x: keras.Sequential([layers.Dense(3, activation="relu")])(x),
    "ours": lambda x: sat_tf.activations.ReLU()(x),
}


def model_of(site):
    keras.utils.set_random_seed(0)
    images = keras.Input([8, 8, 3])
    features = SITES[site](layers.BatchNormalization()(layers.Conv2D(3, 3)(images))) * 2
    return keras.Model(images, layers.Dense(2)(layers.Flatten()(features)))


def slopes_jump(model):
    """Say whether the derivative along a line of images jumps anywhere, as it does at a kink."""
    steps = tf.linspace(-1.0, 1.0, 4001)
    with tf.autodiff.ForwardAccumulator(steps, tf.ones_like(steps)) as tangents:
        line = tf.reshape(steps, [-1, 1, 1, 1]) * (IMAGES[:1] - 0.5)
        values = model(line, training=False)
    slopes = tangents.jvp(values).numpy()
    bends = np.abs(np.diff(slopes, axis=0))
    return bends.max() > 20 * np.quantile(bends, 0.9) + 1e-4


@pytest.mark.parametrize("site", SITES)
def test_every_kind_of_site_is_replaced(site):
    model = model_of(site)
    done = sat_tf.smooth(model, "softplus")
    assert done.smoothing.count == 1 and not done.smoothing.left
    assert slopes_jump(model) == (site != "hard swish") and not slopes_jump(done)  # its kinks are at -3 and 3
    kept = [variable for variable in model.weights if "p_re_lu" not in variable.path]
    for mine, theirs in zip(done.weights, kept, strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert mine is not theirs


@pytest.mark.parametrize("site", SITES)
def test_backward_keeps_the_values_and_changes_the_gradient(site):
    model = model_of(site)
    done = sat_tf.smooth(model, backward="softplus")
    np.testing.assert_allclose(done(IMAGES, training=False), model(IMAGES, training=False), atol=1e-6)
    whole = sat_tf.smooth(model, "softplus")

    def gradient(of):
        with tf.GradientTape() as tape:
            x = tf.Variable(IMAGES)
            value = of(x, training=False)[:, 0]
        return tape.gradient(value, x).numpy()

    np.testing.assert_allclose(gradient(done), gradient(whole), atol=1e-5)  # linear behind the activation
    assert np.abs(gradient(done) - gradient(model)).max() > 1e-4


def test_a_sequential_with_softmax_keeps_its_answers_layout(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input([8, 8, 3]), layers.Flatten(), layers.Dense(5, "relu"), layers.Dense(2, "softmax")]
    )
    done = sat_tf.smooth(model)
    first, last = (layer.get_weights() for layer in model.layers[1:])
    hidden = IMAGES.reshape(2, -1) @ first[0] + first[1]
    logits = (hidden / (1 + np.exp(-hidden))) @ last[0] + last[1]
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(done(IMAGES), expected, rtol=1e-4)
    done.save(tmp_path / "m.keras")
    assert "sat_tf" not in zipfile.ZipFile(tmp_path / "m.keras").read("config.json").decode()


@pytest.mark.parametrize("act", ["smoothrelu", "parametric_softplus:10", "gelu_tanh", "celu:1.5"])
def test_activations_of_ours_are_saved_and_read(act, tmp_path):
    model = model_of("argument")
    done = sat_tf.smooth(model, act, backward="swish" if act == "celu:1.5" else None)
    done.save(tmp_path / "m.keras")
    np.testing.assert_allclose(models.load(tmp_path / "m.keras")(IMAGES), done(IMAGES), atol=1e-6)
    assert (len(done.weights) - len(model.weights) == 1) == (act == "smoothrelu")


def test_networks_of_keras_applications():
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, weights=None, classes=3)
    done = sat_tf.smooth(model, "swish")
    config = json.loads(done.to_json())
    assert done.smoothing.count == 35 and not done.smoothing.left
    assert not [layer for layer in config["config"]["layers"] if layer["class_name"] == "ReLU"]
    for mine, theirs in zip(done.weights, model.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_what_is_left_is_told_and_calls_are_kept(capsys):
    images = keras.Input([8, 8, 3])
    inner = keras.Sequential([keras.Input([8, 8, 3]), layers.Conv2D(3, 1, activation="relu"), layers.Dropout(0.9)])
    inner.trainable = False
    x = layers.Lambda(lambda z: tf.nn.relu(z))(Mine(name="mine")(inner(images, training=False)))
    x = layers.Activation("hard_sigmoid", name="gate")(layers.Dense(3, activation=lambda z: z, name="odd")(x))
    model = keras.Model(images, layers.Flatten()(x))
    done = sat_tf.smooth(model)
    told = {name.split(" ")[0].split("_")[0] for name in done.smoothing.left}
    assert told == {"mine", "lambda", "gate", "odd"}
    assert "1 activations replaced" in capsys.readouterr().out
    assert len(done.trainable_variables) == 2


def test_what_cannot_be_made_smooth_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    for given in (Own(), lambda x: x):
        with pytest.raises(ValueError, match="functional or Sequential"):
            sat_tf.smooth(given)
    with pytest.raises(ValueError, match="a known activation"):
        sat_tf.smooth(model_of("ReLU"), "swoosh")
