"""--mode=compare: runs beside one another, image by image where they were evaluated on the same images."""

import glob
import pathlib
from collections.abc import Iterable
from typing import Any

from sat_tf import comparison, console, machine, report
from sat_tf.runs import folders

PARENT = pathlib.Path("runs") / "comparisons"  # of the folders of comparisons that the user does not name


def compare(
    runs: Iterable[str | pathlib.Path], results_dir: str | pathlib.Path | None = None, command: str = ""
) -> dict[str, Any]:
    """Compare runs with the first of them, write a table and a figure, and show the table.

    Accuracies are those of the runs' own evaluations; their differences are of the images that both were evaluated on
    by the same attack, with paired intervals. Nothing is evaluated anew.

    Args:
      runs: folders of runs or evaluations, or patterns of them such as "runs/*".
      results_dir: where to; None for a new folder of `PARENT`.
      command: what the user typed.

    Returns:
      What was found, as comparison.json holds it, with the written "folder".

    Raises:
      ValueError: less than two runs can be compared; the message says why of each.
    """
    found, left_out = [], {}
    places = _expand(runs)
    labels = _labels(places)
    for place, label in zip(places, labels, strict=True):
        try:
            found.append(comparison.read(place, label))
        except (OSError, ValueError) as error:
            left_out[label] = str(error)
    if len(found) < 2:
        why = "; ".join(f"{label}: {reason}" for label, reason in left_out.items())
        received = ", ".join(one.label for one in found) or "none"
        raise ValueError(
            f"Expected two runs or more that have ended and were evaluated image by image. Received: {received}"
            f"{f'; not {why}' if why else '.'}"
        )
    baseline, *others = found
    for other in others:
        if reason := comparison.unlike(baseline, other):
            left_out[other.label] = f"its accuracies are not compared with {baseline.label}: {reason}."
    content = {
        "schema_version": report.SCHEMA_VERSION,
        "created": machine.now(),
        "command": command,
        "baseline": baseline.label,
        "runs": [{"label": one.label, "folder": str(one.folder), "recipe": one.recipe} for one in found],
        "differences": comparison.differences(found),
        "accuracies": [row for one in found for row in comparison.accuracies(one, baseline)],
        "left_out": left_out,
    }
    folder = pathlib.Path(results_dir).expanduser() if results_dir else folders.next_folder(PARENT)
    paths = report.write_comparison(folder, content)
    text = pathlib.Path(paths["comparison.md"]).read_text(encoding="utf-8").partition("\n![")[0].strip()
    console.say(f"{text}\n")
    console.say("\n".join(f"{name}: {path}" for name, path in _named(paths).items()))
    return content | {"folder": str(folder)}


def _named(paths):
    titles = {"table": "comparison.md", "page": "comparison.html", "figure": "comparison.png"}
    titles |= {"accuracies": "comparison.csv", "recipes": "recipes.csv"}
    return {name: paths[file] for name, file in titles.items()}


def _expand(runs):
    """Return the folders that names and patterns mean, each once; in patterns what is no run is not meant."""
    places = []
    for name in map(str, runs):
        path = pathlib.Path(name.strip()).expanduser()
        if glob.has_magic(str(path)):
            matches = sorted(map(pathlib.Path, glob.glob(str(path))))
            places += [match for match in matches if match.is_dir() and _is_meant(match)]
        elif name.strip():
            places.append(path)
    unique = {place.resolve(): place for place in reversed(places)}
    return [place for place in places if unique.pop(place.resolve(), None) is not None]


def _is_meant(folder):
    files = ("recipe.json", "report.json", "evaluations")
    return any((folder / file).exists() for file in files)


def _labels(places):
    """Return what folders are called: their last names where these differ, else the whole paths."""
    names = [place.resolve().name for place in places]
    return names if len(set(names)) == len(names) else [str(place) for place in places]
