"""The page and the figures of the mechanism: each link of the argument, and what was measured of it."""

from typing import Any

import numpy as np

from sat_tf.names import attack_title, format_radius
from sat_tf.report import words
from sat_tf.report.figures import CYCLE, GREY, MARKERS, figure_of, styled

UNITS = {"probe": (2, "points"), "robust": (2, "points"), "share": (3, ""), "cosine": (3, ""), "noise": (3, "")}
VERDICTS = ("reproduced", "undecided", "not reproduced", "not run")
_DEFINITIONS = """\
* **Own, substitute**: the gradient that was taken: the activation's own, or that of another one behind ReLU, as in the
  paper's Section 3.2. The weights are the same to the last bit.
* **Share**: how much of the rise of the loss by {steps} steps of PGD through the network's own gradient one step of
  epsilon reaches, both from the image itself: (mean loss after one step - mean loss) / (mean loss after {steps} - mean
  loss).
* **Cosine** of the gradient at the image and the gradient at the end of that step, mean over images: 1 where the
  gradient does not turn, 0 where one of the two is 0.
* **Noise**: variance of the update's gradient between {batches} batches of training images, those that would come next,
  over the square of the length of its mean: 0 where all batches agree, about {batches} where they have nothing in
  common. Weight decay, the same for all batches, is not in it.
* **Probe**: accuracy under PGD-1 from a random start, on all test images, as evaluations have it.
* **Interval**: of the links, 95 % by Student's t over pairs of runs with the same seed; of the probe, 95 % by Newcombe
  over pairs of answers on the same image, and McNemar's exact p. Verdicts: *reproduced* where the interval lies on the
  claim's side, *not reproduced* where it lies on the other, *undecided* between. Of {count} claims some one or two are
  to be expected on either side from chance alone."""


def markdown(content: dict, figures: list[str]) -> str:
    """Return mechanism.md: the verdicts link by link, the probe image by image, the figures."""
    if not content["lines"]:
        return f"# {content['title']}\n\nNo run has ended yet.\n"
    facts = {name: content[name] for name in ("steps", "batches")} | {"count": len(content["claims"])}
    parts = [
        f"# {content['title']}",
        _setting(content),
        "## Link by link",
        _summary(content["claims"]),
        _claims(content["claims"]),
        "## The probe: the same images, the same weights, two gradients",
        _probes(content["probes"]),
        *(f"![]({name})" for name in figures),
        "## What the words mean",
        _DEFINITIONS.format(**facts),
        "## How it was run",
        words.facts(
            {"command": content["command"], "created": content["created"], **content["versions"], **content["machine"]}
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _setting(content):
    data, recipe = content["dataset"], content["recipe"]
    seeds = {seed for line in content["lines"] for seed in line["seeds"]}
    return (
        f"Scale: {content['scale']}. {recipe['model']} on {data['source']}, {recipe['epochs']} epochs of "
        f"{data['train']} images; epsilon {format_radius(content['epsilon'])}. {len(seeds)} seed(s). The probe is on "
        f"{content['test_images']} test images, what is measured over time on {content['images']} of them."
    )


def _summary(claims):
    """Return a line for each link: how many of its claims show."""
    lines = []
    for link in dict.fromkeys(claim["link"] for claim in claims):
        verdicts = [claim["verdict"] for claim in claims if claim["link"] == link]
        counted = [f"{verdicts.count(word)} {word}" for word in VERDICTS if word in verdicts]
        lines.append(f"* **{link.capitalize()}**: of {len(verdicts)} claims {', '.join(counted)}.")
    return "\n".join(lines)


def _claims(claims):
    rows = [
        [
            claim["link"],
            claim["text"],
            claim["quantity"],
            "" if claim["baseline_mean"] is None else _number(claim["baseline_mean"], claim["quantity"], ""),
            claim["paper"],
            _difference(claim["found"], claim["quantity"]),
            str(claim["found"]["pairs"]) if claim["found"] else "0",
            claim["verdict"],
        ]
        for claim in claims
    ]
    return words.table(["link", "claim", "in", "baseline", "paper", "difference", "n", "verdict"], rows)


def _number(value, quantity, sign="+"):
    return f"{value:{sign}.{UNITS[quantity][0]}f}"


def _difference(found, quantity):
    if not found or found["difference"] is None:
        return ""
    if found["interval"] is None:
        return f"{_number(found['difference'], quantity)} (one pair)"
    low, high = found["difference"] - found["interval"], found["difference"] + found["interval"]
    return f"{_number(found['difference'], quantity)} [{_number(low, quantity)}, {_number(high, quantity)}]"


def _probes(probes):
    rows = [
        [
            probe["label"],
            str(probe["seed"]),
            f"{100 * probe['own'] / probe['count']:.2f}",
            f"{100 * probe['substitute'] / probe['count']:.2f}",
            f"{100 * probe['difference']:+.2f} [{100 * probe['low']:+.2f}, {100 * probe['high']:+.2f}]",
            str(probe["pairs"]["second"]),
            str(probe["pairs"]["first"]),
            f"{probe['p']:.2g}",
        ]
        for probe in probes
    ]
    header = ["network", "seed", "through its own (%)", "through the substitute (%)", "difference"]
    header += ["fooled by the substitute's alone", "fooled by its own alone", "McNemar's p"]
    return words.table(header, rows) if rows else ""


def draw(content: dict) -> dict[str, Any]:
    """Return the figures by name; none where no run has ended."""
    if not content["lines"]:
        return {}
    with styled():
        figures = {
            "share": _over_time(content, (("share", f"share of PGD-{content['steps']}'s rise that one step reaches"),)),
            "turns-and-noise": _over_time(
                content,
                (
                    ("cosine", "cosine of the gradients at image and step's end"),
                    ("noise", "noise of the update's gradient"),
                ),
            ),
            "along": _along(content),
        }
        return figures | ({"probe": _probe(content)} if content["probes"] else {})


def _styles(lines):
    """Return colour, dash and marker of each line: rows have colours, the substitute's gradient is dashed."""
    rows = list(dict.fromkeys(line["row"] for line in lines))
    return [
        {
            "color": CYCLE[rows.index(line["row"]) % len(CYCLE)],
            "linestyle": "-" if line["through"] == "own" else "--",
            "marker": MARKERS[rows.index(line["row"]) % len(MARKERS)],
        }
        for line in lines
    ]


def _over_time(content, panels):
    """Draw quantities against epochs: the mean over seeds, and the range from the lowest to the highest."""
    lines = content["lines"]
    figure = figure_of(max(6.2 * len(panels), 8), 6.2, layout="constrained")
    for axes, (quantity, title) in zip(np.ravel(figure.subplots(1, len(panels))), panels, strict=True):
        for line, style in zip(lines, _styles(lines), strict=True):
            epochs, values = _aligned(line["seeds"], quantity)
            axes.plot(epochs, values.mean(0), label=line["label"], **style)
            axes.fill_between(epochs, values.min(0), values.max(0), color=style["color"], alpha=0.12, linewidth=0)
        axes.set(xlabel="epochs", ylabel=title)
    _legend(figure)
    figure.suptitle(f"Over the training, {content['images']} test images: mean and range of {_seeds(lines)}")
    return figure


def _aligned(seeds, quantity):
    """Return the epochs that all seeds have, and values `[seeds, epochs]`."""
    common = set.intersection(*(set(seed["epoch"]) for seed in seeds.values()))
    epochs = sorted(common)
    known = [dict(zip(seed["epoch"], seed[quantity], strict=True)) for seed in seeds.values()]
    return epochs, np.array([[seed[epoch] for epoch in epochs] for seed in known], float)


def _along(content):
    """Draw the rise of the loss along the attack direction, and dotted what the gradient at the image promises.

    Networks that were trained without an attack have a panel of their own: their losses rise by far more.
    """
    lines = content["lines"]
    methods = list(dict.fromkeys(line["method"] for line in lines))
    figure = figure_of(max(6.2 * len(methods), 9), 6.6, layout="constrained")
    for axes, method in zip(np.ravel(figure.subplots(1, len(methods))), methods, strict=True):
        for line, style in zip(lines, _styles(lines), strict=True):
            if line["method"] != method:
                axes.plot([], [], label=line["label"], **style)  # for the legend, which all panels share
                continue
            seeds = list(line["seeds"].values())
            lengths = 255 * np.array(seeds[0]["lengths"])
            losses, planes = (np.mean([seed[name] for seed in seeds], 0) for name in ("loss", "plane"))
            axes.plot(lengths, losses - losses[0], label=line["label"], markevery=4, **style)
            axes.plot(lengths, planes - planes[0], ":", color=style["color"], linewidth=1)
        radius = 255 * content["epsilon"]
        axes.axvline(radius, color=GREY, linewidth=1)
        axes.annotate("epsilon", (radius, 0), xytext=(4, 4), textcoords="offset points", color=GREY)
        axes.set(xlabel="way along the sign of the gradient at the image (1/255)", ylabel="rise of the loss (nats)")
        axes.set(title="trained without an attack" if method == "standard" else "trained by an attack")
    _legend(figure)
    figure.suptitle(
        f"The loss along the attack direction at the end of training: mean of {content['images']} test images and "
        f"{_seeds(lines)};\ndotted: if the loss were a plane"
    )
    return figure


def _probe(content):
    """Draw for each run how many points the substitute's PGD-1 leaves less than the network's own."""
    probes = content["probes"]
    figure = figure_of(9, 0.32 * len(probes) + 1.6, layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=GREY, linewidth=1)
    rows = list(dict.fromkeys(probe["row"] for probe in probes))
    for place, probe in enumerate(probes):
        value, low, high = (100 * probe[name] for name in ("difference", "low", "high"))
        colour = CYCLE[rows.index(probe["row"]) % len(CYCLE)]
        axes.errorbar(value, -place, xerr=[[value - low], [high - value]], fmt="o", capsize=3, color=colour)
    axes.set_yticks(range(0, -len(probes), -1), [f"{probe['label']}, seed {probe['seed']}" for probe in probes])
    axes.set(xlabel="accuracy under PGD-1: through the substitute minus through ReLU's own gradient (points)")
    figure.suptitle(
        f"The same weights and {probes[0]['count']} images, {attack_title('pgd-1')} through two gradients: difference "
        "with 95 % interval"
    )
    return figure


def _seeds(lines):
    counts = sorted({len(line["seeds"]) for line in lines})
    return f"{counts[0]} seed(s)" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _legend(figure):
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, handlelength=5)
