"""How robust is a model? One call: accuracies under attacks with their intervals, and whether to believe them."""

import dataclasses
import html
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from sat_tf import attacks as table
from sat_tf import console, evaluate, files, inputs, machine, report
from sat_tf.evaluate import rows
from sat_tf.evaluate.predictor import Predictor, keras_call
from sat_tf.fit import batches
from sat_tf.fit.view import PROBABILITIES, kind_of, logits_of_outputs

DEFAULT = ("clean", "pgd-20", "autoattack")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What `benchmark` found.

    Attributes:
      model: its name.
      rows: a dict an attack, as reports hold them.
      results: `{attack: evaluate.Result}`.
      checks: `evaluate.Check`s, none where none were asked for.
      examples: what was attacked, in [0, 1].
      panel: an image of each of the first classes, clean and attacked.
      parameters: `{"trainable": count, "total": count}`.
      notes: what a reader must know.
      forced: whether accuracies are shown whatever the checks say.
    """

    model: str
    rows: list[dict[str, Any]]
    results: dict[str, evaluate.Result]
    checks: list[evaluate.Check]
    examples: evaluate.Examples
    panel: dict[str, Any]
    parameters: dict[str, int]
    notes: tuple[str, ...]
    command: str
    forced: bool = False

    @property
    def trusted(self) -> bool:
        """Whether no hard check failed."""
        return evaluate.trusted(self.checks)

    @property
    def accuracies(self) -> dict[str, float]:
        """`{attack: accuracy}`, whatever the checks say."""
        return {row["attack"]: row["accuracy"] for row in self.rows}

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """`{attack: (low, high)}`, the 95 % intervals of the accuracies."""
        return {row["attack"]: report.wilson_interval(row["correct"], row["count"]) for row in self.rows}

    @property
    def table(self) -> list[dict[str, Any]]:
        """A dict for each attack and image, as `images.csv` has its lines."""
        return [{"attack": name, **row} for name, result in self.results.items() for row in result.table()]

    def report(self, folder: str | os.PathLike) -> dict[str, str]:
        """Write report.md, report.json, images.csv and figures into a folder; return their paths by name."""
        folder = pathlib.Path(folder)
        full = self._full()
        images = {"images.csv": files.write(folder / "images.csv", report.csv_text(self.table))} if self.table else {}
        full["files"]["images"] = "images.csv" if images else None
        return report.write(folder, full, [], self.panel) | images

    def __str__(self) -> str:
        """Return a line an attack, after those of failed checks."""
        return "\n".join([*report.summary_lines(self._full(), {}), *(f"note: {note}" for note in self.notes)])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """Return the accuracies as a table for a notebook."""
        full, lines = self._full(), []
        for row in self.rows:
            hidden = row["attack"] != "clean" and report.withheld(full)
            low, high = self.intervals[row["attack"]]
            score = "withheld" if hidden else f"{100 * row['accuracy']:.2f} %"
            span = "" if hidden else f"{100 * low:.2f} to {100 * high:.2f} %"
            count = "" if hidden else f"{row['correct']} / {row['count']}"
            lines.append([report.describe(row), score, span, count])
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in line)}</tr>" for line in lines)
        head = "".join(f"<th>{name}</th>" for name in ("", "accuracy", "95 % interval", "correct / count"))
        told = [f"{check.name}: {check.figure}" for check in self.checks if check.passed is False] + list(self.notes)
        below = "".join(f"<li>{html.escape(line)}</li>" for line in told)
        title = html.escape(f"{self.model}, {len(self.examples.labels)} images")
        return f"<table><caption>{title}</caption><tr>{head}</tr>{body}</table>" + (f"<ul>{below}</ul>" if told else "")

    def _full(self):
        """Return the whole report, as `report.write` takes it."""
        correct = int((self.panel["all_predictions"] == self.examples.labels).sum())
        side = self.examples.images.shape[1]
        full = {
            "schema_version": report.SCHEMA_VERSION,
            "created": machine.now(),
            "mode": "eval",
            "command": self.command,
            "seed": self.rows[0]["seed"] if self.rows else 0,
            "model": self.model,
            "act": None,
            "method": None,
            "trained_on": None,
            "recipe": {},
            "evaluated_by": {},
            "checkpoint": None,
            "published": None,
            "training": None,
            "dataset": {
                "name": "images of one's own",
                "source": "handed to sat_tf.benchmark",
                "train": 0,
                "validation": 0,
                "test": len(self.examples.labels),
                "notes": list(self.notes),
                "preprocess": None,
                "image_size": side,
                "classes": self.panel["classes"],
            },
            "parameters": self.parameters,
            "versions": machine.versions(),
            "machine": machine.devices(tf.distribute.get_strategy()),
            "evaluations": self.rows,
            "curve": rows.curve(self.results, correct),
            "radii": None,
            "extras": None,
            "checks": [dataclasses.asdict(check) for check in self.checks],
            "checked": bool(self.checks),
            "trusted": self.trusted,
            "forced": self.forced,
            "subset": None,
            "shard": None,
            "files": {"images": None, "adversarial": []},
        }
        full["robustbench"] = report.robustbench(full, self.model)
        return full


def benchmark(
    model: Any,
    data: Any,
    attacks: Sequence[str] = DEFAULT,
    epsilon: float = 8 / 255,
    *,
    value_range: tuple[float, float] = (0, 1),
    norm: str = "linf",
    step_size: float | None = None,
    restarts: int = 1,
    batch_size: int = 200,
    seed: int = 0,
    checks: int = 100,
    classes: Sequence[str] | None = None,
    force: bool = False,
) -> Benchmark:
    """Attack a model on images of one's own, and check whether the numbers can be believed.

    The one engine of this project: the same numbers as `--mode=eval` of the command line and as `evaluate.Attacker`.

    Args:
      model: a Keras model, a SavedModel (its folder, or as loaded), a .keras file, or a function images -> logits; one
        that ends in a softmax is attacked by what it was computed from.
      data: `(images, labels)`, an `evaluate.Examples`, or batches of them (`tf.data`, `keras.utils.PyDataset`, any
        iterable), of whole numbers or floats; labels whole numbers or one-hot. A third part of a batch is its mask.
      attacks: of `attacks.ATTACKS`, with their steps, "pgd-20".
      epsilon: radius as a fraction of `value_range`: 8/255 means the same for images in 0..1 and in 0..255.
      value_range: lowest and highest value of the images, and of those that the model wants.
      norm: key of `attacks.BALLS`.
      step_size, restarts: of PGD, as `evaluate.Attacker.attack` takes them.
      batch_size: images at a time.
      seed: of random starts.
      checks: images on which sanity checks look; 0 makes none.
      classes: names for the report; None for the model's `classes`, or numbers.
      force: show accuracies that failed a check.

    Returns:
      A `Benchmark`: print it, write it by `report(folder)`, or let a notebook show it.

    Raises:
      ValueError: something does not fit; nothing was attacked.
    """
    names = [name.strip() for name in attacks.split(",")] if isinstance(attacks, str) else list(dict.fromkeys(attacks))
    for name in names:
        table.row_of(name)
    if norm == "linf":  # before any image is read
        inputs.check_ball(norm, (), epsilon, step_size)
    examples = _examples(data, value_range)
    epsilon, step_size = inputs.check_ball(norm, examples.images.shape[1:], epsilon, step_size)
    predict, notes = _predictor(model, value_range, examples)
    attacker = evaluate.Attacker(predict, norm=norm, batch_size=batch_size, seed=seed)
    with console.make_progress(len(examples.labels), "clean", "image", passing=True) as progress:
        logits = attacker.read(examples.images, progress.update)
    inputs.classes_of(examples.labels, len(logits), logits.shape[1])
    for name in names:
        table.plan_of(name, table.Terms(classes=logits.shape[1], norm=norm, restarts=restarts))
    sample = inputs.whole("checks", checks, least=0)
    found = evaluate.before(attacker, examples, logits, sample=sample) if sample else []
    results = {}
    correct = int((logits.argmax(-1) == examples.labels).sum())
    for name in names:
        if name != "clean":
            with console.make_progress(len(logits), name, "image", passing=True) as progress:
                results[name] = attacker.attack(
                    examples,
                    name,
                    epsilon=epsilon,
                    step_size=step_size,
                    restarts=restarts,
                    logits=logits,
                    progress=console.whole_steps(progress),
                )
    if sample:
        found += evaluate.after(attacker, examples, logits, results, sample=sample)
    found_rows = [
        rows.clean_row(correct, len(logits), seed) if name == "clean" else rows.attack_row(results[name], seed)
        for name in names
    ]
    words = classes or getattr(model, "classes", None) or [str(number) for number in range(logits.shape[1])]
    panel = rows.panel(attacker, examples, results, rows.shown_of(examples.labels), words)
    panel["all_predictions"] = logits.argmax(-1)
    variables = {"trainable": getattr(model, "trainable_variables", ()), "total": getattr(model, "variables", ())}
    return Benchmark(
        model=str(getattr(model, "name", None) or (model if isinstance(model, str) else type(model).__name__)),
        rows=found_rows,
        results=results,
        checks=found,
        examples=examples,
        panel=panel,
        parameters={name: int(sum(np.prod(v.shape) for v in of)) for name, of in variables.items()},
        notes=notes,
        command=f"sat_tf.benchmark(model, data, attacks={names}, epsilon={epsilon!r}, value_range={value_range}, ...)",
        forced=force,
    )


def _predictor(model, value_range, examples):
    """Return a model as it is attacked, and notes: by its logits where it returns their softmax."""
    predict = evaluate.predictor(model, value_range)
    predict.check(examples.images.shape)
    few = tf.constant(examples.images[: batches.FEW])
    if kind_of(predict(few), None, "") != PROBABILITIES:
        return predict, ()
    note = "the model returns probabilities; attacks and checks see the logits that they are the softmax of"

    def logits(outputs):
        return logits_of_outputs(outputs, PROBABILITIES)

    is_keras = isinstance(model, keras.Model)
    call = keras_call(model, logits) if is_keras else lambda images: logits(predict.call(images))
    return Predictor(call, predict.shape, value_range, predict.dtype), (note,)


def _examples(data, value_range):
    """Return what a user calls data as `Examples` in [0, 1]."""
    if isinstance(data, evaluate.Examples):
        images, labels, ids = data.images, data.labels, data.ids
        if data.value_range is not None:
            return data
    else:
        images, labels = _arrays(data)
        ids = None
    if not len(images):
        raise ValueError("Expected one image or more. Received: none.")
    batches.check_images(images, value_range)
    return evaluate.Examples(images=images, labels=labels, ids=ids, value_range=inputs.span(value_range))


def _arrays(data):
    """Return images and labels of a pair of arrays, or of batches."""
    if isinstance(data, dict):
        data = _pair(data)
    if isinstance(data, (tuple, list)) and len(data) == 2 and np.ndim(data[1]) <= 2:
        return inputs.array(data[0]), np.asarray(data[1])
    if isinstance(data, keras.utils.PyDataset):
        data = (data[index] for index in range(len(data)))
    if isinstance(data, (np.ndarray, tf.Tensor)) or not hasattr(data, "__iter__"):
        raise ValueError(f"Expected (images, labels), or batches of them. Received: data of {type(data).__name__}.")
    images, labels = [], []
    for part in data:
        x, y, *mask = _pair(part)
        x, y = np.asarray(x), np.asarray(y)
        if x.ndim == 3:  # images one by one
            x, y = x[None], y[None]
        kept = np.asarray(mask[0]).reshape(-1) != 0 if mask else np.ones(len(x), bool)
        images.append(x[kept])
        labels.append(y[kept])
    if not images:
        raise ValueError("Expected one batch or more. Received: none.")
    return inputs.array(np.concatenate(images)), np.concatenate(labels)


def _pair(part):
    """Return the parts of a batch: images, labels, and where there is one a mask."""
    if isinstance(part, dict):
        for image, label in (("image", "label"), ("images", "labels")):
            if image in part and label in part:
                return part[image], part[label]
    if not isinstance(part, (tuple, list)) or len(part) not in (2, 3):
        raise ValueError(f"Expected batches of images and labels. Received: a {type(part).__name__}.")
    return part
