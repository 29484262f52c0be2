"""Small honest models for the sanity checks to look at, trained in seconds on the embedded Fashion-MNIST."""

import functools

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


def images_of(side=16, classes=10, coloured=False, test=300):
    """Return training images, labels, and test `Examples`: of some classes, at some size, grey or tinted by class."""
    parts = []
    for images, labels in embedded():
        images, labels = images[labels < classes], labels[labels < classes]
        step = images.shape[1] // side
        images = images.reshape(-1, side, step, side, step, 3).mean((2, 4)).round().astype(np.uint8)
        images = images / np.float32(255)
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
