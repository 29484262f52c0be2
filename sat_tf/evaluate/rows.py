"""What a report says of an evaluation: a row an attack, accuracy by steps, images as they are and as they end."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sat_tf.evaluate.results import Examples, Result

NO_ATTACK = dict.fromkeys(
    ("norm", "epsilon", "step_size", "steps", "random_start", "backward", "iterates", "restarts"), None
)
PANEL = 8  # images that a panel shows at most, one a class


def clean_row(correct: int, count: int, seed: int) -> dict[str, Any]:
    """Return the row of the images as they are."""
    return {"attack": "clean", **NO_ATTACK, "stages": [], **_counted(correct, count, seed, None)}


def attack_row(result: Result, seed: int, backward: str | None = None) -> dict[str, Any]:
    """Return the row of an attack.

    Args:
      result: of the attack.
      seed: of the evaluation.
      backward: the activation whose gradient the attack followed, None for the model's own.
    """
    facts = list(result.facts.values())
    alone = facts[0] if len(facts) == 1 else {}
    stages = [{"attack": stage, "correct": result.left(stage), **result.facts[stage]} for stage in result.stages]
    return {
        "attack": result.attack,
        "norm": result.norm,
        "epsilon": result.epsilon,
        "step_size": result.step_size,
        "steps": alone.get("steps"),
        "random_start": alone.get("random_start"),
        "backward": backward,
        "iterates": "final" if result.final else "worst",
        "restarts": alone.get("restarts"),
        "stages": stages,
        **_counted(int(result.robust.sum()), len(result.stage), seed, result.seconds),
    }


def curve(results: dict[str, Result], correct: int) -> dict[str, Any] | None:
    """Return accuracy by steps of the longest attack; None without one of several.

    Args:
      results: `{attack: Result}`.
      correct: number of images that are right as they are.
    """
    found = [result for result in results.values() if len(result.by_step) > 1]
    if not found:
        return None
    longest = max(found, key=lambda result: result.marks[-1])
    steps, count = longest.by_step, len(longest.stage)
    return {
        "attack": longest.attack,
        "norm": longest.norm,
        "epsilon": longest.epsilon,
        "step_size": longest.step_size,
        "count": count,
        "steps": [0, *steps],
        "accuracy": [correct / count, *steps.values()],
    }


def shown_of(labels: np.ndarray) -> np.ndarray:
    """Return the places of an image of each of the first classes."""
    return np.array([np.flatnonzero(labels == label)[0] for label in np.unique(labels)[:PANEL]])


def panel(
    attacker: Any, examples: Examples, results: dict[str, Result], shown: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """Return some images, clean and under the strongest attack, with what the model says of them.

    Args:
      attacker: an `Attacker`.
      examples: all that were attacked, in [0, 1].
      results: `{attack: Result}`, adversarial images of the shown ones kept.
      shown: places.
      classes: their names.
    """
    chosen = examples.take(shown)
    strongest = min(results.values(), key=lambda result: result.robust_accuracy, default=None)
    attacked, name, epsilon = chosen.images, "clean", 0.0
    if strongest:
        attacked = strongest.attacked(chosen.images, shown)
        name, epsilon = strongest.attack, strongest.epsilon
    predictions = [attacker.read(images).argmax(-1) for images in (chosen.images, attacked)]
    return {
        "clean": chosen.images,
        "adversarial": attacked,
        "labels": chosen.labels,
        "clean_predictions": predictions[0],
        "adversarial_predictions": predictions[1],
        "classes": list(classes),
        "attack": name,
        "epsilon": epsilon,
        "norm": attacker.norm,
    }


def _counted(correct, count, seed, seconds):
    """Return the end of every row: how many of how many images are right, and in what time, None where unknown."""
    return {
        "seed": seed,
        "split": "test",
        "count": count,
        "correct": correct,
        "accuracy": correct / count,
        "wall_time_seconds": seconds,
    }
