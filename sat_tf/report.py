"""Write what a run found: report.json for programs, report.md for people, and pictures.

Everything is rendered in memory before the first byte is written, and each file is replaced in one move: a failure
leaves the files of the previous report as they were. Pictures without data are neither written nor deleted.
"""

import io
import json
import math
import os
import warnings

import numpy as np

SCHEMA_VERSION = 1

_DPI = 150
_STYLE = {
    "font.family": "DejaVu Sans", "font.size": 10, "axes.titlesize": 11, "figure.facecolor": "white",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
    "lines.linewidth": 1.8, "lines.markersize": 5, "legend.frameon": False, "legend.fontsize": 9,
}  # fmt: skip
# Okabe and Ito's palette, distinguishable under every common colour blindness.
_BLUE, _ORANGE, _GREEN, _RED, _GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#777777"
_PURPLE, _SKY = "#CC79A7", "#56B4E9"

_DEFINITIONS = """\
* **Accuracy** is correct / count, every picture of the split counted once. Under PGD, what is classified is the
  *final* iterate, whether or not an earlier iterate had already fooled the model.
* **Interval**: 95 % Wilson score interval for the sampling of the pictures. It holds neither the variation between
  training seeds nor what a stronger attack might find: accuracy under attack is an upper bound of the robustness.
* **Epsilon** and **step size** are fractions of the pixel range [0, 1], written in 255ths.
* **PGD-k**: projected gradient ascent of the loss in k steps inside the ball of radius epsilon and [0, 1]."""


def write(directory, report: dict, history: list[dict], panel: dict | None) -> dict[str, str]:
    """Write report.json, report.md and pictures/*.png, each to a temporary name that then replaces the old file.

    Args:
      directory: where to; created when missing.
      report: what to write, of schema `SCHEMA_VERSION`. NumPy values are converted; NaN and infinity become null.
      history: one row per held-out evaluation: step, epoch, learning_rate, train/loss, train/accuracy,
        held_out/clean_accuracy, and held_out/robust_accuracy where measured. Empty: no training curves.
      panel: clean and adversarial float32 `[n, height, width, 3]` in [0, 1]; labels, clean_predictions and
        adversarial_predictions int `[n]`; classes (names), attack (name), epsilon. None: no panel.

    Returns:
      Path of each written file by its name inside `directory`, such as "report.md" or "pictures/panel.png".

    Raises:
      ValueError: the report is of another schema version, or the panel's arrays do not fit together.
    """
    if report.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"Expected a report of schema version {SCHEMA_VERSION}. "
                         f"Received: schema_version={report.get('schema_version')!r}.")  # fmt: skip
    report, history = _plain(report), _plain(history)
    pictures = _pictures(report, history, panel)
    files = {f"pictures/{name}.png": _png(figure) for name, figure in pictures.items()}
    files["report.md"] = _markdown(report, list(files)).encode()
    files["report.json"] = (json.dumps(report, indent=2, allow_nan=False) + "\n").encode()
    return {name: _replace_file(os.path.join(os.fspath(directory), name), data) for name, data in files.items()}


def summary_lines(report: dict, paths: dict[str, str]) -> list[str]:
    """Return the last lines a run prints: one per evaluation, then one per path.

    Args:
      report: as for `write`.
      paths: what the reader may want to open, by the name to print, in order: "report", "pictures", "checkpoint",
        "TensorBoard logs". Empty ones are left out.
    """
    lines = [f"{_describe(row)}: {_score(row)}" for row in report["evaluations"]]
    return lines + [f"{name}: {path}" for name, path in paths.items() if path]


def format_radius(radius: float) -> str:
    """Write a fraction of the pixel range in 255ths, "8/255" or "0.5/255", or as "0.0123" where that does not fit."""
    tenths = round(radius * 2550)
    is_exact = abs(tenths / 2550 - radius) <= 1e-6 and (tenths != 0 or radius == 0)
    return f"{tenths / 10:g}/255" if is_exact else f"{radius:.4g}"


def wilson_interval(correct: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion, at 95 % unless `z` says otherwise.

    With p = correct / count and n = count:  (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n)

    Raises:
      ValueError: `count` is not positive, or `correct` not between 0 and `count`.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    if not 0 <= correct <= count or count < 1:
        raise ValueError(f"Expected 0 <= correct <= count and count >= 1. Received: correct={correct}, count={count}.")
    p, shrink = correct / count, z * z / count
    centre = (p + shrink / 2) / (1 + shrink)
    half_width = math.sqrt(p * (1 - p) * shrink + shrink * shrink / 4) / (1 + shrink)
    return max(0.0, centre - half_width), min(1.0, centre + half_width)


# Files


def _plain(value):
    """Return `value` as what JSON knows: NumPy converted, NaN and infinity null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _replace_file(path: str, data: bytes) -> str:
    """Write `data` beside `path`, then move it there in one step."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
    return path


# Words


def _is_attack(row: dict) -> bool:
    return row["attack"] != "clean"


def _describe(row: dict) -> str:
    """Name what an evaluation measures: "PGD-20 accuracy (epsilon 8/255, step size 1/255)"."""
    if not _is_attack(row):
        return "clean accuracy"
    sizes = [("epsilon", row["epsilon"]), ("step size", row["step_size"])]
    details = ", ".join(f"{name} {format_radius(size)}" for name, size in sizes if size is not None)
    return f"{row['attack'].upper()} accuracy" + (f" ({details})" if details else "")


def _score(row: dict) -> str:
    return f"{100 * row['correct'] / row['count']:.2f} % ({row['correct']} / {row['count']})"


def _interval(row: dict) -> str:
    low, high = wilson_interval(row["correct"], row["count"])
    return f"{100 * low:.2f} to {100 * high:.2f} %"


def _text(value) -> str:
    """Return `value` as a table cell: numbers in full, so that a recipe can be repeated exactly."""
    text = value if isinstance(value, str) else "none" if value is None else json.dumps(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _facts(facts: dict) -> str:
    """Return a dict as a table of two columns."""
    return _table(["what", "value"], [[_text(name), _text(value)] for name, value in facts.items()])


def _evaluation_cells(row: dict) -> list[str]:
    epsilon, step_size = (format_radius(row[key]) if row[key] is not None else "" for key in ("epsilon", "step_size"))
    start = {None: "", False: "no", True: f"yes (seed {row['seed']})"}[row["random_start"]]
    name = f"{row['attack'].upper()} ({row['norm']})" if _is_attack(row) else "clean"
    steps = "" if row["steps"] is None else str(row["steps"])
    accuracy = f"{100 * row['correct'] / row['count']:.2f} % ({_interval(row)})"
    time = "" if row["wall_time_seconds"] is None else f"{row['wall_time_seconds']:.1f} s"
    return [name, epsilon, step_size, steps, start, f"{row['correct']} / {row['count']}", accuracy, time]


def _headline(report: dict) -> str:
    """Return the clean accuracy and the lowest one under attack."""
    clean = [row for row in report["evaluations"] if not _is_attack(row)][:1]
    attacked = [row for row in report["evaluations"] if _is_attack(row)]
    strongest = sorted(attacked, key=lambda row: row["correct"] / row["count"])[:1]
    lines = [f"* **{_describe(row)}: {_score(row)}**, 95 % interval {_interval(row)}" for row in clean + strongest]
    partial = sorted({row["count"] for row in report["evaluations"]
                      if row["split"] == "test" and row["count"] < report["dataset"]["test"]})  # fmt: skip
    if partial:
        counts = ", ".join(map(str, partial))
        lines.append(f"* **Not the whole test split**: evaluated on {counts} of {report['dataset']['test']} pictures.")
    return "\n".join(lines or ["Nothing was evaluated."])


def _evaluations(report: dict) -> str:
    header = ["attack", "epsilon", "step size", "steps", "random start", "correct / count", "accuracy (95 %)", "time"]
    splits = ", ".join(sorted({row["split"] for row in report["evaluations"]})) or "none"
    return f"{_table(header, [_evaluation_cells(row) for row in report['evaluations']])}\n\nSplit: {splits}."


def _training(report: dict) -> str:
    """Return how long training took, where it ran here, and every field of the recipe."""
    run = _facts(report["training"]) if report["training"] else "Not trained by this run: it evaluated a checkpoint."
    return f"{run}\n\nThe recipe:\n\n{_facts(report['recipe'])}"


def _markdown(report: dict, pictures: list[str]) -> str:
    """Return report.md, which embeds `pictures` by their paths relative to it."""
    parameters = {f"parameters ({kind})": number for kind, number in report["parameters"].items()}
    sections = {
        "Evaluations": _evaluations(report),
        "Pictures": "\n\n".join(f"![{os.path.basename(name)[:-4].replace('_', ' ')}]({name})" for name in pictures),
        "How it was trained": _training(report),
        "Data": _facts(report["dataset"]),
        "Checkpoint and model": _facts({**(report["checkpoint"] or {}), **parameters}),
        "Versions": _facts(report["versions"]),
        "Machine": _facts(report["machine"]),
        "How to repeat it": f"```sh\n{report['command']}\n```",
        "Definitions": _DEFINITIONS,
    }
    title = f"# {report['model']} with {report['act']}, {report['method']}, on {report['dataset']['name']}"
    origin = f"Mode {report['mode']}, seed {report['seed']}, written {report['created']}."
    body = [f"## {heading}\n\n{content}" for heading, content in sections.items() if content]
    return "\n\n".join([title, _headline(report), origin, *body]) + "\n"


# Pictures


def _pictures(report: dict, history: list[dict], panel: dict | None) -> dict:
    """Return every figure there is data for, by name."""
    import matplotlib  # here, so that a program that writes no report does not wait for it

    figures = {}
    with matplotlib.rc_context(_STYLE):
        if history:
            figures["training_curves"] = _draw_training(report, history)
        if report["curve"] or any(_is_attack(row) and row["steps"] is not None for row in report["evaluations"]):
            figures["accuracy_vs_steps"] = _draw_steps(report)
        if panel is not None and len(panel["clean"]):
            figures["panel"] = _draw_panel(panel)
    return figures


def _figure(width: float, height: float, **options):
    """Return an empty figure of that many inches, drawn by Agg whatever backend the user has chosen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, **options)
    FigureCanvasAgg(figure)
    return figure


def _png(figure) -> bytes:
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
    figure = _figure(10, 4, layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    epochs = _column(history, "epoch")
    pictures = "clean" if report["method"] == "standard" else "adversarial"
    _draw_learning_rate(losses.twinx(), epochs, _column(history, "learning_rate"))
    losses.plot(epochs, _column(history, "train/loss"), "o-", color=_BLUE, label=f"training loss ({pictures})")
    losses.set(title="Loss", xlabel="epochs", ylabel="loss (nats)")
    curves = [
        ("train/accuracy", f"training ({pictures})", "o-", _BLUE),
        ("held_out/clean_accuracy", "held out, clean", "s-", _ORANGE),
        ("held_out/robust_accuracy", "held out, under attack", "^-", _GREEN),
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
    axes.plot(epochs, learning_rate, ".--", color=_GREY, alpha=0.5, linewidth=1)
    axes.set_ylabel("learning rate (dashed)", color=_GREY)
    axes.tick_params(axis="y", colors=_GREY)
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
    figure = _figure(8, 6, layout="constrained")
    axes = figure.subplots()
    curve, classes = report["curve"], len(report["dataset"]["classes"])
    if curve:
        sizes = f"epsilon {format_radius(curve['epsilon'])}, step size {format_radius(curve['step_size'])}"
        label = f"by number of steps ({sizes}), {curve['count']} pictures"
        axes.plot(curve["steps"], _percent(curve["accuracy"]), "o-", color=_BLUE, label=label)
    rows = [row for row in report["evaluations"] if not _is_attack(row) or row["steps"] is not None]
    steps = [row["steps"] or 0 for row in rows]
    for index, row in enumerate(rows):
        sidestep = 1.14 ** (steps[:index].count(steps[index]) - (steps.count(steps[index]) - 1) / 2)
        _draw_evaluation(axes, row, steps[index] * sidestep, index)
    axes.axhline(100 / classes, color=_GREY, linestyle="--", linewidth=1.2, label=f"chance (1 of {classes} classes)")
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
    label = f"{_describe(row).replace(' accuracy', '')}{start}, {row['count']} pictures"
    marker, color = "sDv^P*X"[index % 7], (_ORANGE, _GREEN, _RED, _PURPLE, _SKY)[index % 5]
    axes.errorbar(x, 100 * accuracy, [[100 * (accuracy - low)], [100 * (high - accuracy)]], fmt=marker, color=color,
                  markersize=6, elinewidth=1.3, capsize=4, label=label, zorder=3)  # fmt: skip


def _draw_panel(panel: dict, most: int = 8):
    """Draw up to `most` pictures: clean, the perturbation, adversarial, each pixel a square of whole screen pixels."""
    clean, adversarial = (np.asarray(panel[key], np.float32)[:most] for key in ("clean", "adversarial"))
    if clean.ndim != 4 or clean.shape != adversarial.shape:
        raise ValueError("Expected clean and adversarial pictures of one shape [n, height, width, 3]. "
                         f"Received: clean={clean.shape}, adversarial={adversarial.shape}.")  # fmt: skip
    radius = format_radius(panel["epsilon"])
    perturbation = np.clip((adversarial - clean) / (2 * panel["epsilon"] or 1) + 0.5, 0, 1)
    rows = [
        (clean, "clean\n\nabove: true class\nbelow: prediction", panel["clean_predictions"]),
        (perturbation, f"perturbation\n\nblack \N{MINUS SIGN}{radius}\ngrey 0\nwhite +{radius}\nper channel", None),
        (adversarial, f"adversarial\n\n{panel['attack'].upper()}\nepsilon {radius}", panel["adversarial_predictions"]),
    ]
    count, height, width = clean.shape[:3]
    zoom = max(1, 168 // max(height, width))
    cell_width, cell_height, gap, left, caption = zoom * width, zoom * height, 16, 216, 40
    total_width = left + count * (cell_width + gap)
    total_height = caption + 3 * cell_height + 2 * caption + gap
    figure = _figure(total_width / _DPI, total_height / _DPI)
    top = total_height - caption
    for images, title, predictions in rows:
        top -= cell_height
        figure.text((left - gap) / total_width, (top + cell_height / 2) / total_height, title, ha="right", va="center")
        for index in range(count):
            box = left + index * (cell_width + gap), top, cell_width, cell_height
            axes = figure.add_axes(np.divide(box, (total_width, total_height) * 2))
            _draw_cell(axes, images[index], panel, index, predictions, images is clean)
        top -= caption if predictions is not None else gap
    return figure


def _draw_cell(axes, image: np.ndarray, panel: dict, index: int, predictions, is_top: bool) -> None:
    """Draw one picture: the true class above the top row, the predicted one below, ticked or crossed."""
    axes.imshow(np.clip(image, 0, 1), interpolation="nearest", vmin=0, vmax=1)
    axes.set_axis_off()
    label, classes = int(panel["labels"][index]), panel["classes"]
    if is_top:
        axes.set_title(_shorten(classes[label]), fontsize=9.5, fontweight="bold", pad=5, parse_math=False)
    if predictions is not None:
        predicted = int(predictions[index])
        mark, color = ("\N{CHECK MARK}", "#00734F") if predicted == label else ("\N{BALLOT X}", "#B84700")
        axes.text(0.5, -0.04, f"{mark} {_shorten(classes[predicted])}", color=color, fontsize=9.5,
                  ha="center", va="top", transform=axes.transAxes, parse_math=False)  # fmt: skip


def _shorten(name: str, most: int = 12) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
