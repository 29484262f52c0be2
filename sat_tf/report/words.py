"""The words of a report: accuracies, intervals, tables, and the whole of report.md."""

import json
import math
import os

_DEFINITIONS = """\
* **Accuracy** is correct / count, every picture of the split counted once. Under PGD, what is classified is the
  *final* iterate, whether or not an earlier iterate had already fooled the model.
* **Interval**: 95 % Wilson score interval for the sampling of the pictures. It holds neither the variation between
  training seeds nor what a stronger attack might find: accuracy under attack is an upper bound of the robustness.
* **Epsilon** and **step size** are fractions of the pixel range [0, 1], written in 255ths.
* **PGD-k**: projected gradient ascent of the loss in k steps inside the ball of radius epsilon and [0, 1]."""


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
    return max(0.0, min(p, centre - half_width)), min(1.0, max(p, centre + half_width))  # p is inside, rounded or not


def is_attack(row: dict) -> bool:
    return row["attack"] != "clean"


def describe(row: dict) -> str:
    """Name what an evaluation measures: "PGD-20 accuracy (epsilon 8/255, step size 1/255)"."""
    if not is_attack(row):
        return "clean accuracy"
    sizes = [("epsilon", row["epsilon"]), ("step size", row["step_size"])]
    details = ", ".join(f"{name} {format_radius(size)}" for name, size in sizes if size is not None)
    if row.get("backward"):
        details += f", through the gradient of {row['backward']}"
    return f"{row['attack'].upper()} accuracy" + (f" ({details})" if details else "")


def score(row: dict) -> str:
    return f"{100 * row['correct'] / row['count']:.2f} % ({row['correct']} / {row['count']})"


def _interval(row: dict) -> str:
    low, high = wilson_interval(row["correct"], row["count"])
    return f"{100 * low:.2f} to {100 * high:.2f} %"


def _text(value) -> str:
    """Return `value` as a table cell: numbers in full, so that a recipe can be repeated exactly."""
    text = value if isinstance(value, str) else "none" if value is None else json.dumps(value)
    return text.replace("|", "\\|").replace("\n", " ")


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _few(names: list[str], most: int = 20) -> str:
    """Return the first of many names, and how many there are."""
    listed = ", ".join(names[:most])
    return f"{listed}, ... ({len(names)}; all are in report.json)" if len(names) > most else listed


def facts(facts: dict) -> str:
    """Return a dict as a table of two columns."""
    return table(["what", "value"], [[_text(name), _text(value)] for name, value in facts.items()])


def _evaluation_cells(row: dict) -> list[str]:
    epsilon, step_size = (format_radius(row[key]) if row[key] is not None else "" for key in ("epsilon", "step_size"))
    start = {None: "", False: "no", True: f"yes (seed {row['seed']})"}[row["random_start"]]
    name = f"{row['attack'].upper()} ({row['norm']})" if is_attack(row) else "clean"
    name += f", gradient of {row['backward']}" if row.get("backward") else ""
    steps = "" if row["steps"] is None else str(row["steps"])
    accuracy = f"{100 * row['correct'] / row['count']:.2f} % ({_interval(row)})"
    time = "" if row["wall_time_seconds"] is None else f"{row['wall_time_seconds']:.1f} s"
    return [name, epsilon, step_size, steps, start, f"{row['correct']} / {row['count']}", accuracy, time]


def _headline(report: dict) -> str:
    """Return the clean accuracy and the lowest one under attack."""
    clean = [row for row in report["evaluations"] if not is_attack(row)][:1]
    attacked = [row for row in report["evaluations"] if is_attack(row)]
    strongest = sorted(attacked, key=lambda row: (row["correct"] / row["count"], -(row["steps"] or 0)))[:1]
    lines = [f"* **{describe(row)}: {score(row)}**, 95 % interval {_interval(row)}" for row in clean + strongest]
    partial = sorted({row["count"] for row in report["evaluations"]
                      if row["split"] == "test" and row["count"] < report["dataset"]["test"]})  # fmt: skip
    if partial:
        counts = ", ".join(map(str, partial))
        lines.append(f"* **Not the whole test split**: evaluated on {counts} of {report['dataset']['test']} pictures.")
    return "\n".join(lines or ["Nothing was evaluated."])


def _evaluations(report: dict) -> str:
    header = ["attack", "epsilon", "step size", "steps", "random start", "correct / count", "accuracy (95 %)", "time"]
    splits = ", ".join(sorted({row["split"] for row in report["evaluations"]})) or "none"
    return f"{table(header, [_evaluation_cells(row) for row in report['evaluations']])}\n\nSplit: {splits}."


def published(report: dict, row: dict) -> float | None:
    """Return the published accuracy, in [0, 1], under the very attack of a row; None where there is none."""
    known = report.get("published")
    if not known or row["attack"] not in known["accuracies"]:
        return None
    sizes = ("epsilon", "step_size") if is_attack(row) else ()
    same = all(row[size] is not None and abs(row[size] - known[size]) < 1e-9 for size in sizes)
    return known["accuracies"][row["attack"]] if same and not row.get("backward") else None


def _published(report: dict) -> str:
    """Return published and measured accuracy side by side, "" where nothing was published."""
    known = report.get("published")
    if not known:
        return ""
    measured = {row["attack"]: row for row in report["evaluations"] if published(report, row) is not None}
    rows = []
    for attack, number in known["accuracies"].items():
        row = measured.get(attack)
        gap = f"{100 * (row['correct'] / row['count'] - number):+.2f}" if row else ""
        ours = [score(row), _interval(row), gap] if row else [""] * 3
        rows.append([attack if attack == "clean" else attack.upper(), f"{100 * number:.1f} %", *ours])
    header = ["attack", "published", "measured here", "95 % interval", "difference in points"]
    sizes = f"epsilon {format_radius(known['epsilon'])} and step size {format_radius(known['step_size'])}"
    return (f"{table(header, rows)}\n\nThe numbers of {known['name']} were published for the {known['dataset']} at "
            f"{known['image_size']} pixels, attacks with {sizes}. Measured here at "
            f"{report['dataset']['image_size']} pixels on: {report['dataset']['source']}.")


def _training(report: dict) -> str:
    """Return how long training took, where it ran here, and every field of the recipe."""
    run = facts(report["training"]) if report["training"] else "Not trained by this run: it evaluated a checkpoint."
    return f"{run}\n\nThe recipe:\n\n{facts(report['recipe'])}"


def markdown(report: dict, pictures: list[str]) -> str:
    """Return report.md, which embeds `pictures` by their paths relative to it."""
    parameters = {f"parameters ({kind})": number for kind, number in report["parameters"].items()}
    sections = {
        "Evaluations": _evaluations(report),
        "Published and measured": _published(report),
        "Pictures": "\n\n".join(f"![{os.path.basename(name)[:-4].replace('_', ' ')}]({name})" for name in pictures),
        "How it was trained": _training(report),
        "Data": facts(report["dataset"] | {"classes": _few(report["dataset"]["classes"])}),
        "Checkpoint and model": facts({**(report["checkpoint"] or {}), **parameters}),
        "Versions": facts(report["versions"]),
        "Machine": facts(report["machine"]),
        "How to repeat it": f"```sh\n{report['command']}\n```",
        "Definitions": _DEFINITIONS,
    }
    title = f"# {report['model']} with {report['act']}, {report['method']}, on {report['dataset']['name']}"
    origin = f"Mode {report['mode']}, seed {report['seed']}, written {report['created']}."
    body = [f"## {heading}\n\n{content}" for heading, content in sections.items() if content]
    return "\n\n".join([title, _headline(report), origin, *body]) + "\n"
