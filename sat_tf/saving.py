"""Checkpoints: a folder each, written under another name first, that carries its recipe.

<directory>/step-00000860/variables.index, variables.data-...   every variable, by path
                          state.json                            step, recipe, history
<directory>/latest, best                                        the name of a folder
"""

import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from sat_tf import files

Groups = dict[str, dict[str, tf.Variable]]  # {group: {path: variable}}

FORMAT = 1
KINDS = ("latest", "best")
KEYS = ("format", "step", "sizes")  # what every state.json holds


def by_path(owner: keras.Model | keras.optimizers.Optimizer) -> dict[str, tf.Variable]:
    """Return `{path: tf.Variable}` of a model (statistics of normalisation included) or an optimizer."""
    return {variable.path: variable.value for variable in owner.variables}


def by_place(owner: keras.Model | keras.optimizers.Optimizer) -> dict[str, tf.Variable]:
    """Return `{place and name: tf.Variable}`, 0003-kernel: for layers of others, whose paths may be the same or change.

    Keras numbers unnamed layers as it meets them, so that a network built twice has other paths, and layers of two
    networks within one may share a path.
    """
    return {f"{place:04d}-{variable.name}": variable.value for place, variable in enumerate(owner.variables)}


def save(
    directory: str | os.PathLike, variables: Groups, state: dict[str, Any], *, kinds: Iterable[str] = ("latest",)
) -> pathlib.Path:
    """Write a checkpoint and point `kinds` to it; folders that nothing points to any more are removed.

    Args:
      directory: folder of the run's checkpoints.
      variables: `{group: {path: tf.Variable}}`.
      state: what JSON can hold; `state["step"]` names the folder.
      kinds: of `KINDS`.

    Returns:
      The checkpoint's path.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"step-{state['step']:08d}"
    if not _write_state(path, state):
        shutil.rmtree(path, ignore_errors=True)
        _write(path, variables, state)
    for kind in sorted(kinds):  # best before latest: a state that knows of a best checkpoint must find it
        files.write(directory / kind, path.name)
    _remove_unused(directory)
    return path


def _write_state(path, state):
    """Replace the state of a checkpoint that is there and whole: the same step of the same run has the same variables.

    Returns:
      Whether it is there and whole.
    """
    try:
        sizes = read_state(path)["sizes"]
    except OSError:
        return False
    files.write(path / "state.json", json.dumps({"format": FORMAT, **state, "sizes": sizes}, indent=1))
    return True


def _write(path, variables, state):
    with files.replacing(path) as partial:
        partial.mkdir()
        try:
            tf.train.Checkpoint(**variables).write(str(partial / "variables"))
        except tf.errors.OpError as error:  # TensorFlow calls a full disk an exhausted resource
            raise OSError(f"The checkpoint {path} could not be written: {error.message}.") from error
        sizes = {file.name: file.stat().st_size for file in partial.iterdir()}
        (partial / "state.json").write_text(json.dumps({"format": FORMAT, **state, "sizes": sizes}, indent=1))


def find(path: str | os.PathLike, kind: str = "latest") -> pathlib.Path:
    """Return the checkpoint that a user means: the path of a checkpoint, of a pointer to one, or of a run's folder.

    Raises:
      FileNotFoundError: there is none; the message says where it was looked for.
    """
    path = pathlib.Path(path)
    if (path / "state.json").is_file():
        return path
    if path.is_file() and path.name in KINDS:
        return path.parent / path.read_text().strip()
    for directory in (path / "checkpoints", path):
        if (directory / kind).is_file():
            return directory / (directory / kind).read_text().strip()
    raise FileNotFoundError(
        f"Expected a checkpoint, looked for {path}/state.json, {path}/checkpoints/{kind} and "
        f"{path}/{kind}: not there. Train first, or name another --model_dir or --checkpoint."
    )


def read_state(path: str | os.PathLike, keys: Iterable[str] = ()) -> dict[str, Any]:
    """Return the state of a checkpoint, after a look at whether its files are whole and all `keys` are there."""
    path = pathlib.Path(path)
    try:
        state = json.loads((path / "state.json").read_text())
        missing = [key for key in (*KEYS, *keys) if key not in state]
        if missing:
            raise ValueError(f"state.json lacks {', '.join(missing)}")
        sizes = {name: (path / name).stat().st_size for name in state["sizes"]}
    except (OSError, ValueError, TypeError) as error:
        raise OSError(f"The checkpoint {path} is damaged: {error}. Use another one.") from error
    if state["format"] > FORMAT:
        raise OSError(f"The checkpoint {path} has format {state['format']}; this version reads up to {FORMAT}.")
    for name, size in sizes.items():
        if size != state["sizes"][name]:
            raise OSError(
                f"The checkpoint {path} is damaged: {name} has {size} bytes of {state['sizes'][name]}. Use another one."
            )
    return state


def restore(path: str | os.PathLike, variables: Groups) -> None:
    """Read a checkpoint's values into `variables`, `{group: {path: tf.Variable}}`; groups left out are not read.

    Raises:
      ValueError: names or shapes of a group differ; the message is the list of differences.
      OSError: the files are damaged.
    """
    path = pathlib.Path(path)
    read_state(path)
    prefix = str(path / "variables")
    try:
        stored = _stored_shapes(prefix)
        for group, mine in variables.items():
            shapes = {name: tuple(variable.shape) for name, variable in mine.items()}
            lines = differences(stored.get(group, {}), shapes)
            if lines:
                raise ValueError(
                    f"Expected a checkpoint of this {group}. Received: {path}, which differs: " + "; ".join(lines) + "."
                )
        tf.train.Checkpoint(**variables).read(prefix).expect_partial()
    except (tf.errors.OpError, RuntimeError) as error:
        raise OSError(f"The checkpoint {path} is damaged: {str(error).splitlines()[0]}. Use another one.") from error


def differences(stored: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]], most: int = 6) -> list[str]:
    """Return phrases that tell two sets of variables, `{name: shape}`, apart: missing, extra, another shape."""
    phrases = [f"missing in the file: {name} {wanted[name]}" for name in wanted if name not in stored]
    phrases += [f"only in the file: {name} {stored[name]}" for name in stored if name not in wanted]
    phrases += [
        f"another shape: {name} {stored[name]} in the file, {wanted[name]} in the model"
        for name in wanted
        if name in stored and stored[name] != wanted[name]
    ]
    return phrases[:most] + ([f"and {len(phrases) - most} more"] if len(phrases) > most else [])


def _stored_shapes(prefix):
    """Return `{group: {path: shape}}` of a checkpoint."""
    groups = {}
    for key, shape in tf.train.list_variables(prefix):
        match = re.fullmatch(r"(\w+)/(.+)/\.ATTRIBUTES/VARIABLE_VALUE", key)
        if match:
            name = match[2].replace(".S", "/").replace("..", ".")  # how TensorFlow escapes a key
            groups.setdefault(match[1], {})[name] = tuple(shape)
    return groups


def _remove_unused(directory):
    used = {(directory / kind).read_text().strip() for kind in KINDS if (directory / kind).is_file()}
    if not all(name and (directory / name).is_dir() for name in used):
        return  # a damaged pointer: what it meant is not ours to guess
    for path in (*directory.glob("step-*"), *directory.glob(".step-*")):  # hidden: left by a process that was killed
        if path.name not in used:
            shutil.rmtree(path)
