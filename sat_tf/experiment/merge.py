"""--mode=merge: the parts of one evaluation, put together."""

import csv
import json
import pathlib
from collections.abc import Iterable

from sat_tf import files, report
from sat_tf.evaluate import saved
from sat_tf.experiment import folders, record


def merge(parts: Iterable[str | pathlib.Path], command: str = "") -> dict:
    """Write the report of a whole evaluation from the reports of all its parts, `--shard=1/n` to `--shard=n/n`.

    Args:
      parts: their folders, in any order.

    Returns:
      The report, which lies in a new folder beside the first part.

    Raises:
      ValueError: parts are missing, are there twice, or are of different evaluations.
      OSError: a report can't be read.
    """
    parts = [pathlib.Path(part).expanduser() for part in parts]
    reports = {part: read(part) for part in parts}
    requests = {part: json.loads((part / "request.json").read_text()) for part in parts}
    _check(parts, requests)
    reports = sorted(reports.values(), key=lambda one: one["shard"][0])
    first = reports[0]
    whole = report.joined(reports) | {"command": command, "merged": [str(part) for part in parts]}
    notes = [note for note in first["dataset"]["notes"] if not note.startswith("evaluated on part ")]
    whole["dataset"] = {**first["dataset"], "notes": notes, "test": sum(one["dataset"]["test"] for one in reports)}
    whole["robustbench"] = report.robustbench(whole, first["robustbench"]["name"])
    folder = folders.next_folder(parts[0].resolve().parent)
    table = _merge_images(parts, folder)
    adversarial = _join_adversarial(parts, reports, folder)
    whole["files"] = {"images": table and pathlib.Path(table).name, "adversarial": adversarial}
    return record.conclude(
        whole,
        [],
        None,
        folder,
        folder,
        {"per image": table or "", "adversarial images": ", ".join(str(folder / name) for name in adversarial)},
    )


def read(part: pathlib.Path) -> dict:
    """Return the report of a part."""
    try:
        content = json.loads((part / "report.json").read_text())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"Expected the folder of an evaluation that has ended. Received: {part}, which has no "
            "report.json. The part's command goes on with it."
        ) from None
    except ValueError as error:
        raise OSError(f"{part / 'report.json'} is damaged: {error}.") from error
    if not content.get("shard"):
        raise ValueError(f"Expected a part, made by --shard=i/n. Received: {part}, a whole evaluation.")
    return content


def _check(parts, requests):
    shards = [tuple(request["shard"]) for request in requests.values()]
    total = shards[0][1]
    missing = sorted(set(range(1, total + 1)) - {number for number, _ in shards})
    if missing or len(shards) != total or any(count != total for _, count in shards):
        raise ValueError(
            f"Expected each of the {total} parts once. Received: "
            f"{', '.join(f'{number}/{count}' for number, count in shards)}."
        )
    first, *others = parts
    for other in others:
        unlike = [
            name
            for name in requests[first]
            if name not in ("shard", "data") and requests[first][name] != requests[other].get(name)
        ]
        unlike += ["data"] if requests[first]["data"][0] != requests[other]["data"][0] else []
        if unlike:
            raise ValueError(
                f"Expected parts of one evaluation. Received: {first} and {other}, which differ in {', '.join(unlike)}."
            )


def _join_adversarial(parts, reports, folder):
    """Write the adversarial images of the whole; return the names of the files, none unless every part has them."""
    of_parts = [set(one["files"]["adversarial"]) for one in reports]
    names = sorted(set.intersection(*of_parts))
    for name in names:
        saved.join(folder / name, [part / name for part in parts])
    return names


def _merge_images(parts, folder):
    """Write images.csv of the whole, by attack and id; return its path, None where the parts have none."""
    rows = []
    for part in parts:
        if not (part / "images.csv").is_file():
            return None
        with open(part / "images.csv", newline="") as file:
            rows += list(csv.DictReader(file))
    attacks = list(dict.fromkeys(row["attack"] for row in rows))
    rows.sort(key=lambda row: (attacks.index(row["attack"]), int(row["id"])))
    if len({(row["attack"], row["id"]) for row in rows}) < len(rows):
        raise ValueError("Expected parts that share no image. Received: an id in two of them.")
    return files.write(folder / "images.csv", report.csv_text(rows))
