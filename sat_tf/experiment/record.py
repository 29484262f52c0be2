"""What every evaluation puts on record: the report's facts, its rows, and its last lines."""

import math
import pathlib
from collections.abc import Iterable

from sat_tf import assembly, console, evaluate, hparams, machine, report
from sat_tf.distribute import strategies
from sat_tf.evaluate import rows
from sat_tf.experiment.subject import Subject
from sat_tf.runs import checkpoints


def header(subject: Subject) -> dict:
    """Return what a report says of model, data and machine."""
    recipe, dataset = subject.recipe, subject.dataset
    return {
        "schema_version": report.SCHEMA_VERSION,
        "created": machine.now(),
        "model": recipe.model,
        "act": recipe.act,
        "method": recipe.method,
        "trained_on": assembly.make_method(recipe).trains_on,
        "dataset": {
            "name": dataset.name,
            "source": dataset.source,
            "train": dataset.train.size,
            "validation": dataset.validation.size,
            "test": dataset.test.size,
            "notes": list(dataset.notes),
            "preprocess": assembly.preprocess(recipe),
            "image_size": subject.image_size,
            "classes": list(dataset.classes),
        },
        "parameters": {"trainable": count(subject.model.trainable_variables), "total": count(subject.model.variables)},
        "versions": machine.versions(),
        "machine": {
            **machine.devices(subject.strategy),
            "hosts": str(strategies.team().size),
            "precision of training": recipe.precision,
            "precision of accuracies": f"{recipe.eval_precision}, without TF32",
        },
        "precision": {"training": recipe.precision, "evaluation": recipe.eval_precision, "tensor_float_32": False},
    }


def facts_of(found: checkpoints.Checkpoint, mode: str, command: str, recipe: dict) -> dict:
    """Return what a report says of a checkpoint and of the command."""
    return {
        "mode": mode,
        "command": command,
        "seed": found.recipe.seed,
        "recipe": recipe,
        "evaluated_by": evaluated_by(found.recipe),
        "checkpoint": found.facts,
        "published": found.published_facts,
        "training": None,
        **({"method": "unknown"} if found.source == "own" else {}),
    }


def evaluated_by(recipe: hparams.Recipe) -> dict:
    """Return the fields of a recipe that say how it is evaluated."""
    values = recipe.to_dict()
    return {name: value for name, value in values.items() if name.startswith("eval_")} | {"seed": values["seed"]}


def clean_row(correct: int, count: int, recipe: hparams.Recipe) -> dict:
    """Return the report's row of the images as they are."""
    return rows.clean_row(correct, count, recipe.seed)


def row_of(result: evaluate.Result, recipe: hparams.Recipe) -> dict:
    """Return the report's row of an attack, from its `evaluate.Result`."""
    return rows.attack_row(result, recipe.seed, recipe.eval_backward)


def conclude(
    full: dict,
    history: list[dict],
    panel: dict | None,
    folder: pathlib.Path,
    home: pathlib.Path,
    more: dict | tuple = (),
) -> dict:
    """Write a report and print its last lines, with `more` paths among them; return the report."""
    paths = report.write(folder, full, history, panel)
    logs = pathlib.Path(home) / "tensorboard"
    where = {
        "report": paths["report.md"],
        **dict(more),
        "figures": str(pathlib.Path(folder) / "figures"),
        "checkpoint": full["checkpoint"]["path"],
        "TensorBoard logs": str(logs) if logs.is_dir() else "",
    }
    console.say("\n".join(report.summary_lines(full, where)))
    return full


def count(variables: Iterable) -> int:
    """Return the number of values in some variables."""
    return sum(math.prod(variable.shape) for variable in variables)
