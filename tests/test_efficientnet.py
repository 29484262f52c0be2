"""Scaled sizes, Keras' logits, first weights, noise only in training; test_promises counts what every model has."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sat_tf import activations, cost, efficientnet
from sat_tf.efficientnet import scaling


def build(variant, act="swish", classes=1000, **rates):
    return efficientnet.build(f"efficientnet-{variant}", activations.factory(act), classes, **rates)


def weightless(variant, **options):
    with cost.weightless():
        return build(variant, **options)


@pytest.mark.parametrize(
    "number,width,wanted",
    [
        (32, 1.0, 32),
        (32, 1.1, 32),
        (16, 1.1, 16),
        (24, 1.2, 32),
        (24, 1.1, 24),
        (320, 3.9, 1248),
        (1280, 2.0, 2560),
        (3, 1.0, 8),
    ],
)
def test_channels_are_multiples_of_eight_and_never_below_90_percent(number, width, wanted):
    assert scaling.channels(number, width) == wanted


def test_blocks_of_b0_and_lite():
    stem, blocks, head = scaling.sizes("efficientnet-b0")
    assert (stem, len(blocks), head) == (32, 16, 1280)
    assert [block.squeezed for block in blocks[:3]] == [8, 4, 6]  # a quarter of the block's input channels
    assert [block.residual for block in blocks[:3]] == [False, False, True]
    stem, blocks, head = scaling.sizes("efficientnet-lite4")
    assert (stem, head) == (32, 1280) and not any(block.squeezed for block in blocks)
    assert len(blocks) == 1 + 4 + 4 + 6 + 6 + 8 + 1  # first and last stage are not repeated


def test_smoothrelu_adds_one_parameter_a_site():
    assert cost.parameters(weightless("b0", act="smoothrelu")) == 5_288_548 + 49


@pytest.mark.parametrize("size", (32, 33, 64, 224, 240))
def test_any_input_size(size):
    model = build("b0", classes=7) if size < 100 else build("lite0", "relu6", 7)
    logits = model(tf.zeros([1, size, size, 3]), training=False)
    assert logits.shape == (1, 7) and logits.dtype == tf.float32


def keras_name(path, blocks):
    """Return Keras' layer and weight of one of our variables: block1_expand/kernel -> block2a_expand_conv, kernel."""
    layer, _, weight = path.partition("/")
    names = {"stem": "stem", "head": "top", "linear": "predictions"}
    part = ""
    if layer.startswith("block"):
        block, _, part = layer.partition("_")
        names[layer] = f"block{blocks[int(block.removeprefix('block'))]}"
    if layer == "linear" or part.startswith("se_"):
        return (f"{names[layer]}_{part}" if part else names[layer]), weight
    is_norm = weight in ("gamma", "beta", "moving_mean", "moving_variance")
    suffix = {
        "": "_bn" if is_norm else "_conv",
        "expand": "_expand_bn" if is_norm else "_expand_conv",
        "depthwise": "_bn" if is_norm else "_dwconv",
        "project": "_project_bn" if is_norm else "_project_conv",
    }
    return names[layer] + suffix[part], weight


@pytest.mark.parametrize(
    "variant,keras_class", [("b0", keras.applications.EfficientNetB0), ("b2", keras.applications.EfficientNetB2)]
)
def test_logits_of_keras_applications_on_copied_weights(variant, keras_class):
    """Keras' network scales images by 1 / 255 and pads as TensorFlow does where sides are even."""
    theirs = keras_class(weights=None, classifier_activation=None, classes=12, input_shape=(64, 64, 3))
    rng = np.random.default_rng(0)
    for variable in theirs.variables:
        if variable.name in ("gamma", "moving_variance") or "normalization" in variable.path:
            continue
        if variable.name in ("beta", "moving_mean", "bias"):
            variable.assign(rng.normal(0, 0.1, variable.shape))
    ours = build(variant, classes=12, epsilon=1e-3)
    letters = [f"{stage + 1}{chr(97 + i)}" for stage, repeats in enumerate(repeats_of(variant)) for i in range(repeats)]
    for variable in ours.variables:
        layer, weight = keras_name(variable.path, letters)
        (value,) = [v for v in theirs.get_layer(layer).variables if v.name == weight]
        variable.assign(value.numpy().reshape(variable.shape))
    images = rng.random((3, 64, 64, 3), np.float32)
    wanted = theirs((2 * images - 1) * 255, training=False)
    np.testing.assert_allclose(ours(images, training=False), wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


def repeats_of(variant):
    depth = efficientnet.VARIANTS[f"efficientnet-{variant}"].depth
    return [int(np.ceil(depth * repeats)) for repeats in (1, 2, 2, 3, 3, 4, 1)]


def test_initial_weights():
    model = build("b0")
    depthwise, project = (model.get_layer(name).kernel.numpy() for name in ("block6_depthwise", "block15_project"))
    np.testing.assert_allclose(depthwise.std(), np.sqrt(2 / 9), rtol=0.05)
    np.testing.assert_allclose(project.std(), np.sqrt(2 / 320), rtol=0.05)
    linear = model.get_layer("linear").kernel.numpy()
    assert np.abs(linear).max() <= 1 / np.sqrt(1000) < 1.01 * np.abs(linear).max()


def test_residual_branches_start_at_zero_where_asked(narrow_b0):
    images = tf.constant(np.random.default_rng(0).random((2, 32, 32, 3)), tf.float32)
    model = build("b0", classes=10, zero_gamma=True)
    zero = {layer.name for layer in model.layers if hasattr(layer, "gamma") and not tf.reduce_any(layer.gamma != 0)}
    residual = [f"block{i}_project" for i, block in enumerate(efficientnet.sizes(narrow_b0)[1]) if block.residual]
    assert zero == set(residual) and residual
    for name in residual:  # the sum is its shortcut: the branch may be anything
        before = model(images, training=False)
        model.get_layer(name).kernel.assign(model.get_layer(name).kernel + 1.0)
        np.testing.assert_array_equal(model(images, training=False), before)


def test_stochastic_depth_follows_the_linear_rule():
    rates = [layer.rate for layer in build("b0", stochastic_depth=0.2).layers if layer.name.endswith("_drop")]
    wanted = [0.2 * i / 16 for i, block in enumerate(scaling.sizes("efficientnet-b0")[1]) if block.residual]
    np.testing.assert_allclose(rates, wanted)


def test_dropout_is_the_models_own_where_asked():
    rate = lambda **rates: weightless("b4", **rates).get_layer("dropout").rate  # noqa: E731
    assert (rate(), rate(dropout=None), rate(dropout=0.1)) == (0, 0.4, 0.1)


def test_noise_leaves_inference_alone():
    images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    noisy = build("b0", classes=10, dropout=0.5, stochastic_depth=0.5)
    quiet = build("b0", classes=10)
    quiet.set_weights(noisy.get_weights())
    np.testing.assert_array_equal(noisy(images, training=False), quiet(images, training=False))
    assert not np.allclose(noisy(images, training=True), quiet(images, training=True))


def test_lite_scales_as_its_weights_want():
    scale = weightless("lite0").get_layer("scale")
    np.testing.assert_allclose(scale(tf.constant([[[[0.0, 127 / 255, 1.0]]]])), [[[[-127 / 128, 0, 1]]]], atol=1e-6)


def test_unknown_variant():
    with pytest.raises(ValueError, match="Received: variant='efficientnet-b9'"):
        build("b9")
