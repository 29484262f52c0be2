"""Models on their way out: SavedModel, Keras, LiteRT and ONNX files, each compared with the model by its consumer."""

import json
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from sat_tf import files
from sat_tf.export import card, parity
from sat_tf.export.examples import drawn
from sat_tf.export.formats import FILES, FORMATS, check

__all__ = ["FILES", "FORMATS", "check", "drawn", "with_present", "write"]


def write(
    model: keras.Model,
    directory: str | pathlib.Path,
    *,
    facts: dict[str, Any],
    recipe: dict[str, Any],
    examples: tuple[np.ndarray, np.ndarray, list[bytes], str],
    attack: dict[str, Any],
    evaluations: list[dict[str, Any]],
    preprocess: Callable,
    progress: Callable,
    attacked: Callable | None = None,
) -> dict[str, Any]:
    """Write a model in some formats with its card, and compare each with the model in its consumer's own process.

    The directory appears when all is written and compared, not before.

    Args:
      model: images `[n, size, size, 3]` in [0, 1] -> logits.
      directory: where to; an export there is written anew with further formats, see `with_present`.
      facts: what `card.write` takes, "formats", keys of `FORMATS`, among them; written as export.json.
      recipe: the fields of the recipe that are known, as JSON takes them.
      examples: `(images, labels, encoded)` as `parity.prepare` takes them, with their description as a fourth.
      attack: as `parity.prepare` takes it.
      evaluations: rows of reports about these weights.
      preprocess: `(bytes of an image file, size) -> image`, the model's evaluation preprocessing.
      attacked: the model with other gradients, which a SavedModel then has; None for its own.
      progress: `(what, total) -> context manager of an object with update(n)`.

    Returns:
      The parity, a dict as parity.json holds it.

    Raises:
      FileExistsError: the directory exists and holds all the formats, or something else.
      ValueError: a format answers otherwise than the model; nothing is left behind.
      OSError: a consumer failed.
    """
    directory, formats = pathlib.Path(directory), facts["formats"]
    with_present(directory, formats, facts["weights"])
    with files.replacing(directory, whole=True) as partial:
        partial.mkdir()
        (partial / "classes.txt").write_text("".join(f"{name}\n" for name in facts["classes"]))
        (partial / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n")
        (partial / "export.json").write_text(json.dumps({**facts, "evaluations": evaluations}, indent=1) + "\n")
        assets = [partial / "classes.txt", partial / "recipe.json"]
        with progress("writing", len(formats)) as bar:
            for name in formats:
                FORMATS[name](model, facts["image_size"], partial / FILES[name], preprocess, assets, attacked)
                bar.update(1)
        result = compare(attacked or model, partial, formats, examples, attack, progress)
        (partial / "parity.json").write_text(json.dumps(result, indent=1) + "\n")
        (partial / "README.md").write_text(card.write(facts, evaluations, result))
        if "saved_model" in formats:  # the folder by which TensorFlow lets a SavedModel carry what it does not read
            extra = partial / FILES["saved_model"] / "assets.extra"
            extra.mkdir()
            shutil.copy(partial / "README.md", extra)
    return result


def with_present(directory: pathlib.Path, formats: Sequence[str], weights: str) -> list[str]:
    """Return the formats that an export will have: those that lie in a directory already, and the new ones.

    Args:
      directory: of the export.
      formats: that are asked for.
      weights: which of the checkpoint's they are, "raw".

    Raises:
      ValueError: TensorFlow can't load from the directory.
      FileExistsError: nothing is new, or the directory holds something else.
    """
    if "[" in str(directory.resolve()):
        raise ValueError(f"Expected a path without '[', which TensorFlow takes for a pattern. Received: {directory}.")
    if not directory.exists():
        return list(formats)
    try:
        facts = json.loads((directory / "export.json").read_text())
        present = facts["formats"] if facts["weights"] == weights else None
    except (OSError, ValueError, KeyError, TypeError):
        present = None
    if present is None or set(formats) <= set(present):
        raise FileExistsError(
            f"Expected a new folder for the export, or a format that it lacks. Received: {directory}, which exists. "
            "Remove it first, or export to another --model_dir with --checkpoint."
        )
    return list(dict.fromkeys([*present, *formats]))


def compare(
    model: Callable,
    directory: pathlib.Path,
    formats: Sequence[str],
    examples: tuple[np.ndarray, np.ndarray, list[bytes], str],
    attack: dict[str, Any],
    progress: Callable,
) -> dict[str, Any]:
    """Return the parity of all formats; one that differs is a ValueError."""
    images, labels, encoded, description = examples
    result = {"images": description, "attack": attack, "tolerance": parity.TOLERANCE, "formats": {}}
    with tempfile.TemporaryDirectory() as folder:
        attacked = attack["count"] if "saved_model" in formats else 0
        wanted = None
        with progress("the model's answers", len(images) + attack["count"]) as bar:
            for answer in parity.prepare(model, folder, (images, labels, encoded), attack):
                wanted = answer
                if not isinstance(answer, dict):
                    bar.update(answer)
        for name in formats:
            total = len(images) * (2 if name == "saved_model" else 1) + (attacked if name == "saved_model" else 0)
            with progress(f"{name}'s answers", total) as bar:
                found = parity.ask(name, directory / FILES[name], folder, bar.update)
            result["formats"][name] = parity.compare(wanted, found, labels)
    failed = {name: row for name, row in result["formats"].items() if not row["passed"]}
    if failed:
        words = "; ".join(
            f"{name}: {', '.join(f'{key} {value:g}' for key, value in row.items() if key != 'passed')}"
            for name, row in failed.items()
        )
        raise ValueError(f"Expected the answers of the model itself from every format. Received others: {words}.")
    return result
