"""Networks that are none of the table's by how a user names them, and what weights elsewhere say of theirs.

`FILE.keras` is a file of Keras, `FILE.py:FUNCTION` a function that builds one, `keras:NAME` one of keras.applications.
"""

import ast
import json
import pathlib
from typing import Any

from sat_tf.names import expected, unknown

OWN = "own"  # the activation of a network that brings its own
APPLICATION = "keras:"
RELEASED = "released:"
LITES = tuple(f"efficientnet-lite{number}" for number in range(5))
LITE_EPSILON = 1e-3  # of the batch normalisation that their published weights want
INITS = "a run's folder, released:NAME, FILE.keras or keras:NAME"
TAKEN = ("model", "act", "norm_epsilon", "value_range")  # what weights of a run say of the network that they fit


def kind(name: str) -> str | None:
    """Return what a network's name means: "file", "function", "application", or None for a name of the table."""
    if name.startswith(APPLICATION):
        return "application"
    if ".py:" in name:
        return "function"
    return "file" if name.endswith(".keras") else None


def title(name: str) -> str:
    """Return a network's name as a part of a folder's: FILE of dir/FILE.keras, build of my_models.py:build."""
    given = kind(name)
    if given is None:
        return name
    last = name.rpartition(":")[2] if given != "file" else pathlib.PurePath(name).stem
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in last)


def act_of(name: str) -> str:
    """Return the activation that a network has where nobody names one: its own, swish where a function takes `act`."""
    return "swish" if kind(name) == "function" and "act" in _parameters(name) else OWN


def _parameters(name):
    """Return the parameters of a function FILE.py:FUNCTION, by its text; none where that does not tell."""
    path, _, function = name.rpartition(":")
    try:
        body = ast.parse(pathlib.Path(path).expanduser().read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, ValueError):
        return set()
    found = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == function]
    return {one.arg for node in found for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}


def implied(init: str) -> dict[str, Any]:
    """Return the fields of a recipe that weights determine: network, activation, epsilon of batch normalisation.

    Args:
      init: "released:NAME", "keras:NAME", a .keras file, or the folder of a run or of a checkpoint.

    Raises:
      ValueError: there is no such release. OSError: there is no such file, or it is damaged.
    """
    if init.startswith(RELEASED):
        return _of_release(init.removeprefix(RELEASED))
    if init.startswith(APPLICATION):
        return {"model": init, "act": OWN}
    path = pathlib.Path(init).expanduser()
    if init.endswith(".keras"):
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}.")
        beside = path.with_suffix(".json")
        return _of_file(beside) if beside.is_file() else {"model": init, "act": OWN}
    if path.is_file() and path.name in ("best", "latest"):
        path = path.parent / path.read_text().strip()
    for name in ("recipe.json", "state.json"):
        if (path / name).is_file():
            return _of_file(path / name)
    raise FileNotFoundError(f"Expected {INITS}. Received: init={init}, where there is no recipe.json.")


def _of_release(name):
    from sat_tf.hparams.releases import release  # which is made of recipes

    if name in LITES:
        return {"model": name, "norm_epsilon": LITE_EPSILON}  # never attacked: the recipe says by which activation
    recipe = release(name, also=LITES).make_recipe()
    return {"model": recipe.model, "act": recipe.act, "norm_epsilon": recipe.norm_epsilon}


def _of_file(file):
    try:
        values = json.loads(file.read_text())
        values = values.get("recipe", values)
        return {name: values[name] for name in TAKEN if values.get(name) is not None}
    except (ValueError, AttributeError) as error:
        raise OSError(f"{file} is damaged: {error}. Name other weights with --init.") from error


def read(name: str, value: Any, known: dict[str, str]) -> str:
    """Read what a user typed for a network: a name of the table `known`, or one of those that `kind` knows."""
    text = str(value)
    if text in known or kind(text) and not text.endswith(":"):
        return text
    if text.endswith((".py", ".py:")):
        raise expected(
            "FILE.py:FUNCTION, the function that builds the network", name, value, "Such as models.py:build."
        )
    raise unknown("a known model", name, value, known)
