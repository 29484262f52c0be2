"""The one place where all parts meet, and the only reader of a recipe: train, evaluate, export."""

import contextlib
import dataclasses
import logging
import pathlib
import sys
import types

import tensorflow as tf
from absl import logging as absl_logging
from tqdm import tqdm

import hparams
from sat_tf import corruptions, saving, verify
from sat_tf.experiment import assembly, checkpoints, evaluating, overlap, places, verifying
from sat_tf.experiment.drawing import draw
from sat_tf.experiment.exporting import export
from sat_tf.experiment.judging import evaluate_trained
from sat_tf.experiment.merging import merge
from sat_tf.experiment.planning import plan
from sat_tf.experiment.training import Training
from sat_tf.released import fetch

__all__ = [
    "check_adversarial",
    "convert",
    "download",
    "draw",
    "evaluate",
    "export",
    "merge",
    "naming_failures",
    "plan",
    "start",
    "train",
]


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
    """Train by a recipe, or go on where the run in `model_dir` stopped; then evaluate the best checkpoint and report.

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
        overlap.remember(model_dir, dataset, overlap.whole(recipe, data_dir))
        places.write_recipe(model_dir, recipe)
        run.train(on_progress)
        best = saving.find(model_dir, "best")
        checkpoints.restore_weights(best, run.state.model, recipe)
        found = checkpoints.open_checkpoint(best, {"eval_weights": recipe.eval_weights})
        facts = {
            "mode": "train",
            "command": command,
            "seed": recipe.seed,
            "recipe": recipe.to_dict(),
            "training": run.summary(),
            "checkpoint": found.facts,
        }
        batches = assembly.evaluation_batches(recipe, dataset.test, run.image_size, strategy)
        folder = places.report_folder(model_dir, recipe)
        return evaluate_trained(
            recipe, run.state.model, dataset, batches, strategy, folder, facts, run.history, model_dir
        )


def evaluate(
    changes,
    *,
    model_dir=None,
    checkpoint=None,
    checkpoint_dir=None,
    data_dir=None,
    command="",
    subset=None,
    shard=None,
    save_adversarial=False,
    sibling=None,
    force=False,
):
    """Evaluate a checkpoint under the attacks of its recipe with `changes`, and report into a folder of its own.

    Stopped or killed, the same call goes on where it was.

    Args:
      changes: `{field: value}` of the recipe, fields of `checkpoints.EVALUATING_FIELDS`: what was trained can't be
        changed. Where they do not say `eval_active_set` it is on, but for released checkpoints with published numbers,
        which are evaluated as those were.
      model_dir: folder of a run, whose best checkpoint is taken; the report goes into `evaluations/` there.
      checkpoint: another checkpoint, as `checkpoints.open_checkpoint` names them; without model_dir its run gets the
        report.
      checkpoint_dir: where the files of released checkpoints lie.
      subset: a file of ids: only these test images are evaluated.
      shard: (i, n): only the i-th of n parts of the test images, counted from 1; `merge` puts the parts together.
      save_adversarial: write the adversarial images, which `verify` reads.
      sibling: another checkpoint of the same data, as `checkpoint`: attacks on it must not be stronger.
      force: show accuracies that failed a check, with the warning.

    Returns:
      The report; `trusted` is False where a hard check failed.
    """
    found = checkpoints.open_checkpoint(checkpoint or model_dir, changes, checkpoint_dir)
    if "eval_active_set" not in changes:
        found = dataclasses.replace(found, recipe=found.recipe.replace(eval_active_set=not found.published))
    recipe, model_dir = found.recipe, pathlib.Path(model_dir or found.folder)
    other = sibling and checkpoints.open_checkpoint(sibling, {}, checkpoint_dir)
    if recipe.eval_corruptions:
        corruptions.check()
    assembly.make_deterministic(recipe.seed)
    with naming_failures() as failing:
        failing.dataset = dataset = load_test(found, data_dir)
        overlap.tell(dataset)
        dataset, subset = evaluating.chosen(dataset, subset, shard)
        overlap.refuse(found, dataset)
        if "eval_batch_size" in changes and recipe.eval_batch_size > dataset.test.size:
            raise ValueError(
                f"Expected a batch of at most the {dataset.test.size} test images. "
                f"Received: batch_size={recipe.eval_batch_size}."
            )
        strategy = assembly.make_strategy(recipe, ["eval_batch_size"])
        batches = assembly.evaluation_batches(recipe, dataset.test, found.image_size, strategy)  # before any work
        with strategy.scope():
            model = found.load(dataset.classes)
            other = other and other.load(dataset.classes)
        facts = {
            "mode": "eval",
            "command": command,
            "seed": recipe.seed,
            "training": None,
            "recipe": found.known,
            "evaluated_by": evaluating.evaluated_by(recipe),
            "checkpoint": found.facts,
            "published": found.published_facts,
        }
        return evaluating.evaluate_checkpoint(
            found,
            model,
            dataset,
            batches,
            strategy,
            home=model_dir,
            facts=facts,
            subset=subset,
            shard=shard,
            recorded=found.recorded(dataset.name),
            sibling=other,
            force=force,
            save_adversarial=save_adversarial,
        )


def load_test(found, data_dir):
    """Return the data set that a checkpoint is evaluated on, with test images."""
    dataset = assembly.load_data(found.recipe, data_dir)
    if not dataset.test.size:
        raise ValueError(f"Expected images in the test part of {dataset.source}. Received: none.")
    return dataset


def check_adversarial(file, changes, *, model_dir=None, checkpoint=None, checkpoint_dir=None, data_dir=None):
    """Check a file of adversarial images against the data set, and rescore it with a checkpoint or a SavedModel.

    Args:
      file: of `--save_adversarial`, or of anyone who writes the format of `verify`.
      changes: how the checkpoint is evaluated, above all `eval_epsilon` and `eval_norm` where they should be checked.
      checkpoint: as for `evaluate`, or the folder of an exported SavedModel, which needs `changes` to say dataset,
        image_size and eval_preprocess where the file's are not to be believed.

    Returns:
      The list of `verify.Finding` and `{"float32": accuracy, "uint8": accuracy}`.
    """
    content = verify.read(file)
    return verifying.run(content, changes, checkpoint or model_dir, checkpoint_dir, data_dir)


def convert(changes, *, model_dir=None, checkpoint=None, checkpoint_dir=None, data_dir=None, command=""):
    """Write a checkpoint as NAME.keras with its recipe in NAME.json, which `checkpoint` takes from then on.

    They lie in `model_dir` where that is named beside a checkpoint, else in the folder of the checkpoint's run.

    Returns:
      The path of the .keras file.
    """
    found = checkpoints.open_checkpoint(checkpoint or model_dir, changes, checkpoint_dir)
    file = pathlib.Path(model_dir or found.folder) / f"{found.name}.keras"
    path = checkpoints.write_converted(found, found.load(), file)
    overlap.carry(found, path)
    print(
        f"model: {path}\nrecipe: {path.with_suffix('.json')}\nweights: {found.weights}\n"
        f"evaluate it: python main.py --mode=eval --checkpoint={path}"
    )
    return path


def download(name, checkpoint_dir):
    """Fetch the three files of a released checkpoint into a folder, or check those that are there."""
    release = hparams.release(name)
    paths = fetch.fetch(name, release.ids, checkpoint_dir)
    print("\n".join(f"{path.stat().st_size:>12,} bytes  {path}" for path in map(pathlib.Path, paths)))
    print(
        f"evaluate it: python main.py --mode=eval --checkpoint=released:{name} --checkpoint_dir={checkpoint_dir} "
        "--data_dir=DIR"
    )
    return paths


@contextlib.contextmanager
def naming_failures():
    """Turn TensorFlow's errors into what the user can act on: an unreadable image is named, lack of memory explained.

    Yields a namespace whose `dataset` is asked for what is unreadable in it, as soon as it is set.
    """
    failing = types.SimpleNamespace(dataset=None)
    try:
        yield failing
    except tf.errors.ResourceExhaustedError as error:
        if "No space left" in error.message:
            raise OSError(f"The disk is full: {error.message}") from error
        raise MemoryError("Out of memory. A smaller --batch_size (or --set eval_batch_size) needs less.") from error
    except tf.errors.OpError as error:
        unreadable = failing.dataset and failing.dataset.diagnose()
        raise OSError(unreadable or f"TensorFlow failed: {error.message.splitlines()[0]}") from error
