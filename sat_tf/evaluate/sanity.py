"""Sanity checks of a robustness evaluation: may its number be believed? `docs/sanity_checks.md` explains every one.

An attack that fails, or was set up wrongly, makes a model look robust (Athalye et al. 2018). The checks look for the
traces that such failures leave (Carlini et al. 2019, "On evaluating adversarial robustness"; Pintor et al. 2022,
"Indicators of attack failure"). Those that pass prove nothing; a hard one that fails takes the number away.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from sat_tf import inputs
from sat_tf.evaluate import attack_checks, gradient_check, model_checks
from sat_tf.evaluate.attacker import Attacker
from sat_tf.evaluate.results import Examples, Result

HARD, SOFT = True, False
BEFORE = {
    "logits_not_probabilities": (HARD, model_checks.logits_not_probabilities),
    "logits_not_saturating": (HARD, model_checks.logits_not_saturating),
    "finite": (HARD, model_checks.finite),
    "same_input_same_output": (HARD, model_checks.same_input_same_output),
    "images_in_range": (HARD, model_checks.images_in_range),
    "zero_gradients": (HARD, model_checks.zero_gradients),
    "gradient_matches_function": (HARD, gradient_check.gradient_matches_function),
    "clean_accuracy_as_recorded": (HARD, model_checks.clean_accuracy_as_recorded),
    "input_scaling_and_channels": (HARD, model_checks.input_scaling_and_channels),
    "not_constant": (SOFT, model_checks.not_constant),
}
WITHOUT_FINITE_LOGITS = ("finite", "images_in_range")
AFTER = {
    "epsilon_zero_is_clean": (HARD, attack_checks.epsilon_zero_is_clean),
    "radius_respected": (HARD, attack_checks.radius_respected),
    "eight_bits": (SOFT, attack_checks.eight_bits_keep_it),
    "accuracy_falls_with_steps": (HARD, attack_checks.accuracy_falls_with_steps),
    "accuracy_falls_with_epsilon": (HARD, attack_checks.accuracy_falls_with_epsilon),
    "huge_epsilon_reaches_zero": (HARD, attack_checks.huge_epsilon_reaches_zero),
    "converged": (SOFT, attack_checks.converged),
    "black_box_not_stronger": (HARD, attack_checks.black_box_not_stronger),
    "noise_not_stronger": (HARD, attack_checks.noise_not_stronger),
    "transfer_not_stronger": (HARD, attack_checks.transfer_not_stronger),
}

PASSES = {  # forward passes an image of the sample, about; of the first, those of the radii that later ones use, too
    "epsilon_zero_is_clean": 180,
    "accuracy_falls_with_steps": 80,
    "huge_epsilon_reaches_zero": 20,
    "converged": 240,
    "black_box_not_stronger": 250,
    "noise_not_stronger": 50,
    "transfer_not_stronger": 50,
}
FEW_PASSES = 10  # of every other check


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was checked.

    Attributes:
      name: its heading in docs/sanity_checks.md.
      hard: whether the evaluation's number is worth nothing where it fails; else the number is an upper bound.
      passed: None where it could not be checked; `figure` says why.
      figure: what was measured, and the limit.
      numbers: the same for programs, as JSON takes them.
    """

    name: str
    hard: bool
    passed: bool | None
    figure: str
    numbers: dict


def examine(
    attacker: Attacker,
    examples: Examples,
    results: dict[str, Result] | None = None,
    *,
    recorded: float | None = None,
    recorded_images: int | None = None,
    sibling: Any = None,
    sample: int = 100,
) -> list[Check]:
    """Return every `Check` of a model, its images, and what attacks found of it: `before` and `after`."""
    examples = inputs.examples(examples).in_unit_range(attacker.value_range)
    if results is not None and not isinstance(results, dict):
        raise ValueError(f"Expected results {{name: Result}}. Received: results of {type(results).__name__}.")
    logits = attacker.read(examples.images)
    return before(
        attacker, examples, logits, recorded=recorded, recorded_images=recorded_images, sample=sample
    ) + after(attacker, examples, logits, results or {}, sibling=sibling, sample=sample)


def before(
    attacker: Attacker,
    examples: Examples,
    logits: np.ndarray,
    *,
    recorded: float | None = None,
    recorded_images: int | None = None,
    sample: int = 100,
) -> list[Check]:
    """Check a model and its images before any attack.

    Args:
      attacker: an `Attacker` of the model.
      examples: all that are to be attacked, as `Examples`.
      logits: of all images as they are, `[n, classes]`.
      recorded: the clean accuracy in [0, 1] that is known of this model on this data, or None.
      recorded_images: how many images that was measured on; None for many.
      sample: images, evenly spread, on which the costlier checks look.

    Returns:
      A list of `Check`.
    """
    _expect_fitting(examples, logits, sample)
    case = model_checks.Case(
        attacker=attacker,
        examples=examples,
        logits=logits,
        recorded=recorded,
        recorded_images=recorded_images,
        sample=sample,
    )
    finite = bool(np.isfinite(logits).all())
    unread = None, "the logits are not finite", {}
    return [
        _check(name, hard, check_fn(case) if finite or name in WITHOUT_FINITE_LOGITS else unread)
        for name, (hard, check_fn) in BEFORE.items()
    ]


def after(
    attacker: Attacker,
    examples: Examples,
    logits: np.ndarray,
    results: dict[str, Result],
    *,
    sibling: Any = None,
    sample: int = 100,
    progress: Callable[[float], None] | None = None,
) -> list[Check]:
    """Check what attacks found, by attacks of another kind on a sample.

    Args:
      attacker, examples, logits: as for `before`.
      results: `{name: Result}` of all attacks evaluated on these images. The checks attack with the radius of the
        first, and compare themselves with all of that radius.
      sibling: another model of the same task, as `Attacker` takes one, for attacks that transfer.
      sample: images, evenly spread, that are attacked.
      progress: is called with numbers that add up to 1.

    Returns:
      A list of `Check`; empty where there are no results.
    """
    _expect_fitting(examples, logits, sample)
    results = {name: result for name, result in results.items() if result.epsilon > 0}
    for name, result in results.items():
        if result.norm != attacker.norm or not np.array_equal(result.ids, examples.ids):
            raise ValueError(
                f"Expected results of the same {len(examples.ids)} images in {attacker.norm}. "
                f"Received: results[{name!r}] of {len(result.ids)} images in {result.norm}."
            )
    if not results:
        return []
    case, checks = attack_checks.Case(attacker, examples, logits, results, sibling, sample), []
    costs = passes_of(AFTER, sibling)
    for name, (hard, check_fn) in AFTER.items():
        checks.append(_check(name, hard, check_fn(case)))
        if progress:
            progress(costs[name] / sum(costs.values()))
    return checks


def passes_of(checks: Iterable[str], sibling: Any = None) -> dict[str, int]:
    """Return `{check: forward passes an image of the sample}`, about; `sibling`: as `after` takes it."""
    skipped = () if sibling is not None else ("transfer_not_stronger",)
    return {name: 0 if name in skipped else PASSES.get(name, FEW_PASSES) for name in checks}


def trusted(checks: Iterable[Check]) -> bool:
    """Say whether no hard check failed."""
    return not any(check.hard and check.passed is False for check in checks)


def _check(name, hard, found):
    passed, figure, numbers = found
    return Check(
        name=name, hard=hard, passed=None if passed is None else bool(passed), figure=figure, numbers=_plain(numbers)
    )


def _plain(value):
    """Return numbers as JSON takes them; it has none that are not finite."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    return float(value) if np.isfinite(value) else None


def _expect_fitting(examples, logits, sample):
    if len(logits) != len(examples.labels) or not len(logits):
        raise ValueError(
            f"Expected logits of every image, and one image or more. Received: {len(logits)} logits "
            f"for {len(examples.labels)} images."
        )
    if sample < 1:
        raise ValueError(f"Expected a sample of one image or more. Received: sample={sample}.")
    inputs.classes_of(examples.labels, len(logits), logits.shape[1])
