"""Patience, the best validation, catastrophic overfitting, the last loss."""

import numpy as np
import pytest

from sat_tf import stopping


def rows(*accuracies, **more):
    """Return a history whose probes had these robust accuracies."""
    return [
        {"step": 10 * (i + 1), "validation/robust_accuracy": accuracy, "validation/clean_accuracy": 0.5, **more}
        for i, accuracy in enumerate(accuracies)
    ]


@pytest.mark.parametrize(
    "accuracies,patience,stops",
    [
        ((0.1, 0.2, 0.3), 1, False),
        ((0.1, 0.3, 0.2), 1, True),
        ((0.1, 0.3, 0.2), 2, False),
        ((0.3, 0.2, 0.3), 2, True),
        ((0.3, 0.2, 0.1, 0.0), None, False),
        ((0.3, 0.2, 0.4, 0.4), 2, False),
    ],
)
def test_patience(accuracies, patience, stops):
    reason = stopping.reason_to_stop(rows(*accuracies), "robust", patience=patience)
    assert bool(reason) == stops
    assert not reason or f"since step {10 * (1 + np.argmax(accuracies))}" in reason


def scored(*pairs):
    """Return a history whose validations had these (clean, robust) accuracies."""
    return [
        {"step": 10 * (i + 1), "validation/clean_accuracy": clean, "validation/robust_accuracy": robust}
        for i, (clean, robust) in enumerate(pairs)
    ]


def test_the_standard_error_by_pencil():
    assert stopping.standard_error(0.5, 98) == pytest.approx((0.25 / 98) ** 0.5)  # (49 + 1) / 100 is a half
    assert stopping.standard_error(13 / 90, 90) == pytest.approx((14 / 92 * 78 / 92 / 90) ** 0.5)
    assert stopping.standard_error(1.0, 8) == pytest.approx((0.09 / 8) ** 0.5)
    assert stopping.standard_error(0.0, 8) == pytest.approx(stopping.standard_error(1.0, 8))


def test_two_of_ninety_images_do_not_choose():
    """Robust 13 against 11 of 90 is less than a standard error, 3.4 images; clean 19 against 36 is more than four."""
    history = scored((19 / 90, 13 / 90), (30 / 90, 9 / 90), (36 / 90, 11 / 90))
    assert stopping.best_of(history, "robust", 90) == {"step": 30, "score": [11 / 90, 36 / 90]}
    assert stopping.best_of(history[:2], "robust", 90)["step"] == 10  # 9 of 90 is below 13 - 3.4
    assert stopping.best_of(history, "robust", 9000)["step"] == 10  # where 1300 against 1100 are told apart


@pytest.mark.parametrize(
    "pairs,count,best",
    [
        ([(0.5, 0.30), (0.5, 0.30)], 1000, 20),  # equal: the later
        ([(0.5, 0.30), (0.5, 0.29)], 1000, 20),  # a standard error is 0.0145
        ([(0.5, 0.30), (0.5, 0.28)], 1000, 10),
        ([(0.5, 0.30), (0.5, 0.28)], 100, 20),  # ... and 0.046 of 100 images
        ([(0.5, 0.30), (0.47, 0.30)], 1000, 10),  # clean 0.0158 below counts where robust does not
        ([(0.5, 0.30), (0.40, 0.33)], 1000, 20),  # but where robust does, clean does not count
        ([(0.5, 0.300), (0.5, 0.295), (0.5, 0.290), (0.5, 0.285)], 1000, 30),  # measured from the highest: no staircase
        ([(0.5, 0.40), (0.5, 0.20), (0.5, 0.10)], 1000, 10),
        ([(0.1, 0.10), (0.3, 0.20), (0.5, 0.40), (0.6, 0.50)], 100, 40),
    ],
)
def test_the_best_is_the_later_of_what_the_noise_does_not_tell_apart(pairs, count, best):
    assert stopping.best_of(scored(*pairs), "robust", count)["step"] == best


def test_clean_accuracy_counts_first_where_training_sees_no_attack():
    history = scored((0.80, 0.0), (0.90, 0.0), (0.895, 0.2), (0.70, 0.5))
    assert stopping.best_of(history, "clean", 1000) == {"step": 30, "score": [0.895, 0.2]}
    assert stopping.best_of([], "robust", 10) is None


def test_the_highest_and_the_last_stand_beside_the_best():
    history = scored((0.2, 0.30), (0.5, 0.29), (0.5, 0.10))
    best = stopping.best_of(history, "robust", 100)
    rows = stopping.beside(history, best, "robust")
    assert [(row["checkpoint"], row["step"]) for row in rows] == [("best", 20), ("last", 30), ("highest", 10)]
    assert rows[0]["clean_accuracy"] == 0.5 and rows[2]["robust_accuracy"] == 0.30
    rows = stopping.beside(history[:1], {"step": 10, "score": [0.3, 0.2]}, "robust")
    assert [row["checkpoint"] for row in rows] == ["best", "last"]


def test_each_best_is_the_one_before_or_the_last_row():
    """Only these two are on the disk; and row after row gives what the whole history does."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        history = scored(*rng.uniform(0.2, 0.4, [12, 2]))
        best = None
        for number in range(1, 13):
            before, best = best, stopping.better(history[:number], best, "robust", 100)
            assert best == before or best["step"] == 10 * number
            assert best == stopping.best_of(history[:number], "robust", 100)
            highest = max(row["validation/robust_accuracy"] for row in history[:number])
            assert best["score"][0] >= highest - stopping.standard_error(highest, 100)


def test_what_overfits_catastrophically_is_never_the_best():
    history = scored((0.3, 0.05), (0.8, 0.02))  # within the noise of 20 images
    assert stopping.best_of(history, "robust", 20)["step"] == 20
    collapsed = {stopping.ONE_STEP: 0.7, stopping.MULTI_STEP: 0.02}
    assert stopping.best_of([history[0], history[1] | collapsed], "robust", 20)["step"] == 10
    assert stopping.best_of([history[0] | collapsed, history[1]], "robust", 20)["step"] == 20
    assert stopping.best_of([row | collapsed for row in history], "robust", 20)["step"] == 20


@pytest.mark.parametrize(
    "one,many,caught",
    [
        (0.80, 0.0, True),
        (0.45, 0.2, True),
        (0.825, 0.807, False),
        (0.42, 0.36, False),
        (0.15, 0.0, False),
        (0.6, 0.35, False),
        (0.0, 0.5, False),
    ],
)
def test_catastrophic_overfitting_is_told_from_a_gap(one, many, caught):
    row = rows(many)[0] | {stopping.ONE_STEP: one, stopping.MULTI_STEP: many}
    assert stopping.overfitted(row) == caught
    assert bool(stopping.reason_to_stop([row], "robust")) == caught
    assert stopping.reason_to_stop([row], "robust", on_overfitting=False) is None


def test_at_the_end_only_overfitting_is_worth_saying():
    row = rows(0.0)[0] | {stopping.ONE_STEP: 0.8, stopping.MULTI_STEP: 0.0}
    assert "Catastrophic" in stopping.reason_to_stop([row], "robust", at_end=True)
    assert stopping.reason_to_stop(rows(0.3, 0.2), "robust", patience=1, at_end=True) is None
