"""The words of a report: accuracies, intervals, tables, and the whole of report.md."""

import math
import os

from sat_tf.names import attack_title, format_radius
from sat_tf.report import by_class
from sat_tf.report.cells import table, text
from sat_tf.report.verdict import failures, withheld

_DEFINITIONS = """\
* **Accuracy** is correct / count, every image of the split counted once.
* **Iterates**: *final* counts what PGD's last iterate does to an image, whether or not an earlier one had fooled the
  model, as papers on training do. *Worst* counts an image as fooled where any iterate, the random start among them,
  or any restart, target or attack of an ensemble fools the model; it then leaves the batch (active set). Worst is never
  above final for the same iterates.
* **Interval**: 95 % Wilson score interval for the sampling of the images. It holds neither the variation between
  training seeds nor what a stronger attack might find: accuracy under attack is an upper bound of the robustness.
* **Epsilon** and **step size** are fractions of the pixel range [0, 1], written in 255ths; in the norm L2 they are
  Euclidean lengths of the whole image.
* **PGD-k**: projected gradient ascent of the loss in k steps inside the ball of radius epsilon and [0, 1].
* **AutoAttack** (Croce & Hein 2020): APGD-CE, APGD-T with 9 targets, FAB-T with 9 targets, Square with 5,000 queries,
  each on the images that are still robust; the worst case of each image counts."""


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
    """Say whether a row of a report is of an attack, not of the images as they are."""
    return row["attack"] != "clean"


def describe(row: dict) -> str:
    """Name what an evaluation measures: "PGD-20 accuracy (epsilon 8/255, step size 1/255)"."""
    if not is_attack(row):
        return "clean accuracy"
    norm = row["norm"]
    sizes = [("epsilon", row["epsilon"]), ("step size", row["step_size"])]
    details = ", ".join(f"{name} {format_radius(size, norm)}" for name, size in sizes if size is not None)
    details = f"L2, {details}" if norm == "l2" else details
    if (row["restarts"] or 1) > 1:
        details += f", {row['restarts']} restarts"
    if row["iterates"] == "worst" and row["step_size"] is not None:
        details += ", worst iterate"
    if row["backward"]:
        details += f", through the gradient of {row['backward']}"
    return f"{attack_title(row['attack'])} accuracy" + (f" ({details})" if details else "")


def score(row: dict) -> str:
    """Return the accuracy of a row in %, with its counts."""
    return f"{100 * row['correct'] / row['count']:.2f} % ({row['correct']} / {row['count']})"


def _interval(row: dict) -> str:
    low, high = wilson_interval(row["correct"], row["count"])
    return f"{100 * low:.2f} to {100 * high:.2f} %"


def _few(names: list[str], most: int = 20) -> str:
    """Return the first of many names, and how many there are."""
    listed = ", ".join(names[:most])
    return f"{listed}, ... ({len(names)}; all are in report.json)" if len(names) > most else listed


def facts(facts: dict) -> str:
    """Return a dict as a table of two columns."""
    return table(["what", "value"], [[text(name), text(value)] for name, value in facts.items()])


def _evaluation_cells(row: dict) -> list[str]:
    epsilon, step_size = (
        format_radius(row[key], row["norm"]) if row[key] is not None else "" for key in ("epsilon", "step_size")
    )
    start = {None: "", False: "no", True: f"yes (seed {row['seed']})"}[row["random_start"]]
    name = f"{attack_title(row['attack'])} ({row['norm']})" if is_attack(row) else "clean"
    name += f", gradient of {row['backward']}" if row["backward"] else ""
    steps = "" if row["steps"] is None else str(row["steps"])
    steps += f" x {row['restarts']}" if (row["restarts"] or 1) > 1 else ""
    accuracy = f"{100 * row['correct'] / row['count']:.2f} % ({_interval(row)})"
    time = "" if row["wall_time_seconds"] is None else f"{row['wall_time_seconds']:.1f} s"
    counted = row["iterates"] or ""
    return [name, epsilon, step_size, steps, start, counted, f"{row['correct']} / {row['count']}", accuracy, time]


def _headline(report: dict) -> str:
    """Return the clean accuracy and the lowest one under attack, or why that one is withheld."""
    clean = [row for row in report["evaluations"] if not is_attack(row)][:1]
    attacked = [row for row in report["evaluations"] if is_attack(row)]
    strongest = sorted(
        attacked, key=lambda row: (row["correct"] / row["count"], -len(row["stages"]), -(row["steps"] or 0))
    )[:1]
    if withheld(report):
        strongest = []
    lines = [f"* **{describe(row)}: {score(row)}**, 95 % interval {_interval(row)}" for row in clean + strongest]
    if failed := failures(report):
        lines.append(
            "* **Accuracy under attack is withheld**, because it can't be trusted:"
            if withheld(report)
            else "* **Not to be trusted**, and only shown because that was asked for (`--force`):"
        )
        lines += [f"  * [{check['name']}](#checks): {check['figure']}" for check in failed]
    elif not report["checked"]:
        lines.append("* **Not checked**: no sanity check was made of these numbers.")
    partial = sorted({row["count"] for row in report["evaluations"]
                      if row["split"] == "test" and row["count"] < report["dataset"]["test"]})  # fmt: skip
    if partial:
        counts = ", ".join(map(str, partial))
        lines.append(f"* **Not the whole test split**: evaluated on {counts} of {report['dataset']['test']} images.")
    return "\n".join(lines or ["Nothing was evaluated."])


def _checks(report: dict) -> str:
    """Return what was checked, with its figures; "" where nothing was."""
    words = {True: "passed", False: "**failed**", None: "not possible"}
    rows = [
        [check["name"], "hard" if check["hard"] else "soft", words[check["passed"]], text(check["figure"])]
        for check in report["checks"]
    ]
    if not rows:
        return ""
    return (
        f"{table(['check', 'kind', 'outcome', 'figure'], rows)}\n\nA failed hard check withholds the accuracy "
        "under attack; a failed soft one is a warning. docs/sanity_checks.md explains each."
    )


def _stages(report: dict) -> str:
    """Return how many images each stage of an ensemble left."""
    rows = [
        [
            row["attack"],
            stage["attack"],
            f"{stage['correct']} / {row['count']}",
            text({k: v for k, v in stage.items() if k not in ("attack", "correct")}),
        ]
        for row in report["evaluations"]
        if len(row["stages"]) > 1
        for stage in row["stages"]
    ]
    return table(["attack", "stage", "right after it", "parameters"], rows) if rows else ""


def _radii(report: dict) -> str:
    """Return accuracy by radius, "" where that was not measured."""
    curve = report["radii"]
    if not curve:
        return ""
    rows = [
        [format_radius(radius, curve["norm"]), f"{correct} / {curve['count']}", f"{100 * accuracy:.2f} %"]
        for radius, correct, accuracy in zip(curve["radii"], curve["correct"], curve["accuracy"], strict=True)
    ]
    text = table([f"radius ({curve['norm']})", "correct / count", "accuracy"], rows)
    return f"{text}\n\nUnder {attack_title(curve['attack'])}, worst case of all iterates and smaller radii."


def _extras(report: dict) -> str:
    """Return accuracies under corruptions and noise, "" where they were not measured."""
    extras = report["extras"]
    if not extras:
        return ""
    parts = [f"{extras['count']} images, {100 * extras['clean']:.2f} % of them right as they are."]
    if extras["corruptions"]:
        rows = [
            [
                kind.replace("_", " "),
                *(f"{100 * value:.1f}" for value in values),
                f"{100 * sum(values) / len(values):.1f}",
            ]
            for kind, values in extras["corruptions"].items()
        ]
        means = [sum(values) / len(values) for values in zip(*extras["corruptions"].values(), strict=True)]
        rows.append(["mean", *(f"{100 * mean:.1f}" for mean in means), f"{100 * sum(means) / len(means):.1f}"])
        parts.append(table(["corruption, severity", "1", "2", "3", "4", "5", "mean"], rows))
        parts.append(
            f"Accuracy in %; the corruptions of ImageNet-C (Hendrycks & Dietterich 2019) by "
            f"{extras['library']}, whose constants are chosen for 224 pixels."
        )
    if extras["noise"]:
        rows = [[sigma, f"{100 * value:.2f} %"] for sigma, value in extras["noise"].items()]
        parts.append(table(["Gaussian noise, standard deviation", "accuracy"], rows))
    return "\n\n".join(parts)


def _evaluations(report: dict) -> str:
    header = [
        "attack",
        "epsilon",
        "step size",
        "steps",
        "random start",
        "iterates",
        "correct / count",
        "accuracy (95 %)",
        "time",
    ]
    splits = ", ".join(sorted({row["split"] for row in report["evaluations"]})) or "none"
    return f"{table(header, [_evaluation_cells(row) for row in report['evaluations']])}\n\nSplit: {splits}."


def published(report: dict, row: dict) -> float | None:
    """Return the published accuracy, in [0, 1], under the very attack of a row; None where there is none."""
    known = report["published"]
    if not known or row["attack"] not in known["accuracies"]:
        return None
    sizes = ("epsilon", "step_size") if is_attack(row) else ()
    same = all(row[size] is not None and abs(row[size] - known[size]) < 1e-9 for size in sizes)
    same = same and row["iterates"] in (None, "final") and row["norm"] in (None, "linf")
    return known["accuracies"][row["attack"]] if same and not row["backward"] else None


def _published(report: dict) -> str:
    """Return published and measured accuracy side by side, "" where nothing was published."""
    known = report["published"]
    if not known:
        return ""
    measured = {row["attack"]: row for row in report["evaluations"] if published(report, row) is not None}
    rows = []
    for attack, number in known["accuracies"].items():
        row = measured.get(attack)
        gap = f"{100 * (row['correct'] / row['count'] - number):+.2f}" if row else ""
        ours = [score(row), _interval(row), gap] if row else [""] * 3
        rows.append([attack if attack == "clean" else attack_title(attack), f"{100 * number:.1f} %", *ours])
    header = ["attack", "published", "measured here", "95 % interval", "difference in points"]
    sizes = f"epsilon {format_radius(known['epsilon'])} and step size {format_radius(known['step_size'])}"
    return (
        f"{table(header, rows)}\n\nThe numbers of {known['name']} were published for the {known['dataset']} at "
        f"{known['image_size']} pixels, attacks with {sizes}. Measured here at "
        f"{report['dataset']['image_size']} pixels on: {report['dataset']['source']}."
    )


def _validations(report: dict) -> str:
    """Return validation of the best checkpoint and of the last, "" where none is known."""
    training = report["training"] or {}
    if not training.get("validations"):
        return ""
    rows = [
        [
            row["checkpoint"],
            str(row["step"]),
            *(f"{100 * row[name]:.1f} %" for name in ("clean_accuracy", "robust_accuracy")),
        ]
        for row in training["validations"]
    ]
    attack = attack_title(training["validation_attack"])
    return (
        f"{table(['checkpoint', 'step', 'clean', f'under {attack}'], rows)}\n\nOn {training['validation_images']} "
        "training images that were set aside. Differences within a standard error of so many images choose nothing: of "
        "such checkpoints the last is the best. The test images are evaluated at the best checkpoint."
    )


def _training(report: dict) -> str:
    """Return how long training took, where it ran here, and every field of the recipe."""
    shown = {name: value for name, value in (report["training"] or {}).items() if name != "validations"}
    run = facts(shown) if shown else "Not trained by this run: it evaluated a checkpoint."
    return f"{run}\n\nThe recipe:\n\n{facts(report['recipe'])}" if report["recipe"] else run


def markdown(report: dict, figures: list[str]) -> str:
    """Return report.md, which embeds `figures` by their paths relative to it."""
    parameters = {f"parameters ({kind})": number for kind, number in report["parameters"].items()}
    sections = {
        "Evaluations": _evaluations(report),
        "Stages": _stages(report),
        "Checks": _checks(report),
        "Accuracy by class": by_class.words(report),
        "Accuracy by radius": _radii(report),
        "Corruptions and noise": _extras(report),
        "Published and measured": _published(report),
        "Figures": "\n\n".join(f"![{os.path.basename(name)[:-4].replace('_', ' ')}]({name})" for name in figures),
        "Best and last checkpoint": _validations(report),
        "How it was trained": _training(report),
        "Data": facts(report["dataset"] | {"classes": _few(report["dataset"]["classes"])}),
        "Checkpoint and model": facts({**(report["checkpoint"] or {}), **parameters}),
        "Versions": facts(report["versions"]),
        "Machine": facts(report["machine"]),
        "How to repeat it": f"```sh\n{report['command']}\n```",
        "Definitions": _DEFINITIONS,
    }
    known = f" with {report['act']}, {report['method']}," if report["act"] else ""  # of another's model nothing is
    title = f"# {report['model']}{known} on {report['dataset']['name']}"
    origin = f"Mode {report['mode']}, seed {report['seed']}, written {report['created']}."
    body = [f"## {heading}\n\n{content}" for heading, content in sections.items() if content]
    return "\n\n".join([title, _headline(report), origin, *body]) + "\n"
