"""The figures of a report: training curves, accuracy under attack, a panel of attacked images."""

import io
import warnings
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from sat_tf.names import attack_title, format_radius
from sat_tf.report import classes
from sat_tf.report.words import describe, is_attack, wilson_interval

_DPI = 150
_STYLE = {
    "font.family": "DejaVu Sans", "font.size": 10, "axes.titlesize": 11, "figure.facecolor": "white",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
    "lines.linewidth": 1.8, "lines.markersize": 5, "legend.frameon": False, "legend.fontsize": 9,
}  # fmt: skip
# Okabe and Ito's palette, distinguishable under every common colour blindness.
_BLUE, _ORANGE, _GREEN, _RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#777777"
_PURPLE, _SKY = "#CC79A7", "#56B4E9"
CYCLE = (_BLUE, _ORANGE, _GREEN, _RED, _PURPLE, _SKY, "#000000")
MARKERS = "osD^vP*X<>hp"


def draw(report: dict, history: list[dict], panel: dict | None) -> dict:
    """Return every figure there is data for, by name."""
    figures = {}
    with styled():
        if history:
            figures["training_curves"] = _draw_training(report, history)
        if report["curve"] or any(is_attack(row) and row["steps"] is not None for row in report["evaluations"]):
            figures["accuracy_vs_steps"] = _draw_steps(report)
        if report["radii"]:
            figures["accuracy_vs_radius"] = _draw_radii(report)
        if report["extras"] and report["extras"]["corruptions"]:
            figures["corruptions"] = _draw_corruptions(report["extras"])
        figures |= classes.draw(report, figure_of)
        if panel is not None and len(panel["clean"]):
            figures["panel"] = _draw_panel(panel)
    return figures


def styled() -> AbstractContextManager:
    """Return the context in which every figure is drawn."""
    import matplotlib  # here, so that a program that writes no report does not wait for it

    return matplotlib.rc_context(_STYLE)


def figure_of(width: float, height: float, **options: Any) -> Any:
    """Return an empty figure of that many inches, drawn by Agg whatever backend the user has chosen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, **options)
    FigureCanvasAgg(figure)
    return figure


def png(figure: Any) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # class names in a script that the font lacks
        figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _percent(values) -> np.ndarray:
    """Return fractions as percents, None as NaN: a gap in a line."""
    return 100 * np.array(values, dtype=float)


def _column(history: list[dict], key: str) -> np.ndarray:
    return np.array([row.get(key) for row in history], dtype=float)


def _draw_training(report: dict, history: list[dict]):
    """Draw loss with learning rate, and accuracies, against epochs."""
    figure = figure_of(10, 4, layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    epochs = _column(history, "epoch")
    images = report["trained_on"]
    _draw_learning_rate(losses.twinx(), epochs, _column(history, "learning_rate"))
    losses.plot(epochs, _column(history, "train/loss"), "o-", color=_BLUE, label=f"training loss ({images})")
    losses.set(title="Loss", xlabel="epochs", ylabel="loss (nats)")
    curves = [
        ("train/accuracy", f"training ({images})", "o-", _BLUE),
        ("validation/clean_accuracy", "validation, clean", "s-", _ORANGE),
        ("validation/robust_accuracy", "validation, under attack", "^-", _GREEN),
        ("validation/one_step_accuracy", "validation, training attack", "v:", _PURPLE),
    ]
    for key, label, style, color in curves:
        if not np.isnan(values := _column(history, key)).all():
            accuracies.plot(epochs, 100 * values, style, color=color, label=label)
    accuracies.set(title="Accuracy", xlabel="epochs", ylabel="accuracy (%)", ylim=(0, 100))
    for axes in (losses, accuracies):
        _mark_checkpoint(axes, report["checkpoint"], history[-1])
        axes.set_xlim(0, 1.03 * np.nanmax(epochs) or 1)
        _legend_below(axes, columns=2)
    losses.set_ylim(bottom=0)
    return figure


def _legend_below(axes, columns: int) -> None:
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=columns)


def _draw_learning_rate(axes, epochs: np.ndarray, learning_rate: np.ndarray) -> None:
    """Draw the learning rate faintly, on the scale at the right."""
    axes.plot(epochs, learning_rate, ".--", color=GREY, alpha=0.5, linewidth=1)
    axes.set_ylabel("learning rate (dashed)", color=GREY)
    axes.tick_params(axis="y", colors=GREY)
    axes.set_ylim(bottom=0)
    axes.grid(False)


def _mark_checkpoint(axes, checkpoint: dict | None, last: dict) -> None:
    """Mark the evaluated checkpoint; epochs grow in proportion to steps."""
    if checkpoint and checkpoint["step"] is not None:
        epoch = checkpoint["step"] * last["epoch"] / max(last["step"], 1)
        label = f"{checkpoint['kind']} checkpoint (step {checkpoint['step']})"
        axes.axvline(epoch, color=_RED, linestyle=":", linewidth=1.5, label=label, zorder=1)


def _draw_steps(report: dict):
    """Draw accuracy against the attack's steps: the curve, and each evaluation with its interval."""
    figure = figure_of(8, 6, layout="constrained")
    axes = figure.subplots()
    curve, classes = report["curve"], len(report["dataset"]["classes"])
    if curve:
        norm = curve["norm"]
        sizes = f"epsilon {format_radius(curve['epsilon'], norm)}, step size {format_radius(curve['step_size'], norm)}"
        label = f"by number of steps ({sizes}), {curve['count']} images"
        axes.plot(curve["steps"], _percent(curve["accuracy"]), "o-", color=_BLUE, label=label)
    rows = [row for row in report["evaluations"] if not is_attack(row) or row["steps"] is not None]
    steps = [row["steps"] or 0 for row in rows]
    for index, row in enumerate(rows):
        sidestep = 1.14 ** (steps[:index].count(steps[index]) - (steps.count(steps[index]) - 1) / 2)
        _draw_evaluation(axes, row, steps[index] * sidestep, index)
    axes.axhline(100 / classes, color=GREY, linestyle="--", linewidth=1.2, label=f"chance (1 of {classes} classes)")
    ticks = sorted({0, *steps, *(curve["steps"] if curve else [])})
    axes.set_xscale("symlog", linthresh=1, linscale=0.5)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set(title=f"{report['model']} with {report['act']}: accuracy under attack", xlabel="attack steps",
             ylabel="accuracy (%)", xlim=(-0.1, 1.25 * max(ticks) + 0.1), ylim=(0, 100))  # fmt: skip
    _legend_below(axes, columns=1)
    return figure


def _draw_evaluation(axes, row: dict, x: float, index: int) -> None:
    """Draw one evaluation as a marker with its 95 % interval at `x`, its own parameters in the legend."""
    accuracy = row["correct"] / row["count"]
    low, high = wilson_interval(row["correct"], row["count"])
    start = ", random start" if row["random_start"] else ""
    label = f"{describe(row).replace(' accuracy', '')}{start}, {row['count']} images"
    marker, color = "sDv^P*X"[index % 7], (_ORANGE, _GREEN, _RED, _PURPLE, _SKY)[index % 5]
    axes.errorbar(x, 100 * accuracy, [[100 * (accuracy - low)], [100 * (high - accuracy)]], fmt=marker, color=color,
                  markersize=6, elinewidth=1.3, capsize=4, label=label, zorder=3)  # fmt: skip


def _draw_radii(report: dict):
    """Draw accuracy against the radius of the ball, with 95 % intervals."""
    figure, curve = figure_of(8, 5, layout="constrained"), report["radii"]
    axes, scale = figure.subplots(), 1 if curve["norm"] == "l2" else 255
    x = scale * np.array(curve["radii"])
    bounds = 100 * np.array([wilson_interval(correct, curve["count"]) for correct in curve["correct"]])
    axes.fill_between(x, bounds[:, 0], bounds[:, 1], color=_BLUE, alpha=0.2, label="95 % interval")
    axes.plot(x, _percent(curve["accuracy"]), "o-", color=_BLUE, label=f"{curve['count']} images")
    unit = "Euclidean length" if curve["norm"] == "l2" else "255ths of the pixel range"
    axes.set(
        title=f"{report['model']} with {report['act']}: accuracy under {attack_title(curve['attack'])}",
        xlabel=f"radius in {curve['norm']} ({unit})",
        ylabel="accuracy (%)",
        ylim=(0, 100),
    )
    _legend_below(axes, columns=2)
    return figure


def _draw_corruptions(extras: dict):
    """Draw accuracy under each corruption as a table of colours, kinds by severities."""
    kinds = list(extras["corruptions"])
    values = _percent([extras["corruptions"][kind] for kind in kinds])
    figure = figure_of(7, 0.32 * len(kinds) + 1.2, layout="constrained")
    axes = figure.subplots()
    axes.imshow(values, cmap="viridis", vmin=0, vmax=max(100 * extras["clean"], 1), aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        bright = value > 50 * extras["clean"]
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color="black" if bright else "white")
    axes.set_xticks(range(values.shape[1]), [str(severity + 1) for severity in range(values.shape[1])])
    axes.set_yticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds])
    axes.grid(False)
    axes.set(xlabel="severity", title=f"Accuracy (%) under corruptions; clean {100 * extras['clean']:.1f} %")
    return figure


def _draw_panel(panel: dict, most: int = 8):
    """Draw up to `most` images: clean, the perturbation, adversarial, each pixel a square of whole screen pixels."""
    clean, adversarial = (np.asarray(panel[key], np.float32)[:most] for key in ("clean", "adversarial"))
    if clean.ndim != 4 or clean.shape != adversarial.shape:
        raise ValueError("Expected clean and adversarial images of one shape [n, height, width, 3]. "
                         f"Received: clean={clean.shape}, adversarial={adversarial.shape}.")  # fmt: skip
    norm, scale = panel["norm"], panel["epsilon"]
    if norm == "l2":  # its radius is no bound of a pixel: show the largest change
        scale = float(np.abs(adversarial - clean).max())
    radius = format_radius(scale)
    perturbation = np.clip((adversarial - clean) / (2 * scale or 1) + 0.5, 0, 1)
    size = format_radius(panel["epsilon"], norm)
    rows = [
        (clean, "clean\n\nabove: true class\nbelow: prediction", panel["clean_predictions"]),
        (perturbation, f"perturbation\n\nblack \N{MINUS SIGN}{radius}\ngrey 0\nwhite +{radius}\nper channel", None),
        (
            adversarial,
            f"adversarial\n\n{attack_title(panel['attack'])}\nepsilon {size}",
            panel["adversarial_predictions"],
        ),
    ]
    count, height, width = clean.shape[:3]
    zoom = max(1, 168 // max(height, width))
    cell_width, cell_height, gap, left, caption = zoom * width, zoom * height, 16, 216, 40
    total_width = left + count * (cell_width + gap)
    total_height = caption + 3 * cell_height + 2 * caption + gap
    figure = figure_of(total_width / _DPI, total_height / _DPI)
    top = total_height - caption
    for images, title, predictions in rows:
        top -= cell_height
        figure.text((left - gap) / total_width, (top + cell_height / 2) / total_height, title, ha="right", va="center")
        for index in range(count):
            x = left + index * (cell_width + gap)
            pixels = np.clip(images[index], 0, 1).repeat(zoom, axis=0).repeat(zoom, axis=1)
            figure.figimage(pixels, x, top, origin="upper")  # axes for each would take three times as long
            middle = (x + cell_width / 2) / total_width
            if images is clean:
                name = _shorten(panel["classes"][int(panel["labels"][index])])
                _write(figure, middle, (top + cell_height + 6) / total_height, name, "bottom", fontweight="bold")
            if predictions is not None:
                _write_prediction(figure, middle, (top - 6) / total_height, panel, index, int(predictions[index]))
        top -= caption if predictions is not None else gap
    return figure


def _write_prediction(figure, x: float, y: float, panel: dict, index: int, predicted: int) -> None:
    """Write the predicted class below an image, ticked or crossed."""
    right = predicted == int(panel["labels"][index])
    mark, color = ("\N{CHECK MARK}", "#00734F") if right else ("\N{BALLOT X}", "#B84700")
    _write(figure, x, y, f"{mark} {_shorten(panel['classes'][predicted])}", "top", color=color)


def _write(figure, x: float, y: float, text: str, va: str, **style: Any) -> None:
    figure.text(x, y, text, ha="center", va=va, fontsize=9.5, parse_math=False, **style)


def _shorten(name: str, most: int = 12) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
