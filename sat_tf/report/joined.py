"""One report from those of the parts of an evaluation."""

from collections.abc import Sequence

from sat_tf.report import by_class

SUMMED = ("correct", "count")


def joined(reports: Sequence[dict]) -> dict:
    """Return the report of the whole, from those of its parts in order; data, files and command stay the first's."""
    return {
        **reports[0],
        "shard": None,
        "created": reports[-1]["created"],
        "evaluations": [_sum(rows) for rows in zip(*(one["evaluations"] for one in reports), strict=True)],
        "by_class": by_class.joined([one.get("by_class") for one in reports]),
        "curve": _curve(reports),
        "radii": _radii(reports),
        "extras": _extras(reports),
        "checks": [
            {**check, "name": f"{check['name']} (part {one['shard'][0]})"} for one in reports for check in one["checks"]
        ],
        **{name: all(one[name] for one in reports) for name in ("trusted", "checked", "forced")},
    }


def _sum(rows):
    """Return one row of the whole from the same row of every part."""
    first = rows[0]
    whole = {**first, **{name: sum(row[name] for row in rows) for name in SUMMED}}
    whole["accuracy"] = whole["correct"] / whole["count"]
    times = [row["wall_time_seconds"] for row in rows]
    whole["wall_time_seconds"] = None if None in times else sum(times)
    stages = zip(*(row["stages"] for row in rows), strict=True)
    whole["stages"] = [{**stage[0], "correct": sum(one["correct"] for one in stage)} for stage in stages]
    return whole


def _mean(shares, counts):
    """Return the share of the whole from those of its parts, numbers or lists of them."""
    if isinstance(shares[0], list):
        return [_mean(values, counts) for values in zip(*shares, strict=True)]
    return sum(share * count for share, count in zip(shares, counts, strict=True)) / sum(counts)


def _curve(reports):
    curves = [one["curve"] for one in reports]
    if None in curves:
        return None
    counts = [curve["count"] for curve in curves]
    return {**curves[0], "count": sum(counts), "accuracy": _mean([curve["accuracy"] for curve in curves], counts)}


def _extras(reports):
    extras = [one["extras"] for one in reports]
    if None in extras:
        return None
    counts, first = [one["count"] for one in extras], extras[0]
    found = {
        part: {kind: _mean([one[part][kind] for one in extras], counts) for kind in first[part]}
        for part in ("corruptions", "noise")
    }
    return {**first, **found, "count": sum(counts), "clean": _mean([one["clean"] for one in extras], counts)}


def _radii(reports):
    curves = [one["radii"] for one in reports]
    if None in curves:
        return None
    correct = [sum(counts) for counts in zip(*(curve["correct"] for curve in curves), strict=True)]
    count = sum(curve["count"] for curve in curves)
    return {**curves[0], "correct": correct, "count": count, "accuracy": [value / count for value in correct]}
