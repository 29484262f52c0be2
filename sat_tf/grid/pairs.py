"""Differences of pairs of runs with the same seed, their intervals, and what these say of a claim."""

import math
from collections.abc import Sequence
from typing import Any

SHOWS, SHOWS_NOT, UNDECIDED, NOT_RUN = "reproduced", "not reproduced", "undecided", "not run"  # verdicts

T95 = (  # 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
    2.120,
    2.110,
    2.101,
    2.093,
    2.086,
    2.080,
    2.074,
    2.069,
    2.064,
    2.060,
    2.056,
    2.052,
    2.048,
    2.045,
    2.042,
)


def summary(runs: dict[int, dict[str, float]], baseline: dict[int, dict[str, float]]) -> dict[str, dict]:
    """Return of each quantity its mean, standard deviation, and paired difference to the baseline.

    Args:
      runs, baseline: `{seed: {quantity: number}}`; a pair are two runs of one seed.

    Returns:
      `{quantity: {"mean", "std", "difference", "interval", "pairs"}}`: the mean difference plus or minus `interval` is
      its 95 % confidence interval by Student's t. What needs more runs than there are is None.
    """
    names = [name for name in next(iter(runs.values()), {}) if all(name in run for run in runs.values())]
    return {name: _summarise(name, runs, baseline) for name in names}


def _summarise(name, runs, baseline):
    mean, std = moments([run[name] for run in runs.values()])
    pairs = [runs[seed][name] - baseline[seed][name] for seed in sorted(runs) if name in baseline.get(seed, ())]
    difference, spread = moments(pairs)
    interval = None if spread is None else student(len(pairs) - 1) * spread / math.sqrt(len(pairs))
    return {"mean": mean, "std": std, "difference": difference, "interval": interval, "pairs": len(pairs)}


def verdict(found: dict[str, Any] | None, *, above: bool = True, bound: float = 0.0) -> str:
    """Return what a difference of `summary` says of a claim: shows, does not show, undecided, or not run.

    Args:
      found: of one quantity; None, or of no pair, where it was not run. One pair alone decides nothing.
      above: whether the claim is that the difference lies above `bound`; else below.
      bound: in the quantity's unit.
    """
    if found is None or found["difference"] is None:
        return NOT_RUN
    if found["interval"] is None:
        return UNDECIDED
    sign = 1 if above else -1
    low, high = (sign * (found["difference"] - bound) + side * found["interval"] for side in (-1, 1))
    return SHOWS if low > 0 else SHOWS_NOT if high < 0 else UNDECIDED


def student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t."""
    return T95[freedom - 1] if freedom <= len(T95) else 1.96 + 2.4 / freedom


def moments(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return mean and standard deviation (of a sample) of some numbers, None where there are too few."""
    if not values:
        return None, None
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
