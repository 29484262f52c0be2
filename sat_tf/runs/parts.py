"""The parts of one evaluation: read, checked to be of one, their tables and images joined."""

import csv
import json
import pathlib

from sat_tf import files, report
from sat_tf.evaluate import saved


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


def check(parts: list[pathlib.Path], requests: dict[pathlib.Path, dict]) -> None:
    """Refuse parts that are missing, there twice, or of different evaluations, as their requests say."""
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


def join_adversarial(parts: list[pathlib.Path], reports: list[dict], folder: pathlib.Path) -> list[str]:
    """Write the adversarial images of the whole; return the names of the files, none unless every part has them."""
    of_parts = [set(one["files"]["adversarial"]) for one in reports]
    names = sorted(set.intersection(*of_parts))
    for name in names:
        saved.join(folder / name, [part / name for part in parts])
    return names


def join_tables(parts: list[pathlib.Path], folder: pathlib.Path) -> str | None:
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
