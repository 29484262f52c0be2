"""The evaluations of a run: the folder of one that goes on or begins, and what all of them found."""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Iterator

import keras
import numpy as np
from absl import logging

from sat_tf import assembly, files
from sat_tf.runs import checkpoints, folders


@contextlib.contextmanager
def work_folder(parent: pathlib.Path, request: dict) -> Iterator[pathlib.Path]:
    """Yield the folder of an evaluation: that of the same one that was stopped, else a new one; locked meanwhile.

    Args:
      parent: folder of evaluations.
      request: everything that decides what is computed, as JSON holds it.
    """
    parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(request, indent=1) + "\n"
    with contextlib.ExitStack() as stack:
        for folder in sorted(parent.glob("*/request.json"), reverse=True):
            folder = folder.parent
            if (folder / "report.json").exists() or (folder / "request.json").read_text() != text:
                continue
            try:
                stack.enter_context(files.locked(folder))
            except BlockingIOError:  # another process is at it
                continue
            if not (folder / "report.json").exists():
                logging.info("Going on with the evaluation in %s, which was stopped.", folder)
                break
        else:
            folder = folders.next_folder(parent)
            stack.enter_context(files.locked(folder))
            files.write(folder / "request.json", text)
        try:
            yield folder
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(f"Stopped in {folder}. The same command goes on there.") from error


def rows_of(found: checkpoints.Checkpoint, model_dir: pathlib.Path) -> list[dict]:
    """Return the rows of all reports about these very weights at this very size, each with its "dataset".

    Of equal ones the latest.
    """
    rows = {}
    for folder in dict.fromkeys((found.folder, pathlib.Path(model_dir or found.folder))):
        for file in [folder / "report.json", *sorted(folder.glob("evaluations/*/report.json"))]:
            try:
                report = json.loads(file.read_text())
                about, dataset = report["checkpoint"], report["dataset"]
                same = (
                    pathlib.Path(about["path"]).resolve(),
                    about["weights"],
                    dataset["image_size"],
                    dataset["preprocess"],
                ) == (found.path.resolve(), found.weights, found.image_size, assembly.preprocess(found.recipe))
                name = dataset["source"] if dataset["name"] in ("folder", "shards") else dataset["name"]
                for row in report["evaluations"] if same else []:
                    key = tuple(str(row[name]) for name in ("attack", "epsilon", "step_size", "backward", "count"))
                    rows[name, key] = {**row, "dataset": name}
            except (OSError, ValueError, KeyError, TypeError):
                continue  # no report, or one that is damaged: the card does without it
    return list(rows.values())


def fingerprint(model: keras.Model) -> str:
    """Return the SHA-256 of a model's variables."""
    digest = hashlib.sha256()
    for variable in model.variables:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()
