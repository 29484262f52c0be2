"""Where a run starts: fresh weights, a user's own network, or weights that were trained elsewhere."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
from absl import logging

from sat_tf import assembly, data, heads, hparams, networks, saving
from sat_tf.runs import checkpoints, overlap

LEARNED = ("raw",)  # variables of activations: another activation brings its own


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """A network before its first step.

    Attributes:
      model: images `[batch, size, size, 3]` in [0, 1] -> logits.
      architecture: of a user's own network, as a checkpoint keeps it; None for one of the table, or that needs code.
      new_head: whether its classifier has fresh weights, where the rest has not.
    """

    model: keras.Model
    architecture: str | None = None
    new_head: bool = False

    @property
    def kept(self) -> dict[str, Any]:
        """What a checkpoint holds of it, so that `resumed` needs nothing else."""
        return {"architecture": self.architecture, "new_head": self.new_head}


def resumed(recipe: hparams.Recipe, classes: Sequence[str], size: int, kept: dict[str, Any]) -> Start:
    """Return the network of a run that goes on, whose weights its checkpoint has; where it began is not looked at."""
    model = assembly.build_model(recipe, len(classes), size, kept.get("architecture"))
    return _frozen(recipe, Start(model=model, **kept))


def begun(
    recipe: hparams.Recipe, dataset: data.Data, size: int, checkpoint_dir: str | pathlib.Path | None = None
) -> Start:
    """Return the network of a new run, and say in a line each what it starts from and what was done to it.

    Args:
      recipe: says which network, and the weights to start from.
      dataset: whose classes it tells apart.
      size: pixels a side.
      checkpoint_dir: where the files of released checkpoints lie.

    Raises:
      ValueError: the weights are of another network, or it can't have such classes or images.
      OSError: a file is not there or damaged.
    """
    if recipe.init is None:
        start = _of_itself(recipe, len(dataset.classes), size)
    elif recipe.init.startswith("keras:") and recipe.model == recipe.init:
        start = _application(recipe, dataset.classes, size)
    elif hparams.kind(recipe.init) == "file" and recipe.model == recipe.init:
        start = _of_itself(recipe, len(dataset.classes), size, renew=True)
    else:
        start = _of_checkpoint(recipe, dataset, size, checkpoint_dir)
    if hparams.kind(recipe.model):
        if recipe.init:
            networks.remember(start.model, recipe.norm_momentum)
        model, architecture = networks.settled(start.model)
        start = dataclasses.replace(start, model=model, architecture=architecture)
    if recipe.init:
        head = f"a new head tells its {len(dataset.classes)} classes apart" if start.new_head else "with its own head"
        logging.info("Starting from the weights of %s: %s.", recipe.init, head)
    return _frozen(recipe, start, tell=True)


def _frozen(recipe, start, tell=False):
    """Return a start whose backbone is frozen where the recipe says so."""
    if recipe.freeze == "backbone":
        heads.freeze(start.model)
        counts = [sum(v.value.shape.num_elements() for v in each) for each in _trained(start.model)]
        if tell:
            logging.info("The backbone is frozen: %s of %s values are trained.", *(f"{count:,}" for count in counts))
    return start


def _trained(model):
    return model.trainable_variables, model.variables


def _of_itself(recipe, classes, size, renew=False):
    """Return the start of a network as its recipe builds it."""
    if not hparams.kind(recipe.model):
        return Start(model=assembly.build_model(recipe, classes))
    made = assembly.own_network(recipe, classes, size, renew=renew)
    for note in made.notes:
        logging.info("%s: %s.", recipe.model, note)
    return Start(model=made.model, new_head=made.new_head)


def _application(recipe, classes, size):
    """Return the start of a network of keras.applications from weights of ImageNet."""
    same = tuple(classes) == tuple(data.imagenet_classes())
    name = recipe.init.partition(":")[2]
    model = networks.application(name, classes=None if same else len(classes), image_size=size, weights=True)
    return Start(model=model, new_head=not same)


def _of_checkpoint(recipe, dataset, size, checkpoint_dir):
    """Return the start of a network from a run's weights, or published ones."""
    found = checkpoints.open_checkpoint(recipe.init, {}, checkpoint_dir)
    if found.source == "run":
        overlap.refuse(found, dataset)
    classes = len(dataset.classes)
    if found.source == "own":  # a file, for what a function builds
        source = networks.classifier(networks.read(found.path), image_size=size).model
        same = source.output_shape[-1] == classes
    else:
        source, same = found.load(), list(found.classes) == list(dataset.classes)
        if (had := found.recipe.act) != recipe.act:
            logging.info("%s takes the place of %s in %s; --act=%s keeps it.", recipe.act, had, recipe.init, had)
    if hparams.kind(recipe.model) and recipe.model == found.recipe.model:
        checkpoints.check_size(source, size, recipe.init)
        return Start(model=source if same else heads.replace(source, classes), new_head=not same)
    target = _of_itself(recipe, classes, size).model
    by_name = saving.by_place if hparams.kind(recipe.model) else saving.by_path
    take_over(source, target, new_head=not same, init=recipe.init, by_name=by_name)
    return Start(model=target, new_head=not same)


def take_over(source: keras.Model, target: keras.Model, *, new_head: bool, init: str, by_name: Any) -> None:
    """Give a model the weights of another one of the same architecture.

    Args:
      source: whose weights.
      target: gets them; a new head, and what activations of another kind learn, keep their own.
      new_head: the classes are others.
      init: how the user names the source.
      by_name: `model -> {name: variable}`, by which variables meet.

    Raises:
      ValueError: they are of another architecture; the message lists the differences.
    """
    own = {id(variable.value) for variable in heads.of(target).variables} if new_head else set()
    mine = {name: variable for name, variable in by_name(target).items() if id(variable) not in own}
    left = {id(variable.value) for variable in heads.of(source).variables} if new_head else set()
    theirs = {name: variable for name, variable in by_name(source).items() if id(variable) not in left}
    skipped = [name for name in {*mine, *theirs} if name.endswith(LEARNED) and (name in mine) != (name in theirs)]
    shapes = [
        {name: tuple(variable.shape) for name, variable in each.items() if name not in skipped}
        for each in (theirs, mine)
    ]
    lines = saving.differences(*shapes)
    if lines:
        raise ValueError(
            f"Expected weights of {target.name}. Received: init={init}, which differs: {'; '.join(lines)}."
        )
    for name in shapes[1]:
        mine[name].assign(theirs[name])
