"""What runs and evaluations have found, image by image, and what of it can be compared."""

import csv
import dataclasses
import json
import pathlib
from typing import Any

from sat_tf import hparams, report

ABOUT = ("attack", "norm", "epsilon", "step_size", "restarts", "iterates", "backward")  # what makes an attack the same
KNOWN = ("trained on", "images in training", "checkpoint", "ended")  # what is compared beside the recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of each image under an attack.

    title: the attack in words. source: of the data. classes: their names. right: `{image: right}`. by_digest: whether
    images are known by what they show, wherever they lie, or by their places in the data.
    """

    title: str
    source: str
    classes: tuple[str, ...]
    right: dict[tuple, bool]
    by_digest: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
    """A run, or an evaluation: its label, folder, recipe and facts by name, and outcomes by attack."""

    label: str
    folder: pathlib.Path
    recipe: dict[str, Any]
    facts: dict[str, str]
    outcomes: dict[tuple, Outcome]


def read(folder: pathlib.Path, label: str) -> Compared:
    """Return what a run, or an evaluation, has found.

    Raises:
      OSError, ValueError: it has not ended, or was not evaluated image by image; the message says why.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}.")
    first = folder / "report.json"
    if not first.exists() and (folder / "recipe.json").exists():
        raise FileNotFoundError("it has not ended. The command that began it goes on with it.")
    files = [first] if first.exists() else []
    files += sorted(folder.glob("evaluations/*/report.json"))
    if not files:
        raise FileNotFoundError("it holds no run.")
    contents = [(file.parent, _report(file)) for file in files]
    main = contents[0][1]
    about = _weights(main)
    outcomes = {}
    for place, content in contents:
        if _weights(content) == about:
            outcomes |= _outcomes(place, content)
    if not outcomes:
        raise ValueError("it has no images.csv, the table by image. Evaluate it again: --mode=eval.")
    training = main.get("training") or {}
    facts = {
        "trained on": main["dataset"]["source"],
        "images in training": str(main["dataset"]["train"]),
        "checkpoint": f"step {main['checkpoint']['step']}, {main['checkpoint']['weights']}",
        "ended": str(training.get("ended", "")),
    }
    return Compared(label=label, folder=folder, recipe=main["recipe"], facts=facts, outcomes=outcomes)


def _report(file):
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        _weights(content), content["dataset"]["source"], content["recipe"], content["evaluations"]  # noqa: B018
        return content
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(f"{file} is damaged: {error!r}.") from None


def _weights(content):
    """Return what tells the weights of a report from others of the same run."""
    return content["checkpoint"]["step"], content["checkpoint"].get("weights")


def _outcomes(folder, content):
    """Return `{attack: Outcome}` of an evaluation, from its images.csv; accuracies that are withheld are left out."""
    file = folder / "images.csv"
    if not file.is_file():
        return {}
    with open(file, newline="", encoding="utf-8") as opened:
        lines = list(csv.DictReader(opened))
    data, found = content["dataset"], {}
    shared = {"source": data["source"], "classes": tuple(data["classes"])}
    for row in content["evaluations"]:
        clean = row["attack"] == "clean"
        mine = [line for line in lines if line["attack"] == (lines[0]["attack"] if clean else row["attack"])]
        if not mine or (not clean and report.withheld(content)):
            continue
        if len(mine) != row["count"]:
            raise OSError(
                f"{file} is damaged: it has {len(mine)} images under {mine[0]['attack']}, the report {row['count']}. "
                "Evaluate it again: --mode=eval."
            )
        key = tuple(round(row[name], 9) if isinstance(row[name], float) else row[name] for name in ABOUT)
        by_digest = bool(mine[0].get("image"))
        title = report.describe(row).replace(" accuracy", "")
        found[key] = Outcome(title=title, right=_right(mine, clean, by_digest), by_digest=by_digest, **shared)
    return found


def _right(lines, clean, by_digest):
    """Return `{(digest or id, label, number): right}`; copies of an image are numbered 1, 2, ..."""
    found, copies = {}, {}
    for line in lines:
        name = line["image" if by_digest else "id"], line["label"]
        copies[name] = copies.get(name, 0) + 1
        right = line["clean_prediction"] == line["label"] if clean else not line["fooled_by"]
        found[(*name, copies[name])] = right
    return found


def common(one: Outcome, other: Outcome) -> list[Any] | str:
    """Return the images that two outcomes share, or why there are none."""
    if one.classes != other.classes:
        return f"its {len(other.classes)} classes are not the {len(one.classes)} of the other"
    if not (one.by_digest and other.by_digest) and one.source != other.source:
        return f"it was evaluated on {other.source}, the other on {one.source}"
    if one.by_digest != other.by_digest:
        return "the table of one of the two does not tell which image is which. Evaluate it again: --mode=eval"
    shared = [image for image in one.right if image in other.right]
    return shared or "they were evaluated on no common image"


def unlike(baseline: Compared, other: Compared) -> str | None:
    """Return why no accuracy of a run can be compared with the baseline's; None where one can."""
    both = [attack for attack in other.outcomes if attack in baseline.outcomes]
    if not both:
        return "they were evaluated by no common attack"
    reasons = [common(baseline.outcomes[attack], other.outcomes[attack]) for attack in both]
    return next(iter(reasons), None) if all(isinstance(reason, str) for reason in reasons) else None


def accuracies(run: Compared, baseline: Compared) -> list[dict[str, Any]]:
    """Return a row for each attack: the accuracy of a run, and its paired difference to the baseline's."""
    found = []
    for attack, outcome in run.outcomes.items():
        row = {"run": run.label, "attack": outcome.title}
        row |= report.accuracy_of(sum(outcome.right.values()), len(outcome.right))
        row |= dict.fromkeys(("common_images", "right_alone", "baseline_right_alone"))
        row |= dict.fromkeys(("difference", "difference_low", "difference_high", "mcnemar_p"))
        other = baseline.outcomes.get(attack)
        shared = common(other, outcome) if other and run is not baseline else ""
        if not isinstance(shared, str):
            row |= _paired([(outcome.right[image], other.right[image]) for image in shared])
        found.append(row)
    return found


def _paired(pairs):
    """Return the paired columns of `(right, right at the baseline)`, one an image."""
    kinds = ((True, True), (True, False), (False, True), (False, False))
    both, first, second, neither = (pairs.count(kind) for kind in kinds)
    value, low, high = report.difference(both, first, second, neither)
    return {
        "common_images": len(pairs),
        "right_alone": first,
        "baseline_right_alone": second,
        "difference": value,
        "difference_low": low,
        "difference_high": high,
        "mcnemar_p": report.mcnemar(first, second),
    }


def differences(found: list[Compared]) -> list[dict[str, Any]]:
    """Return `{"field", "values"}` of every field of the recipes, and every fact, in which runs differ."""
    fields = dict.fromkeys(name for one in found for name in one.recipe)
    fields = [name for name in fields if name not in ("name", *hparams.EVALUATION_FIELDS)]
    rows = [
        {"field": name, "values": [_shown(name, one.recipe) for one in found]}
        for name in fields
        if len({json.dumps(one.recipe.get(name)) for one in found}) > 1
    ]
    rows += [{"field": name, "values": [one.facts[name] for one in found]} for name in KNOWN]
    return [row for row in rows if len(set(row["values"])) > 1]


def _shown(name, recipe):
    return hparams.show(name, recipe[name]).replace("None", "none") if name in recipe else ""
