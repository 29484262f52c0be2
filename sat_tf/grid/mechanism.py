"""The links of the paper's argument, better gradients to stronger attacks to better networks, each with its verdict."""

import collections
import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from sat_tf import hparams, report
from sat_tf.grid import pairs, runs

OWN, SUBSTITUTE = "own", "substitute"
FILE = runs.MEASURED["mechanism"]
AT_THE_END = ("share", "cosine", "noise")  # of the last checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A difference that a link of the argument promises.

    link: which one. text: in words. row, baseline: `(row, gradient)`. quantity: what differs. paper: the paper's
    difference. above: whether it should lie above 0, else below.
    """

    link: str
    text: str
    row: tuple[str, str]
    baseline: tuple[str, str]
    quantity: str
    paper: str = "not told"
    above: bool = True


GRADIENTS, ATTACKS, NETWORKS = "better gradients", "stronger attacks", "better networks"
RELU = ("relu", OWN)
SMOOTH = {"parametric_softplus": "Parametric Softplus", "swish": "swish"}


def _of_smooth(text, **facts):
    """Return the claim of each smooth network; "{}" in its text is the network's activation."""
    return [Claim(text=text.format(word), row=(row, OWN), baseline=RELU, **facts) for row, word in SMOOTH.items()]


CLAIMS = (
    Claim(
        link=GRADIENTS,
        text="on the ReLU network the substitute's gradient turns less on the way of a step than ReLU's own",
        row=("relu", SUBSTITUTE),
        baseline=RELU,
        quantity="cosine",
    ),
    *_of_smooth(
        "the gradient of a network with {} turns less than that of one with ReLU", link=GRADIENTS, quantity="cosine"
    ),
    Claim(
        link=GRADIENTS,
        text="on the ReLU network updates through the substitute are less noisy than through ReLU",
        row=("relu", SUBSTITUTE),
        baseline=RELU,
        quantity="noise",
        above=False,
    ),
    *_of_smooth(
        "updates of a network with {} are less noisy than with ReLU", link=GRADIENTS, quantity="noise", above=False
    ),
    Claim(
        link=ATTACKS,
        text="PGD-1 through the substitute leaves fewer images right, standard training",
        row=("standard", SUBSTITUTE),
        baseline=("standard", OWN),
        quantity="probe",
        paper="-4.0",
        above=False,
    ),
    Claim(
        link=ATTACKS,
        text="PGD-1 through the substitute leaves fewer images right, adversarial training",
        row=("relu", SUBSTITUTE),
        baseline=RELU,
        quantity="probe",
        paper="-0.7",
        above=False,
    ),
    Claim(
        link=ATTACKS,
        text="one step through the substitute gets further, of what 50 get, than through ReLU",
        row=("relu", SUBSTITUTE),
        baseline=RELU,
        quantity="share",
    ),
    *_of_smooth("one step gets further on a network with {} than on one with ReLU", link=ATTACKS, quantity="share"),
    *(
        Claim(link=NETWORKS, text=text, row=(row, OWN), baseline=RELU, quantity="robust", paper=paper)
        for row, text, paper in (
            ("attack", "training by attacks through the substitute raises robustness", "+1.5"),
            ("update", "training by updates through the substitute raises robustness", "+2.8"),
            ("both", "both together raise robustness", "+3.9"),
            ("parametric_softplus", "Parametric Softplus, forward as well, raises robustness", "+5.7"),
            ("swish", "swish raises robustness", "+9.3"),
        )
    ),
)


def read(folder: pathlib.Path) -> dict[str, Any]:
    """Return what was measured of a run; an OSError names a file that can't be read."""
    file = folder / FILE
    try:
        content = json.loads(file.read_text())
        content["points"][-1]["through"][OWN], content["probe"][OWN], content["along"][OWN]  # noqa: B018
        return content
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise OSError(f"{file} is damaged: {error!r}. Remove it; the same command measures again.") from None


def write(found: dict[str, Any], folder: pathlib.Path, items: Sequence) -> dict[str, Any]:
    """Gather what was measured of the runs that have ended into mechanism.json, .md and figures; return it.

    Args:
      found: the experiment's table, as `table.write` returns it.
      folder: of the table.
      items: the `Run`s.
    """
    measured = collections.defaultdict(dict)
    for item in items:
        if item.finished:
            measured[item.row][item.seed] = read(item.folder)
    numbers = {row["row"]: {int(seed): each for seed, each in row["runs"].items()} for row in found["rows"]}
    values = _values(measured, numbers)
    first = next((each for by_seed in measured.values() for each in by_seed.values()), {})
    content = {name: found[name] for name in ("experiment", "title", "scale", "command", "created", "dataset")}
    content |= {name: found[name] for name in ("versions", "machine", "attack", "epsilon", "recipe")}
    content |= {name: first.get(name) for name in ("images", "batches", "steps", "test_images")}
    content |= {
        "claims": [_claimed(claim, values) for claim in CLAIMS],
        "probes": _probes(measured),
        "lines": _lines(measured),
    }
    report.write_mechanism(folder, content)
    return content


def _values(measured, numbers):
    """Return `{(row, gradient): {seed: {quantity: number}}}`."""
    values = collections.defaultdict(dict)
    for row, by_seed in measured.items():
        for seed, content in by_seed.items():
            last = content["points"][-1]["through"]
            for through, seen in last.items():
                found = {name: math.nan if seen[name] is None else seen[name] for name in AT_THE_END}
                found["probe"] = 100 * content["probe"][through] / content["test_images"]
                values[row, through][seed] = {**numbers[row][seed], **found}
    return values


def _claimed(claim, values):
    runs_of, baseline = values.get(claim.row, {}), values.get(claim.baseline, {})
    found = pairs.summary(runs_of, baseline).get(claim.quantity)
    return {
        **dataclasses.asdict(claim),
        "found": found,
        "baseline_mean": pairs.moments([each[claim.quantity] for each in baseline.values()])[0],
        "verdict": pairs.verdict(found, above=claim.above),
    }


def _probes(measured):
    """Return a dict for each run with both gradients: what each one's PGD-1 leaves right, on the same images."""
    return [
        {"row": row, "label": _label(row), "seed": seed, "count": content["test_images"], **content["probe"]}
        for row, by_seed in measured.items()
        for seed, content in sorted(by_seed.items())
        if SUBSTITUTE in content["probe"]
    ]


def _lines(measured):
    """Return a dict for each row and gradient: its quantities over the training, and its loss along the attack."""
    lines = []
    for row, by_seed in measured.items():
        first = next(iter(by_seed.values()))
        for name in first["points"][0]["through"]:
            lines.append(
                {
                    "row": row,
                    "label": _label(row) + (f", through {hparams.SUBSTITUTE}" if name == SUBSTITUTE else ""),
                    "through": name,
                    "method": first["method"],
                    "seeds": {str(seed): _seed(content, name) for seed, content in sorted(by_seed.items())},
                }
            )
    return lines


def _seed(content, name):
    points = content["points"]
    return {
        "epoch": [point["epoch"] for point in points],
        **{quantity: [point["through"][name][quantity] for point in points] for quantity in AT_THE_END},
        "lengths": content["along"]["lengths"],
        **content["along"][name],
    }


def _label(row):
    return hparams.EXPERIMENTS["mechanism"].rows[row].label
