"""Checkpoints: a folder each, written under another name first, that carries its recipe.

<directory>/step-00000860/variables.index, variables.data-...   every variable, by path
                          state.json                            step, recipe, history, digests of all that
<directory>/latest, best                                        the name of a folder

The last few are kept, so that a run can go on from the one before a damaged one. `save` writes one and waits for it;
a `Writer` copies the values and writes them while training goes on.
"""

import concurrent.futures
import contextlib
import copy
import hashlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from sat_tf import files
from sat_tf.pointers import KINDS

Groups = dict[str, dict[str, tf.Variable]]  # {group: {path: variable}}
Values = dict[str, dict[str, tuple[str, np.ndarray]]]  # {group: {path: (the variable's name, what it held)}}

FORMAT = 1
KEYS = ("format", "step", "sizes")  # what every state.json holds
KEPT = 3  # the newest checkpoints that stay, beside the best


def by_path(owner: keras.Model | keras.optimizers.Optimizer) -> dict[str, tf.Variable]:
    """Return `{path: tf.Variable}` of a model (statistics of normalisation included) or an optimizer."""
    return {variable.path: variable.value for variable in owner.variables}


def by_place(owner: keras.Model | keras.optimizers.Optimizer) -> dict[str, tf.Variable]:
    """Return `{place and name: tf.Variable}`, 0003-kernel: for layers of others, whose paths may be the same or change.

    Keras numbers unnamed layers as it meets them, so that a network built twice has other paths, and layers of two
    networks within one may share a path.
    """
    names = (
        re.sub(r"_\d+(?=_|$)", "", variable.name) for variable in owner.variables
    )  # an optimizer's have the layers'
    return {f"{place:04d}-{name}": v.value for place, (name, v) in enumerate(zip(names, owner.variables, strict=True))}


def save(directory: str | os.PathLike, variables: Groups, state: dict[str, Any], **options: Any) -> pathlib.Path:
    """Write a checkpoint of what variables hold now, as `write` does, which takes the `options`.

    Args:
      directory, state: as `write` takes them.
      variables: `{group: {path: tf.Variable}}`.
    """
    return write(directory, copied(variables), state, **options)


def copied(variables: Groups) -> Values:
    """Return what variables hold now, in memory of the host."""
    return {
        group: {path: (variable.name.partition(":")[0], variable.numpy()) for path, variable in mine.items()}
        for group, mine in variables.items()
    }


def write(
    directory: str | os.PathLike,
    values: Values,
    state: dict[str, Any],
    *,
    kinds: Iterable[str] = ("latest",),
    keep: int = KEPT,
) -> pathlib.Path:
    """Write a checkpoint and point `kinds` to it; of those that nothing needs any more only the newest stay.

    Args:
      directory: folder of the run's checkpoints.
      values: what `copied` returned.
      state: what JSON can hold; `state["step"]` names the folder.
      kinds: of `KINDS`.
      keep: how many of the newest checkpoints stay, each with what was the best one then.

    Returns:
      The checkpoint's path.

    Raises:
      OSError: it could not be written; what was there before is as it was.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / folder_of(state["step"])
    if not _write_state(path, state):
        shutil.rmtree(path, ignore_errors=True)
        _write(path, values, state)
    for kind in sorted(kinds):  # best before latest: a state that knows of a best checkpoint must find it
        files.write(directory / kind, path.name)
    _remove_unused(directory, keep)
    return path


class Writer:
    """Writes checkpoints in a thread, one at a time: training waits for the copy of the values alone.

    As a context manager it waits at the end for what is being written.
    """

    def __init__(self) -> None:
        self._writing: concurrent.futures.Future | None = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *raised: object) -> None:
        with contextlib.suppress(Exception if any(raised) else ()):  # what ends the run is what is told
            if fault := self.fault(wait=True):
                logging.warning("%s", fault)

    def begin(self, directory: str | os.PathLike, values: Values, state: dict[str, Any], **options: Any) -> None:
        """Begin to write a checkpoint as `write` does; `fault` has said how the one before it ended.

        Args:
          directory, options: as `write` takes them.
          values: what `copied` returned.
          state: may be changed afterwards.
        """
        if self._writing is not None:
            raise RuntimeError("Expected the checkpoint before to be waited for. Received: another one.")
        thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._writing = thread.submit(write, directory, values, copy.deepcopy(state), **options)
        thread.shutdown(wait=False)

    def fault(self, *, wait: bool = False) -> OSError | None:
        """Return, once, why the last checkpoint could not be written; None where it was, or is still being written.

        Args:
          wait: for it, if it is still being written.
        """
        if self._writing is None or not (wait or self._writing.done()):
            return None
        writing, self._writing = self._writing, None
        error = writing.exception()
        if error is None or isinstance(error, OSError):
            return error
        raise error


def _write_state(path, state):
    """Replace the state of a checkpoint that is there and whole: the same step of the same run has the same variables.

    Returns:
      Whether it is there and whole.
    """
    try:
        before = read_state(path)
        check_digests(path, before)
    except OSError:
        return False
    files.write(
        path / "state.json", _text({**state, **{name: before[name] for name in ("sizes", "digests") if name in before}})
    )
    return True


def _write(path, values, state):
    with files.replacing(path) as partial:
        partial.mkdir()
        try:
            tf.train.Checkpoint(**_variables(values)).write(str(partial / "variables"))
        except tf.errors.OpError as error:  # TensorFlow calls a full disk an exhausted resource
            reason = error.message.rpartition("; ")[2].removesuffix(" [Op:SaveV2]")  # after a node's and a file's name
            raise OSError(f"The checkpoint {path} could not be written: {reason}.") from error
        written = list(partial.iterdir())
        facts = {
            "sizes": {file.name: file.stat().st_size for file in written},
            "digests": {file.name: files.sha256(file) for file in written},
        }
        (partial / "state.json").write_text(_text({**state, **facts}))


def _variables(values):
    """Return variables of the host that hold values, under the names of those that held them."""
    with tf.device("CPU:0"):
        return {
            group: {path: tf.Variable(value, name=name) for path, (name, value) in mine.items()}
            for group, mine in values.items()
        }


def _text(state):
    """Return a state.json, with the digest of all else in it."""
    content = json.loads(json.dumps({"format": FORMAT, **state}))
    return json.dumps({**content, "digest": _digest_of(content)}, indent=1)


def _digest_of(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def find_whole(model_dir: str | os.PathLike) -> pathlib.Path | None:
    """Return the latest checkpoint of a run of which every byte is what was written; None where it has none at all.

    A warning names what is damaged and what is taken instead; the pointers of the folder are then set to that.

    Raises:
      OSError: there are checkpoints, and all are damaged.
    """
    directory = pathlib.Path(model_dir) / "checkpoints"
    pointer = directory / "latest"
    latest = pointer.read_text(errors="replace").strip() if pointer.is_file() else None
    there = by_step(directory)
    if latest in [path.name for path in there]:  # a later one was not finished: the pointer is written last
        there = [path for path in there if path.name <= latest]
    faults = [] if latest is None or there and there[0].name == latest else [f"{pointer} points to nothing"]
    for path in there:
        try:
            state = read_state(path)
            check_digests(path, state)
        except OSError as error:
            faults.append(str(error).removesuffix(" Use another one.").rstrip("."))
            continue
        if faults:
            logging.warning("%s. Going on from the one before: %s.", "; ".join(faults), path)
            best = (state.get("best") or {}).get("step", state["step"])
            for kind, step in (("best", best), ("latest", state["step"])):
                files.write(directory / kind, folder_of(step))
        return path
    if faults:
        raise OSError(f"{'; '.join(faults)}. No checkpoint before it is whole: name another --model_dir.")
    return None


def by_step(directory: pathlib.Path) -> list[pathlib.Path]:
    """Return the checkpoints that lie in a folder, the newest first."""
    return sorted((path for path in directory.glob("step-*") if path.name[5:].isdecimal()), reverse=True)


def check_digests(path: str | os.PathLike, state: dict[str, Any]) -> None:
    """Read every byte of a checkpoint; an OSError names what was changed since it was written.

    Args:
      path: of the checkpoint.
      state: what `read_state` returned of it; one that an older version wrote has no digests, and nothing is read.
    """
    for name, digest in state.get("digests", {}).items():
        if files.sha256(pathlib.Path(path) / name) != digest:
            raise OSError(f"The checkpoint {path} is damaged: {name} is not what was written. Use another one.")


def read_state(path: str | os.PathLike, keys: Iterable[str] = ()) -> dict[str, Any]:
    """Return the state of a checkpoint, after a look at whether its files are whole and all `keys` are there."""
    path = pathlib.Path(path)
    try:
        state = json.loads((path / "state.json").read_text())
        missing = [key for key in (*KEYS, *keys) if key not in state]
        if missing:
            raise ValueError(f"state.json lacks {', '.join(missing)}")
        if "digest" in state and _digest_of({k: v for k, v in state.items() if k != "digest"}) != state["digest"]:
            raise ValueError("state.json is not what was written")
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


def restore(path: str | os.PathLike, variables: Groups, *, checked: bool = False) -> None:
    """Read a checkpoint's values into `variables`, `{group: {path: tf.Variable}}`; groups left out are not read.

    Args:
      path: of the checkpoint.
      variables: of the groups that are wanted.
      checked: whether every byte was looked at a moment ago, as `find_whole` does.

    Raises:
      ValueError: names or shapes of a group differ; the message is the list of differences.
      OSError: the files are damaged.
    """
    path = pathlib.Path(path)
    if not checked:
        check_digests(path, read_state(path))
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


def _remove_unused(directory, keep):
    """Remove all but what is pointed to and the `keep` newest, with what these know as the best."""
    pointed = {(directory / kind).read_text().strip() for kind in KINDS if (directory / kind).is_file()}
    if not all(name and (directory / name).is_dir() for name in pointed):
        return  # a damaged pointer: what it meant is not ours to guess
    newest = by_step(directory)[:keep]
    used = pointed | {path.name for path in newest}
    for path in newest:
        with contextlib.suppress(OSError, TypeError, KeyError):
            used.add(folder_of(read_state(path)["best"]["step"]))
    for path in (*directory.glob("step-*"), *directory.glob(".step-*")):  # hidden: left by a process that was killed
        if path.name not in used:
            shutil.rmtree(path)


def folder_of(step: int) -> str:
    """Return the name of the folder of a step's checkpoint."""
    return f"step-{step:08d}"
