"""The one place where all parts meet, and the only reader of a recipe: train, evaluate, export."""

import contextlib
import logging
import pathlib
import sys
import types

import tensorflow as tf
from absl import logging as absl_logging
from tqdm import tqdm

import hparams
from sat_tf import saving
from sat_tf.experiment import assembly, checkpoints, places
from sat_tf.experiment.drawing import draw
from sat_tf.experiment.exporting import export
from sat_tf.experiment.judging import judge
from sat_tf.experiment.planning import plan
from sat_tf.experiment.training import Training
from sat_tf.released import fetch

__all__ = ["convert", "download", "draw", "evaluate", "export", "naming_failures", "plan", "start", "train"]


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


def train(recipe, model_dir, *, data_dir=None, command="", on_progress=None):
    """Train by a recipe, or go on where the run in `model_dir` stopped; then judge the best checkpoint and report.

    Args:
      recipe: an `hparams.Recipe`.
      model_dir: folder of the run; nothing in it is ever wiped.
      data_dir: where the data set lies.
      command: what the user typed, for the report.
      on_progress: is called with the share of the training that is done, in [0, 1].

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
        run.train(on_progress)
        best = saving.find(model_dir, "best")
        checkpoints.restore_weights(best, run.state.model, recipe)
        found = checkpoints.open_checkpoint(best, {"eval_weights": recipe.eval_weights})
        facts = {"mode": "train", "command": command, "seed": recipe.seed, "recipe": recipe.to_dict(),
                 "training": run.summary(), "checkpoint": found.facts}
        batches = assembly.evaluation_batches(recipe, dataset.test, run.image_size, strategy)
        folder = places.report_folder(model_dir, recipe)
        return judge(recipe, run.state.model, dataset, batches, strategy, folder, facts, run.history, model_dir)


def evaluate(changes, *, model_dir=None, checkpoint=None, checkpoint_dir=None, data_dir=None, command=""):
    """Judge a checkpoint under the attacks of its recipe with `changes`, and report into a folder of its own.

    Args:
      changes: `{field: value}` of the recipe, fields of `checkpoints.JUDGING_FIELDS`: what was trained can't be
        changed.
      model_dir: folder of a run, whose best checkpoint is taken; the report goes into `evaluations/` there.
      checkpoint: another checkpoint, as `checkpoints.open_checkpoint` names them; without model_dir its run gets the
        report.
      checkpoint_dir: where the files of released checkpoints lie.

    Returns:
      The report.
    """
    found = checkpoints.open_checkpoint(checkpoint or model_dir, changes, checkpoint_dir)
    recipe, model_dir = found.recipe, pathlib.Path(model_dir or found.folder)
    assembly.make_deterministic(recipe.seed)
    with naming_failures() as failing:
        failing.dataset = dataset = assembly.load_data(recipe, data_dir)
        if not dataset.test.size:
            raise ValueError(f"Expected pictures in the test part of {dataset.source}. Received: none.")
        if "eval_batch_size" in changes and recipe.eval_batch_size > dataset.test.size:
            raise ValueError(f"Expected a batch of at most the {dataset.test.size} test pictures. "
                             f"Received: batch_size={recipe.eval_batch_size}.")
        strategy = assembly.make_strategy(recipe, ["eval_batch_size"])
        batches = assembly.evaluation_batches(recipe, dataset.test, found.image_size, strategy)  # before any work
        with strategy.scope():
            model = found.load(dataset.classes)
        facts = {"mode": "eval", "command": command, "seed": recipe.seed, "training": None, "recipe": found.known,
                 "checkpoint": found.facts, "published": found.published_facts}
        folder = places.next_folder(model_dir / "evaluations")
        return judge(recipe, model, dataset, batches, strategy, folder, facts, found.state["history"], model_dir)


def convert(changes, *, model_dir=None, checkpoint=None, checkpoint_dir=None, data_dir=None, command=""):
    """Write a checkpoint as NAME.keras with its recipe in NAME.json, which `checkpoint` takes from then on.

    They lie in `model_dir` where that is named beside a checkpoint, else in the folder of the checkpoint's run.

    Returns:
      The path of the .keras file.
    """
    found = checkpoints.open_checkpoint(checkpoint or model_dir, changes, checkpoint_dir)
    file = pathlib.Path(model_dir or found.folder) / f"{found.name}.keras"
    path = checkpoints.write_converted(found, found.load(), file)
    print(f"model: {path}\nrecipe: {path.with_suffix('.json')}\nweights: {found.weights}\n"
          f"judge it: python main.py --mode=eval --checkpoint={path}")
    return path


def download(name, checkpoint_dir):
    """Fetch the three files of a released checkpoint into a folder, or check those that are there."""
    release = hparams.release(name)
    paths = fetch.fetch(name, release.ids, checkpoint_dir)
    print("\n".join(f"{path.stat().st_size:>12,} bytes  {path}" for path in map(pathlib.Path, paths)))
    print(f"judge it: python main.py --mode=eval --checkpoint=released:{name} --checkpoint_dir={checkpoint_dir} "
          "--data_dir=DIR")
    return paths


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
