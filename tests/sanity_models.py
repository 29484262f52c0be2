"""Small honest models for the sanity checks to look at, trained in seconds on the embedded Fashion-MNIST."""

import functools

import keras
import numpy as np
import tensorflow as tf

from sat_tf import attacks, data, losses
from sat_tf.data import splits
from sat_tf.evaluate import Examples

EPSILON = 8 / 255
BATCH = 60  # one size of batches, so that every attack is traced once


@functools.cache
def embedded():
    """Return images uint8 and labels of the first images for training and of all for testing."""
    split = data.load("fashion_mnist_12k")
    parts = [splits.to_arrays(part) for part in (split.train, split.test)]
    return [(images[:4000], labels[:4000].astype(np.int32)) for images, labels in parts]


@functools.cache
def shrunk(side):
    """Return the embedded images, in [0, 1] and of some size."""
    parts = []
    for images, labels in embedded():
        step = images.shape[1] // side
        images = images.reshape(-1, side, step, side, step, 3).mean((2, 4)).round().astype(np.uint8)
        parts.append((images / np.float32(255), labels))
    return parts


def images_of(side=16, classes=10, coloured=False, test=300):
    """Return training images, labels, and test `Examples`: of some classes, at some size, grey or tinted by class."""
    parts = []
    for images, labels in shrunk(side):
        images, labels = images[labels < classes], labels[labels < classes]
        if coloured:
            tints = np.random.default_rng(5).uniform(0.2, 1.0, [10, 3]).astype(np.float32)
            images = images * tints[labels][:, None, None]
        parts.append((images, labels))
    (images, labels), (held, held_labels) = parts
    held, held_labels = held[:test], held_labels[:test]
    return images, labels, Examples(images=held, labels=held_labels, ids=np.arange(len(held)))


class Net:
    """Convolutions and a dense layer, whose weights are variables, so that one trace serves many models."""

    def __init__(self, side, classes, *, act=tf.nn.relu, widths=(16, 32), hidden=64):
        self.act, self.scale, self.shapes, last = act, tf.Variable(1.0), [], 3
        for width in widths:
            self.shapes.append([3, 3, last, width])
            last, side = width, side // 2
        last *= side * side
        for width in ((hidden,) if hidden else ()) + (classes,):
            self.shapes.append([last, width])
            last = width
        self.weights = [tf.Variable(tf.zeros(shape)) for shape in self.shapes]
        self.biases = [tf.Variable(tf.zeros(shape[-1:])) for shape in self.shapes]

    def __call__(self, images):
        x = 2 * images - 1
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if len(weight.shape) == 4:
                x = tf.nn.conv2d(x, weight, 2, "SAME") + bias
            else:
                x = tf.reshape(x, [-1, weight.shape[0]]) @ weight + bias
            if number + 1 < len(self.weights):
                x = self.act(x)
        return self.scale * x

    def train(self, images, labels, *, seed=0, epsilon=0.0, steps=150):
        """Train anew by Adam; with a radius, on images attacked by one step from a random start."""
        rng = np.random.default_rng(seed)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            weight.assign(rng.normal(0, np.sqrt(2 / np.prod(weight.shape[:-1])), weight.shape).astype(np.float32))
            bias.assign(tf.zeros_like(bias))
        variables = self.weights + self.biases
        moments = [[tf.Variable(tf.zeros_like(v)) for v in variables] for _ in range(2)]
        attack = attacks.PGD(epsilon=epsilon, step_size=1.25 * epsilon, steps=1) if epsilon else None

        @tf.function
        def step(images, labels, number):
            if attack:
                images = attack(lambda x: losses.cross_entropy(self(x), labels), images, tf.cast(number, tf.int32))
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(losses.cross_entropy(self(images), labels))
            for v, g, m, s in zip(variables, tape.gradient(loss, variables), *moments, strict=True):
                m.assign(0.9 * m + 0.1 * g)
                s.assign(0.99 * s + 0.01 * g**2)
                v.assign_sub(0.003 * (m / (1 - 0.9**number)) / (tf.sqrt(s / (1 - 0.99**number)) + 1e-8))

        for number in range(1, steps + 1):
            part = rng.integers(0, len(labels), 100)
            step(tf.constant(images[part]), tf.constant(labels[part]), tf.constant(float(number)))
        return [v.numpy() for v in variables]

    def load(self, values):
        """Take trained weights."""
        for v, value in zip(self.weights + self.biases, values, strict=True):
            v.assign(value)


def keras_net(layers, side=16, classes=10, **scale):
    """Return a Keras model of some layers between images in [0, 1] and logits."""
    images = keras.Input([side, side, 3])
    x = keras.layers.Rescaling(scale.get("scale", 2.0), scale.get("offset", -1.0))(images)
    for layer in layers:
        x = layer(x)
    return keras.Model(images, keras.layers.Dense(classes)(keras.layers.Flatten()(x)))


def conv(filters, act="relu", strides=2, **arguments):
    return keras.layers.Conv2D(filters, 3, strides, padding="same", activation=act, **arguments)


def residual(filters, norm, act="relu"):
    """Return a block with a shortcut, as a function of its inputs."""

    def block(x):
        y = norm()(conv(filters, None, 1)(x))
        return keras.layers.Add()([x, conv(filters, None, 1)(keras.layers.Activation(act)(y))])

    return block


def attention(width):
    """Return a transformer's block over the pixels left."""

    def block(x):
        tokens = keras.layers.Reshape([-1, width])(x)
        y = keras.layers.LayerNormalization()(tokens)
        tokens = keras.layers.Add()([tokens, keras.layers.MultiHeadAttention(2, width // 2)(y, y)])
        y = keras.layers.Dense(width, activation="gelu")(keras.layers.LayerNormalization()(tokens))
        return keras.layers.GlobalAveragePooling1D()(keras.layers.Add()([tokens, keras.layers.Dense(width)(y)]))

    return block


def moved_statistics(model):
    """Give the batch normalisations of a model statistics of their own."""
    rng = np.random.default_rng(0)
    for variable in model.non_trainable_variables:
        if "moving" in variable.path:
            variable.assign(rng.uniform(0.2, 1.0, variable.shape))
    return model


def half(policy, layers):
    keras.config.set_dtype_policy(policy)
    try:
        return keras_net(layers())
    finally:
        keras.config.set_dtype_policy("float32")


def maxout(x):
    return tf.maximum(x[..., ::2], x[..., 1::2])


L = keras.layers
HONEST = {  # networks of different make, with the gradient of what they compute
    "linear": lambda: keras_net([]),
    "wide": lambda: keras_net([L.Flatten(), L.Dense(2048, activation="relu")]),
    "deep, narrow": lambda: keras_net(
        [L.Flatten(), *(L.Dense(48, "relu", kernel_initializer="he_normal") for _ in range(16))]
    ),
    "tanh": lambda: keras_net([conv(16, "tanh"), conv(32, "tanh")]),
    "sigmoid": lambda: keras_net([conv(16, "sigmoid"), conv(32, "sigmoid")]),
    "swish": lambda: keras_net([conv(16, "swish"), conv(32, "swish")]),
    "elu": lambda: keras_net([conv(16, "elu"), conv(32, "elu")]),
    "leaky": lambda: keras_net([conv(16, "leaky_relu"), conv(32, "leaky_relu")]),
    "hard swish": lambda: keras_net([conv(16, "hard_swish"), conv(32, "hard_swish")]),
    "max-pooling": lambda: keras_net([conv(16, strides=1), L.MaxPooling2D(), conv(32, strides=1), L.MaxPooling2D()]),
    "max-pooling of bare images": lambda: keras_net([L.MaxPooling2D(3, 2), conv(16)], scale=1.0, offset=0.0),
    "average-pooling": lambda: keras_net([conv(16, "tanh", 1), L.AveragePooling2D(4)]),
    "maxout": lambda: keras_net([conv(32, None), L.Lambda(maxout), conv(32, None), L.Lambda(maxout)]),
    "relu6, depthwise": lambda: keras_net(
        [conv(16, "relu6"), L.DepthwiseConv2D(3, padding="same", activation="relu6"), conv(32, "relu6", 1)]
    ),
    "batch normalisation": lambda: moved_statistics(
        keras_net([conv(16, None), L.BatchNormalization(), L.ReLU(), conv(32, None), L.BatchNormalization(), L.ReLU()])
    ),
    "residual": lambda: moved_statistics(
        keras_net([conv(16), *(residual(16, L.BatchNormalization) for _ in range(6)), L.GlobalAveragePooling2D()])
    ),
    "group normalisation": lambda: keras_net(
        [conv(16), *(residual(16, lambda: L.GroupNormalization(4)) for _ in range(3))]
    ),
    "transformer": lambda: keras_net([L.Conv2D(16, 4, 4), attention(16)]),
    "recurrent": lambda: keras_net([L.Reshape([16, 48]), L.GRU(24)]),
    "dropout off": lambda: keras_net([conv(16), L.Dropout(0.5), L.Flatten(), L.Dense(64, "relu"), L.Dropout(0.5)]),
    "resized first": lambda: keras_net([L.Resizing(11, 11), conv(16), conv(32)]),
    "standardised images": lambda: keras_net([L.Lambda(tf.image.per_image_standardization), conv(16), conv(32)]),
    "half precision": lambda: half("mixed_float16", lambda: [conv(16), conv(32), residual(32, L.LayerNormalization)]),
    "bfloat16": lambda: half("mixed_bfloat16", lambda: [conv(16), conv(32)]),
    "huge logits": lambda: scaled(keras_net([conv(16), conv(32)]), 1e3),
    "tiny logits": lambda: scaled(keras_net([conv(16), conv(32)]), 1e-3),
    "clipped images": lambda: after(lambda x: tf.clip_by_value(x, 0, 1), plain()),
    "log-softmax": lambda: then(plain(), tf.nn.log_softmax),
}


def plain():
    """Return the honest network that the dishonest ones are made of."""
    return keras_net([conv(16), conv(32)])


def after(change, model):
    return lambda images: model(change(images), training=False)


def then(model, change):
    return lambda images: change(model(images, training=False))


def scaled(model, factor):
    return then(model, lambda logits: factor * logits)


def with_gradient(change):
    """Return the identity whose gradient is changed on its way back."""

    @tf.custom_gradient
    def identity(x):
        return tf.identity(x), change

    return identity


def straight_through(levels):
    return lambda x: x + tf.stop_gradient(tf.round(x * levels) / levels - x)


def sparse(gradient):
    flat = tf.reshape(gradient, [tf.shape(gradient)[0], -1])
    least = tf.math.top_k(tf.abs(flat), flat.shape[1] // 20).values[:, -1][:, None, None, None]
    return tf.where(tf.abs(gradient) >= least, gradient, 0.0)


def noise_of_size(gradient, draw=tf.random.normal):
    return draw(tf.shape(gradient)) * tf.reduce_mean(tf.abs(gradient), [1, 2, 3], keepdims=True)


def fixed_noise(gradient):
    return noise_of_size(gradient, lambda shape: tf.random.stateless_normal(shape, [1, 2]))


def detached(part):
    """Return a network with a second path beside it that has no gradient: `part` times as large."""

    def build():
        one, other = plain(), plain()
        return lambda x: one(x, training=False) + part * tf.stop_gradient(other(x, training=False))

    return build


def of_numpy(images):
    """Return images through NumPy, which leaves no gradient."""
    changed = tf.numpy_function(lambda x: np.sqrt(x + np.float32(0.1)), [images], tf.float32)
    return tf.ensure_shape(changed, images.shape)


DISHONEST = {  # networks whose gradient is not that of what they compute
    "quantised to 8 levels": lambda: after(lambda x: tf.round(x * 8) / 8, plain()),
    "quantised to 64 levels": lambda: after(lambda x: tf.round(x * 64) / 64, plain()),
    "straight through 8 levels": lambda: after(straight_through(8), plain()),
    "straight through 32 levels": lambda: after(straight_through(32), plain()),
    "straight through 255 levels": lambda: after(straight_through(255), plain()),
    "flipped": lambda: after(with_gradient(lambda g: -g), plain()),
    "sign of it": lambda: after(with_gradient(tf.sign), plain()),
    "sparse": lambda: after(with_gradient(sparse), plain()),
    "noise": lambda: after(with_gradient(noise_of_size), plain()),
    "noise beside it": lambda: after(with_gradient(lambda g: g + noise_of_size(g)), plain()),
    "always the same noise": lambda: after(with_gradient(fixed_noise), plain()),
    "of a smoothed image": lambda: after(with_gradient(lambda g: tf.nn.avg_pool2d(g, 5, 1, "SAME")), plain()),
    "another's, half": detached(0.7),
    "another's": detached(3.0),
    "rounded inside": lambda: keras_net(
        [conv(16), L.Lambda(lambda x: x + tf.stop_gradient(tf.round(x) - x)), conv(32)]
    ),
    "thresholds": lambda: keras_net([conv(16), L.Lambda(lambda x: tf.cast(x > 0.1, tf.float32) + 0.01 * x), conv(32)]),
    "through NumPy": lambda: after(of_numpy, plain()),
    "rolled": lambda: after(with_gradient(lambda g: tf.roll(g, 3, 1)), plain()),
    "half of the logits": lambda: then(plain(), lambda z: tf.concat([z[:, :5], tf.stop_gradient(z[:, 5:])], -1)),
}
