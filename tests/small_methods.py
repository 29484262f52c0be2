"""Every method as tests want it: few steps, few replays, a training of a known length."""

import inspect

import keras
import tensorflow as tf

from sat_tf import attacks, methods, train

SMALL = {"free": {"replays": 2}}
LENGTH = methods.Length(epochs=4, epoch_steps=2)


def attack_of(steps=2, step_size=8 / 255, **changes):
    return attacks.PGD(epsilon=8 / 255, step_size=step_size, steps=steps, **changes)


def make(name, attack=None, length=LENGTH, **settings):
    """Return the method of a row, with an attack of two steps, and a length where it takes one."""
    row = methods.METHODS[name]
    takes = inspect.signature(getattr(row, "make", row)).parameters
    timed = {"length": length} if "length" in takes and length else {}
    return row(attack or attack_of(), **timed, **{**SMALL.get(name, {}), **settings})


def state_of(method, model, optimizer, *, batch_size=8, shape=(16, 16, 3), images=64, **more):
    """Return the state of a training by a method; call it in the strategy's scope."""
    memory = train.make_memory(method, batch_size=batch_size, image_shape=shape, images=images)
    return train.TrainState(model=model, optimizer=optimizer, updates=method.updates, memory=memory, **more)


def linear(classes=4, size=4, seed=0):
    """Return a linear model of small images."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((size, size, 3)), keras.layers.Flatten(), keras.layers.Dense(classes)])


def network():
    """Return a small network with batch normalisation."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((8, 8, 3)),
        keras.layers.Conv2D(4, 3, strides=2),
        keras.layers.BatchNormalization(),
        keras.layers.Activation("swish"),
        keras.layers.Flatten(),
        keras.layers.Dense(4),
    ]
    return keras.Sequential(layers)


def small_batch(count=8, size=4, classes=4, seed=0):
    """Return images in [0, 1] and labels."""
    keys = tf.constant([seed, 1]), tf.constant([seed, 2])
    images = tf.random.stateless_uniform([count, size, size, 3], keys[0], 0.2, 0.8)
    return images, tf.random.stateless_uniform([count], keys[1], 0, classes, tf.int32)


def loop_of(method, model, *, batch_size=8, size=4, rate=0.1, momentum=0.0, **more):
    """Return a training loop of a small model by plain gradient descent."""
    optimizer = keras.optimizers.SGD(rate, momentum=momentum)
    optimizer.build(model.trainable_variables)
    state = state_of(method, model, optimizer, batch_size=batch_size, shape=(size, size, 3))
    strategy = tf.distribute.get_strategy()
    return train.Loop(state=state, method=method, strategy=strategy, batch_size=batch_size, **more)
