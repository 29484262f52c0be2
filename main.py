"""The command line of a checkout; `sat-tf` and `python -m sat_tf` are the same: sat_tf/cli."""

import importlib.util
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
INSTALL = "python3 -m venv .venv && .venv/bin/pip install --quiet -e ."


def is_installed():
    """Say whether this checkout is what this Python imports, with the rooms that lie beside the package."""
    room = importlib.util.find_spec("sat_tf.hparams")
    found = room is not None and pathlib.Path(room.origin).resolve().parents[1] == HERE
    return found and importlib.util.find_spec("absl") is not None


if __name__ == "__main__":
    if not is_installed():
        sys.exit(f"sat-tf is not installed for {sys.executable}: in {HERE} run {INSTALL}")
    from sat_tf.cli import main

    sys.exit(main())
