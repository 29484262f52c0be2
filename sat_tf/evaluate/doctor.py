"""Sanity checks of a robustness evaluation: may its number be believed? `docs/doctor.md` explains every one.

An attack that fails, or was set up wrongly, makes a model look robust (Athalye et al. 2018). The checks look for the
traces that such failures leave (Carlini et al. 2019, "On evaluating adversarial robustness"; Pintor et al. 2022,
"Indicators of attack failure"). Those that pass prove nothing; a hard one that fails takes the number away.
"""

import dataclasses

import numpy as np

from sat_tf.evaluate import attack_probes, model_probes

HARD, SOFT = True, False
BEFORE = {
    "logits_not_probabilities": (HARD, model_probes.logits_not_probabilities),
    "finite": (HARD, model_probes.finite),
    "same_input_same_output": (HARD, model_probes.same_input_same_output),
    "pictures_in_range": (HARD, model_probes.pictures_in_range),
    "zero_gradients": (HARD, model_probes.zero_gradients),
    "clean_accuracy_as_recorded": (HARD, model_probes.clean_accuracy_as_recorded),
    "input_scaling_and_channels": (HARD, model_probes.input_scaling_and_channels),
    "not_constant": (SOFT, model_probes.not_constant),
}
WITHOUT_FINITE_LOGITS = ("finite", "pictures_in_range")
AFTER = {
    "epsilon_zero_is_clean": (HARD, attack_probes.epsilon_zero_is_clean),
    "radius_respected": (HARD, attack_probes.radius_respected),
    "eight_bits": (SOFT, attack_probes.eight_bits_keep_it),
    "accuracy_falls_with_steps": (HARD, attack_probes.accuracy_falls_with_steps),
    "accuracy_falls_with_epsilon": (HARD, attack_probes.accuracy_falls_with_epsilon),
    "huge_epsilon_reaches_zero": (HARD, attack_probes.huge_epsilon_reaches_zero),
    "converged": (SOFT, attack_probes.converged),
    "black_box_not_stronger": (HARD, attack_probes.black_box_not_stronger),
    "noise_not_stronger": (HARD, attack_probes.noise_not_stronger),
    "transfer_not_stronger": (HARD, attack_probes.transfer_not_stronger),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was checked.

    Attributes:
      name: its heading in docs/doctor.md.
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


def examine(attacker, pictures, results=None, *, recorded=None, sibling=None, sample=100):
    """Return every `Check` of a model, its pictures, and what attacks found of it: `before` and `after`."""
    logits = attacker.logits(pictures.images)
    return (before(attacker, pictures, logits, recorded=recorded, sample=sample)
            + after(attacker, pictures, logits, results or {}, sibling=sibling, sample=sample))


def before(attacker, pictures, logits, *, recorded=None, sample=100):
    """Check a model and its pictures before any attack.

    Args:
      attacker: an `Attacker` of the model.
      pictures: all that are to be attacked, as `attacker.Pictures`.
      logits: of all pictures as they are, `[n, classes]`.
      recorded: the clean accuracy in [0, 1] that is known of this model on this data, or None.
      sample: pictures, evenly spread, on which the dearer checks look.

    Returns:
      A list of `Check`.
    """
    _expect_fitting(pictures, logits, sample)
    case = model_probes.Case(attacker=attacker, pictures=pictures, logits=logits, recorded=recorded, sample=sample)
    finite = bool(np.isfinite(logits).all())
    unread = None, "the logits are not finite", {}
    return [_check(name, hard, probe(case) if finite or name in WITHOUT_FINITE_LOGITS else unread)
            for name, (hard, probe) in BEFORE.items()]


def after(attacker, pictures, logits, results, *, sibling=None, sample=100, progress=None):
    """Check what attacks found, by attacks of another kind on a sample.

    Args:
      attacker, pictures, logits: as for `before`.
      results: `{name: Result}` of all attacks evaluated on these pictures. The probes attack with the radius of the
        first, and compare themselves with all of that radius.
      sibling: another model of the same task, as `Attacker` takes one, for attacks that transfer.
      sample: pictures, evenly spread, that are attacked.
      progress: is called with numbers that add up to 1.

    Returns:
      A list of `Check`; empty where there are no results.
    """
    _expect_fitting(pictures, logits, sample)
    results = {name: result for name, result in results.items() if result.epsilon > 0}
    for name, result in results.items():
        if result.norm != attacker.norm or not np.array_equal(result.ids, pictures.ids):
            raise ValueError(f"Expected results of the same {len(pictures.ids)} pictures in {attacker.norm}. "
                             f"Received: results[{name!r}] of {len(result.ids)} pictures in {result.norm}.")
    if not results:
        return []
    case, checks = attack_probes.Case(attacker, pictures, logits, results, sibling, sample), []
    for name, (hard, probe) in AFTER.items():
        checks.append(_check(name, hard, probe(case)))
        if progress:
            progress(1 / len(AFTER))
    return checks


def trusted(checks):
    """Say whether no hard check failed."""
    return not any(check.hard and check.passed is False for check in checks)


def _check(name, hard, found):
    passed, figure, numbers = found
    return Check(name=name, hard=hard, passed=None if passed is None else bool(passed), figure=figure,
                 numbers=_plain(numbers))


def _plain(value):
    """Return numbers as JSON takes them; it has none that are not finite."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    return float(value) if np.isfinite(value) else None


def _expect_fitting(pictures, logits, sample):
    if len(logits) != len(pictures.labels) or not len(logits):
        raise ValueError(f"Expected logits of every picture, and one picture or more. Received: {len(logits)} logits "
                         f"for {len(pictures.labels)} pictures.")
    if sample < 1:
        raise ValueError(f"Expected a sample of one picture or more. Received: sample={sample}.")
