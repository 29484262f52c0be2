"""Write README.md, claims.png and map.png from the tables in this folder: `python results/write.py`.

Verdicts follow one rule, fixed before the rows with smooth activations were run: a claim is *reproduced* where the 95 %
interval of the paired difference lies on its side, *not reproduced* where it lies on the other, *undecided* between.
"""

import argparse
import collections
import dataclasses
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from results import costs  # noqa: E402
from sat_tf import hparams  # noqa: E402
from sat_tf.grid import pairs  # noqa: E402

MAIN, SECOND = "cifar10-jpeg", "fashion-mnist"
SMOOTH = ("softplus", "parametric_softplus", "swish", "gelu", "elu", "smoothrelu")
MAPPED = ("parametric_softplus", "swish", "elu")  # rows of the map
KEEPS = -1.0  # points: what "almost the same" may lose


@dataclasses.dataclass(frozen=True)
class Claim:
    """A difference that the paper reports: of which row to which, in what, and where it should lie.

    A difference `above` (or else below) `bound` bears it out.
    """

    text: str
    row: tuple
    baseline: tuple
    quantity: str
    paper: str
    above: bool = True
    bound: float = 0.0


RELU = ("table1", "relu")
CLAIMS = (
    Claim("better gradients for the attack raise robustness", ("table1", "attack"), RELU, "robust", "+1.5"),
    Claim("... at the expense of accuracy", ("table1", "attack"), RELU, "clean", "-0.5", above=False),
    Claim("better gradients for the update raise robustness", ("table1", "update"), RELU, "robust", "+2.8"),
    Claim("... and accuracy", ("table1", "update"), RELU, "clean", "+0.6"),
    Claim("... and lower the training loss", ("table1", "update"), RELU, "train_loss", "-0.12", above=False),
    Claim("better gradients for both raise robustness", ("table1", "both"), RELU, "robust", "+3.9"),
    Claim("... more than for the attack alone", ("table1", "both"), ("table1", "attack"), "robust", "+2.4"),
    Claim("... more than for the update alone", ("table1", "both"), ("table1", "update"), "robust", "+1.1"),
    Claim("... and keep accuracy (within a point)", ("table1", "both"), RELU, "clean", "+0.1", bound=KEEPS),
    *(
        Claim(f"{act} raises robustness", ("figure3", act), RELU, "robust", paper)
        for act, paper in zip(SMOOTH, ("drawn", "+5.7", "+9.3", "drawn", "+8.1", "+7.3"), strict=True)
    ),
    *(
        Claim(f"{act} keeps accuracy (within a point)", ("figure3", act), RELU, "clean", paper, bound=KEEPS)
        for act, paper in zip(SMOOTH, ("drawn", "drawn", "+0.9", "drawn", "drawn", "+0.6"), strict=True)
    ),
    *(
        Claim(f"{act} lowers the training loss", ("figure3", act), RELU, "train_loss", "not told", above=False)
        for act in SMOOTH
    ),
    Claim(
        "Parametric Softplus forward, too, is better than backward only",
        ("figure3", "parametric_softplus"),
        ("table1", "both"),
        "robust",
        "+1.8",
    ),
    *(
        Claim(
            f"ELU with alpha {alpha} (kinked) is less robust than with 1.0",
            ("table2", f"elu-{alpha}"),
            ("table2", "elu-1.0"),
            "robust",
            paper,
            above=False,
        )
        for alpha, paper in ((1.4, "-2.0"), (2.0, "-7.9"))
    ),
    *(
        Claim(
            f"CELU with alpha {alpha} (smooth) stays as robust (within a point)",
            ("table2", f"celu-{alpha}"),
            ("table2", "celu-1.0"),
            "robust",
            paper,
            bound=KEEPS,
        )
        for alpha, paper in ((1.4, "-0.3"), (2.0, "-0.5"))
    ),
    Claim(
        "CELU with alpha 2.0 is more robust than ELU with 2.0",
        ("table2", "celu-2.0"),
        ("table2", "elu-2.0"),
        "robust",
        "+7.4",
    ),
)


def tables_of(folder):
    """Return `{experiment: table}` of a folder."""
    return {file.parent.name: json.loads(file.read_text()) for file in sorted(folder.glob("*/table.json"))}


def runs_of(tables, place):
    """Return `{seed: {quantity: number}}` of a row, `(experiment, row)`; empty where it was not run."""
    experiment, name = place
    rows = {row["row"]: row for row in tables.get(experiment, {"rows": []})["rows"]}
    return {int(seed): values for seed, values in rows.get(name, {"runs": {}})["runs"].items()}


def difference(tables, claim):
    """Return difference, half its interval, and number of pairs; None where there are none."""
    runs, baseline = runs_of(tables, claim.row), runs_of(tables, claim.baseline)
    found = pairs.summary(runs, baseline).get(claim.quantity)
    return found if found and found["pairs"] > 1 else None


def verdict(found, claim):
    """Return what the interval says of a claim."""
    return pairs.verdict(found, above=claim.above, bound=claim.bound)


def interval(found, digits):
    low, high = found["difference"] - found["interval"], found["difference"] + found["interval"]
    return f"{found['difference']:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def claims(tables, second):
    """Return the table of claims: the paper's difference, ours on both data sets, the verdicts."""
    rows = []
    for claim in CLAIMS:
        cells = []
        for found in (difference(tables, claim), difference(second, claim)):
            digits = 3 if claim.quantity == "train_loss" else 2
            cells += [interval(found, digits) if found else "", verdict(found, claim)]
        rows.append([claim.text, claim.quantity.replace("_", " "), claim.paper, *cells])
    return lines(["claim", "in", "paper", "CIFAR-10", "verdict", "Fashion-MNIST", "verdict"], rows)


def lines(header, rows):
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


RELEASED = {
    "figure3-relu": "Res50-relu",
    "figure3-swish": "Res50-silu",
    "figure3-gelu": "Res50-gelu",
    "figure3-elu": "Res50-elu",
    "figure3-smoothrelu": "Res50-smoothrelu",
    "table1-relu": "Res50-relu",
    "table2-elu-1.0": "Res50-elu",
    "table3-resnet50": "Res50-silu",
    "table3-resnet101": "Res101-silu",
    "table3-resnet152": "Res152-silu",
    "table3-resnext50-32x4d": "ResX50-silu-32x4d",
    "table3-resnext50-32x8d": "ResX50-silu-32x8d",
    "table3-resnet50-299": "Res50-silu-299",
    "table3-resnet50-380": "Res50-silu-380",
    "table3-resnext152-32x8d-380": "ResX152-silu-380-32x8d",
    "section5.1-resnet50": "Res50-relu",
    "section3.3-relu": "Res50-relu",
    **{f"figure4-b{i}": f"efficientnet-b{i}" for i in range(8)},
    "figure4-l1": "efficientnet-bL1",
    "table4-sat": "efficientnet-bL1-enhanced",
}


def side_by_side(tables):
    """Return every row of the paper with the paper's numbers, the release's and ours."""
    rows = []
    for name, experiment in hparams.EXPERIMENTS.items():
        for row, content in experiment.rows.items():
            known = hparams.release(RELEASED[f"{name}-{row}"]).published if f"{name}-{row}" in RELEASED else {}
            published = ", ".join(
                f"{100 * value:.1f} {attack}" for attack, value in known.items() if attack in ("clean", "pgd-50")
            )
            runs = runs_of(tables, (name, row))
            found = pairs.summary(runs, {})
            ours = f"{found['clean']['mean']:.1f} clean, {found['robust']['mean']:.1f} PGD-10" if runs else ""
            rows.append([f"`{name}-{row}`", content.label, content.words, published, ours])
    return lines(
        [
            "recipe",
            "row",
            "paper (ResNet-50 unless said; ImageNet, 4/255)",
            "release (ImageNet, 4/255)",
            "ours (narrow ResNet-20, CIFAR-10 as JPEG, 8/255)",
        ],
        rows,
    )


def settings():
    """Give `(file, row, runs, runs of the baseline)` of the main setting's Figure 3, then of the map."""
    for file in (HERE / MAIN / "figure3" / "table.json", *sorted((HERE / "map").glob("*/*/table.json"))):
        content = json.loads(file.read_text())
        tables, name = {file.parent.name: content}, file.parent.name
        base = runs_of(tables, (name, content["baseline"]))
        for row in content["rows"]:
            if row["row"] in MAPPED and row["n"]:
                yield file, row, runs_of(tables, (name, row["row"])), base


def cells_of_map():
    """Return the table of the map: where, and what smooth activations change there."""
    rows = []
    for file, row, runs, base in settings():
        summary, found = pairs.summary(base, base), pairs.summary(runs, base)
        level = " / ".join(f"{summary[q]['mean']:.{d}f}" for q, d in (("clean", 1), ("robust", 1), ("train_loss", 2)))
        cells = [
            interval(found[q], d) if found[q]["interval"] is not None else f"{found[q]['difference']:+.{d}f}"
            for q, d in (("robust", 2), ("clean", 2), ("train_loss", 3))
        ]
        rows.append(
            [
                f"[{file.parts[-3]}]({file.relative_to(HERE).with_name('table.md').as_posix()})",
                row["label"],
                str(row["n"]),
                level,
                *cells,
            ]
        )
    return lines(["setting", "row", "n", "ReLU: clean / robust / loss", "robust", "clean", "loss"], rows)


def draw_map(path):
    """Draw every pair's difference in robustness to ReLU, by setting; a bar is the mean."""
    from sat_tf.report.figures import CYCLE, GREY, figure_of, png, styled

    found = {}
    for file, row, runs, base in settings():
        pairs = [runs[seed]["robust"] - base[seed]["robust"] for seed in sorted(runs.keys() & base.keys())]
        found.setdefault(file.parts[-3], {})[row["label"]] = pairs
    labels = list(dict.fromkeys(label for rows in found.values() for label in rows))
    with styled():
        figure = figure_of(9, 0.6 * len(found) + 1.4, layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=GREY, linewidth=1)
        for place, rows in enumerate(found.values()):
            for label, pairs in rows.items():
                number = labels.index(label)
                height = -place + 0.22 * ((len(labels) - 1) / 2 - number)
                axes.plot(pairs, [height] * len(pairs), "o", markersize=4, alpha=0.6, color=CYCLE[number])
                axes.plot(
                    [sum(pairs) / len(pairs)], [height], "|", markersize=12, markeredgewidth=3, color=CYCLE[number]
                )
        for number, label in enumerate(labels):
            axes.plot([], [], "o", color=CYCLE[number], label=label)
        axes.set_yticks(range(0, -len(found), -1), list(found))
        axes.set(xlabel="difference to ReLU in points, one dot a seed; the bar is the mean")
        figure.suptitle("The map: accuracy under PGD-10 against ReLU's, by setting")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=len(labels))
        path.write_bytes(png(figure))


def draw(tables, path):
    """Draw the differences in robustness to ReLU, or to alpha 1, with their intervals."""
    from sat_tf.report.figures import CYCLE, GREY, figure_of, png, styled

    shown = [
        (claim, found)
        for claim in CLAIMS
        if claim.quantity == "robust" and (found := difference(tables, claim)) is not None
    ]
    with styled():
        figure = figure_of(9, 0.42 * len(shown) + 1.2, layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=GREY, linewidth=1)
        colours = {"reproduced": CYCLE[2], "undecided": CYCLE[1], "not reproduced": CYCLE[3]}
        for place, (claim, found) in enumerate(shown):
            axes.errorbar(
                found["difference"],
                -place,
                xerr=found["interval"],
                fmt="o",
                capsize=4,
                color=colours[verdict(found, claim)],
            )
        for word, colour in colours.items():
            axes.plot([], [], "o", color=colour, label=word)
        axes.set_yticks(range(0, -len(shown), -1), [claim.text for claim, _ in shown])
        axes.set(xlabel="difference in points")
        figure.suptitle("Accuracy under PGD-10: paired differences with their 95 % intervals, CIFAR-10")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
        path.write_bytes(png(figure))


def experiment_of(recipe):
    """Return the experiment of a row's recipe, whose name may have hyphens of its own."""
    return next(
        name for name, content in hparams.EXPERIMENTS.items() if recipe in {f"{name}-{r}" for r in content.rows}
    )


def imagenet_hours():
    """Return the table of what the paper's trainings would cost, and its sources."""
    found = json.loads((HERE / "costs.json").read_text())
    rate = costs.rates(found["reference"])
    rows = []
    for row in found["rows"]:
        named = collections.Counter(experiment_of(name) for name in row["rows"])
        hours = costs.hours(row, rate)
        rows.append(
            [
                f"{row['model']}, {row['size']} px",
                ", ".join(f"{name} ({count})" for name, count in named.items()),
                str(row["epochs"]),
                str(row["passes"]),
                f"{row['forward_flops'] / 1e9:.1f}",
                *(f"{hours[device]:,.{0 if hours[device] >= 10 else 1}f}" for device in costs.DEVICES),
            ]
        )
    heads = [f"{words}, {precision}" for words, precision in costs.DEVICES.values()]
    header = ["network", "rows", "epochs", "passes", "GFLOP a pass", *heads]
    sources = "\n".join(
        f"* {known.model}, {known.size} px, {costs.used(rate[name])}: {known.source}."
        for name, known in costs.PUBLISHED.items()
    )
    return f"{lines(header, rows)}\n\n{sources}"


def main(argv=None):
    """Write README.md and both images into a folder, this one unless another is named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output_dir", type=pathlib.Path, default=HERE)
    folder = parser.parse_args(argv).output_dir
    tables, second = tables_of(HERE / MAIN), tables_of(HERE / SECOND)
    parts = {
        "claims": claims(tables, second),
        "map": cells_of_map(),
        "costs": imagenet_hours(),
        "side_by_side": side_by_side(tables),
        "versions": lines(
            ["what", "value"], [[*fact] for part in ("versions", "machine") for fact in tables["table1"][part].items()]
        ),
    }
    text = (HERE / "template.md").read_text()
    for name, content in parts.items():
        text = text.replace(f"<!-- {name} -->", content)
    (folder / "README.md").write_text(text)
    draw(tables, folder / "claims.png")
    draw_map(folder / "map.png")


if __name__ == "__main__":
    main()
