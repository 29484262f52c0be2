"""Schedules at steps worked out by hand, in Python and in a graph."""

import numpy as np
import pytest
import tensorflow as tf

from sat_tf import schedules
from sat_tf.hparams.recipe import OPEN_ENDED


def values(schedule, at):
    traced = tf.function(schedule)
    eager = [float(schedule(step)) for step in at]
    np.testing.assert_allclose([float(traced(tf.constant(step))) for step in at], eager, rtol=1e-6)
    return eager


def test_steps_divides_by_ten_at_each_boundary():
    schedule = schedules.steps(peak=0.1, total_steps=100, decay_steps=[30, 60, 90])
    np.testing.assert_allclose(
        values(schedule, [0, 29, 30, 59, 60, 89, 90, 99]), [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-5
    )


def test_steps_with_another_factor():
    np.testing.assert_allclose(values(schedules.steps(peak=1.0, decay_steps=[2], decay_rate=0.5), [1, 2]), [1, 0.5])


def test_exponential_falls_in_stairs():
    schedule = schedules.exponential(peak=0.016, decay_steps=[24], decay_rate=0.97)
    wanted = [0.016, 0.016, 0.016 * 0.97, 0.016 * 0.97**10]
    np.testing.assert_allclose(values(schedule, [0, 23, 24, 240]), wanted, rtol=1e-5)


def test_cosine_ends_at_zero():
    schedule = schedules.cosine(peak=2.0, total_steps=100)
    np.testing.assert_allclose(values(schedule, [0, 50, 100, 120]), [2, 1, 0, 0], atol=1e-6)


def test_cyclic_is_a_triangle():
    half = schedules.cyclic(peak=2.0, total_steps=100)
    np.testing.assert_allclose(values(half, [0, 24, 49, 50, 75, 100, 120]), [0.04, 1, 2, 2, 1, 0, 0], atol=1e-6)
    early = schedules.cyclic(peak=1.0, total_steps=100, decay_steps=[20])
    np.testing.assert_allclose(values(early, [9, 19, 20, 60, 99]), [0.5, 1, 1, 0.5, 1 / 80], rtol=1e-5)


def test_constant():
    np.testing.assert_allclose(values(schedules.constant(peak=0.3), [0, 10**6]), [0.3, 0.3])


def test_warm_up_rises_in_a_line():
    schedule = schedules.warm_up(schedules.constant(peak=1.0), 4)
    np.testing.assert_allclose(values(schedule, [0, 1, 3, 4, 50]), [0.25, 0.5, 1, 1, 1])
    assert float(schedules.warm_up(schedules.constant(peak=1.0), 0)(0)) == 1.0


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_every_schedule_is_finite_and_never_above_its_peak(name):
    schedule = schedules.SCHEDULES[name](peak=0.7, total_steps=50, decay_steps=[20])
    assert all(0 <= value <= 0.7 + 1e-6 for value in values(schedule, range(0, 60, 7)))


def test_what_goes_on_with_more_epochs_does_not_look_at_their_number():
    assert set(OPEN_ENDED) <= set(schedules.SCHEDULES)
    for name in OPEN_ENDED:
        one, two = (
            schedules.SCHEDULES[name](peak=0.1, total_steps=total, decay_steps=[30], decay_rate=0.5)
            for total in (50, 100)
        )
        assert [float(one(step)) for step in range(0, 50, 7)] == [float(two(step)) for step in range(0, 50, 7)]
