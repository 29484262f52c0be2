"""What a report says class by class: accuracies, and which class is taken for which."""

from typing import Any

import numpy as np

from sat_tf.names import attack_title
from sat_tf.report.cells import table
from sat_tf.report.verdict import withheld

LISTED = 40  # classes in a table; of more, those of the lowest accuracy
MATRIX = 100  # classes at most whose matrix a report holds and draws
CONFUSIONS = 20  # pairs of classes in a list


def counted(
    labels: np.ndarray, right: dict[str, np.ndarray], predicted: dict[str, np.ndarray], classes: int
) -> dict[str, Any]:
    """Return the part of a report about classes.

    Args:
      labels: int `[n]`.
      right: bool `[n]` of "clean" and of each attack.
      predicted: int `[n]`, the class that the model says, -1 for none; of "clean" and of attacks where it is known.
      classes: how many there are.

    Returns:
      count `[classes]`, correct `{attack: [classes]}`, confusion: a dict for each of `predicted` with attack, matrix
      (rows are true classes, columns predicted ones; None where there are more than `MATRIX` classes), and pairs: the
      most frequent `[label, prediction, count]`.
    """
    return {
        "count": np.bincount(labels, minlength=classes).tolist(),
        "correct": {name: np.bincount(labels[which], minlength=classes).tolist() for name, which in right.items()},
        "confusion": [_confusion(name, labels, said, classes) for name, said in predicted.items()],
    }


def _confusion(name, labels, said, classes):
    known = said >= 0
    places, counts = np.unique(labels[known].astype(np.int64) * classes + said[known], return_counts=True)
    pairs = [
        [int(place // classes), int(place % classes), int(count)] for place, count in zip(places, counts, strict=True)
    ]
    matrix = None
    if classes <= MATRIX:
        matrix = np.zeros([classes, classes], int)
        for label, prediction, count in pairs:
            matrix[label, prediction] = count
        matrix = matrix.tolist()
    return {"attack": name, "matrix": matrix, "pairs": _most(pairs)}


def _most(pairs):
    wrong = [pair for pair in pairs if pair[0] != pair[1]]
    return sorted(wrong, key=lambda pair: (-pair[2], pair))[:CONFUSIONS]


def joined(parts: list[dict | None]) -> dict | None:
    """Return that part of the report of a whole evaluation, from those of its parts; None where one lacks it."""
    if None in parts:
        return None
    first = parts[0]
    summed = {name: np.sum([part["correct"][name] for part in parts], axis=0).tolist() for name in first["correct"]}
    confusion = []
    for of_parts in zip(*(part["confusion"] for part in parts), strict=True):
        matrix, pairs = None, {}
        if of_parts[0]["matrix"] is not None:
            matrix = np.sum([part["matrix"] for part in of_parts], axis=0)
            pairs = {place: int(matrix[place]) for place in zip(*np.nonzero(matrix), strict=True)}
            matrix = matrix.tolist()
        for label, prediction, count in (pair for part in of_parts for pair in part["pairs"] if matrix is None):
            pairs[label, prediction] = pairs.get((label, prediction), 0) + count
        pairs = _most([[int(label), int(prediction), count] for (label, prediction), count in pairs.items()])
        confusion.append({"attack": of_parts[0]["attack"], "matrix": matrix, "pairs": pairs})
    count = np.sum([part["count"] for part in parts], axis=0).tolist()
    return {"count": count, "correct": summed, "confusion": confusion}


def shown(report: dict) -> list[str]:
    """Return "clean" and the attacks whose accuracies a report shows: none where they are withheld."""
    names = list((report.get("by_class") or {}).get("correct", ()))
    return [name for name in names if name == "clean" or not withheld(report)]


def words(report: dict) -> str:
    """Return accuracy by class and the most frequent confusions; "" where they were not counted."""
    found = report.get("by_class")
    if not found:
        return ""
    classes, names = report["dataset"]["classes"], shown(report)
    order = [place for place, count in enumerate(found["count"]) if count]
    some = len(order) > LISTED
    if some:
        lowest = names[-1]
        order = sorted(order, key=lambda place: found["correct"][lowest][place] / found["count"][place])[:LISTED]
    rows = [
        [
            classes[place].replace("|", "\\|"),
            str(found["count"][place]),
            *(f"{100 * found['correct'][name][place] / found['count'][place]:.1f} %" for name in names),
        ]
        for place in order
    ]
    titles = ["clean" if name == "clean" else f"under {attack_title(name)}" for name in names]
    parts = [table(["class", "images", *titles], rows)]
    if some:
        parts.append(f"The {LISTED} classes of the lowest accuracy; all are in report.json.")
    for each in found["confusion"]:
        if each["attack"] in names and each["pairs"]:
            said = ", ".join(f"{classes[a]} taken for {classes[b]} ({count})" for a, b, count in each["pairs"][:8])
            title = "Clean" if each["attack"] == "clean" else f"Under {attack_title(each['attack'])}"
            parts.append(f"{title}, most often: {said}.")
    return "\n\n".join(parts)
