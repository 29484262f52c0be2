"""The one place where all parts meet, and the only reader of a recipe: train, evaluate, export."""

import contextlib
import logging
import pathlib
import sys
import types

import numpy as np
import tensorflow as tf
from absl import logging as absl_logging
from tqdm import tqdm

import hparams
from sat_tf import models, released, saving
from sat_tf.data import imagenet_classes
from sat_tf.experiment import assembly, places
from sat_tf.experiment.judging import judge
from sat_tf.experiment.planning import plan
from sat_tf.experiment.training import STATE, Training
from sat_tf.export import saved_model

__all__ = ["evaluate", "export", "naming_failures", "plan", "start", "train"]

JUDGING_FIELDS = (*hparams.EVALUATION_FIELDS, "dataset", "image_size", "held_out", "seed", "strategy", "cache")
PUBLISHED_FIELDS = ("model", "act", "norm_momentum", "norm_epsilon")  # what is known of weights that others trained


class LogLines(logging.Handler):
    """Log records as lines above the progress bar; TensorFlow's own events are not a user's."""

    def emit(self, record):
        if record.levelno >= logging.WARNING or "sat_tf" in record.pathname:
            tqdm.write(record.getMessage(), file=sys.stderr)


def start():
    """Prepare a process that runs experiments: log lines, and the devices, whose notes then come before ours."""
    absl_logging.set_verbosity(absl_logging.INFO)
    logger = absl_logging.get_absl_logger()
    logger.handlers, logger.propagate = [LogLines()], False
    tf.get_logger().setLevel("ERROR")
    tf.config.list_logical_devices()


def train(recipe, model_dir, *, data_dir=None, command=""):
    """Train by a recipe, or go on where the run in `model_dir` stopped; then judge the best checkpoint and report.

    Args:
      recipe: an `hparams.Recipe`.
      model_dir: folder of the run; nothing in it is ever wiped.
      data_dir: where the data set lies.
      command: what the user typed, for the report.

    Returns:
      The report, a dict as `report.json` holds it.

    Raises:
      ValueError: another recipe was begun in `model_dir`; the batch does not fit the data or the replicas.
      OSError: data, folder or checkpoint can't be read or written.
      FloatingPointError: the loss is not finite; checkpoints are those from before.
      KeyboardInterrupt: stopped on demand; a checkpoint holds the state.
    """
    assembly.check_names(recipe)
    model_dir = places.check_folder(model_dir, recipe)
    assembly.make_deterministic(recipe.seed)
    with places.locked(model_dir), naming_failures() as failing:
        failing.dataset = dataset = assembly.load_data(recipe, data_dir)
        strategy = assembly.make_strategy(recipe)
        run = Training(recipe, dataset, strategy, model_dir)
        run.restore()
        places.write_recipe(model_dir, recipe)
        run.train()
        best = saving.find(model_dir, "best")
        restore_weights(best, run.state.model, recipe)
        facts = {"mode": "train", "command": command, "seed": recipe.seed, "recipe": recipe.to_dict(),
                 "training": run.summary(),
                 "checkpoint": {"path": str(best), "kind": "best", "step": saving.read_state(best)["step"],
                                "weights": describe_weights(best, recipe)}}
        batches = assembly.evaluation_batches(recipe, dataset.test, run.image_size, strategy)
        folder = places.report_folder(model_dir, recipe)
        return judge(recipe, run.state.model, dataset, batches, strategy, folder, facts, run.history, model_dir)


def evaluate(changes, *, model_dir=None, checkpoint=None, data_dir=None, command=""):
    """Judge a checkpoint under the attacks of its recipe with `changes`, and report into a folder of its own.

    Args:
      changes: `{field: value}` of the recipe, fields of `JUDGING_FIELDS`: what was trained can't be changed.
      model_dir: folder of a run, whose best checkpoint is taken; the report goes into `evaluations/` there.
      checkpoint: another checkpoint, `saving.find` says how to name it; without model_dir its run gets the report.

    Returns:
      The report.
    """
    path, state, recipe = read_checkpoint(checkpoint or model_dir, changes)
    model_dir = pathlib.Path(model_dir or places.run_of(path, recipe))
    image_size = recipe.image_size or state["data"]["image_size"]  # the size it was trained at
    assembly.make_deterministic(recipe.seed)
    with naming_failures() as failing:
        failing.dataset = dataset = assembly.load_data(recipe, data_dir)
        if not dataset.test.size:
            raise ValueError(f"Expected pictures in the test part of {dataset.source}. Received: none.")
        if "eval_batch_size" in changes and recipe.eval_batch_size > dataset.test.size:
            raise ValueError(f"Expected a batch of at most the {dataset.test.size} test pictures. "
                             f"Received: batch_size={recipe.eval_batch_size}.")
        strategy = assembly.make_strategy(recipe, ["eval_batch_size"])
        batches = assembly.evaluation_batches(recipe, dataset.test, image_size, strategy)  # before any work
        with strategy.scope():
            model = load_model(path, state, recipe, dataset.classes)
        known = PUBLISHED_FIELDS if released.is_released(path) else state["recipe"]
        facts = {"mode": "eval", "command": command, "seed": recipe.seed, "training": None,
                 "recipe": {name: state["recipe"][name] for name in known},
                 "checkpoint": {"path": str(path), "kind": places.kind_of(path), "step": state["step"],
                                "weights": describe_weights(path, recipe)}}
        folder = places.next_folder(model_dir / "evaluations")
        return judge(recipe, model, dataset, batches, strategy, folder, facts, state["history"], model_dir)


def export(changes, *, model_dir=None, checkpoint=None, data_dir=None, command=""):
    """Write a checkpoint as a SavedModel into `export/step-N` of the run's folder, and check it against the model.

    Returns:
      `{"path", "difference"}`: where it is, and how far its logits are from the model's, relatively.
    """
    path, state, recipe = read_checkpoint(checkpoint or model_dir, changes)
    model = load_model(path, state, recipe, state["data"]["classes"])
    size = recipe.image_size or state["data"]["image_size"]
    images = np.random.default_rng(0).random((8, size, size, 3), np.float32)
    name = path.stem + ("-averaged" if recipe.judged_weights == "averaged" else "")
    folder = pathlib.Path(model_dir or places.run_of(path, recipe)) / "export" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    difference = saved_model(model, folder, size, images)
    weights = describe_weights(path, recipe)
    print(f"SavedModel: {folder}\nweights: {weights}\n"
          f"largest relative difference to the model's logits: {difference:.1e}")
    return {"path": str(folder), "difference": difference, "weights": weights}


def load_model(path, state, recipe, classes):
    """Return the model of a checkpoint; the data's classes must be those it was trained on."""
    if list(classes) != state["data"]["classes"]:
        raise ValueError(f"Expected the {len(state['data']['classes'])} classes that {path} was trained on: "
                         f"{', '.join(state['data']['classes'][:5])}, ... Received: dataset={recipe.dataset} with "
                         f"{len(classes)}: {', '.join(classes[:5])}, ...")
    if released.is_released(path):
        return released.load_lite(path, recipe.model, recipe.act)
    model = assembly.build_model(recipe, len(classes))
    restore_weights(path, model, recipe)
    return model


def restore_weights(path, model, recipe):
    """Read the weights that the recipe judges, raw or averaged, into a model."""
    group = "average" if recipe.judged_weights == "averaged" else "model"
    saving.restore(path, {group: saving.by_path(model)})


def describe_weights(path, recipe):
    """Return which weights of a checkpoint a report or an export is about."""
    if released.is_released(path):
        return "as published"
    if recipe.judged_weights == "averaged":
        return f"averaged (decay {recipe.average_decay})"
    return "raw" if recipe.average_decay else "raw (the run keeps no average)"


def read_checkpoint(place, changes):
    """Return path, state and recipe of a checkpoint; `changes` to how it is judged are made, others refused."""
    if released.is_released(place):
        path, state = read_released(released.find(place))
    else:
        path = saving.find(place, "best")
        state = saving.read_state(path, STATE)
    stored = hparams.Recipe.from_dict(state["recipe"])
    recipe = stored.replace(**changes)
    trained = [name for name in stored.to_dict() if name not in JUDGING_FIELDS]
    lines = stored.differences(recipe, fields=trained)
    if lines:
        raise ValueError(f"Expected what the checkpoint {path} was trained with. Received: {'; '.join(lines)}.")
    return path, state, recipe


def read_released(path):
    """Return path and state of published weights, as a checkpoint of ours would have it: ImageNet's classes."""
    model = released.lite_variant(path)
    norm = {f"norm_{name}": value for name, value in released.NORM.items()}
    recipe = hparams.get(model).replace(method="standard", **norm)
    data = {"classes": list(imagenet_classes()), "image_size": models.image_size(model)}
    return path, {"recipe": recipe.to_dict(), "data": data, "step": None, "history": []}


@contextlib.contextmanager
def naming_failures():
    """Turn TensorFlow's errors into what the user can act on: a broken picture is named, lack of memory explained.

    Yields a namespace whose `dataset` is asked for what is broken in it, as soon as it is set.
    """
    failing = types.SimpleNamespace(dataset=None)
    try:
        yield failing
    except tf.errors.ResourceExhaustedError as error:
        if "No space left" in error.message:
            raise OSError(f"The disk is full: {error.message}") from error
        raise MemoryError("Out of memory. A smaller --batch_size (or --set eval_batch_size) needs less.") from error
    except tf.errors.OpError as error:
        broken = failing.dataset and failing.dataset.diagnose()
        raise OSError(broken or f"TensorFlow failed: {error.message.splitlines()[0]}") from error
