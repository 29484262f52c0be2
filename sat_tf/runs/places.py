"""Where the data of a run lies: remembered with the run, so that nobody need say it again."""

import json
import os
import pathlib

from absl import logging

from sat_tf import files, hparams
from sat_tf.runs import checkpoints, folders


def whole(data_dir: str | os.PathLike | None) -> str | None:
    """Return a folder as it is found from anywhere: in full, ~ written out; addresses such as gs://... as they are."""
    if data_dir is None or "://" in (text := os.fspath(data_dir)):
        return data_dir
    return os.path.abspath(os.path.expanduser(text))


def remember(model_dir: pathlib.Path, recipe: hparams.Recipe, data_dir: str | os.PathLike | None) -> None:
    """Write down where the data of a run lies, None for data that needs no folder or lies in its usual place."""
    content = {"dataset": recipe.dataset, "data_dir": whole(data_dir)}
    if hparams.data_of(model_dir) != content:
        files.write(pathlib.Path(model_dir) / hparams.DATA, json.dumps(content, indent=1) + "\n")


def of_run(
    model_dir: str | os.PathLike, recipe: hparams.Recipe, data_dir: str | os.PathLike | None
) -> str | os.PathLike | None:
    """Return where the data of a training lies: what the user said, else what its run remembers.

    Raises:
      FileNotFoundError: the run remembers a place that is no more.
    """
    return _found(hparams.data_of(model_dir), recipe, data_dir, model_dir)


def of_checkpoint(found: checkpoints.Checkpoint, data_dir: str | os.PathLike | None) -> str | os.PathLike | None:
    """Return where the data of a checkpoint lies: what the user said, else what its run remembers, or it itself.

    Raises:
      FileNotFoundError: it remembers a place that is no more.
    """
    remembered = hparams.data_of(folders.run_of(found.path)) if found.source == "run" else {}
    if not remembered:
        remembered = {"dataset": found.state["recipe"]["dataset"], "data_dir": found.state["data"].get("data_dir")}
    return _found(remembered, found.recipe, data_dir, found.path)


def _found(remembered, recipe, data_dir, owner):
    """Return a place where it is there; of another data set than the recipe's nothing is remembered."""
    place = remembered.get("data_dir")
    if data_dir is not None or place is None or remembered["dataset"] != recipe.dataset:
        return data_dir
    if "://" not in place and not os.path.isdir(place):
        raise FileNotFoundError(
            f"Expected the data of {owner} where it lay in training. Received: {place}, which is no more. "
            "Say where it lies now: --data_dir=DIR."
        )
    logging.info("The data lies in %s, as in training.", place)
    return place
