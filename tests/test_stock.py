"""The stock twin of a model: the same logits, and a file that opens and trains on where this project isn't."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from sat_tf import activations, models
from sat_tf.export import stock

SPECS = [*activations.ACTIVATIONS, "parametric_softplus:2.5", "elu:1.4", "celu:0.5", "smoothrelu:4"]
NOISE = {"dropout": 0.2, "stochastic_depth": 0.2}
RANGES = {  # name of a variable: what it is drawn from, uniformly; others keep their first values
    "gamma": (0.5, 1.5),
    "beta": (-0.3, 0.3),
    "bias": (-0.3, 0.3),
    "moving_mean": (-0.3, 0.3),
    "moving_variance": (0.5, 2.0),
    "raw": (2.0, 25.0),
}

CONSUMER = """
import pathlib, sys
sys.modules.update(dict.fromkeys(("sat_tf",)))  # None: can't be imported
import keras, numpy as np
folder = pathlib.Path(sys.argv[1])
images = np.load(folder / "images.npy")
for file in sorted(folder.glob("*.keras")):
    model = keras.saving.load_model(file)
    np.save(file.with_suffix(".npy"), model(images, training=False))
    before = [weight.numpy() for weight in model.weights]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss)
    losses = model.fit(images, np.arange(len(images)), batch_size=len(images), verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert all(np.isfinite(weight).all() for weight in model.weights)
    same = [w.path for w, b in zip(model.weights, before) if np.array_equal(w, b)]
    # an offset that the next batch normalisation takes away has no gradient but of rounding
    assert all(path.endswith("project_norm/beta") for path in same), same
"""


def images_of(size, count=2):
    return np.random.default_rng(0).random((count, size, size, 3), np.float32)


def built(name, act, **rates):
    """Build a model whose variables, statistics included, are none that another model has."""
    keras.utils.set_random_seed(0)
    model = models.build(name, act, 10, **rates)
    draw = np.random.default_rng(1)
    for variable in model.variables:
        if variable.name in RANGES:
            variable.assign(draw.uniform(*RANGES[variable.name], variable.shape))
    return model


def difference(model, twin, images):
    """Return the largest difference of the logits relative to their largest magnitude."""
    wanted, found = np.asarray(model(images, training=False)), np.asarray(twin(images, training=False))
    assert wanted.shape == found.shape and np.std(wanted) > 0.01
    return np.max(np.abs(found - wanted)) / np.max(np.abs(wanted))


@pytest.mark.parametrize("act", SPECS)
def test_every_activation_keeps_the_logits(act):
    model = built("resnet8-w8", act)
    before = model.get_weights()
    twin = stock.to_stock(model)
    assert difference(model, twin, images_of(33)) < 1e-5  # an odd side: SAME padding and Subsample round up
    assert twin.input_shape == (None, None, None, 3) and twin.output_shape == (None, 10)
    assert {"conv0_conv", "conv0_norm", "conv0_act", "linear"} <= {layer.name for layer in twin.layers}
    assert all(type(layer).__module__.startswith("keras.") for layer in twin.layers)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize(
    "name, act, rates, size",
    [
        ("resnet50", "gelu", {}, 45),
        ("wrn-10-1", "swish", {}, 32),
        ("resnext50-32x4d", "celu:2", {}, 32),
        ("efficientnet-b0", "gelu_tanh", NOISE, 47),
        ("efficientnet-lite0", "relu6", {}, 64),
    ],
)
def test_every_family_keeps_the_logits(name, act, rates, size):
    model = built(name, act, **rates)
    assert difference(model, stock.to_stock(model), images_of(size)) < 1e-5


@pytest.mark.parametrize("act", SPECS)
def test_values_and_gradients_of_an_activation_agree_and_stay_finite(act):
    inputs = keras.Input((1,))
    model = keras.Model(inputs, activations.factory(act)("site")(inputs))
    ends = np.float32([-1e4, -100, -30, 30, 100, 1e4])
    x = tf.constant(np.concatenate([np.linspace(-12, 12, 1200, dtype=np.float32), ends])[:, np.newaxis])  # never 0
    (wanted, slope), (found, found_slope) = (value_and_gradient(m, x) for m in (model, stock.to_stock(model)))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(found_slope, slope, rtol=1e-5, atol=1e-5)


def value_and_gradient(model, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = model(x, training=False)
    gradient = tape.gradient(y, x)
    assert np.isfinite(y).all() and np.isfinite(gradient).all()
    return np.asarray(y), np.asarray(gradient)


@pytest.mark.parametrize("act", ["gelu_tanh", "celu:2", "smoothrelu", "parametric_softplus"])
def test_half_precision_is_kept(act):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = built("resnet8-w8", act)
    finally:
        keras.config.set_dtype_policy(policy)
    twin = stock.to_stock(model)
    assert twin.get_layer("conv0_conv").compute_dtype == "bfloat16"
    assert twin.get_layer("conv0_act").compute_dtype == "float32"
    assert difference(model, twin, images_of(32)) < 0.05


def every_activation():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(4.0, -2.0)(inputs)
    sites = [activations.factory(act)(f"site{i}")(keras.layers.Conv2D(4, 3)(x)) for i, act in enumerate(SPECS)]
    means = keras.layers.GlobalAveragePooling2D()(keras.layers.Concatenate()(sites))
    return keras.Model(inputs, keras.layers.Dense(10)(means))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Open, run and train twins in a process without this project; return models and their logits there."""
    folder = tmp_path_factory.mktemp("stock")
    images = images_of(32, 10)
    np.save(folder / "images.npy", images)
    made = {
        "efficientnet-b0": built("efficientnet-b0", "mish", **NOISE),
        "resnet8-w8": built("resnet8-w8", "smoothrelu"),
        "every activation": every_activation(),
    }
    for number, model in enumerate(made.values()):
        stock.to_stock(model).save(folder / f"{number}.keras")
    done = subprocess.run(
        [sys.executable, "-c", CONSUMER, folder], check=False, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return images, {name: (model, np.load(folder / f"{i}.npy")) for i, (name, model) in enumerate(made.items())}


@pytest.mark.parametrize("name", ["efficientnet-b0", "resnet8-w8", "every activation"])
def test_a_process_without_this_project_opens_runs_and_trains_it(elsewhere, name):
    images, made = elsewhere
    model, logits = made[name]
    assert difference(model, lambda images, training: logits, images) < 1e-5


def test_noise_has_the_rates_of_the_model():
    twin = stock.to_stock(models.build("efficientnet-b0", "relu", 10, dropout=0.25, stochastic_depth=0.16 * 16 / 7))
    assert twin.get_layer("dropout").rate == 0.25
    assert twin.get_layer("block7_drop").rate == pytest.approx(0.16)
    dropped = twin.get_layer("block7_drop")(tf.ones((2000, 2, 2, 3)), training=True).numpy().reshape(2000, -1)
    assert set(np.unique(dropped)) == {0, np.float32(1 / 0.84)} and np.all(dropped == dropped[:, :1])
    assert np.mean(dropped == 0) == pytest.approx(0.16, abs=0.03)
    without = stock.to_stock(models.build("efficientnet-b0", "relu", 10))
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in without.layers)


def test_what_was_frozen_stays_frozen_and_what_was_compiled_is_left_behind():
    model = built("resnet8-w8", "relu")
    model.get_layer("conv0").trainable = False
    model.compile("sgd", lambda labels, logits: logits)
    twin = stock.to_stock(model)
    assert not twin.get_layer("conv0_conv").trainable and not twin.get_layer("conv0_norm").trainable
    assert not twin.compiled and model.compiled


def test_a_twin_has_a_twin():
    twin = stock.to_stock(built("resnet8-w8", "smoothrelu"))
    assert difference(twin, stock.to_stock(twin), images_of(32)) == 0


class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs


def halved(x):
    return x / 2


@pytest.mark.parametrize(
    "layer, needed",
    [
        (Doubled(name="odd"), "Doubled"),
        (keras.layers.Dense(3, activation=halved, name="odd"), "halved"),
        (keras.layers.Lambda(lambda x: 2 * x, name="odd"), "lambda"),
        (keras.Sequential([keras.layers.Dense(3), Doubled()], name="odd"), "Doubled"),
    ],
)
def test_an_unknown_layer_is_named(layer, needed):
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match=f"layer='odd', which needs .*{needed}"):
        stock.to_stock(keras.Model(inputs, layer(inputs)))


def test_a_model_that_is_not_functional_is_refused():
    with pytest.raises(ValueError, match="Expected a functional model"):
        stock.to_stock(Doubled())


def test_the_users_settings_have_no_part_in_it():
    model = models.build("resnet8-w8", "swish", 10)
    before = keras.config.floatx(), keras.config.image_data_format()
    try:
        keras.config.set_floatx("float16")
        keras.config.set_image_data_format("channels_first")
        own = stock.to_stock(model)
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_image_data_format(before[1])
    images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    np.testing.assert_allclose(own(images, training=False), model(images, training=False), rtol=1e-5, atol=1e-5)
    assert {variable.dtype for variable in own.variables} == {"float32"}
