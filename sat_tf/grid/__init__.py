"""A table or figure of the paper: its rows run for several seeds, each run in a process of its own, then written.

TensorFlow is only imported by the runs, so that what is wrong with a command is said at once.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

from sat_tf import files, hparams
from sat_tf.grid import mechanism, runs, table
from sat_tf.progress import make_progress

__all__ = ["plan", "run"]

PAUSE = 0.2  # seconds between two looks at the runs
TRAINING = 0.85  # of a run's time, about; the rest is start and evaluation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One row with one seed: its recipe and its folder; `planned` or else only found there.

    measured: what else is measured of it, a key of `runs.MEASURED`; "" for nothing.
    """

    row: str
    label: str
    seed: int
    recipe: hparams.Recipe
    folder: pathlib.Path
    planned: bool = True
    measured: str = ""

    @property
    def finished(self) -> bool:
        """Whether it has ended with a report, and everything was measured of it."""
        return all((self.folder / name).exists() for name in runs.files_of(self.measured))

    @property
    def words(self) -> str:
        """What it is called on screen."""
        return f"{self.label}, seed {self.seed}"


def plan(
    name: str,
    *,
    scale: str,
    seeds: int,
    results_dir: str | pathlib.Path,
    changes: dict[str, Any] | None = None,
    rows: Sequence[str] | None = None,
) -> tuple[list[Run], pathlib.Path]:
    """Return every `Run` of an experiment, and the folder of its table.

    The seeds are the outer loop, so that a grid that was stopped has about as many runs of each row. Runs lie in
    `<results_dir>/<scale>-<dataset>/<row>/seed<n>`, shared by the experiments that have them in common. Runs of other
    rows and seeds that have ended there belong to the table, too.

    Raises:
      ValueError: a name is unknown, or a folder holds runs of another recipe or on other data.
    """
    results_dir, changes = pathlib.Path(results_dir).expanduser(), changes or {}
    if "seed" in changes:
        raise ValueError(f"Expected --seeds, how many: the seeds are 0, 1, ... Received: seed={changes['seed']}.")
    chosen = hparams.rows_of(name, scale, rows)
    recipes = {row: hparams.row_recipe(name, row, scale, changes) for row in hparams.rows_of(name, scale)}
    first = recipes[chosen[0]].to_dict()
    if "clean" not in first["eval_attacks"] or len(first["eval_attacks"]) < 2:
        raise ValueError(
            "Expected clean and at least one attack, such as eval_attacks=clean,pgd-10. "
            f"Received: eval_attacks={','.join(first['eval_attacks'])}."
        )
    home, measured = results_dir / f"{scale}-{first['dataset']}", hparams.EXPERIMENTS[name].measured
    wanted = [(row, seed) for seed in range(seeds) for row in chosen]
    found = [
        (row, int(file.parent.name.removeprefix("seed")))
        for row in recipes
        for file in sorted(home.glob(f"{hparams.run_name(name, row, scale)}/seed*/{runs.files_of(measured)[-1]}"))
        if file.parent.name.removeprefix("seed").isdecimal()  # no copy of a run
    ]
    items = [
        Run(
            row=row,
            label=hparams.EXPERIMENTS[name].rows[row].label,
            seed=seed,
            recipe=recipes[row].replace(seed=seed),
            planned=(row, seed) in wanted,
            measured=measured,
            folder=home / hparams.run_name(name, row, scale) / f"seed{seed}",
        )
        for row, seed in dict.fromkeys(wanted + found)
    ]
    for item in items:
        _check_recipe(item)
    _check_data(items)
    return items, home / name


def _check_recipe(item):
    """Refuse a folder where another recipe was run; how it is evaluated counts once that was done."""
    for file, evaluated in ((item.folder / "report.json", True), (item.folder / "recipe.json", False)):
        if not file.exists():
            continue
        try:
            content = json.loads(file.read_text())
            known = hparams.Recipe.from_dict(content.get("recipe", content))
        except (ValueError, AttributeError, TypeError) as error:
            raise OSError(f"{file} is damaged: {error}. Remove {item.folder}, or name another --results_dir.") from None
        differences = known.differences(item.recipe)
        if evaluated:
            differences += known.differences(item.recipe, fields=hparams.EVALUATION_FIELDS)
        if differences:
            raise ValueError(
                f"Expected the recipe of the run in {item.folder}. Received another one: "
                f"{'; '.join(differences)}. Name another --results_dir."
            )


def _check_data(items):
    """Refuse to compare runs on different images."""
    first = None
    for item in filter(lambda item: item.finished, items):
        data = table.read(item.folder)["dataset"]
        identity = {name: data.get(name) for name in ("source", "train", "test")}
        first = first or (item.folder, identity)
        if identity != first[1]:
            raise ValueError(
                f"Expected runs on the same images. Received: {first[0]} on {first[1]}, {item.folder} "
                f"on {identity}. Name another --results_dir for other data."
            )


def run(
    name: str,
    *,
    scale: str,
    seeds: int,
    results_dir: str | pathlib.Path,
    data_dir: str | pathlib.Path | None = None,
    changes: dict[str, Any] | None = None,
    rows: Sequence[str] | None = None,
    jobs: int | None = None,
    command: str = "",
) -> tuple[dict[str, Any], pathlib.Path]:
    """Run what is left of an experiment and write its table: the same command goes on where it was stopped.

    Several processes may work on one grid: a run that another one has begun is left to it.

    Args:
      name: a key of `hparams.EXPERIMENTS`.
      scale: "paper", or "small" or "long" for what runs on two cores.
      seeds: how many, from 0.
      results_dir: where to.
      data_dir: where the data set lies.
      changes: `{field: value}` for the recipes of all rows.
      rows: names of the rows to run, the baseline comes with them; None for all.
      jobs: runs at a time; None: one at the paper's scale, else one a core, since they compute in one thread.
      command: what the user typed, for the reports.

    Returns:
      The table, a dict as `table.json` holds it, and its folder. Runs that failed are in the table's `failures`.

    Raises:
      ValueError: see `plan`; or the first two runs failed before their first step, and for the same reason.
      KeyboardInterrupt: stopped on demand; every run has saved its state, and the table has what has ended.
    """
    items, folder = plan(name, scale=scale, seeds=seeds, results_dir=results_dir, changes=changes, rows=rows)
    single = scale != "paper"  # one thread a run: the bits then do not depend on how many cores there are
    options = {"data_dir": data_dir, "command": command, "single": single}
    failures = {}
    try:
        _work(items, jobs or (_cores() if single else 1), options, name, failures)
    except KeyboardInterrupt:
        _write(name, scale, folder, items, failures, command)
        raise
    return _write(name, scale, folder, items, failures, command), folder


def _write(name, scale, folder, items, failures, command):
    """Write the table, and what else was measured of the runs; return the table."""
    found = table.write(name, scale, folder, items, failures, command)
    if hparams.EXPERIMENTS[name].measured:
        mechanism.write(found, folder, items)
    return found


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _work(items, jobs, options, name, failures):
    """Run what is planned and not finished, `jobs` at a time; put `{run: what went wrong}` into `failures`."""
    from tqdm import tqdm

    unique = {item.folder: item for item in items if item.planned}
    waiting = [item for item in unique.values() if not item.finished]
    running, before = [], len(unique) - len(waiting)
    done, begun = before, before > 0
    pause, shown = 0.5, 0.0
    looks = {"smoothing": 0, "bar_format": "{l_bar}{bar}| {n:.2f}/{total} runs [{elapsed}<{remaining}{postfix}]"}
    with make_progress(len(unique), name, "run", before, **looks) as progress, _stopping(running):
        while waiting or running:
            done += _drop_finished(waiting)
            for item in [item for item in waiting if not files.is_locked(item.folder)][: jobs - len(running)]:
                waiting.remove(item)
                running.append(runs.Child(item, options))
            time.sleep(PAUSE)
            for child in [child for child in running if child.over]:
                running.remove(child)
                outcome = child.outcome()
                if outcome == runs.BUSY:
                    waiting.append(child.item)
                    continue
                done, begun = done + 1, begun or child.share > 0 or not outcome
                if not outcome:
                    tqdm.write(f"{child.item.words}: {table.in_short(child.item.folder)}", file=sys.stderr)
                    _check_data([next(item for item in items if item.finished), child.item])
                    continue
                failures[f"{child.item.folder.parent.name}/{child.item.folder.name}"] = outcome
                if not begun and len(failures) == 2 and len(set(failures.values())) == 1:
                    raise ValueError(f"No run can begin: {outcome}")
                tqdm.write(f"{child.item.words}: {outcome}", file=sys.stderr)
            progress.n = done + TRAINING * sum(child.share for child in running)
            progress.set_postfix_str("; ".join(child.item.words for child in running), refresh=False)
            if time.monotonic() - shown > pause or not (running or waiting):
                progress.refresh()
                shown = time.monotonic()


def _drop_finished(waiting):
    """Take out the runs that another process has finished meanwhile; return how many."""
    finished = [item for item in waiting if item.finished]
    for item in finished:
        waiting.remove(item)
    return len(finished)


@contextlib.contextmanager
def _stopping(running):
    """On Ctrl-C or SIGTERM let the runs that are at work save their state, then raise KeyboardInterrupt."""

    def stop(number, frame):
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        print("\nStopping: the runs save their state.", file=sys.stderr)
        for child in running:
            child.stop()
        for child in running:
            child.process.join()
        raise KeyboardInterrupt("Stopped; the same command goes on from here.") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
