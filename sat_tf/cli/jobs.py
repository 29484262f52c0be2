"""Do what a command line asks for: flags to a recipe or to changes of one, and those to `sat_tf.experiment`."""

import contextlib
import importlib.metadata
import os
import pathlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from absl import flags

import sat_tf
from sat_tf import hparams
from sat_tf.cli import checks
from sat_tf.cli.naming import chosen, default_model_dir, evaluated_model_dir, why_anew
from sat_tf.cli.parsing import changes_of, job_of
from sat_tf.distribute import cluster
from sat_tf.distribute.channel import Channel

WITHHELD = 3  # exit status where a number failed its checks


def run(given: flags.FlagValues, command: str) -> int:
    """Do the job and return the exit status.

    Args:
      given: what `parsing.parse` returns.
      command: what the user typed, for the reports.
    """
    changes = changes_of(given)
    checks.check(given)
    job = job_of(given)
    if job == "experiment":
        return run_experiment(given, changes, command)
    model_dir = pathlib.Path(given.model_dir).expanduser() if given.model_dir else None
    recipe = None
    if job in ("train", "plan"):
        recipe = chosen(changes, given.recipe, model_dir)
        model_dir = model_dir or default_model_dir(recipe, _data_dir(given))
    else:
        changes = hparams.read(changes)
        if not (model_dir or given.checkpoint or job in ("merge", "compare")):
            model_dir = evaluated_model_dir(changes, given.data_dir)
            if (named := network_to_open(changes, model_dir)) is not None:
                given["checkpoint"].value, model_dir = named, None
    checks.check_places(given, recipe, model_dir)
    strategy = recipe.strategy if recipe else changes.get("strategy", "auto")
    found = together(given, job, strategy, recipe or changes)
    with contextlib.ExitStack() as stack:
        channel = stack.enter_context(Channel.opened(found, meaning_of(job, recipe, changes))) if found else None
        with quiet_start():
            from sat_tf import experiment  # TensorFlow takes seconds: everything above answers at once

            experiment.start(strategy, channel=channel, tpu=given.tpu)
        return JOBS[job](given, experiment, recipe=recipe, changes=changes, model_dir=model_dir, command=command)


def together(given: flags.FlagValues, job: str, strategy: str, wanted: Any) -> cluster.Cluster | None:
    """Return the processes that share a job with this one, None where it is alone; what can't be is refused.

    Args:
      given: the flags.
      job: only training and evaluation are shared.
      strategy: that is asked for.
      wanted: the recipe, or `{field: value}`.
    """
    if job not in cluster.SHARED:
        return None
    found = cluster.find(strategy, os.environ, workers=given.workers, index=given.worker_index, tpu=given.tpu)
    if found and job == "train":
        cluster.check_batch(wanted.batch_size, found.size)
    return found


def meaning_of(job: str, recipe: hparams.Recipe | None, changes: dict[str, Any]) -> dict[str, Any]:
    """Return what must be the same in all processes that share a job: the job, the recipe, the versions."""
    packages = ("tensorflow", "keras", "numpy")
    fields = recipe.to_dict() if recipe else changes
    return {"--mode": job, "sat_tf": sat_tf.__version__, **fields, **{name: version_of(name) for name in packages}}


def version_of(package: str) -> str:
    """Return the version of an installed package without importing it."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return "none of that name"


def network_to_open(changes: dict[str, Any], model_dir: pathlib.Path) -> str | None:
    """Return the network that is opened itself where no run is named; None for a run in its default folder.

    A file, and one of keras.applications, have weights. What a function builds is a run's, where there is one.
    """
    kind = hparams.kind(changes.get("model", ""))
    if kind is None or (kind == "function" and (model_dir / "checkpoints").is_dir()):
        return None
    return changes["model"]


def train(
    given: flags.FlagValues,
    experiment: ModuleType,
    *,
    recipe: hparams.Recipe,
    model_dir: pathlib.Path,
    command: str,
    **_: Any,
) -> int:
    """Train, or go on."""
    if not given.model_dir and (words := why_anew(recipe, model_dir)):
        print(words, file=sys.stderr)
    places = {"data_dir": _data_dir(given), "extra_data": given.extra_data, "checkpoint_dir": given.checkpoint_dir}
    profile = checks.profiled(given.profile_steps)
    experiment.train(recipe, model_dir, **places, command=command, profile=profile)
    return 0


def plan(given: flags.FlagValues, experiment: ModuleType, *, recipe: hparams.Recipe, **_: Any) -> int:
    """Print what training would cost."""
    lines = experiment.plan(
        recipe, data_dir=_data_dir(given), extra_data=given.extra_data, images_per_second=given.images_per_second
    )
    print("\n".join(f"{name + ':':28}{value}" for name, value in lines.items()))
    return 0


def evaluate(
    given: flags.FlagValues,
    experiment: ModuleType,
    *,
    changes: dict[str, Any],
    model_dir: pathlib.Path | None,
    command: str,
    **_: Any,
) -> int:
    """Evaluate a checkpoint; the status says whether its number can be trusted."""
    report = experiment.evaluate(
        changes,
        **_places(given, model_dir),
        command=command,
        subset=given.subset,
        shard=checks.shard_of(given.shard),
        force=given.force,
        save_adversarial=given.save_adversarial,
        sibling=given.sibling,
    )
    return _trusted(report)


def merge(given: flags.FlagValues, experiment: ModuleType, *, command: str, **_: Any) -> int:
    """Join the reports of all parts."""
    return _trusted(experiment.merge(given.parts, command))


def compare(given: flags.FlagValues, experiment: ModuleType, *, command: str, **_: Any) -> int:
    """Put runs beside one another."""
    experiment.compare(given.runs, given.results_dir if given["results_dir"].present else None, command)
    return 0


def verify(
    given: flags.FlagValues,
    experiment: ModuleType,
    *,
    changes: dict[str, Any],
    model_dir: pathlib.Path | None,
    **_: Any,
) -> int:
    """Check a file of adversarial images, and print what was found."""
    findings, accuracies = experiment.verify(given.adversarial, changes, **_places(given, model_dir))
    for finding in findings:
        print(f"{'ok    ' if finding.passed else 'FAILED'} {finding.name}: {finding.figure}")
    for name, value in accuracies.items():
        print(f"accuracy on the {name} images: {100 * value:.2f} %")
    return 0 if all(finding.passed for finding in findings) else WITHHELD


def export(
    given: flags.FlagValues,
    experiment: ModuleType,
    *,
    changes: dict[str, Any],
    model_dir: pathlib.Path | None,
    command: str,
    **_: Any,
) -> int:
    """Write files for serving."""
    experiment.export(changes, **_places(given, model_dir), formats=given.format, command=command)
    return 0


def convert(
    given: flags.FlagValues,
    experiment: ModuleType,
    *,
    changes: dict[str, Any],
    model_dir: pathlib.Path | None,
    command: str,
    **_: Any,
) -> int:
    """Write a .keras file."""
    experiment.convert(changes, **_places(given, model_dir), command=command)
    return 0


def download(given: flags.FlagValues, experiment: ModuleType, **_: Any) -> int:
    """Fetch the files of a released checkpoint."""
    experiment.download(given.checkpoint.removeprefix("released:"), given.checkpoint_dir)
    return 0


JOBS = {
    "train": train,
    "plan": plan,
    "eval": evaluate,
    "merge": merge,
    "compare": compare,
    "verify": verify,
    "export": export,
    "convert": convert,
    "download": download,
}


def _data_dir(given):
    """Return where the data lies: as the user said, or as the run remembers whose recipe is taken."""
    place = hparams.place_of(given.recipe) if given.recipe and not given.data_dir else None
    remembered = hparams.data_of(place) if place else {}
    same = given.dataset in (None, remembered.get("dataset"))
    return remembered.get("data_dir") if same and remembered else given.data_dir


def _places(given, model_dir):
    return {
        "model_dir": model_dir,
        "checkpoint": given.checkpoint,
        "checkpoint_dir": given.checkpoint_dir,
        "data_dir": given.data_dir,
    }


def _trusted(report):
    return 0 if report["trusted"] or report["forced"] else WITHHELD


def run_experiment(given: flags.FlagValues, changes: dict[str, Any], command: str) -> int:
    """Run an experiment's rows, or draw a figure of activations."""
    name, results_dir = given.experiment, pathlib.Path(given.results_dir).expanduser()
    if name in hparams.DRAWN:
        with quiet_start():
            from sat_tf import experiment
        print(f"figure: {experiment.draw(*hparams.DRAWN[name], results_dir / name)}")
        return 0
    from sat_tf import grid

    table, folder = grid.run(
        name,
        scale=given.scale,
        seeds=given.seeds,
        results_dir=results_dir,
        data_dir=given.data_dir,
        changes=changes,
        rows=given.rows,
        jobs=given.jobs,
        command=command,
    )
    print((folder / "table.md").read_text().partition("## What the words mean")[0].strip())
    print(f"\ntable: {folder / 'table.md'}")
    if any(row["n"] for row in table["rows"]):
        print(f"figure: {folder / 'figure.png'}")
    if hparams.EXPERIMENTS[name].measured and (page := folder / f"{hparams.EXPERIMENTS[name].measured}.md").exists():
        verdicts = page.read_text().partition("## Link by link")[2].partition("## ")[0].strip()
        print(f"\n{verdicts}\n\n{hparams.EXPERIMENTS[name].measured}: {page}")
    if table["failures"]:
        raise ChildProcessError(
            f"{len(table['failures'])} of {table['planned']} runs failed; {folder / 'table.md'} "
            "says why. The same command tries them again."
        )
    return 0


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Drop what TensorFlow's C++ side writes to stderr while it loads; no setting reaches that (tensorflow/100442)."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
