"""Parameters by pencil and paper, input sizes, first weights; test_promises counts what every model has."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sat_tf import activations, cost, resnet

SMALL = {
    "resnet2-w8": (0, 8),
    "resnet8-w8": (1, 8),
    "resnet14": (2, 16),
    "resnet20": (3, 16),
    "resnet32": (5, 16),
    "resnet20-w8": (3, 8),
    "resnet32-w8": (5, 8),
    "resnet20-w32": (3, 32),
}


def weightless(variant, act="relu", classes=1000):
    with cost.weightless():
        return resnet.build(variant, activations.factory(act), classes)


def test_smoothrelu_adds_one_parameter_a_site():
    assert cost.parameters(weightless("resnet50", "smoothrelu")) == 25_557_032 + 49


@pytest.mark.parametrize("variant", SMALL)
def test_parameters_of_small_networks_by_pencil_and_paper(variant):
    blocks, width = SMALL[variant]
    layers = [(3, width)]  # channels in and out of every 3x3 convolution, each with two numbers a channel after it
    for group in range(3):
        for _ in range(2 * blocks):
            layers.append((layers[-1][1], width * 2**group))
    expected = sum(9 * inputs * outputs + 2 * outputs for inputs, outputs in layers) + (layers[-1][1] + 1) * 10
    assert cost.parameters(weightless(variant, classes=10)) == expected
    assert variant != "resnet20" or expected == 269_722  # He et al. 2015, Table 6: 0.27 million


@pytest.mark.parametrize(
    ("variant", "blocks", "widths", "stem", "final_norm", "expected"),
    [
        ("preact-resnet18", 2, (64, 128, 256, 512), 64, False, 11_171_146),
        ("wrn-28-10", 4, (160, 320, 640), 16, True, 36_479_194),
        ("wrn-34-10", 5, (160, 320, 640), 16, True, 46_160_474),
    ],
)
def test_parameters_of_preactivation_networks_by_pencil_and_paper(variant, blocks, widths, stem, final_norm, expected):
    count, before = 27 * stem, stem  # the first convolution has no normalisation
    for width in widths:
        for block in range(blocks):
            inputs = before if block == 0 else width
            count += 2 * inputs + 9 * inputs * width + 2 * width + 9 * width**2
            count += inputs * width if inputs != width else 0
        before = width
    count += 2 * before * final_norm + (before + 1) * 10
    assert cost.parameters(weightless(variant, classes=10)) == count == expected


def test_a_preactivation_network_against_its_definition():
    """One block with a projection and one after it, in NumPy's terms: normalise, activate, convolve, add."""
    model = resnet.build("wrn-10-1", activations.factory("swish"), 10)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape) * (0.1 if variable.name == "kernel" else 1.0))
    images = tf.constant(rng.random((2, 32, 32, 3)), tf.float32)

    def norm(x, layer):
        return layer.gamma * (x - layer.moving_mean) / tf.sqrt(layer.moving_variance + 1e-5) + layer.beta

    def conv(x, layer, strides=1):
        x = tf.pad(x, [[0, 0], *[[layer.kernel.shape[0] // 2] * 2] * 2, [0, 0]])
        return tf.nn.conv2d(x, tf.convert_to_tensor(layer.kernel), strides, "VALID")

    x, layer = conv(2 * images - 1, model.get_layer("conv0")), model.get_layer
    for group in range(3):
        name, strides = f"group{group}_block0", 2 if group else 1
        first = tf.nn.silu(norm(x, layer(f"{name}_norm")))
        shortcut = conv(first, layer(f"{name}_convshortcut"), strides) if group else x
        x = tf.nn.silu(norm(conv(first, layer(f"{name}_conv1"), strides), layer(f"{name}_conv1")))
        x = conv(x, layer(f"{name}_conv2")) + shortcut
    x = tf.reduce_mean(tf.nn.silu(norm(x, layer("final_norm"))), [1, 2])
    wanted = x @ tf.convert_to_tensor(layer("linear").kernel) + layer("linear").bias
    np.testing.assert_allclose(model(images, training=False), wanted, rtol=1e-4)


@pytest.mark.parametrize(
    "variant,sizes",
    [
        ("wrn-10-1", (32, 33)),
        ("resnet50", (32, 64, 224, 299, 380)),
        ("resnext50-32x4d", (32, 64)),
        ("resnet20", (32, 33, 64)),
    ],
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


def test_three_convolutions_see_grey_images_of_28_pixels():
    keras.utils.set_random_seed(0)
    model = resnet.build("convnet3", activations.factory("relu"), 10)
    assert [model.get_layer(f"conv{number}").output.shape[1] for number in range(3)] == [14, 8, 4]
    assert model.get_layer("features").output.shape == (None, 2048)
    rng = np.random.default_rng(0)
    grey = rng.random((2, 28, 28, 1)).astype(np.float32)
    coloured = np.concatenate([grey - 0.1, grey + 0.1, grey], -1)
    same = [model(tf.constant(images), training=False) for images in (np.repeat(grey, 3, -1), coloured)]
    np.testing.assert_allclose(*same, atol=1e-5)
    assert model(tf.zeros([1, 40, 40, 3]), training=False).shape == (1, 10)
    kernel = model.get_layer("conv2").kernel.numpy()
    assert kernel.std() == pytest.approx(np.sqrt(2 / (5 * 5 * 128)), rel=0.05)  # He et al., fan out
