"""What every evaluation reports, and its last lines."""

import datetime
import math
import pathlib

from sat_tf import report
from sat_tf.experiment import assembly


def header(recipe, model, dataset, batches, strategy):
    """Return what a report says of model, data and machine."""
    return {
        "schema_version": report.SCHEMA_VERSION,
        "created": datetime.datetime.now().astimezone().isoformat("T", "seconds"),
        "model": recipe.model,
        "act": recipe.act,
        "method": recipe.method,
        "dataset": {
            "name": dataset.name,
            "source": dataset.source,
            "train": dataset.train.size,
            "validation": dataset.validation.size,
            "test": dataset.test.size,
            "notes": list(dataset.notes),
            "preprocess": assembly.preprocess(recipe),
            "image_size": batches.element_spec[0].shape[1],
            "classes": list(dataset.classes),
        },
        "parameters": {"trainable": count(model.trainable_variables), "total": count(model.variables)},
        "versions": assembly.versions(),
        "machine": assembly.machine(strategy),
    }


def counted(correct, count, recipe, seconds):
    """Return the end of every row: how many of how many images are right, and in what time, None where unknown."""
    return {
        "seed": recipe.seed,
        "split": "test",
        "count": count,
        "correct": correct,
        "accuracy": correct / count,
        "wall_time_seconds": seconds,
    }


def conclude(full, history, panel, folder, model_dir, more=()):
    """Write a report and print its last lines, with `more` paths among them; return the report."""
    paths = report.write(folder, full, history, panel)
    logs = pathlib.Path(model_dir) / "tensorboard"
    where = {
        "report": paths["report.md"],
        **dict(more),
        "figures": str(pathlib.Path(folder) / "figures"),
        "checkpoint": full["checkpoint"]["path"],
        "TensorBoard logs": str(logs) if logs.is_dir() else "",
    }
    print("\n".join(report.summary_lines(full, where)), flush=True)
    return full


def robustbench(full, name):
    """Return the fields of a RobustBench entry, as far as an evaluation knows them (Croce et al. 2021)."""
    by_attack = {row["attack"]: f"{100 * row['accuracy']:.2f}" for row in full["evaluations"]}
    radii = [row["epsilon"] for row in full["evaluations"] if row["epsilon"] is not None]
    norms = {row["norm"] for row in full["evaluations"] if row["norm"]}
    return {
        "link": None,
        "name": name,
        "authors": None,
        "additional_data": None,
        "number_forward_passes": 1,
        "dataset": full["dataset"]["name"],
        "venue": None,
        "architecture": f"{full['model']}, {full['act']}",
        "threat_model": {"linf": "Linf", "l2": "L2"}.get(min(norms, default=None)),
        "eps": report.format_radius(radii[0], min(norms)) if radii else None,
        "clean_acc": by_attack.get("clean"),
        "reported": None,
        "autoattack_acc": by_attack.get("autoattack"),
        "unreliable": not full["trusted"],
        "footnote": None,
    }


def count(variables):
    """Return the number of values in some variables."""
    return sum(math.prod(variable.shape) for variable in variables)
