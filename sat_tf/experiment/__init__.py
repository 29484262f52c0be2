"""The one place where all parts meet, and the only reader of a recipe: train, evaluate, export."""

import contextlib
import json
import logging
import os
import pathlib
import sys

import numpy as np
import tensorflow as tf
from absl import logging as absl_logging
from tqdm import tqdm

import hparams
from sat_tf import data, saving
from sat_tf.experiment import assembly
from sat_tf.experiment.judging import judge
from sat_tf.experiment.training import Training
from sat_tf.export import saved_model

JUDGING_FIELDS = (*hparams.EVALUATION_FIELDS, "dataset", "image_size", "held_out", "seed", "strategy")


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
    model_dir = check_folder(model_dir, recipe)
    assembly.make_deterministic(recipe.seed)
    dataset = data.load(recipe.dataset, data_dir=data_dir, held_out=recipe.held_out)
    strategy = assembly.make_strategy(recipe)
    with naming_failures(dataset):
        run = Training(recipe, dataset, strategy, model_dir)
        run.restore()
        write_recipe(model_dir, recipe)
        run.train()
    best = saving.find(model_dir, "best")
    saving.restore(best, {"model": saving.by_path(run.state.model)})
    facts = {"mode": "train", "command": command, "training": run.summary(),
             "checkpoint": {"path": str(best), "kind": "best", "step": saving.read_state(best)["step"]}}
    return judge(recipe, run.state.model, dataset, strategy, model_dir, facts, run.history, model_dir)


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
    model_dir = pathlib.Path(model_dir or run_of(path))
    assembly.make_deterministic(recipe.seed)
    dataset = data.load(recipe.dataset, data_dir=data_dir, held_out=recipe.held_out)
    strategy = assembly.make_strategy(recipe)
    with strategy.scope():
        model = load_model(path, state, recipe, dataset.classes)
    folder = next_folder(model_dir / "evaluations")
    facts = {"mode": "eval", "command": command, "training": None,
             "checkpoint": {"path": str(path), "kind": kind_of(path), "step": state["step"]}}
    with naming_failures(dataset):
        return judge(recipe, model, dataset, strategy, folder, facts, state["history"], model_dir)


def export(changes, *, model_dir=None, checkpoint=None, data_dir=None, command=""):
    """Write a checkpoint as a SavedModel into `export/step-N` of the run's folder, and check it against the model.

    Returns:
      `{"path", "difference"}`: where it is, and how far its logits are from the model's, relatively.
    """
    path, state, recipe = read_checkpoint(checkpoint or model_dir, changes)
    model = load_model(path, state, recipe, state["classes"])
    size = state["image_size"]
    images = np.random.default_rng(0).random((8, size, size, 3), np.float32)
    folder = pathlib.Path(model_dir or run_of(path)) / "export" / path.name
    folder.parent.mkdir(parents=True, exist_ok=True)
    difference = saved_model(model, folder, size, images)
    print(f"SavedModel: {folder}\nlargest relative difference to the model's logits: {difference:.1e}")
    return {"path": str(folder), "difference": difference}


def load_model(path, state, recipe, classes):
    """Return the model of a checkpoint; the data's classes must be those it was trained on."""
    if list(classes) != state["classes"]:
        raise ValueError(f"Expected the {len(state['classes'])} classes that {path} was trained on. "
                         f"Received: dataset={recipe.dataset} with {len(classes)}: {', '.join(classes[:5])}, ...")
    model = assembly.build_model(recipe, len(classes))
    saving.restore(path, {"model": saving.by_path(model)})
    return model


def read_checkpoint(place, changes):
    """Return path, state and recipe of a checkpoint; `changes` to how it is judged are made, others refused."""
    path = saving.find(place, "best")
    state = saving.read_state(path)
    stored = hparams.Recipe.from_dict(state["recipe"])
    recipe = stored.replace(**changes)
    trained = [name for name in stored.to_dict() if name not in JUDGING_FIELDS]
    lines = stored.differences(recipe, fields=trained)
    if lines:
        raise ValueError(f"Expected what the checkpoint {path} was trained with. Received: {'; '.join(lines)}.")
    return path, state, recipe


def run_of(path):
    """Return the folder of the run that a checkpoint belongs to; a checkpoint that was moved is its own."""
    return path.parents[1] if path.parent.name == "checkpoints" else path


def kind_of(path):
    """Return "best" or "latest" as the pointers beside a checkpoint say."""
    pointers = [kind for kind in ("best", "latest") if (path.parent / kind).is_file()
                and (path.parent / kind).read_text().strip() == path.name]
    return pointers[0] if pointers else "none"


def check_folder(model_dir, recipe):
    """Return the folder of a run after making sure that it can be written and holds no other recipe's run."""
    model_dir = pathlib.Path(model_dir)
    try:
        model_dir.mkdir(parents=True, exist_ok=True)
        probe = model_dir / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"Expected a --model_dir that can be written. Received: model_dir={model_dir}: "
                      f"{error.strerror}.") from error
    file = model_dir / "recipe.json"
    if file.exists():
        differences = hparams.Recipe.from_dict(json.loads(file.read_text())).differences(recipe)
        if differences:
            raise ValueError(f"Expected the recipe of the run in {model_dir}. Received another one: "
                             f"{'; '.join(differences)}. Name another --model_dir, or repeat its flags to go on.")
    return model_dir


def write_recipe(model_dir, recipe):
    """Write `recipe.json`, under another name first."""
    partial = model_dir / ".recipe.json.partial"
    partial.write_text(json.dumps(recipe.to_dict(), indent=1) + "\n")
    os.replace(partial, model_dir / "recipe.json")


@contextlib.contextmanager
def naming_failures(dataset):
    """Turn TensorFlow's errors into what the user can act on: a broken picture is named, lack of memory explained."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise MemoryError("Out of memory. A smaller --batch_size (or --set eval_batch_size) needs less.") from error
    except tf.errors.OpError as error:
        broken = dataset.diagnose()
        if broken is None:
            raise
        raise OSError(broken) from error


def next_folder(parent):
    """Return the first free numbered folder of `parent`: 001, 002, ..."""
    taken = [int(path.name) for path in parent.glob("[0-9]*") if path.name.isdigit()] if parent.exists() else []
    return parent / f"{max(taken, default=0) + 1:03d}"
