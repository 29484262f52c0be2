"""A table of the paper beside what was measured, and its figure: accuracy against robustness."""

import textwrap
from typing import Any

import numpy as np

from sat_tf.names import attack_title, format_radius
from sat_tf.report import courses, words
from sat_tf.report.figures import CYCLE, GREY, MARKERS, figure_of, styled

_DIGITS = {"train_loss": 3, "seconds": 0}
_DEFINITIONS = """\
* **Mean ± standard deviation** over the seeds; **difference** to the baseline is the mean over pairs of runs with the
  same seed (same data order, same attack seeds), in brackets its 95 % confidence interval by Student's t. An interval
  that holds 0 does not tell the row from the baseline.
* **Training loss** is the mean over the last half epoch, or since the last but one validation where that is longer, on
  the images that the update saw.
* **Seconds** are wall time of a run's training; runs at work at the same time slow each other.
* Accuracy under attack is that of the final iterate."""


def markdown(table: dict) -> str:
    """Return table.md: what was run, the measured numbers beside the paper's, the failures."""
    measured = ["![](figure.png)", "## Measured", _measured(table)] if _points(table) else []
    parts = [
        f"# {table['title']}",
        _setting(table),
        *measured,
        *(["![](doses.png)"] if table.get("doses") else []),
        *_choices(table),
        *courses.section(table),
        "## The paper's numbers",
        _paper(table),
        "## What the words mean",
        _DEFINITIONS,
    ]
    if table["early"]:
        early = "\n".join(f"* {run}: {why}." for run, why in table["early"].items())
        parts += ["## Runs that were stopped early", early]
    if table["failures"]:
        failed = "\n".join(f"* `{run}`: {what}" for run, what in table["failures"].items())
        parts += ["## Runs that failed", "The same command tries them again.", failed]
    parts += [
        "## How it was run",
        words.facts(
            {"command": table["command"], "created": table["created"], **table["versions"], **table["machine"]}
        ),
        "## The baseline's recipe",
        words.facts(table["recipe"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _setting(table):
    data, recipe = table["dataset"], table["recipe"]
    if not data:
        return "No run has ended yet."
    runs = sum(row["n"] for row in table["rows"])
    epochs = f"{recipe['epochs']} epoch{'s' if recipe['epochs'] > 1 else ''}"
    radius = format_radius(table["epsilon"], recipe["eval_norm"])
    return (
        f"Scale: {table['scale']}. The baseline: {recipe['model']} on {data['source']}, {epochs} of "
        f"{data['train']} images, {table['training_attack'] or 'no attack'} in training. Robust: under "
        f"{attack_title(table['attack'])} at epsilon {radius} on {data['test']} test images. {runs} of "
        f"{table['planned']} runs."
    )


def _columns(table):
    """Return `{quantity: title}`: clean and robust accuracy, the attacks that the paper names, the training loss."""
    named = dict.fromkeys(name for row in table["rows"] for name in row["paper"] if "-" in name)
    return {
        "clean": "clean (%)",
        "robust": f"robust, {attack_title(table['attack'])} (%)",
        **{name: f"{attack_title(name)} (%)" for name in named},
        "train_loss": "training loss",
    }


def _measured(table):
    columns = _columns(table)
    header = ["", "n", *columns.values(), *(f"difference: {name.replace('train_', '')}" for name in columns), "seconds"]
    rows = []
    for row in table["rows"]:
        found = row["quantities"]
        differences = [
            _difference(found.get(name), name) if row["row"] != table["baseline"] else "" for name in columns
        ]
        rows.append(
            [
                row["label"],
                str(row["n"]),
                *(_mean(found.get(name), name) for name in columns),
                *differences,
                _mean(found.get("seconds"), "seconds"),
            ]
        )
    return words.table(header, rows)


def _choices(table):
    """Return the section on what was chosen on held-out images, and what it does on test images."""
    choices = table.get("choices") or []
    chosen, missing = ([each for each in choices if bool(each["row"]) == known] for known in (True, False))
    if not choices:
        return []
    labels = {row["row"]: row["label"] for row in table["rows"]}
    columns, first = _columns(table), choices[0]
    header = ["chosen", "seeds", "held out (%)", *columns.values()]
    rows = [
        [
            labels[each["row"]],
            str(len(each["seeds"])),
            f"{each['held_out'][each['row']]:.2f} (others {_others(each)})",
            *(_mean(each["quantities"].get(name), name) for name in columns),
            *("" if each is first else _difference(each["quantities"].get(name), name) for name in columns),
        ]
        for each in chosen
    ]
    differences = [f"difference to {first['title']}: {name.replace('train_', '')}" for name in columns]
    rule = (
        "Of each group the row with the highest mean robust accuracy at the end of training on images held out of it, "
        "over the seeds that all of its rows have; no test image was looked at. Differences are of pairs with the same "
        "seed."
    )
    parts = [words.table(header + differences, rows)] if rows else []
    if missing:
        names = ", ".join(each["title"] for each in missing)
        parts.append(f"Not chosen, since no seed of all its rows has ended: {names}.")
    return ["## Chosen on held-out images", rule, *parts]


def _others(choice):
    found = [f"{number:.2f}" for row, number in choice["held_out"].items() if row != choice["row"]]
    return ", ".join(found) or "none"


def _mean(found, name):
    if not found:
        return ""
    digits = _DIGITS.get(name, 2)
    spread = "" if found["std"] is None else f" ± {found['std']:.{digits}f}"
    return f"{found['mean']:.{digits}f}{spread}"


def _difference(found, name):
    if not found or found["difference"] is None:
        return ""
    digits = _DIGITS.get(name, 2)
    if found["interval"] is None:
        return f"{found['difference']:+.{digits}f} (one pair)"
    low, high = found["difference"] - found["interval"], found["difference"] + found["interval"]
    return f"{found['difference']:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def _paper(table):
    names = dict.fromkeys(name for row in table["rows"] for name in row["paper"])
    titles = {"robust": "robust, PGD-200 (%)", "clean": "clean (%)", "train_loss": "training loss"}
    rows = [
        [row["label"], *(str(row["paper"].get(name, "")) for name in names), row["source"]] for row in table["rows"]
    ]
    return words.table(["", *(titles.get(name, f"{attack_title(name)} (%)") for name in names), "source"], rows)


def _points(table):
    return [row for row in table["rows"] if {"clean", "robust"} <= set(row["quantities"])]


def draw_table(table: dict) -> Any:
    """Return the figure of a table: robustness against clean accuracy, measured and, where known, the paper's."""
    measured = [
        (row["row"], row["label"], *(row["quantities"][name] for name in ("clean", "robust"))) for row in _points(table)
    ]
    runs = {row["row"]: [(run["clean"], run["robust"]) for run in row["runs"].values()] for row in _points(table)}
    paper = [
        (row["row"], row["label"], *({"mean": row["paper"][name], "std": None} for name in ("clean", "robust")))
        for row in table["rows"]
        if {"clean", "robust"} <= set(row["paper"])
    ]
    colours = {row["row"]: (CYCLE[i % len(CYCLE)], MARKERS[i % len(MARKERS)]) for i, row in enumerate(table["rows"])}
    if not measured:
        return None
    panels = [("measured", measured)] + ([("in the paper, ImageNet", paper)] if len(paper) > 1 else [])
    with styled():
        columns = 4 if all(len(row["label"]) < 28 for row in table["rows"]) else 2
        height = 4.6 + 0.22 * -(-len(table["rows"]) // columns)
        figure = figure_of(max(8, 5.6 * len(panels)), height, layout="constrained")
        for axes, (title, points) in zip(np.ravel(figure.subplots(1, len(panels))), panels, strict=True):
            _draw_points(axes, points, colours, table["connected"])
            for name, found in runs.items() if title == "measured" else ():
                axes.plot(*zip(*found, strict=True), ".", color=colours[name][0], alpha=0.4, zorder=1)
            under = f" under {attack_title(table['attack'])}" if title == "measured" else " under PGD-200"
            axes.set(title=title, xlabel="clean accuracy (%)", ylabel=f"accuracy{under} (%)")
        named = [axes.get_legend_handles_labels() for axes in figure.axes]
        legend = {label: handle for handles, labels in named for handle, label in zip(handles, labels, strict=True)}
        figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=columns)
        marks = "mean and standard deviation over the seeds; a dot for each" if measured else ""
        figure.suptitle(textwrap.fill(table["title"], 80) + f"\n{marks}", fontsize=10)
    return figure


def _draw_points(axes, points, colours, connected):
    joined = [point for point in points if point[0] in connected]
    if len(joined) < len(connected):
        joined = []  # a line past rows that are missing would be another curve
    axes.plot([x["mean"] for *_, x, _ in joined], [y["mean"] for *_, y in joined], "-", color=GREY, zorder=1)
    for name, label, x, y in points:
        color, marker = colours[name]
        axes.errorbar(
            x["mean"],
            y["mean"],
            xerr=x["std"],
            yerr=y["std"],
            fmt=marker,
            color=color,
            capsize=3,
            elinewidth=1,
            label=label,
        )
    axes.margins(0.12)


def draw_activations(title: str, curves: dict) -> Any:
    """Return the figure of activations and their derivatives: `{name: (x, value, derivative)}`, each `[n]`."""
    with styled():
        figure = figure_of(10, 4.4, layout="constrained")
        for axes, what, place in zip(figure.subplots(1, 2), ("function", "derivative"), (1, 2), strict=True):
            for i, (name, lines) in enumerate(curves.items()):
                axes.plot(
                    lines[0],
                    lines[place],
                    color=CYCLE[i % len(CYCLE)],
                    label=name,
                    linestyle=("-", "--", "-.", ":")[i % 4],
                )
            axes.set(title=what, xlabel="x")
        axes.legend()
        figure.suptitle(title)
    return figure
