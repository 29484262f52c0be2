"""Where in the folder of a run its checkpoints lie."""

import os
import pathlib

KINDS = ("latest", "best")


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
