"""Some runs beside one another: what differs between their recipes, and their accuracies on the same images."""

import csv
import io
from typing import Any

import numpy as np

from sat_tf.report import words
from sat_tf.report.cells import table
from sat_tf.report.figures import CYCLE, GREY, figure_of, styled

_DEFINITIONS = """\
* **Accuracy** is that of the run's own evaluation, with its 95 % Wilson interval.
* **Difference** is the accuracy minus that of the baseline, the first run, on the images that both were evaluated on,
  in points, with the 95 % interval for paired proportions of Newcombe (1998, method 10). An interval that holds 0 does
  not tell the two apart.
* **Right alone**: images that only this run, and only the baseline, gets right.
* **p** is that of McNemar's exact test: how probable so uneven a split of those images is if the two are equally good.
* Intervals and p are of the sampling of the images. They hold no variation between training seeds, and nothing of what
  a stronger attack might find; of many comparisons some have a small p by chance."""
COLUMNS = (
    "run", "attack", "images", "correct", "accuracy", "low", "high", "common_images", "right_alone",
    "baseline_right_alone", "difference", "difference_low", "difference_high", "mcnemar_p",
)  # fmt: skip


def markdown(content: dict[str, Any]) -> str:
    """Return comparison.md."""
    labels = [run["label"] for run in content["runs"]]
    parts = [f"# {len(labels)} runs", "## What differs", _differences(content, labels), "## Accuracies"]
    parts.append(_accuracies(content))
    if content["left_out"]:
        lines = "\n".join(f"* {run}: {why}" for run, why in content["left_out"].items())
        parts += ["## What could not be compared", lines]
    parts += ["![accuracies and differences](comparison.png)"]
    parts += ["## What the words mean", _DEFINITIONS, "## How to repeat it", f"```sh\n{content['command']}\n```"]
    return "\n\n".join(parts) + "\n"


def _differences(content, labels):
    if not content["differences"]:
        return "Nothing: the recipes are the same."
    rows = [[row["field"], *row["values"]] for row in content["differences"]]
    return table(["", *labels], [[cell.replace("|", "\\|") for cell in row] for row in rows])


def _accuracies(content):
    header = ["run", "attack", "accuracy (95 %)", "images", "difference (95 %)", "common", "right alone", "p"]
    rows = []
    for row in content["accuracies"]:
        cells = [row["run"], row["attack"], f"{100 * row['accuracy']:.2f} % ({_range(row['low'], row['high'])})"]
        cells.append(f"{row['correct']} / {row['images']}")
        if row["difference"] is None:
            cells += ["baseline" if row["run"] == content["baseline"] else "", "", "", ""]
        else:
            bounds = f"[{100 * row['difference_low']:+.2f}, {100 * row['difference_high']:+.2f}]"
            cells.append(f"{100 * row['difference']:+.2f} {bounds}")
            cells += [str(row["common_images"]), f"{row['right_alone']} : {row['baseline_right_alone']}"]
            cells.append(f"{row['mcnemar_p']:.2g}")
        rows.append(cells)
    return table(header, rows)


def _range(low, high):
    return f"{100 * low:.2f} to {100 * high:.2f} %"


def csv_text(content: dict[str, Any]) -> str:
    """Return comparison.csv: a line for each run and attack."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([["" if row[name] is None else row[name] for name in COLUMNS] for row in content["accuracies"]])
    return text.getvalue()


def recipes_csv(content: dict[str, Any]) -> str:
    """Return recipes.csv: a line for each field that differs, a column for each run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["field", *(run["label"] for run in content["runs"])])
    writer.writerows([[row["field"], *row["values"]] for row in content["differences"]])
    return text.getvalue()


def draw(content: dict[str, Any]) -> Any:
    """Return the figure: accuracies of every run with their intervals, and differences to the baseline."""
    labels = [run["label"] for run in content["runs"]]
    attacks = list(dict.fromkeys(row["attack"] for row in content["accuracies"]))
    with styled():
        height = 1.8 + len(labels) * max(0.32, 0.14 * len(attacks)) + 0.22 * len(attacks)
        figure = figure_of(11, height, layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for number, attack in enumerate(attacks):
            rows = [row for row in content["accuracies"] if row["attack"] == attack]
            offset = (number - (len(attacks) - 1) / 2) * 0.7 / len(attacks)
            at = np.array([labels.index(row["run"]) for row in rows]) + offset
            look = {"fmt": "osD^vP*X"[number % 8], "color": CYCLE[number % len(CYCLE)], "capsize": 3, "elinewidth": 1.2}
            _points(left, rows, at, ("accuracy", "low", "high"), label=attack, **look)
            kept = [place for place, row in enumerate(rows) if row["difference"] is not None]
            names = ("difference", "difference_low", "difference_high")
            _points(right, [rows[place] for place in kept], at[kept], names, **look)
        right.axvline(0, color=GREY, linestyle="--", linewidth=1.2)
        left.set_yticks(range(len(labels)), labels, parse_math=False)
        left.set_ylim(len(labels) - 0.5, -0.5)
        left.set(title="Accuracy, 95 % intervals", xlabel="accuracy (%)")
        right.set(title=f"Difference to {content['baseline']}", xlabel="points, on the same images")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _points(axes, rows, at, names, **look):
    """Draw points with the bounds beside them."""
    value, low, high = (100 * np.array([row[name] for row in rows], float) for name in names)
    if len(rows):
        axes.errorbar(value, at, xerr=[value - low, high - value], **look)


def accuracy_of(right: int, count: int) -> dict[str, Any]:
    """Return the columns of an accuracy alone."""
    low, high = words.wilson_interval(right, count)
    return {"images": count, "correct": right, "accuracy": right / count, "low": low, "high": high}
