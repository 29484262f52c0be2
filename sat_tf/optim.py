"""The optimizer, and what decays."""

import keras
import tensorflow as tf


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of ours where Keras wants one of its own."""

    def __init__(self, schedule):
        self.schedule = schedule

    def __call__(self, step):
        return self.schedule(step)


def sgd(schedule, *, momentum, nesterov=False):
    """Stochastic gradient descent with momentum.

    Differs from source: Keras' velocity holds the learning rate (v = m v - rate g), the release's does not; the two
    part for some 1 / (1 - momentum) steps after a drop of the rate.
    """
    return keras.optimizers.SGD(Schedule(schedule), momentum=momentum, nesterov=nesterov, name="sgd")


OPTIMIZERS = {"sgd": sgd}


def decays(variable):
    """Say whether weight decay acts on a variable: kernels do, biases, normalisation and activations do not."""
    return variable.name == "kernel"


def add_weight_decay(gradients, variables, weight_decay):
    """Add the gradient of weight_decay / 2 * |w|^2 to that of each kernel (L2 in the loss, as the release has it)."""
    if not weight_decay:
        return gradients
    return [
        gradient + weight_decay * tf.cast(variable, gradient.dtype) if decays(variable) else gradient
        for gradient, variable in zip(gradients, variables, strict=True)
    ]
