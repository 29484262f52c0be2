"""Every recipe by its name, and the one that suits what a user asks for."""

from typing import Any

from sat_tf.hparams import apgd2, curricula, networks, paper, recipes, stored, trades
from sat_tf.hparams import fields as f
from sat_tf.hparams.catalogue import settings
from sat_tf.hparams.efficientnets import EFFICIENTNETS, act_of
from sat_tf.hparams.finetuning import finetune
from sat_tf.hparams.recipe import Recipe
from sat_tf.names import unknown

RECIPES = {
    **recipes.RECIPES,
    **apgd2.RECIPES,
    **trades.RECIPES,
    **curricula.RECIPES,
    "finetune": finetune,
    **paper.RECIPES,
}


def get(name: str) -> Recipe:
    """Return the recipe of a name of `RECIPES`; a ValueError names the nearest one."""
    if name not in RECIPES:
        raise unknown("a known recipe", "recipe", name, RECIPES)
    return RECIPES[name]()


def choose(changes: dict[str, Any], name: str | None = None, implied: dict[str, Any] | None = None) -> Recipe:
    """Return the recipe that suits a model and a data set, or the one that is named, with the changes made.

    `imagenet2012` has the paper's recipe, named as the model; what starts from weights (`init`, a FILE.keras) that of
    fine-tuning; everything else a short one. The activation is the architecture's own where the user names a model and
    no activation: relu6 for EfficientNet-Lite. Weights say which model and activation they are of.

    Args:
      changes: `{field: value}`, as the command line names them.
      name: the recipe to start from, of `RECIPES`, or a file of one, or the folder of a run; None to have it chosen.
      implied: what the weights to start from say, as `networks.implied` returns it, where they are no more.

    Raises:
      ValueError: unknown names, or weights of another model than the one that is named.
      OSError: the file of weights is not there.
    """
    if name and name not in RECIPES and stored.is_stored(name):
        return _of_file(changes, name)
    on_imagenet = changes.get("dataset") == "imagenet2012"
    init = f.optional(f.text)("init", changes.get("init"))
    model = f.network("model", changes.get("model", "resnet50" if on_imagenet else "resnet20"))
    recipe = get(name or _suiting(model, changes.get("dataset"), init))
    if not name and not init:
        recipe = recipe.replace(init=None)
    init = init if "init" in changes else recipe.init
    if init:
        changes = _started(changes, init, implied)
    elif recipe.init and "model" not in changes:  # from scratch, what the recipe would have started from
        changes = {"act": recipe.act, "model": recipe.model, **changes}
    elif "model" in changes or not name:
        act = networks.act_of(model) if networks.kind(model) else act_of(model)
        own = {"model": model} if act == act_of(recipe.model) else {"model": model, "act": act}
        changes = {**own, **changes}
    return _changed(recipe, changes)


def _changed(recipe, changes):
    """Return a recipe with changes, and with what goes with them where they do not say it."""
    changes = {**_of_method(recipe, changes), **changes}
    if {"attack", "attack_steps"} & set(changes) and recipe.replace(**changes).attack != recipe.attack:
        changes = {"step_size": None, **changes}  # the recipe's suits the recipe's attack
    return recipe.replace(**changes)


def _of_method(recipe, changes):
    """Return what goes with a method that the recipe has not: its attack and step size, no settings of the other.

    An attack of several steps stays with a method that wants one as well, and so do settings that both have alike.
    """
    method = f.named("method")("method", changes.get("method", recipe.method))
    if method == recipe.method:
        return {}
    known = settings("method")
    given, old = known[method], known[recipe.method]
    found = {name: None for name in recipe.method_settings if name not in given or given[name] != old[name]}
    if given.get("starts"):  # as its own attack does, whatever the recipe says
        found |= {"random_start": True, "clean_start": 0.0}
    attack = changes.get("attack", f"pgd-{changes['attack_steps']}" if "attack_steps" in changes else None)
    if attack is None and all(_climbs(each) for each in (recipe.attack, old.get("attack"), given.get("attack"))):
        return found
    if given.get("attack") and attack in (None, given["attack"]):
        found["attack"] = given["attack"]
        epsilon = f.radius("epsilon", changes.get("epsilon", recipe.epsilon))
        found["step_size"] = min(given["step"] * epsilon, 1.0) if given.get("step") else None
    return found


def _climbs(attack):
    """Say whether an attack is PGD of several steps."""
    name, steps = f.split_attack(attack) if attack else (None, None)
    return name == "pgd-k" and steps > 1


def _of_file(changes, name):
    """Return the recipe of a file with the changes made; fields that the file lacks are as without it."""
    values = stored.read_file(name)
    known = values.pop("name", None)
    try:
        recipe = choose(values, known if known in RECIPES else None)
    except ValueError as error:
        raise ValueError(f"{error} (in the recipe {name})") from None
    model = f.network("model", changes.get("model", recipe.model))
    if not networks.kind(model) and act_of(model) != act_of(recipe.model):  # as where a recipe is named
        changes = {"act": act_of(model), **changes}
    return _changed(recipe, changes)


def _suiting(model, dataset, init):
    """Return the name of the recipe for a model and a data set, with weights to start from or without."""
    if init or networks.kind(model) == "file":
        return "finetune"
    if dataset == "folder":
        return "folder-efficientnet" if model in EFFICIENTNETS else "folder"
    if dataset != "imagenet2012":
        return "fashion-efficientnet-adamw" if model in EFFICIENTNETS else "fashion"
    if model in RECIPES:
        return model
    raise f.expected("a model with a recipe for imagenet2012", "model", model, "Or name the one to use: --recipe.")


def _started(changes, init, implied):
    """Return the changes with what weights say of their network; another network is an error."""
    found = implied or networks.implied(init)
    named = f.network("model", changes.get("model", found["model"]))
    if named != found["model"] and networks.kind(named) != "function":
        remedy = "Leave --model out, name other weights, or train from scratch with --init=none."
        raise f.expected(f"the model of the weights {init}, {found['model']}", "model", named, remedy)
    if named != found["model"]:
        found = {"act": networks.act_of(named)}
    return {**found, **changes}
