"""What fields of a recipe must go together."""

import os
from typing import TYPE_CHECKING

from sat_tf.hparams import fields as f
from sat_tf.hparams import networks
from sat_tf.hparams.catalogue import settings

if TYPE_CHECKING:
    from sat_tf.hparams.recipe import Recipe


def check(recipe: "Recipe") -> None:
    """Refuse values that contradict one another.

    Raises:
      ValueError: with the fields and the remedy.
    """
    if not recipe.eval_attacks:
        raise f.expected("at least one attack, such as clean,pgd-20", "eval_attacks", "")
    _check_ball(recipe)
    _check_method(recipe)
    _check_network(recipe)
    if recipe.schedule == "steps" and not recipe.decay_epochs:
        raise f.expected("decay_epochs for the schedule steps, such as 30,60,90", "decay_epochs", "")
    if recipe.schedule == "exponential" and len(recipe.decay_epochs) != 1:
        raise f.expected(
            "one number of decay_epochs for the schedule exponential, such as 2.4",
            "decay_epochs",
            _show("decay_epochs", recipe.decay_epochs),
        )
    if recipe.optimizer in ("rmsprop", "adamw") and recipe.nesterov:
        raise f.expected(f"nesterov=false with the optimizer {recipe.optimizer}", "nesterov", recipe.nesterov)
    for name in ("dropout", "stochastic_depth", "zero_gamma"):
        if getattr(recipe, name) and not recipe.model.startswith("efficientnet"):
            raise f.expected(f"an EfficientNet, which has {name}, or {name}=0", "model", recipe.model)
    for name in ("validation_weights", "eval_weights"):
        if getattr(recipe, name) == "averaged" and not recipe.average_decay:
            raise f.expected(f"an average_decay above 0, such as 0.9999, with {name}=averaged", "average_decay", 0)
    if recipe.batch_size % recipe.accumulate_steps:
        wanted = f"accumulate_steps that divide the batch of {recipe.batch_size} images"
        raise f.expected(wanted, "accumulate_steps", recipe.accumulate_steps)


def check_extra(recipe: "Recipe", extra_data: str | os.PathLike | None) -> None:
    """Refuse a file of extra images without a share of them, and a share without a file."""
    if extra_data is not None and not recipe.extra_share:
        raise ValueError(
            f"Expected a share of extra images in each batch, such as --set extra_share=0.7, with "
            f"--extra_data={extra_data}. Received: extra_share=0."
        )
    if extra_data is None and recipe.extra_share:
        raise ValueError(
            f"Expected --extra_data=FILE.npz, the extra images that extra_share={recipe.extra_share:g} is about. "
            "Received: none. Without them say --set extra_share=0."
        )


def _show(name, value):
    from sat_tf.hparams.recipe import show  # which is made of this

    return show(name, value)


def _check_ball(recipe):
    """Refuse radii that the evaluation's norm does not know, and attacks without the settings that they need."""
    lengths = {"eval_epsilon": recipe.eval_epsilon, "eval_step_size": recipe.eval_step_size}
    if recipe.eval_norm == "linf":
        for name, value in (*lengths.items(), *(("eval_radii", value) for value in recipe.eval_radii)):
            if value is not None:
                f.radius(name, value)
    elif recipe.eval_epsilon is None and set(recipe.eval_attacks) != {"clean"}:
        raise f.expected("a radius for the norm l2, such as --epsilon=0.5", "eval_epsilon", None)
    if recipe.eval_radii and recipe.eval_attacks[-1] == "clean":
        raise f.expected(
            "an attack for the curve of radii, such as clean,pgd-20", "eval_attacks", ",".join(recipe.eval_attacks)
        )
    if len(set(recipe.eval_attacks)) < len(recipe.eval_attacks):
        raise f.expected("each attack once", "eval_attacks", ",".join(recipe.eval_attacks))


def _check_method(recipe):
    """Refuse settings of another method than the recipe's."""
    takes = settings("method")
    for name in recipe.method_settings:
        if name not in takes[recipe.method]:
            fitting = ", ".join(method for method, given in takes.items() if name in given)
            received = f"{_show(name, getattr(recipe, name))} with method={recipe.method}"
            raise f.expected(f"{name} with a method that has it, of {fitting}", name, received)
    end = recipe.lambda_end
    if end is not None and end < 1 and not recipe.lambda_partial:
        within = f"within the {recipe.epochs:g} epochs" if recipe.epochs else "by the end"
        wanted = f"a schedule that reaches 1 {within}, where the attack is whole"
        received = f"{end:g}, at which it ends"
        raise f.expected(wanted, "lambda_end", received, "To stop below 1 on purpose add --set lambda_partial=true.")


def _check_network(recipe):
    """Refuse activations that a network does not take, and freezing of what was never trained."""
    kind = networks.kind(recipe.model)
    if kind in ("file", "application") and recipe.act != networks.OWN:
        remedy = f"{recipe.model} has its own; sat_tf.smooth in Python replaces them."
        raise f.expected("no --act with such a model", "act", recipe.act, remedy)
    if kind is None and recipe.act == networks.OWN:
        raise f.expected("an activation for a model of the table", "act", recipe.act)
    for name in ("attack_backward", "update_backward", "eval_backward"):
        if recipe.act == networks.OWN and getattr(recipe, name) is not None:
            remedy = "The network has its own, whose gradients stay theirs."
            raise f.expected("activations of this project, such as --act=relu", name, getattr(recipe, name), remedy)
    if kind is None and recipe.value_range is not None:
        shown = _show("value_range", recipe.value_range)
        raise f.expected("no value_range with a model of the table, which takes 0,1", "value_range", shown)
    if recipe.freeze == "backbone" and recipe.init is None and kind not in ("file", "function"):
        raise f.expected("weights to keep, by --init, with --freeze=backbone", "init", None)
