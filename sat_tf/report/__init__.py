"""Write what a run found: report.json for programs, report.md for people, and figures.

Everything is rendered in memory before the first byte is written, and each file is replaced in one move: a failure
leaves the files of the previous report as they were. Figures without data are neither written nor deleted.
"""

import csv
import io
import json
import math
import os

import numpy as np

from sat_tf import files
from sat_tf.names import format_radius
from sat_tf.report import by_class, comparison, html, mechanism
from sat_tf.report.comparison import accuracy_of
from sat_tf.report.courses import draw_courses
from sat_tf.report.doses import draw_doses
from sat_tf.report.figures import draw, png
from sat_tf.report.joined import joined
from sat_tf.report.paired import difference, mcnemar
from sat_tf.report.robustbench import robustbench
from sat_tf.report.tables import draw_activations, draw_table
from sat_tf.report.tables import markdown as table_markdown
from sat_tf.report.words import describe, failures, markdown, published, score, wilson_interval, withheld

__all__ = [
    "SCHEMA_VERSION",
    "WHOLE",
    "accuracy_of",
    "by_class",
    "csv_text",
    "describe",
    "difference",
    "draw_courses",
    "draw_doses",
    "failures",
    "format_radius",
    "joined",
    "mcnemar",
    "robustbench",
    "score",
    "summary_lines",
    "wilson_interval",
    "withheld",
    "write",
    "write_activations",
    "write_comparison",
    "write_mechanism",
    "write_table",
]

SCHEMA_VERSION = 2
WHOLE = "after all its epochs"  # how a report says that a training was not stopped early


def write(directory: str | os.PathLike, report: dict, history: list[dict], panel: dict | None) -> dict[str, str]:
    """Write report.json, report.md, report.html and figures/*.png, each to a temporary name that then replaces the old.

    Args:
      directory: where to; created when missing.
      report: what to write, of schema `SCHEMA_VERSION`. NumPy values are converted; NaN and infinity become null.
        An optional `published` (name, dataset, epsilon, step_size, accuracies by attack) is shown beside the measured.
      history: one row a validation: step, epoch, learning_rate, train/loss, train/accuracy,
        validation/clean_accuracy; where measured validation/robust_accuracy, .../one_step_accuracy. Empty: no curves.
      panel: clean and adversarial float32 `[n, height, width, 3]` in [0, 1]; labels, clean_predictions and
        adversarial_predictions int `[n]`; classes (names), attack (name), epsilon. None: no panel.

    Returns:
      Path of each written file by its name inside `directory`, such as "report.md" or "figures/panel.png".

    Raises:
      ValueError: the report is of another schema version, or the panel's arrays do not fit together.
    """
    if report.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"Expected a report of schema version {SCHEMA_VERSION}. "
                         f"Received: schema_version={report.get('schema_version')!r}.")  # fmt: skip
    report, history = _plain(report), _plain(history)
    figures = draw(report, history, panel)
    files = {f"figures/{name}.png": png(figure) for name, figure in figures.items()}
    text = markdown(report, list(files))
    files |= {"report.html": html.page(text, files).encode(), "report.md": text.encode()}
    files["report.json"] = _json(report)
    return _replace_all(directory, files)


def write_table(directory: str | os.PathLike, table: dict) -> dict[str, str]:
    """Write table.json, table.md and figures of an experiment; `table` is as `sat_tf.grid.table.write` makes it."""
    table = _plain(table)
    drawn = {"figure.png": draw_table(table), "doses.png": draw_doses(table), "courses.png": draw_courses(table)}
    files = {name: png(figure) for name, figure in drawn.items() if figure}
    return _replace_all(directory, files | {"table.md": table_markdown(table).encode(), "table.json": _json(table)})


def write_mechanism(directory: str | os.PathLike, content: dict) -> dict[str, str]:
    """Write mechanism.json, mechanism.md and figures; `content` is as `sat_tf.grid.mechanism.write` makes it."""
    content = _plain(content)
    files = {f"{name}.png": png(figure) for name, figure in mechanism.draw(content).items()}
    text = mechanism.markdown(content, list(files))
    return _replace_all(directory, files | {"mechanism.md": text.encode(), "mechanism.json": _json(content)})


def write_activations(directory: str | os.PathLike, title: str, curves: dict) -> dict[str, str]:
    """Write figure.png and figure.json of activations, `{name: (x, value, derivative)}`."""
    names = ("x", "value", "derivative")
    values = _plain({name: dict(zip(names, lines, strict=True)) for name, lines in curves.items()})
    files = {"figure.png": png(draw_activations(title, curves)), "figure.json": _json(values)}
    return _replace_all(directory, files)


def write_comparison(directory: str | os.PathLike, content: dict) -> dict[str, str]:
    """Write comparison.md, .html, .csv, .json and .png, and recipes.csv; `content` is `experiment.compare`'s."""
    content = _plain(content)
    figure, text = png(comparison.draw(content)), comparison.markdown(content)
    files = {
        "comparison.png": figure,
        "comparison.md": text.encode(),
        "comparison.html": html.page(text, {"comparison.png": figure}).encode(),
        "comparison.csv": comparison.csv_text(content).encode(),
        "recipes.csv": comparison.recipes_csv(content).encode(),
        "comparison.json": _json(content),
    }
    return _replace_all(directory, files)


def summary_lines(report: dict, paths: dict[str, str]) -> list[str]:
    """Return the last lines a run prints: one per evaluation, then one per path.

    Args:
      report: as for `write`.
      paths: what the reader may want to open, by the name to print, in order: "report", "figures", "checkpoint",
        "TensorBoard logs". Empty ones are left out.
    """
    lines = []
    for check in failures(report):
        lines.append(f"{'withheld' if withheld(report) else 'not to be trusted'}: {check['name']}: {check['figure']}")
    lines += [f"warning: {check['name']}: {check['figure']}" for check in failures(report, hard=False)]
    if not report["checked"] and report["mode"] == "eval":
        lines.append("not checked: no sanity check was made of these numbers")
    for row in report["evaluations"]:
        if withheld(report) and row["attack"] != "clean":
            lines.append(f"{describe(row)}: withheld")
            continue
        number = published(report, row)
        beside = "" if number is None else f"; published for the {report['published']['dataset']}: {100 * number:.1f} %"
        lines.append(f"{describe(row)}: {score(row)}{beside}")
    return lines + [f"{name}: {path}" for name, path in paths.items() if path]


def csv_text(rows: list[dict]) -> str:
    """Return rows of one table, all with the keys of the first, as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _plain(value):
    """Return `value` as what JSON knows: NumPy converted, NaN and infinity null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(value) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def _replace_all(directory, contents: dict[str, bytes]) -> dict[str, str]:
    """Write files by their names inside `directory`; return their paths."""
    return {name: files.write(os.path.join(os.fspath(directory), name), data) for name, data in contents.items()}
