"""Every recipe by its name, and the one that suits what a user asks for."""

from typing import Any

from sat_tf.hparams import apgd2, curricula, paper, recipes
from sat_tf.hparams import fields as f
from sat_tf.hparams.catalogue import settings
from sat_tf.hparams.efficientnets import EFFICIENTNETS, act_of
from sat_tf.hparams.recipe import Recipe
from sat_tf.names import unknown

RECIPES = {**recipes.RECIPES, **apgd2.RECIPES, **curricula.RECIPES, **paper.RECIPES}


def get(name: str) -> Recipe:
    """Return the recipe of a name of `RECIPES`; a ValueError names the nearest one."""
    if name not in RECIPES:
        raise unknown("a known recipe", "recipe", name, RECIPES)
    return RECIPES[name]()


def choose(changes: dict[str, Any], name: str | None = None) -> Recipe:
    """Return the recipe that suits a model and a data set, or the one that is named, with the changes made.

    `imagenet2012` has the paper's recipe, named as the model; everything else starts from a short one. The activation
    is the architecture's own where the user names a model and no activation: relu6 for EfficientNet-Lite.

    Args:
      changes: `{field: value}`, as the command line names them.
      name: the recipe to start from; None to have it chosen.
    """
    on_imagenet = changes.get("dataset") == "imagenet2012"
    model = f.named("model")("model", changes.get("model", "resnet50" if on_imagenet else "resnet20"))
    if name:
        recipe = get(name)
    elif not on_imagenet:
        recipe = get("fashion-efficientnet-adamw" if model in EFFICIENTNETS else "fashion")
    elif model in RECIPES:
        recipe = get(model)
    else:
        raise f.expected("a model with a recipe for imagenet2012", "model", model, "Or name the one to use: --recipe.")
    if "model" in changes or not name:
        own = {"model": model} if act_of(model) == act_of(recipe.model) else {"model": model, "act": act_of(model)}
        changes = {**own, **changes}
    changes = {**_of_method(recipe, changes), **changes}
    if {"attack", "attack_steps"} & set(changes) and recipe.replace(**changes).attack != recipe.attack:
        changes = {"step_size": None, **changes}  # the recipe's suits the recipe's attack
    return recipe.replace(**changes)


def _of_method(recipe, changes):
    """Return what goes with a method that the recipe has not: its attack and step size, no settings of the other."""
    method = f.named("method")("method", changes.get("method", recipe.method))
    if method == recipe.method:
        return {}
    given, found = settings("method")[method], dict.fromkeys(recipe.method_settings)
    attack = changes.get("attack", f"pgd-{changes['attack_steps']}" if "attack_steps" in changes else None)
    if given.get("attack") and attack in (None, given["attack"]):
        found["attack"] = given["attack"]
        epsilon = f.radius("epsilon", changes.get("epsilon", recipe.epsilon))
        found["step_size"] = min(given["step"] * epsilon, 1.0) if given.get("step") else None
    return found
