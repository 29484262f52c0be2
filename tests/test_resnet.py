"""Parameter counts, every activation site, the released networks' logits, input sizes."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import resnet
from sat_tf import activations

SMALL = {
    "resnet14": (2, 16),
    "resnet20": (3, 16),
    "resnet32": (5, 16),
    "resnet20-w8": (3, 8),
    "resnet32-w8": (5, 8),
    "resnet20-w32": (3, 32),
}
SITES = {
    **{name: 6 * blocks + 1 for name, (blocks, _) in SMALL.items()},
    "resnet50": 49,
    "resnet101": 100,
    "resnet152": 151,
    "resnext50-32x4d": 49,
    "resnext50-32x8d": 49,
    "resnext152-32x8d": 151,
}
TRAINED = {
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50-32x4d": 25_028_904,
    "resnext50-32x8d": 48_021_800,
    "resnext152-32x8d": 122_372_392,
}


def lazily(build):
    """Build a model whose weights cost neither time nor memory worth naming: zeros."""
    original = keras.initializers.VarianceScaling.__call__
    keras.initializers.VarianceScaling.__call__ = lambda self, shape, dtype=None: tf.zeros(shape, dtype or "float32")
    try:
        return build()
    finally:
        keras.initializers.VarianceScaling.__call__ = original


def trained(model):
    return sum(math.prod(v.shape) for v in model.trainable_variables)


@pytest.mark.parametrize("variant", TRAINED)
def test_trained_parameters(variant):
    model = lazily(lambda: resnet.build(variant, activations.factory("relu")))
    assert trained(model) == TRAINED[variant]
    assert resnet.VARIANTS[variant].about.startswith(f"{TRAINED[variant] / 1e6:.1f} million parameters")
    assert model.output_shape == (None, 1000)


def test_smoothrelu_adds_one_parameter_a_site():
    model = lazily(lambda: resnet.build("resnet50", activations.factory("smoothrelu")))
    assert trained(model) == 25_557_032 + 49


@pytest.mark.parametrize("variant", SMALL)
def test_parameters_of_small_networks_by_pencil_and_paper(variant):
    blocks, width = SMALL[variant]
    layers = [(3, width)]  # channels in and out of every 3x3 convolution, each with two numbers a channel after it
    for group in range(3):
        for _ in range(2 * blocks):
            layers.append((layers[-1][1], width * 2**group))
    expected = sum(9 * inputs * outputs + 2 * outputs for inputs, outputs in layers) + (4 * width + 1) * 10
    assert trained(resnet.build(variant, activations.factory("relu"), 10)) == expected
    said = float(resnet.VARIANTS[variant].about.partition(" million parameters, ")[0])
    assert said == pytest.approx(expected / 1e6, rel=0.05)
    assert variant != "resnet20" or expected == 269_722  # He et al. 2015, Table 6: 0.27 million


@pytest.mark.parametrize("variant", resnet.VARIANTS)
def test_every_site_uses_the_chosen_activation(variant):
    """A recording factory counts the sites, and no other nonlinearity is left in the graph."""
    made = []

    class Marked(keras.layers.Layer):
        def call(self, inputs):
            return tf.atan(inputs)

    def act(name):
        made.append(Marked(name=name))
        return made[-1]

    model = lazily(lambda: resnet.build(variant, act, 10))
    assert len(made) == SITES[variant] == len({layer.name for layer in made})
    assert all(layer in model.layers for layer in made)
    graph = (
        tf.function(lambda x: model(x, training=True))
        .get_concrete_function(tf.TensorSpec([2, 32, 32, 3], tf.float32))
        .graph
    )
    operations = [operation.type for operation in graph.get_operations()]
    assert operations.count("Atan") == SITES[variant]
    assert not set(operations) & {"Relu", "Sigmoid", "Tanh", "Elu", "Softplus", "Selu", "Erf", "Relu6"}


@pytest.mark.parametrize(
    "variant,sizes", [("resnet50", (32, 64, 224, 299, 380)), ("resnext50-32x4d", (32, 64)), ("resnet20", (32, 33, 64))]
)
def test_any_input_size(variant, sizes):
    model = resnet.build(variant, activations.factory("swish"), 7)
    for size in sizes:
        logits = model(tf.zeros([1, size, size, 3]), training=False)
        assert logits.shape == (1, 7) and logits.dtype == tf.float32


def test_initial_weights():
    model = resnet.build("resnet50", activations.factory("relu"))
    gammas = [(v.path, float(tf.reduce_max(tf.abs(v)))) for v in model.trainable_variables if v.name == "gamma"]
    assert all((value == 0) == path.endswith("conv3/gamma") for path, value in gammas)
    kernel = model.get_layer("group2_block1_conv2").kernel.numpy()
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 256)), rtol=0.02)
    np.testing.assert_allclose(model.get_layer("linear").kernel.numpy().std(), 0.01, rtol=0.02)


def test_subsample_takes_every_second_pixel_and_pads_channels():
    images = tf.reshape(tf.range(32.0), [1, 4, 4, 2])
    shortcut = resnet.small.Subsample(6)(images)
    np.testing.assert_array_equal(shortcut[..., 2:4], images[:, ::2, ::2])
    assert not shortcut.numpy()[..., [0, 1, 4, 5]].any()


def test_unknown_variant():
    with pytest.raises(ValueError, match="Received: variant='resnet51'"):
        resnet.build("resnet51", activations.factory("relu"))
