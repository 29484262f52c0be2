"""A checkpoint as one .keras file with its recipe beside it."""

import json
import pathlib

import keras
import numpy as np

from sat_tf import files, models
from sat_tf.runs.checkpoints import FORMAT, STATE_KEYS, Checkpoint


def write(found: Checkpoint, model: keras.Model, path: str | pathlib.Path) -> pathlib.Path:
    """Write a model and its recipe as PATH.keras and PATH.json, and check that they read back to the same logits.

    Returns:
      The path of the .keras file.

    Raises:
      FileExistsError: one of them is there.
    """
    path = pathlib.Path(path)
    for file in (path, path.with_suffix(".json")):
        if file.exists() and not _left_alone(file):
            raise FileExistsError(
                f"Expected a new file. Received: {file}, which exists. Remove it, or name another --model_dir."
            )
    state = {
        **{key: found.state[key] for key in STATE_KEYS},
        "format": FORMAT,
        "recipe": found.recipe.to_dict(),
        "label": found.name,
        "known": list(found.known),
        "weights": found.weights,
        "published": found.published,
        "converted_from": str(found.path),
    }
    with files.replacing(path) as partial:
        model.save(partial)
        images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
        if not np.array_equal(models.load(partial)(images, training=False), model(images, training=False)):
            raise ValueError(f"Expected the logits of the model itself from {path}. Received: others.")
        files.write(path.with_suffix(".json"), json.dumps(state, indent=1) + "\n")
    return path


def _left_alone(file):
    """Say whether a .json is of a conversion that was killed before its .keras appeared: it may be written over."""
    try:
        return not file.with_suffix(".keras").exists() and "converted_from" in json.loads(file.read_text())
    except (ValueError, TypeError):
        return False
