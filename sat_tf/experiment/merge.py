"""--mode=merge: the parts of one evaluation, put together."""

import json
import pathlib
from collections.abc import Iterable

from sat_tf import report
from sat_tf.experiment import record
from sat_tf.runs import folders
from sat_tf.runs import parts as parts_of


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
    reports = {part: parts_of.read(part) for part in parts}
    requests = {part: json.loads((part / "request.json").read_text()) for part in parts}
    parts_of.check(parts, requests)
    reports = sorted(reports.values(), key=lambda one: one["shard"][0])
    first = reports[0]
    whole = report.joined(reports) | {"command": command, "merged": [str(part) for part in parts]}
    notes = [note for note in first["dataset"]["notes"] if not note.startswith("evaluated on part ")]
    whole["dataset"] = {**first["dataset"], "notes": notes, "test": sum(one["dataset"]["test"] for one in reports)}
    whole["robustbench"] = report.robustbench(whole, first["robustbench"]["name"])
    folder = folders.next_folder(parts[0].resolve().parent)
    table = parts_of.join_tables(parts, folder)
    adversarial = parts_of.join_adversarial(parts, reports, folder)
    whole["files"] = {"images": table and pathlib.Path(table).name, "adversarial": adversarial}
    return record.conclude(
        whole,
        [],
        None,
        folder,
        folder,
        {"per image": table or "", "adversarial images": ", ".join(str(folder / name) for name in adversarial)},
    )
