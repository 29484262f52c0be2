"""How the rows of an experiment come apart in training: what the validations of their runs found, epoch by epoch."""

import csv
import math
import pathlib
import sys
from typing import Any

from sat_tf.grid import pairs

HISTORY = "history.csv"  # of a run: a line a validation
COLUMNS = {"train_loss": ("train/loss", 1), "held_out": ("validation/robust_accuracy", 100)}  # with their factors
LEAST = 3  # validations that make a course
FEW = "too few pairs"  # to have an interval


def of(folders: dict[tuple[str, int], pathlib.Path], baseline: str) -> dict[str, dict[str, Any]]:
    """Return the course of every row whose runs were validated several times.

    Args:
      folders: `{(row, seed): folder of a run}`.
      baseline: the row that differences are taken to.

    Returns:
      `{row: {"seeds", "points", "parted"}}`. A point is a dict of `epoch` and, as `pairs.summary` has them,
      `train_loss` (mean since the validation before) and `held_out` (robust accuracy in % on images held out of
      training), over the seeds that were validated then. `parted`: of each quantity the epoch from which on every
      interval of the difference to the baseline excludes 0, None where there is none, or `FEW`; None for the baseline.
    """
    runs = {}
    for (row, seed), folder in folders.items():
        if len(found := _read(folder)) >= LEAST:
            runs.setdefault(row, {})[seed] = found
    base = runs.get(baseline, {})
    courses = {}
    for row, by_seed in runs.items():
        epochs = sorted(set.union(*map(set, by_seed.values())))
        points = [{"epoch": epoch, **pairs.summary(_at(epoch, by_seed), _at(epoch, base))} for epoch in epochs]
        parted = {name: _parted(points, name) for name in COLUMNS}
        courses[row] = {"seeds": sorted(by_seed), "points": points, "parted": None if row == baseline else parted}
    return courses


def _read(folder):
    """Return `{epoch: {quantity: number}}` of a run."""
    file = folder / HISTORY
    if not file.exists():
        return {}
    try:
        with open(file, encoding="utf-8", newline="") as lines:
            return {float(line["epoch"]): _numbers(line) for line in csv.DictReader(lines)}
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        print(f"Left out of the courses: {file} is damaged: {str(error)[:80]}.", file=sys.stderr)
        return {}


def _numbers(line):
    """Return `{quantity: number}` of a line."""
    found = {name: factor * float(line[column]) for name, (column, factor) in COLUMNS.items() if line.get(column)}
    if not all(map(math.isfinite, found.values())):
        raise ValueError("a number that is none")
    return found


def _at(epoch, by_seed):
    return {seed: run[epoch] for seed, run in by_seed.items() if epoch in run}


def _parted(points, name):
    """Return the epoch from which on every interval excludes 0, on the same side."""
    since, side = None, 0
    if not any((point.get(name) or {}).get("interval") is not None for point in points):
        return FEW
    for point in points:
        found = point.get(name)
        apart = bool(found and found["interval"] is not None and abs(found["difference"]) > found["interval"])
        sign = (1 if found["difference"] > 0 else -1) if apart else 0
        if sign != side:
            since, side = point["epoch"] if sign else None, sign
    return since
