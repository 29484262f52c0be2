"""The folders of runs, evaluations and checkpoints: whose they are, and whether they can be written."""

import json
import os
import pathlib

from sat_tf import files, hparams


def run_of(path: pathlib.Path) -> pathlib.Path:
    """Return the folder of the run that a checkpoint belongs to; a checkpoint that was moved is its own."""
    path = path.resolve()
    return path.parents[1] if path.parent.name == "checkpoints" else path


def kind_of(path: pathlib.Path) -> str:
    """Return "best" or "latest" as the pointers beside a checkpoint say, else "none"."""
    pointers = [
        kind
        for kind in ("best", "latest")
        if (path.parent / kind).is_file() and (path.parent / kind).read_text().strip() == path.name
    ]
    return pointers[0] if pointers else "none"


def check_folder(model_dir: str | pathlib.Path, recipe: hparams.Recipe) -> pathlib.Path:
    """Return the folder of a run after making sure that it can be written and holds no other recipe's run."""
    model_dir = pathlib.Path(model_dir)
    try:
        model_dir.mkdir(parents=True, exist_ok=True)
        trial = model_dir / f".writable-{os.getpid()}"
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise OSError(
            f"Expected a --model_dir that can be written. Received: model_dir={model_dir}: {error.strerror}."
        ) from error
    file = model_dir / "recipe.json"
    if file.exists():
        differences = read_recipe(file).differences(recipe)
        if differences:
            raise ValueError(
                f"Expected the recipe of the run in {model_dir}. Received another one: "
                f"{'; '.join(differences)}. Name another --model_dir, or repeat its flags to go on."
            )
    return model_dir


def read_recipe(file: pathlib.Path) -> hparams.Recipe:
    """Return the recipe of a `recipe.json` or `report.json`."""
    try:
        values = json.loads(file.read_text())
        return hparams.Recipe.from_dict(values.get("recipe", values))
    except (ValueError, AttributeError, TypeError) as error:
        raise OSError(f"{file} is damaged: {error}. Remove it, or name another --model_dir.") from error


def write_recipe(model_dir: pathlib.Path, recipe: hparams.Recipe) -> None:
    """Write `recipe.json` where there is none."""
    file = model_dir / "recipe.json"
    if not file.exists():
        files.write(file, json.dumps(recipe.to_dict(), indent=1) + "\n")


def report_folder(model_dir: pathlib.Path, recipe: hparams.Recipe) -> pathlib.Path:
    """Return where a finished training reports: the run's folder, or a new one if another evaluation lies there."""
    file = model_dir / "report.json"
    if not file.exists() or read_recipe(file) == recipe:
        return model_dir
    return next_folder(model_dir / "evaluations")


def next_folder(parent: pathlib.Path) -> pathlib.Path:
    """Make and return the first free numbered folder of `parent`: 001, 002, ..."""
    parent.mkdir(parents=True, exist_ok=True)
    number = max((int(path.name) for path in parent.iterdir() if path.name.isdecimal()), default=0) + 1
    while True:
        try:
            (parent / f"{number:03d}").mkdir()
            return parent / f"{number:03d}"
        except FileExistsError:  # another evaluation was faster
            number += 1
