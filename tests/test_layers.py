"""Convolution with normalisation against Keras' two layers; noise that its seed decides."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sat_tf.layers import Conv, ConvNorm, DepthwiseConvNorm, Dropout, Norm, StochasticDepth, drawing_from
from sat_tf.layers.convolution import conv2d, subsampled


def randomised(layer, channels, seed=0):
    layer.build((None, None, None, channels))
    rng = np.random.default_rng(seed)
    for variable in layer.variables:
        low = 0.5 if variable.name in ("gamma", "moving_variance") else -0.5
        variable.assign(rng.uniform(low, low + 1, variable.shape))
    return layer


def keras_twin(layer):
    """Return the same computation as Keras' own convolution and normalisation, for paddings that Keras has."""
    conv = keras.layers.Conv2D(layer.filters, layer.kernel_size, layer.strides, "same", use_bias=False)
    norm = keras.layers.BatchNormalization(momentum=layer.momentum, epsilon=layer.epsilon)
    conv.build((None, None, None, layer.kernel.shape[2]))
    norm.build((None, None, None, layer.filters))
    conv.set_weights([layer.kernel.numpy()])
    norm.set_weights([v.numpy() for v in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)])
    return conv, norm


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kernel_size,strides", [(1, 1), (3, 1), (3, 2), (7, 2)])
def test_equals_convolution_then_normalisation(kernel_size, strides, training):
    layer = randomised(ConvNorm(6, kernel_size, strides), 5)
    conv, norm = keras_twin(layer)
    images = tf.constant(np.random.default_rng(1).normal(size=[4, 9, 8, 5]), tf.float32)
    np.testing.assert_allclose(
        layer(images, training=training), norm(conv(images), training=training), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("training", [False, True])
def test_a_normalisation_alone_is_keras_own(training):
    layer = randomised(Norm(), 5)
    norm = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    norm.build((None, None, None, 5))
    norm.set_weights([v.numpy() for v in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)])
    images = tf.constant(np.random.default_rng(1).normal(2.0, 3.0, size=[4, 9, 8, 5]), tf.float32)
    np.testing.assert_allclose(layer(images, training=training), norm(images, training=training), rtol=1e-4, atol=1e-4)
    assert layer.moving_mean.numpy() == pytest.approx(norm.moving_mean.numpy(), rel=1e-4)


@pytest.mark.parametrize("kernel_size,strides,side", [(1, 1, 1), (1, 2, 6), (3, 1, 5)])
def test_a_convolution_alone_is_keras_own_values_and_gradients(kernel_size, strides, side):
    layer = Conv(6, kernel_size, strides=strides, activation="sigmoid")
    twin = keras.layers.Conv2D(6, kernel_size, strides, "same", activation="sigmoid")
    channels = 16 if side == 6 else 5  # TensorFlow's own gradient with strides wants sixteen: sat_tf.onednn
    images = tf.constant(np.random.default_rng(1).normal(size=[4, side, side, channels]), tf.float32)
    found = []
    for convolve in (layer, twin):
        convolve.build(images.shape)
        convolve.set_weights(layer.get_weights())
        with tf.GradientTape() as tape:
            tape.watch(images)
            values = convolve(images)
            loss = tf.reduce_sum(tf.sin(values))
        found.append([values, *tape.gradient(loss, [images, convolve.kernel, convolve.bias])])
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    assert layer.compute_output_shape(images.shape) == found[0][0].shape


def test_folded_gradients_are_those_of_two_layers():
    layer = randomised(ConvNorm(6, 3), 5)
    conv, norm = keras_twin(layer)
    images = tf.constant(np.random.default_rng(1).normal(size=[4, 8, 8, 5]), tf.float32)
    gradients = []
    for function in (lambda x: layer(x, training=False), lambda x: norm(conv(x), training=False)):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(tf.sin(function(images)))
        gradients.append(tape.gradient(loss, images))
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-4)


def test_symmetric_padding_pads_both_sides():
    layer = randomised(ConvNorm(4, 3, 2, padding="symmetric"), 3)
    images = tf.constant(np.random.default_rng(2).normal(size=[2, 8, 8, 3]), tf.float32)
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]])
    scale = layer.gamma / tf.sqrt(layer.moving_variance + layer.epsilon)
    expected = (tf.nn.conv2d(padded, layer.kernel, 2, "VALID") - layer.moving_mean) * scale + layer.beta
    np.testing.assert_allclose(layer(images, training=False), expected, rtol=1e-4, atol=1e-5)
    assert layer(images).shape == layer.compute_output_shape(images.shape)


def test_moving_statistics_follow_the_batch_in_training_only():
    layer = ConvNorm(3, 1, momentum=0.75)
    layer.build((None, None, None, 3))
    layer.kernel.assign(np.eye(3)[None, None])
    images = np.random.default_rng(3).normal(2.0, 3.0, size=[6, 4, 4, 3]).astype(np.float32)
    layer(images, training=False)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(3))
    layer(images, training=True)
    np.testing.assert_allclose(layer.moving_mean, 0.25 * images.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(layer.moving_variance, 0.75 + 0.25 * images.var((0, 1, 2), ddof=1), rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("side", "strides"), [(6, 2), (7, 2), (7, 3)])
def test_every_second_pixel_is_a_slice_with_strides_to_the_bit(side, strides, dtype):
    images = tf.cast(tf.random.stateless_normal((2, side, side, 5), (0, 1)), dtype)

    def read(by):
        with tf.GradientTape() as tape:
            tape.watch(images)
            pixels = by(images)
        upstream = tf.cast(tf.random.stateless_normal(pixels.shape, (0, 2)), dtype)
        return pixels, tape.gradient(pixels, images, upstream)

    slices = read(lambda images: images[:, ::strides, ::strides])
    for found, expected in zip(read(lambda images: subsampled(images, strides)), slices, strict=True):
        np.testing.assert_array_equal(tf.cast(found, tf.float32), tf.cast(expected, tf.float32))


@pytest.mark.parametrize("size,strides,side", [(1, 1, 5), (7, 2, 14), (7, 2, 13), (5, 2, 12), (3, 2, 8), (1, 2, 8)])
def test_every_way_of_convolving_is_the_same_convolution(size, strides, side):
    rng = np.random.default_rng(5)
    channels = 16 if (size, strides) == (1, 2) else 3  # TensorFlow's own gradient wants sixteen there: sat_tf.onednn
    images = tf.constant(rng.normal(size=[2, side, side, channels]), tf.float32)
    kernel = tf.constant(rng.normal(size=[size, size, channels, 4]), tf.float32)
    assert_same_function(
        lambda x, k: conv2d(x, k, strides, "VALID"), lambda x, k: tf.nn.conv2d(x, k, strides, "VALID"), images, kernel
    )


def assert_same_function(mine, theirs, images, kernel):
    """Compare values and both gradients of two functions of images and kernel."""
    results = []
    for function in (mine, theirs):
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            outputs = function(images, kernel)
            loss = tf.reduce_sum(tf.sin(outputs))
        results.append([outputs, *tape.gradient(loss, [images, kernel])])
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [2, 8, 32, 6])
@pytest.mark.parametrize("strides", [1, 2])
def test_grouped_convolution_and_gradients(groups, strides):
    rng = np.random.default_rng(4)
    images = tf.constant(rng.normal(size=[2, 6, 6, groups * 2]), tf.float32)
    kernel = tf.constant(rng.normal(size=[3, 3, 2, groups * 3]), tf.float32)

    def separate(images, kernel):
        pairs = zip(tf.split(images, groups, -1), tf.split(kernel, groups, -1), strict=True)
        return tf.concat([tf.nn.conv2d(x, k, strides, "SAME") for x, k in pairs], -1)

    assert_same_function(lambda x, k: conv2d(x, k, strides, "SAME", groups), separate, images, kernel)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("training", [False, True])
def test_half_precision(policy, training):
    layer = ConvNorm(4, 3, dtype=policy)
    outputs = layer(tf.random.stateless_normal([2, 8, 8, 3], [0, 1]), training=training)
    assert outputs.dtype == tf.as_dtype(policy.removeprefix("mixed_"))
    assert layer.kernel.dtype == layer.gamma.dtype == "float32"


def test_serializes():
    layer = ConvNorm(8, 3, 2, 4, "symmetric", momentum=0.8, epsilon=1e-3, zero_gamma=True, name="conv")
    copy = ConvNorm.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()


@pytest.mark.parametrize("arguments", [{"padding": "valid"}, {"groups": 3}])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=r"Expected .* Received"):
        ConvNorm(8, 3, **arguments)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "kernel_size,strides,shape", [(3, 1, (4, 9, 8)), (3, 2, (4, 9, 8)), (5, 2, (4, 8, 8)), (5, 1, (64, 1, 1))]
)
def test_depthwise_equals_convolution_then_normalisation(kernel_size, strides, shape, training):
    layer = randomised(DepthwiseConvNorm(kernel_size, strides), 5)
    conv = keras.layers.DepthwiseConv2D(kernel_size, strides, "same", use_bias=False)
    norm = keras.layers.BatchNormalization(momentum=layer.momentum, epsilon=layer.epsilon)
    conv.build((None, None, None, 5))
    norm.build((None, None, None, 5))
    conv.set_weights([layer.kernel.numpy()])
    norm.set_weights([v.numpy() for v in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)])
    images = tf.constant(np.random.default_rng(1).normal(size=[*shape, 5]), tf.float32)
    gradients = []
    for function in (lambda x: layer(x, training=training), lambda x: norm(conv(x), training=training)):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = function(images)
            loss = tf.reduce_sum(tf.sin(outputs))
        gradients.append((outputs, tape.gradient(loss, images)))
    assert gradients[0][0].shape == layer.compute_output_shape(images.shape)
    for mine, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4)


def test_depthwise_config_round_trip():
    layer = DepthwiseConvNorm(5, 2, epsilon=0.01, name="d")
    twin = DepthwiseConvNorm.from_config(layer.get_config())
    assert (twin.kernel_size, twin.strides, twin.epsilon, twin.name) == (5, 2, 0.01, "d")


NOISE = {Dropout: (200, 4, 4, 3), StochasticDepth: (200, 1, 1, 1)}  # what is drawn for [200, 4, 4, 3]


@pytest.mark.parametrize("kind", NOISE)
def test_noise_drops_by_rate_and_keeps_the_mean(kind):
    images = tf.ones([200, 4, 4, 3])
    with drawing_from(tf.constant([3, 4])):
        outputs = kind(0.25, name="a")(images, training=True).numpy()
    assert set(np.unique(outputs)) == {0.0, np.float32(1 / 0.75)}
    parts = outputs[tuple(slice(n) for n in NOISE[kind])]
    np.testing.assert_array_equal(np.broadcast_to(parts, outputs.shape), outputs)  # whole examples, or single values
    assert abs(outputs.mean() - 1) < 4 * np.sqrt(0.25 / 0.75 / parts.size)


@pytest.mark.parametrize("kind", NOISE)
def test_noise_is_a_function_of_seed_and_name(kind):
    images = tf.ones([200, 4, 4, 3])

    def draw(seed, name):
        layer = kind(0.5, name=name)
        with drawing_from(tf.constant(seed)):
            eager = layer(images, training=True)
            graph = tf.function(lambda x: layer(x, training=True))(images)
        np.testing.assert_array_equal(eager, graph)
        return eager.numpy()

    np.testing.assert_array_equal(draw([1, 2], "a"), draw([1, 2], "a"))
    assert (draw([1, 2], "a") != draw([1, 3], "a")).any() and (draw([1, 2], "a") != draw([1, 2], "b")).any()


@pytest.mark.parametrize("kind", NOISE)
def test_noise_does_nothing_outside_training_and_has_no_state(kind):
    layer = kind(0.5)
    images = tf.ones([2, 4, 4, 3])
    np.testing.assert_array_equal(layer(images, training=False), images)
    np.testing.assert_array_equal(kind(0.0)(images, training=True), images)
    assert layer.variables == [] and layer.get_config()["rate"] == 0.5
    assert (layer(tf.ones([99, 2, 2, 3]), training=True) != 1).numpy().any()  # without a seed: TensorFlow's generator
    with pytest.raises(ValueError, match="rate=1"):
        kind(1)
