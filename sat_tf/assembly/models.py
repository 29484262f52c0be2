"""A recipe's network: built, counted, averaged, as attacks see it."""

import contextlib
from collections.abc import Callable

import keras
import tensorflow as tf

from sat_tf import activations, cost, heads, hparams, models, networks, optim, passes, saving

OWN = "own"  # the activation of a network that brings its own


def build_model(
    recipe: hparams.Recipe, classes: int, size: int | None = None, architecture: str | None = None
) -> keras.Model:
    """Return the recipe's model: of the table with fresh weights, a user's own as it comes.

    Args:
      recipe: which model.
      classes: number of logits; a user's own model with others is an error.
      size: pixels a side, where a user's own model takes any.
      architecture: of a user's own model as a checkpoint has it, in place of its file.
    """
    if hparams.kind(recipe.model):
        return networks.rebuilt(architecture) if architecture else own_network(recipe, classes, size).model
    return models.build(
        recipe.model,
        recipe.act,
        classes,
        momentum=recipe.norm_momentum,
        epsilon=recipe.norm_epsilon,
        dropout=recipe.dropout,
        stochastic_depth=recipe.stochastic_depth,
        zero_gamma=recipe.zero_gamma,
    )


def own_network(recipe: hparams.Recipe, classes: int, size: int | None, *, renew: bool = False) -> networks.Classifier:
    """Return a user's own network as a classifier of images in [0, 1].

    Args:
      recipe: `model` names it.
      classes: number of logits.
      size: pixels a side, where it takes any.
      renew: put a new head on it where it has another number of logits; else that is an error.
    """
    kind, name = hparams.kind(recipe.model), recipe.model
    if kind == "application":
        name = name.partition(":")[2]
        return networks.Classifier(networks.application(name, classes=classes, image_size=size), [], False)
    if kind == "file":
        model = networks.read(name)
    else:
        if recipe.act != OWN and not networks.takes(name, "act"):
            raise ValueError(
                f"Expected a function with a parameter act. Received: act={recipe.act} with model={name}, which has "
                "none. Leave --act out."
            )
        act = (lambda layer_name=None: None) if recipe.act == OWN else activations.factory(recipe.act)
        model = networks.call(name, act=act, classes=classes, image_size=size or networks.SIDE)
    made = networks.classifier(
        model, value_range=recipe.value_range, image_size=size, classes=classes if renew else None
    )
    side = made.model.input_shape[1]
    if size is not None and side != size:
        remedy = f"--set image_size={side} brings the images to it."
        raise ValueError(f"Expected image_size={side}, which {name} takes. Received: image_size={size}. {remedy}")
    if made.model.output_shape[-1] != classes:
        remedy = f" --init={name} puts a new head on it." if kind == "file" else ""
        raise ValueError(
            f"Expected a model with the {classes} classes of the data. Received: {name} with "
            f"{made.model.output_shape[-1]}.{remedy}"
        )
    return made


def sketch(recipe: hparams.Recipe, classes: int, size: int, *, weights: bool = False) -> keras.Model:
    """Return a network of the recipe's shape, to be counted and timed; weights that it would start from are not read.

    Args:
      recipe: which model, what of it is trained.
      classes, size: as `build_model` takes them.
      weights: give it some, so that it can be called.
    """
    if not hparams.kind(recipe.model):
        with contextlib.nullcontext() if weights else cost.weightless():
            model = build_model(recipe, classes)
    else:
        made = own_network(recipe, classes, size, renew=recipe.init is not None)
        model, text = networks.settled(made.model)
        if text is None:
            raise ValueError(
                f"Expected a network whose layers are Keras' own or this project's, to count its cost. Received: "
                f"model={recipe.model}. Train a few steps instead."
            )
    if recipe.freeze == "backbone":
        heads.freeze(model)
    return model


def variables(recipe: hparams.Recipe, owner: keras.Model | keras.optimizers.Optimizer) -> dict[str, tf.Variable]:
    """Return `{name: tf.Variable}` of a model or its optimizer, as a checkpoint of the recipe names them."""
    return (saving.by_place if hparams.kind(recipe.model) else saving.by_path)(owner)


def fixed_side(recipe: hparams.Recipe) -> int | None:
    """Return the one side of images that a .keras file takes; None where any will do, or nothing says."""
    return networks.side_of(networks.read(recipe.model)) if hparams.kind(recipe.model) == "file" else None


def model_side(recipe: hparams.Recipe) -> int:
    """Return the side in pixels that the recipe's architecture was made for."""
    return networks.SIDE if hparams.kind(recipe.model) else models.image_size(recipe.model)


def make_average(recipe: hparams.Recipe, model: keras.Model) -> optim.MovingAverage | None:
    """Return the recipe's moving average of a model, None where it has none."""
    names = list(variables(recipe, model))
    return optim.MovingAverage(model, recipe.average_decay, names) if recipe.average_decay else None


def attacked_view(recipe: hparams.Recipe, model: keras.Model) -> Callable:
    """Return the model as the recipe's evaluation attacks see it."""
    return passes.Backward(attack=recipe.eval_backward).view(model, "attack")
