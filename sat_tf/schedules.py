"""Schedules: step -> value. Each is traceable; a Python or tensor step gives a float32 scalar."""

import math

import tensorflow as tf


def constant(*, peak, total_steps=None, decay_steps=()):
    """Return `step -> peak`."""
    return lambda step: tf.constant(peak, tf.float32)


def steps(*, peak, total_steps=None, decay_steps=()):
    """Return `step -> peak / 10^k`, k the number of `decay_steps` that are reached (He et al. 2015, Section 3.4)."""

    def value(step):
        reached = sum(tf.cast(step >= boundary, tf.float32) for boundary in decay_steps)
        return peak * tf.pow(0.1, tf.cast(reached, tf.float32))

    return value


def cosine(*, peak, total_steps, decay_steps=()):
    """Return `step -> peak (1 + cos(pi step / total_steps)) / 2`, 0 at the end (Loshchilov & Hutter 2017)."""

    def value(step):
        done = tf.minimum(tf.cast(step, tf.float32) / total_steps, 1.0)
        return 0.5 * peak * (1.0 + tf.cos(math.pi * done))

    return value


SCHEDULES = {"steps": steps, "cosine": cosine, "constant": constant}


def warm_up(schedule, warmup_steps):
    """Return the schedule with a linear start: its value times (step + 1) / warmup_steps until that reaches 1."""
    if not warmup_steps:
        return schedule
    return lambda step: schedule(step) * tf.minimum((tf.cast(step, tf.float32) + 1.0) / warmup_steps, 1.0)
