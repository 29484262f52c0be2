"""Curves of robustness over a number: how much of something it takes."""

from typing import Any

from sat_tf.names import attack_title
from sat_tf.report.figures import CYCLE, GREY, figure_of, styled


def draw_doses(table: dict) -> Any:
    """Return the figure of a table's curves, each with the 95 % interval of the difference to the baseline.

    The baseline itself is the line at 0; None where the table has no curves, or no row of them was run.
    """
    rows = {row["row"]: row for row in table["rows"]}
    panels = {
        title: [(number, rows[name]["quantities"]["robust"]) for name, number in numbers.items() if _known(rows, name)]
        for title, numbers in (table.get("doses") or {}).items()
    }
    panels = {title: points for title, points in panels.items() if points}
    if not panels:
        return None
    with styled():
        figure = figure_of(max(4.6 * len(panels), 6), 4.4, layout="constrained")
        for colour, axes, (title, points) in zip(CYCLE, _axes(figure, len(panels)), panels.items(), strict=False):
            _draw(axes, title, points, colour)
        base = rows[table["baseline"]]["label"]
        figure.axes[0].set_ylabel(f"robust accuracy against {base} (points)")
        counts = sorted({row["n"] for row in table["rows"] if row["n"]})
        seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        seeds += " seed" if counts == [1] else " seeds"
        figure.suptitle(
            f"Accuracy under {attack_title(table['attack'])}: difference to {base}, mean and 95 % interval of pairs, "
            f"{seeds}"
        )
    return figure


def _known(rows, name):
    found = rows.get(name, {}).get("quantities", {}).get("robust")
    return bool(found) and found["difference"] is not None


def _axes(figure, count):
    return figure.subplots(1, count, sharey=True, squeeze=False)[0]


def _draw(axes, title, points, colour):
    points = sorted(points, key=lambda point: point[0])
    numbers = [number for number, _ in points]
    axes.axhline(0, color=GREY, linewidth=1)
    axes.errorbar(
        numbers,
        [found["difference"] for _, found in points],
        yerr=[found["interval"] or 0 for _, found in points],
        fmt="o-",
        capsize=4,
        color=colour,
    )
    if max(numbers) > 10 * min(numbers):
        axes.set_xscale("log")
    axes.set_xticks(numbers, [f"{number:g}" for number in numbers])
    axes.minorticks_off()
    name, _, rest = title.partition(": ")
    axes.set(title=name, xlabel=rest)
    axes.xaxis.label.set_wrap(True)
