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
    known = recipe_of(model_dir)
    if known and (lines := differences(known, recipe)):
        raise ValueError(
            f"Expected the recipe of the run in {model_dir}. Received another one: "
            f"{'; '.join(lines)}. {_why(lines, recipe)}Name another --model_dir, or repeat its flags to go on."
        )
    return model_dir


def recipe_of(model_dir: str | pathlib.Path) -> hparams.Recipe | None:
    """Return the recipe of the run in a folder, None where none has begun there."""
    file = pathlib.Path(model_dir) / "recipe.json"
    return read_recipe(file) if file.exists() else None


def differences(known: hparams.Recipe, recipe: hparams.Recipe) -> list[str]:
    """Return what keeps a recipe from going on with a run: as `Recipe.differences`, but for epochs that go on."""
    lines = known.differences(recipe)
    return [] if len(lines) == 1 and _of_epochs(lines) and not recipe.tied_to_epochs else lines


def _of_epochs(lines):
    return any(line.startswith("epochs: ") for line in lines)


def _why(lines, recipe):
    """Return why other epochs do not go on, "" where they are not what is other."""
    if not _of_epochs(lines) or not recipe.tied_to_epochs:
        return ""
    return (
        f"With other epochs {recipe.tied_to_epochs} makes every step another one, so that a run can't go on with them; "
        f"runs with --set schedule=constant can, or steps. "
    )


def read_recipe(file: pathlib.Path) -> hparams.Recipe:
    """Return the recipe of a `recipe.json` or `report.json`."""
    try:
        values = json.loads(file.read_text())
        return hparams.Recipe.from_dict(values.get("recipe", values))
    except (ValueError, AttributeError, TypeError) as error:
        raise OSError(f"{file} is damaged: {error}. Remove it, or name another --model_dir.") from error


def write_recipe(model_dir: pathlib.Path, recipe: hparams.Recipe) -> None:
    """Write `recipe.json` where there is none, or change its epochs: the run goes on with these."""
    if known := recipe_of(model_dir):
        if known.epochs == recipe.epochs:
            return
        recipe = known.replace(epochs=recipe.epochs)
    files.write(model_dir / "recipe.json", json.dumps(recipe.to_dict(), indent=1) + "\n")


def report_folder(model_dir: pathlib.Path, recipe: hparams.Recipe) -> pathlib.Path:
    """Return where a finished training reports: the run's folder, or a new one if another evaluation lies there.

    A report from before the run went on with more epochs is replaced.
    """
    file = model_dir / "report.json"
    if not file.exists() or (before := read_recipe(file)) == recipe or before.differences(recipe):
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
