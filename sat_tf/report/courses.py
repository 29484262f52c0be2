"""How the rows of an experiment come apart in training, as curves."""

from typing import Any

import numpy as np

from sat_tf.report import words
from sat_tf.report.figures import CYCLE, MARKERS, figure_of, styled

QUANTITIES = {"train_loss": "training loss", "held_out": "robust accuracy on held-out images (%)"}
DASHES = ("-", "--", ":")
RULE = (
    "Robust accuracy is under the attack of validation (`validation_attack` of the recipe). Mean over the seeds at "
    "every validation, in a band of a standard deviation to either side. A row is apart from the baseline since the "
    "epoch from which on every 95 % interval of their paired difference excludes 0, up to the end; with so many looks "
    "one may do so by chance."
)


def draw_courses(table: dict) -> Any:
    """Return the figure of a table's courses, loss and robust accuracy over epochs; None where it has none."""
    rows = [row for row in table["rows"] if row["row"] in (table.get("courses") or {})]
    if not rows:
        return None
    with styled():
        columns = 3 if max(len(row["label"]) for row in rows) < 30 else 2
        figure = figure_of(10, 4.2 + 0.22 * -(-len(rows) // columns), layout="constrained")
        for axes, (name, words_of) in zip(figure.subplots(1, len(QUANTITIES)), QUANTITIES.items(), strict=True):
            for number, row in enumerate(rows):
                course = table["courses"][row["row"]]
                points = [(point["epoch"], point[name]) for point in course["points"] if point.get(name)]
                if points:
                    _draw(axes, points, f"{row['label']}, {_seeds(course)}", number)
            axes.set(xlabel="epochs", ylabel=words_of)
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=columns)
        figure.suptitle(table["title"])
    return figure


def _draw(axes, points, label, number):
    epochs, found = zip(*points, strict=True)
    means = np.array([each["mean"] for each in found])
    spread = np.array([each["std"] or 0.0 for each in found])
    colour = CYCLE[number % len(CYCLE)]
    style = MARKERS[number % len(MARKERS)] + DASHES[number // len(CYCLE) % len(DASHES)]
    axes.plot(epochs, means, style, color=colour, label=label)
    axes.fill_between(epochs, means - spread, means + spread, color=colour, alpha=0.2, linewidth=0)


def _seeds(course):
    count = len(course["seeds"])
    return f"{count} seed{'s' if count > 1 else ''}"


def section(table: dict) -> list[str]:
    """Return the section of table.md on the courses, none where there are none: the figure, and when rows part."""
    courses, labels = table.get("courses") or {}, {row["row"]: row["label"] for row in table["rows"]}
    if not courses:
        return []
    parts = ["## In training", "![](courses.png)", RULE]
    rows = [
        [labels[row], _seeds(course), *(_epoch(course["parted"][name]) for name in QUANTITIES)]
        for row, course in courses.items()
        if course["parted"]
    ]
    header = ["apart since epoch", "", *QUANTITIES.values()]
    return [*parts, words.table(header, rows)] if rows else parts


def _epoch(epoch):
    return "never" if epoch is None else epoch if isinstance(epoch, str) else f"{epoch:g}"
