"""Validation: what a run is worth on training images that were set aside."""

import contextlib
from typing import Any

import tensorflow as tf
from absl import logging

from sat_tf import console, data, evaluate, half, hparams, losses, methods, stopping, train
from sat_tf.assembly.images import evaluation_batches
from sat_tf.attacks import for_training
from sat_tf.distribute import precision, strategies

USUAL = ("train/loss", "train/accuracy")  # what every method reports


class Validation:
    """The validation images under a recipe's validation attack; compiled once, used every `validation_every` epochs.

    Args:
      recipe: says which attack, which weights, when to stop.
      method: the training method.
      state: what is trained: model, optimizer, average.
      dataset: its validation part is evaluated.
      image_size: pixels a side.
      strategy: the devices that compute.
    """

    def __init__(
        self,
        recipe: hparams.Recipe,
        method: methods.Standard,
        state: train.TrainState,
        dataset: data.Data,
        image_size: int,
        strategy: tf.distribute.Strategy,
    ) -> None:
        self.recipe, self.method, self.state = recipe, method, state
        self.size = dataset.validation.size
        self.team = team = strategies.team()  # each of its processes looks at a part
        images = dataset.validation if team.size == 1 else data.part(dataset.validation, team.index, team.size)
        self.batches = evaluation_batches(recipe, images, image_size, strategy)
        attacks = {name: for_training(name, epsilon=recipe.epsilon) for name in ("clean", recipe.validation_attack)}
        self.compares = compares(method, attacks[recipe.validation_attack])
        if self.compares:
            attacks["the training attack"] = method.attack
        self.counters = {
            name: evaluate.Counter(state.model, attack, losses.cross_entropy, strategy=strategy)
            for name, attack in attacks.items()
        }

    def measure(self) -> dict[str, float]:
        """Return `{quantity: accuracy}`.

        Clean and robust accuracy are those of the weights that the recipe evaluates. One-step and multi-step accuracy
        are of the raw weights: a moving average would show an overfitting thousands of steps late.
        """
        with precision.exactly(), half.computing_in(self.state.model, self.recipe.eval_precision):
            return self._measured()

    def _measured(self):
        averaged = self.recipe.validation_weights == "averaged"
        with self.state.average.in_place() if averaged else contextlib.nullcontext():
            row = {
                "validation/clean_accuracy": self._accuracy("clean"),
                "validation/robust_accuracy": self._accuracy(self.recipe.validation_attack),
            }
        if self.compares:
            row[stopping.ONE_STEP] = self._accuracy("the training attack")
            row[stopping.MULTI_STEP] = (
                self._accuracy(self.recipe.validation_attack) if averaged else row["validation/robust_accuracy"]
            )
        return row

    def _accuracy(self, name):
        with console.make_progress(self.size, f"validation, {name}", "image", passing=True) as progress:
            counted = self.counters[name].count(self.batches, progress.update, self.team.index, self.team.size)
            correct, total = self.team.summed(counted)
        return correct / total


def compares(method: methods.Standard, attack: Any) -> bool:
    """Say whether validation by an attack can tell catastrophic overfitting: training attacks, by fewer steps."""
    return method.attack is not None and attack.steps > method.attack.steps


def log(row: dict[str, float], recipe: hparams.Recipe) -> None:
    """Log a validation in one line."""
    logging.info(
        "Epoch %.3g: loss %.3f, validation clean %.2f %%, %s %.2f %%%s.",
        row["epoch"],
        row["train/loss"],
        100 * row["validation/clean_accuracy"],
        recipe.validation_attack,
        100 * row["validation/robust_accuracy"],
        " (averaged weights)" if recipe.validation_weights == "averaged" else "",
    )
    quantities = {name: value for name, value in row.items() if name.startswith("train/") and name not in USUAL}
    if quantities:
        told = ", ".join(f"{name.removeprefix('train/')} {value:.4g}" for name, value in quantities.items())
        logging.info("Since the last validation, on average: %s.", told)
