"""Schedules: step -> value. Each is traceable; a Python or tensor step gives a float32 scalar."""

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

Schedule = Callable[[int | tf.Tensor], tf.Tensor]


def constant(
    *, peak: float, total_steps: int | None = None, decay_steps: Sequence[float] = (), decay_rate: float = 0.1
) -> Schedule:
    """Return `step -> peak`."""
    return lambda step: tf.constant(peak, tf.float32)


def steps(
    *, peak: float, total_steps: int | None = None, decay_steps: Sequence[float] = (), decay_rate: float = 0.1
) -> Schedule:
    """Return `step -> peak decay_rate^k`, k the number of `decay_steps` reached (He et al. 2015, Section 3.4)."""

    def value(step):
        reached = sum(tf.cast(step >= boundary, tf.float32) for boundary in decay_steps)
        return peak * tf.pow(decay_rate, tf.cast(reached, tf.float32))

    return value


def exponential(
    *, peak: float, decay_steps: Sequence[float], total_steps: int | None = None, decay_rate: float = 0.97
) -> Schedule:
    """Return `step -> peak decay_rate^floor(step / decay_steps[0])` (Tan & Le 2019: 0.97 every 2.4 epochs)."""

    def value(step):
        return peak * tf.pow(decay_rate, tf.floor(tf.cast(step, tf.float32) / decay_steps[0]))

    return value


def cosine(*, peak: float, total_steps: int, decay_steps: Sequence[float] = (), decay_rate: float = 0.1) -> Schedule:
    """Return `step -> peak (1 + cos(pi step / total_steps)) / 2`, 0 at the end (Loshchilov & Hutter 2017)."""

    def value(step):
        done = tf.minimum(tf.cast(step, tf.float32) / total_steps, 1.0)
        return 0.5 * peak * (1.0 + tf.cos(math.pi * done))

    return value


def cyclic(*, peak: float, total_steps: int, decay_steps: Sequence[float] = (), decay_rate: float = 0.1) -> Schedule:
    """Return a rate that rises in a line to `peak` at `decay_steps[0]`, by default half-way, and falls in one to 0.

    One cycle of Smith 2017, "Cyclical Learning Rates for Training Neural Networks", Section 3.1, as fast adversarial
    training uses it (Wong et al. 2020, Section 4.3); the first step has the rate of one step's rise, not 0.
    """
    top = decay_steps[0] if decay_steps else total_steps / 2

    def value(step):
        step = tf.cast(step, tf.float32)
        rise, fall = (step + 1.0) / top, (total_steps - step) / max(total_steps - top, 1.0)
        return peak * tf.clip_by_value(tf.minimum(rise, fall), 0.0, 1.0)

    return value


SCHEDULES = {"steps": steps, "exponential": exponential, "cosine": cosine, "cyclic": cyclic, "constant": constant}


def warm_up(schedule: Schedule, warmup_steps: int) -> Schedule:
    """Return the schedule with a linear start: its value times (step + 1) / warmup_steps until that reaches 1."""
    if not warmup_steps:
        return schedule
    return lambda step: schedule(step) * tf.minimum((tf.cast(step, tf.float32) + 1.0) / warmup_steps, 1.0)


ROUNDING = 1e-6  # of a share computed in float32: what is so near the end is there


def ramp(
    *, first: float, last: float, begin: float, until: float, epoch_steps: int, every: float = 1.0
) -> Callable[[int | tf.Tensor], tf.Tensor]:
    """Return `step -> first + (last - first) min(max((e - begin + every) / (until - begin), 0), 1)`, e the epochs done.

    Args:
      first, last: values before and after.
      begin, until: epochs; the first rise is in epoch `begin`, the last ends with epoch `until`.
      epoch_steps: steps of an epoch.
      every: epochs between two rises; e is a multiple of it.

    Source: the code of Sitawarin et al. 2021, `linear_gap`: begin = 30, until = 70, last = 0.4 of 100 epochs.
    """
    interval = max(1, round(epoch_steps * every))

    def value(step):
        done = tf.cast(tf.cast(step, tf.int32) // interval, tf.float32) * (interval / epoch_steps)
        share = tf.clip_by_value((done - begin + interval / epoch_steps) / (until - begin), 0.0, 1.0)
        return tf.where(share >= 1.0 - ROUNDING, tf.constant(last, tf.float32), first + (last - first) * share)

    return value


def stairs(
    *, first: float, last: float, epochs: Sequence[float], epoch_steps: int
) -> Callable[[int | tf.Tensor], tf.Tensor]:
    """Return `step -> first + (last - first) k / n`, k of the n `epochs` reached.

    Source: the code of Sitawarin et al. 2021, `step_gap`: epochs = (30, 45, 60) of 70.
    """
    boundaries = [round(epoch * epoch_steps) for epoch in epochs]

    def value(step):
        reached = sum(tf.cast(tf.cast(step, tf.int32) >= boundary, tf.float32) for boundary in boundaries)
        share = reached / len(boundaries)
        return tf.where(share >= 1.0, tf.constant(last, tf.float32), first + (last - first) * share)

    return value
