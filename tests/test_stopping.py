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


def test_the_best_is_the_earliest_of_equals_and_clean_accuracy_decides_a_tie():
    history = rows(0.1, 0.3, 0.3)
    assert stopping.best_of(history, "robust")["step"] == 20
    history[2]["validation/clean_accuracy"] = 0.6
    assert stopping.best_of(history, "robust")["step"] == 30
    assert stopping.best_of([], "robust") is None


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
