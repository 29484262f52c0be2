"""A recipe out of a file: a run's recipe.json or report.json, or one that the user wrote."""

import json
import os
import pathlib
from typing import Any

from sat_tf.names import expected

FILE, DATA = "recipe.json", "data.json"  # in the folder of a run


def is_stored(name: str) -> bool:
    """Say whether a name is that of a file or a folder, not of a recipe in the code."""
    return name.endswith(".json") or "/" in name or os.sep in name or os.path.exists(os.path.expanduser(name))


def read_file(name: str) -> dict[str, Any]:
    """Return `{field: value}` of a file of JSON, or of recipe.json in the folder of a run; fields may be missing.

    Raises:
      ValueError: it is not there, or holds no recipe.
    """
    path = pathlib.Path(name).expanduser()
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        what = "the folder of a run" if path.is_dir() else "a recipe's name, its file or the folder of a run"
        raise expected(what, "recipe", name, f"There is no file {file}; --list shows names.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        values = content.get("recipe", content)
        return {str(field): value for field, value in values.items()}
    except (ValueError, AttributeError) as error:
        wanted = 'a file that holds a recipe, such as {"model": "resnet20", "epochs": 10}'
        raise expected(wanted, "recipe", name, f"{file} is damaged: {error}.") from None


def place_of(name: str) -> pathlib.Path | None:
    """Return the folder of the run that a recipe's name means, None where it means none."""
    path = pathlib.Path(name).expanduser()
    path = path if path.is_dir() else path.parent
    return path if is_stored(name) and (path / FILE).is_file() else None


def data_of(folder: str | os.PathLike) -> dict[str, Any]:
    """Return `{"dataset", "data_dir"}` of the data that a run remembers, an empty dict where it remembers none."""
    try:
        content = json.loads(pathlib.Path(folder, DATA).read_text(encoding="utf-8"))
        return content if {"dataset", "data_dir"} <= set(content) else {}
    except (OSError, ValueError, TypeError):
        return {}
