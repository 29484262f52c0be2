"""Probes: what a run is worth on held-out images, whether it is the best so far, and whether to go on."""

import contextlib

from absl import logging

import hparams
from sat_tf import evaluate, losses
from sat_tf.experiment import assembly

ONE_STEP, MULTI_STEP = "validation/one_step_accuracy", "validation/multi_step_accuracy"
GAP, SHARE = 0.2, 0.5  # see `overfitted`


class Probe:
    """The held-out images under a recipe's probe attack; compiled once, used every `validation_every` epochs.

    Args:
      recipe: says which attack, which weights, when to stop.
      state: a `train.TrainState`.
      dataset: its held-out part is evaluated.
      image_size: pixels a side.
      strategy: a `tf.distribute.Strategy`.
    """

    def __init__(self, recipe, state, dataset, image_size, strategy):
        self.recipe, self.state = recipe, state
        self.size = dataset.validation.size
        self.batches = assembly.evaluation_batches(recipe, dataset.validation, image_size, strategy)
        attacks = {
            "clean": assembly.make_attack("clean", recipe.epsilon, None),
            recipe.validation_attack: assembly.make_attack(recipe.validation_attack, recipe.epsilon, None),
        }
        self.compares = compares(recipe)
        if self.compares:
            attacks["the training attack"] = assembly.make_method(recipe).attack
        self.evaluators = {
            name: evaluate.Evaluator(state.model, attack, losses.cross_entropy, strategy=strategy)
            for name, attack in attacks.items()
        }

    def measure(self):
        """Return `{quantity: accuracy}`.

        Clean and robust accuracy are those of the weights that the recipe evaluates. One-step and multi-step accuracy
        are of the raw weights: a moving average would show an overfitting thousands of steps late.
        """
        averaged = self.recipe.validation_weights == "averaged"
        with self.state.average.in_place() if averaged else contextlib.nullcontext():
            row = {
                "validation/clean_accuracy": self._accuracy("clean"),
                "validation/robust_accuracy": self._accuracy(self.recipe.validation_attack),
            }
        if self.compares:
            row[ONE_STEP] = self._accuracy("the training attack")
            row[MULTI_STEP] = (
                self._accuracy(self.recipe.validation_attack) if averaged else row["validation/robust_accuracy"]
            )
        return row

    def _accuracy(self, name):
        with assembly.make_progress(self.size, f"held out, {name}", "image", passing=True) as progress:
            counts, total, _ = self.evaluators[name].count(self.batches, progress.update)
        return counts[max(counts)] / total


def compares(recipe):
    """Say whether probes can tell catastrophic overfitting: training attacks, and by fewer steps than they do."""
    steps = hparams.split_attack(recipe.validation_attack)[1] or 1
    return recipe.method != "standard" and steps > recipe.attack_steps


def best_of(history, recipe):
    """Return `{"step", "score"}` of the best row of a history, the earliest of equals; None without rows."""
    first, second = ("robust", "clean") if assembly.best_by(recipe) == "robust" else ("clean", "robust")
    scores = [[row[f"validation/{first}_accuracy"], row[f"validation/{second}_accuracy"]] for row in history]
    if not scores:
        return None
    return {"step": history[scores.index(max(scores))]["step"], "score": max(scores)}


def reason_to_stop(history, recipe, at_end=False):
    """Return why a run should stop after the last row of its history, None where it should go on.

    `at_end`: it stops anyway, and only what the report has to say counts.
    """
    last = history[-1]
    if recipe.stop_on_overfitting and overfitted(last):
        return (
            f"Catastrophic overfitting at step {last['step']}: {100 * last[ONE_STEP]:.1f} % of the held-out "
            f"images withstand the training attack, {100 * last[MULTI_STEP]:.1f} % withstand "
            f"{recipe.validation_attack}"
        )
    best = best_of(history, recipe)["step"]
    waited = sum(row["step"] > best for row in history)
    if recipe.patience and waited >= recipe.patience and not at_end:
        return f"No better probe for {waited} probes since step {best}"
    return None


def overfitted(row):
    """Say whether a probe shows catastrophic overfitting (Wong et al. 2020): robust to the training attack only.

    It does where the accuracy under the training attack is at least `GAP` above that under the longer probe attack,
    and the latter is less than `SHARE` of the former. Healthy runs are far from it (82 against 81 % here, 42 against
    36 % at 16/255); a collapsed one has some 80 against 0.
    """
    if ONE_STEP not in row:
        return False
    one, many = row[ONE_STEP], row[MULTI_STEP]
    return one - many >= GAP and many < SHARE * one


def log(row, recipe):
    """Log a probe in one line."""
    logging.info(
        "Epoch %.3g: loss %.3f, held-out clean %.2f %%, %s %.2f %%%s.",
        row["epoch"],
        row["train/loss"],
        100 * row["validation/clean_accuracy"],
        recipe.validation_attack,
        100 * row["validation/robust_accuracy"],
        " (averaged weights)" if recipe.validation_weights == "averaged" else "",
    )
