"""What the runs of an experiment found, as numbers beside the paper's."""

import datetime
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from sat_tf import hparams, report
from sat_tf.grid import courses, pairs


def read(folder: pathlib.Path) -> dict[str, Any]:
    """Return the report of a finished run; an OSError names one that can't be read."""
    file = folder / "report.json"
    try:
        content = json.loads(file.read_text())
        found = numbers(content)
        found["clean"], content["dataset"]["source"], content["training"]["ended"]  # noqa: B018
        content["versions"], content["machine"]  # noqa: B018
        if not all(map(math.isfinite, found.values())):
            raise ValueError("a number that is none")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OSError(
            f"{file} is damaged: {str(error)[:80]}. Remove it, and the run is evaluated again; or name another "
            "--results_dir."
        ) from None
    return content


def write(
    name: str, scale: str, folder: pathlib.Path, items: Sequence, failures: dict[str, str], command: str = ""
) -> dict[str, Any]:
    """Gather the reports of the runs that have ended into table.json, table.md and figure.png; return the table.

    `robust` is the accuracy under the attack of the most stages, and of those the most steps.
    """
    experiment = hparams.EXPERIMENTS[name]
    reports = {}
    for item in items:
        if item.finished:
            reports.setdefault(item.row, {})[item.seed] = read(item.folder)
    found = [content for by_seed in reports.values() for content in by_seed.values()]
    measured = {row: {seed: numbers(content) for seed, content in by_seed.items()} for row, by_seed in reports.items()}
    baseline = next(item.recipe for item in items if item.row == experiment.baseline)
    content = {
        "schema_version": report.SCHEMA_VERSION,
        "experiment": name,
        "title": experiment.title,
        "scale": scale,
        "command": command,
        "created": datetime.datetime.now().astimezone().isoformat("T", "seconds"),
        "dataset": found[0]["dataset"] if found else None,
        "baseline": experiment.baseline,
        "attack": _strongest(found[0]["evaluations"]) if found else None,
        "training_attack": found[0]["training"]["attack"] if found else None,
        "epsilon": baseline.evaluated_epsilon,
        "recipe": baseline.to_dict(),
        "versions": _all([one["versions"] for one in found]),
        "machine": _all([one["machine"] for one in found]),
        "connected": list(experiment.connected),
        "doses": experiment.doses,
        "choices": choose(experiment.choices, measured),
        "rows": [
            _row(row, experiment.rows[row], measured.get(row, {}), measured.get(experiment.baseline, {}))
            for row in experiment.rows
            if any(item.row == row for item in items)
        ],
        "courses": courses.of(
            {(item.row, item.seed): item.folder for item in items if item.finished}, experiment.baseline
        ),
        "planned": len(items),
        "failures": failures,
        "early": {
            f"{item.row}, seed {item.seed}": ended
            for item in items
            if item.finished
            if (ended := reports[item.row][item.seed]["training"]["ended"]) != report.WHOLE
        },
    }
    report.write_table(folder, content)
    return content


def _row(name, row, runs, baseline):
    return {
        "row": name,
        "label": row.label,
        "source": row.source,
        "paper": row.paper,
        "changes": row.changes,
        "n": len(runs),
        "quantities": pairs.summary(runs, baseline),
        "runs": {str(seed): runs[seed] for seed in sorted(runs)},
    }


def _strongest(evaluations):
    return max(evaluations, key=lambda row: (len(row.get("stages", ())), row["steps"] or 0))["attack"]


def _all(facts):
    """Return the values of some dicts: one where they agree, all of them where not."""
    merged = {name: sorted({str(one[name]) for one in facts}) for name in (facts[0] if facts else ())}
    return {name: values[0] if len(values) == 1 else " | ".join(values) for name, values in merged.items()}


def choose(choices: dict[str, Sequence[str]], measured: dict[str, dict[int, dict[str, float]]]) -> list[dict[str, Any]]:
    """Return of each choice the row that is best on held-out images, compared with that of the first choice.

    Args:
      choices: `{title: rows}`.
      measured: `{row: {seed: {quantity: number}}}`.

    Returns:
      For each a dict: `title`; `seeds` that all its rows have, by whose mean it is chosen; `held_out`, that mean in %
      by row; `row`, the chosen one, None where there are no such seeds; its `quantities` as of `pairs.summary`.
    """
    found = [_choice(title, {row: measured.get(row, {}) for row in rows}) for title, rows in choices.items()]
    first = measured.get(found[0]["row"], {}) if found else {}
    return [{**each, "quantities": pairs.summary(measured.get(each["row"], {}), first)} for each in found]


def _choice(title, runs):
    judged = ({seed for seed, found in each.items() if "held_out" in found} for each in runs.values())
    seeds = sorted(set.intersection(*judged))
    means = {row: pairs.moments([each[seed]["held_out"] for seed in seeds])[0] for row, each in runs.items() if seeds}
    return {"title": title, "seeds": seeds, "held_out": means, "row": max(means, key=means.get, default=None)}


def numbers(content: dict[str, Any]) -> dict[str, float]:
    """Return `{quantity: number}` of a run's report: accuracies in %, training loss, seconds of training.

    `held_out` is the robust accuracy at the end of training on images that were held out of it, where it was measured.
    """
    found = {row["attack"]: 100 * row["accuracy"] for row in content["evaluations"]}
    training = content["training"]
    validations = {row["checkpoint"]: row["robust_accuracy"] for row in training.get("validations") or ()}
    held_out = validations.get("last")
    return {
        **found,
        **({} if held_out is None else {"held_out": 100 * held_out}),
        "robust": found[_strongest(content["evaluations"])],
        "train_loss": float(training["train_loss"]),
        "seconds": float(training["wall_time_seconds"]),
    }


def in_short(folder: pathlib.Path) -> str:
    """Return the accuracies of a finished run in a few words."""
    found = numbers(read(folder))
    return (
        f"{found['clean']:.1f} % clean, {found['robust']:.1f} % robust, training loss {found['train_loss']:.3f}, "
        f"{found['seconds']:.0f} s"
    )
