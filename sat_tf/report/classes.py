"""The figures of a report class by class: accuracies, and the confusion matrix."""

from typing import Any

import numpy as np

from sat_tf.names import attack_title
from sat_tf.report import by_class

_BARS, _NUMBERS = 60, 25  # classes at most that have a bar each, and a number in each cell
_COLOURS = ("#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")


def draw(report: dict, figure_of: Any) -> dict[str, Any]:
    """Return the figures by name, as far as there is something to draw.

    Args:
      report: as `report.write` takes it.
      figure_of: makes an empty figure.
    """
    found = report.get("by_class")
    if not found:
        return {}
    figures = {}
    if sum(map(bool, found["count"])) <= _BARS:
        figures["accuracy_by_class"] = _draw_accuracies(report, found, figure_of)
    drawn = [each for each in found["confusion"] if each["matrix"] and each["attack"] in by_class.shown(report)]
    if drawn:
        figures["confusion_matrix"] = _draw_matrices(drawn, report["dataset"]["classes"], figure_of)
    return figures


def _title(name):
    return "clean" if name == "clean" else f"under {attack_title(name)}"


def _draw_accuracies(report, found, figure_of):
    """Draw a bar for each class and attack."""
    names, places = by_class.shown(report), np.flatnonzero(found["count"])
    figure = figure_of(8, 1.4 + 0.13 * len(places) * (1 + len(names)), layout="constrained")
    axes, height = figure.subplots(), 0.8 / len(names)
    counts = np.array(found["count"])[places]
    for number, name in enumerate(names):
        values = 100 * np.array(found["correct"][name])[places] / counts
        at = np.arange(len(places)) + (number - (len(names) - 1) / 2) * height
        axes.barh(at, values, height, color=_COLOURS[number % len(_COLOURS)], label=_title(name))
    labels = [f"{report['dataset']['classes'][place]} ({count})" for place, count in zip(places, counts, strict=True)]
    axes.set_yticks(range(len(places)), labels, parse_math=False)
    axes.invert_yaxis()
    axes.set(title="Accuracy by class (number of images)", xlabel="accuracy (%)", xlim=(0, 100))
    axes.grid(axis="y", visible=False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06 - 0.5 / len(places)), ncols=4)
    return figure


def _draw_matrices(drawn, classes, figure_of):
    """Draw a matrix for each, rows true classes, columns predicted ones, coloured by the share of the row."""
    side = float(np.clip(0.42 * len(classes) + 1.6, 3.2, 9))
    figure = figure_of(side * len(drawn) + 0.6, side + 0.8, layout="constrained")
    for axes, each in zip(np.ravel(figure.subplots(1, len(drawn))), drawn, strict=True):
        matrix = np.array(each["matrix"])
        shares = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
        if len(classes) <= _NUMBERS:
            for (row, column), count in np.ndenumerate(matrix):
                if count:
                    color = "white" if shares[row, column] > 55 else "black"
                    axes.text(column, row, f"{count}", ha="center", va="center", fontsize=7, color=color)
        step = -(-len(classes) // 50)
        places = range(0, len(classes), step)
        names = [classes[place][:18] for place in places]
        axes.set_xticks(places, names, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(places, names, fontsize=8, parse_math=False)
        axes.grid(False)
        axes.set(title=f"Confusion matrix, {_title(each['attack'])}", xlabel="predicted class", ylabel="true class")
    return figure
