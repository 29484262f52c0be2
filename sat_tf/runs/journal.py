"""The record of a run beside its checkpoints: run.json of every start, metrics.jsonl of every step that was told.

Both are whole after a crash: run.json is replaced, a line of metrics.jsonl is on the disk before the next step.
"""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any, TextIO

import tensorflow as tf

import sat_tf
from sat_tf import files, hparams, machine, methods

RUN, METRICS = "run.json", "metrics.jsonl"
PHASES = ("input", "training", "validation", "saving", "evaluation")  # what the wall time of a start is spent on;
# "input" is waiting for it, and "training" is written as "attack" and "update"
KILLED = "killed, or the machine went down"  # a start that could not say how it ended
GIT_SECONDS = 5  # to wait for git


class Journal:
    """What a start of a run writes down.

    Args:
      model_dir: folder of the run.
      command: what the user typed.
      recipe: of the run.
      strategy: the devices that compute.
      step: at which this start goes on.
      method: by whose forward passes the time of a step is attack or update.
    """

    def __init__(
        self,
        model_dir: pathlib.Path,
        command: str,
        recipe: hparams.Recipe,
        strategy: tf.distribute.Strategy,
        step: int,
        method: methods.Standard,
    ) -> None:
        self.model_dir, self.begun, self.step = pathlib.Path(model_dir), time.monotonic(), step
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._lines: TextIO | None = None
        self.recipe, self.method = recipe.to_dict(), method
        self.before = [_ended(start) for start in read(self.model_dir)["starts"]]
        self.start = {
            "command": command,
            "begun": machine.now(),
            "ended": None,
            "exit": None,
            "process": os.getpid(),
            "host": socket.gethostname(),
            "from_step": step,
            "to_step": step,
            "seed": recipe.seed,
            "versions": machine.versions(),
            "git": git_state(),
            "machine": machine.devices(strategy),
        }

    @contextlib.contextmanager
    def open(self) -> Iterator["Journal"]:
        """Write the start down, and at the end how it ended; metrics of later steps than its first are dropped."""
        _keep_until(self.model_dir / METRICS, self.step)
        with open(self.model_dir / METRICS, "a", encoding="utf-8") as self._lines:
            self.write()
            try:
                yield self
            except KeyboardInterrupt as error:
                self._end(f"stopped on demand: {error}".removesuffix(": "))
                raise
            except BaseException as error:
                self._end(f"{type(error).__name__}: {error}")
                raise
            self._end("finished")

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time meanwhile for a phase of `PHASES`, and not for the phase around it."""
        inside, begun = sum(self.seconds.values()), time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - begun - (sum(self.seconds.values()) - inside))

    def add(self, name: str, seconds: float) -> None:
        """Count seconds for a phase of `PHASES`."""
        self.seconds[name] += seconds

    def steps(self, seconds: float, waited: float) -> None:
        """Count a call of training steps, and how much of it was waiting for images."""
        self.add("input", waited)
        self.add("training", seconds - waited)

    def metrics(self, step: int, values: dict[str, Any]) -> None:
        """Append a line of `{quantity: number}`, with the step; a full disk is said by what can't do without it."""
        self.step = step
        if self._lines is None:
            return
        with contextlib.suppress(OSError):
            self._lines.write(json.dumps({"step": step, **values}) + "\n")
            self._lines.flush()
            os.fsync(self._lines.fileno())

    def write(self) -> None:
        """Write run.json as far as it is known; not before `open`."""
        if self._lines is None:
            return
        self.start["to_step"] = self.step
        spent = {**self.seconds}
        steps = spent.pop("training")
        attack = steps * self.method.attack_equivalents / self.method.forward_equivalents
        spent = {"whole": time.monotonic() - self.begun, "attack": attack, "update": steps - attack, **spent}
        self.start["wall_seconds"] = {name: round(seconds, 2) for name, seconds in spent.items()}
        content = {"recipe": self.recipe, "starts": [*self.before, self.start]}
        with contextlib.suppress(OSError):  # a full disk
            files.write(self.model_dir / RUN, json.dumps(content, indent=1) + "\n")

    def _end(self, words):
        self.start["ended"], self.start["exit"] = machine.now(), words
        self.write()


def read(model_dir: str | os.PathLike) -> dict[str, Any]:
    """Return what run.json holds, a run without starts where there is none or it is damaged."""
    try:
        content = json.loads(pathlib.Path(model_dir, RUN).read_text(encoding="utf-8"))
        return content if isinstance(content["starts"], list) else {"starts": []}
    except (OSError, ValueError, KeyError, TypeError):
        return {"starts": []}


def read_metrics(model_dir: str | os.PathLike) -> list[dict[str, Any]]:
    """Return the whole lines of metrics.jsonl, none where there is none."""
    try:
        lines = pathlib.Path(model_dir, METRICS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):  # the last one of a process that was killed
            found.append(json.loads(line))
    return [row for row in found if isinstance(row, dict) and "step" in row]


def git_state() -> dict[str, Any] | None:
    """Return the commit of the checkout that this code lies in, and whether files changed; None where installed."""
    root = pathlib.Path(sat_tf.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        said = [
            subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=GIT_SECONDS, check=True
            ).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": said[0], "changed": bool(said[1])}


def _keep_until(file, step):
    """Drop lines of steps after `step`, which this start takes again, and what a crash left of a line."""
    if not file.is_file():
        return
    rows = [row for row in read_metrics(file.parent) if row["step"] <= step]
    files.write(file, "".join(json.dumps(row) + "\n" for row in rows))


def _ended(start):
    """Return an earlier start; one that could not say how it ended says that."""
    return start if start.get("exit") else {**start, "exit": KILLED}
