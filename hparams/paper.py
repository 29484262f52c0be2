"""Every number of the SAT paper (Xie et al. 2020) as a row: what to run, and what the paper says comes out.

An *experiment* is a table or figure; its rows differ from their base in a few fields. At the paper's scale the base is
the recipe of an architecture on ImageNet; rows that make sense on small images have further bases, `small.SETTINGS`.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from sat_tf.hparams import curriculum, dose, mechanism, rate, small
from sat_tf.hparams import fields as f
from sat_tf.hparams.efficientnets import named
from sat_tf.hparams.recipe import Recipe, read, show
from sat_tf.hparams.rows import SCALES, SUBSTITUTE, Experiment, Row


def _activation(act, source, **paper):
    return Row(label=act, source=source, paper=paper, changes={"act": act})


def _scaled(label, base, clean, robust, act="swish", source="Table 3"):
    paper = {"clean": clean, "robust": robust}
    return Row(
        label=label,
        source=source,
        changes={"act": act},
        base=base,
        small=False,
        paper={name: number for name, number in paper.items() if number is not None},
    )


def _alphas(act, numbers):
    return {
        f"{act}-{alpha}": _activation(f"{act}:{alpha}", "Table 2; differences to 41.1", robust=robust)
        for alpha, robust in numbers.items()
    }


def _backward(label, source, paper, *places, note="", **changes):
    substitutes = {f"{place}_backward": SUBSTITUTE for place in places}
    return Row(label=label, source=source, paper=paper, changes={"act": "relu", **substitutes, **changes}, note=note)


_PROBE = """The weights are those of the row without -probe, to the last bit: to save the training, evaluate that run,
    python main.py --mode=eval --model_dir=RUN --eval_attacks=pgd-1 --eval_backward=parametric_softplus:10"""


_FIGURE4 = {  # clean and robust accuracy where the text says them
    "b0": {"clean": 65.1, "robust": 37.6},
    "b1": {},
    "b2": {},
    "b3": {},
    "b4": {},
    "b5": {},
    "b6": {},
    "b7": {"clean": 79.8, "robust": 57.0},
    "l1": {"clean": 80.5, "robust": 58.0},
}

EXPERIMENTS = {
    "table1": Experiment(
        title="Table 1: better gradients for attack and update, ReLU forward",
        baseline="relu",
        rows={
            "relu": _backward("ReLU", "Table 1", {"clean": 68.8, "robust": 33.0, "train_loss": 2.71}),
            "attack": _backward(
                "better gradients for the attack", "Table 1", {"clean": 68.3, "robust": 34.5}, "attack"
            ),
            "update": _backward(
                "better gradients for the update",
                "Table 1; loss: Section 3.2",
                {"clean": 69.4, "robust": 35.8, "train_loss": 2.59},
                "update",
            ),
            "both": _backward(
                "better gradients for both", "Table 1", {"clean": 68.9, "robust": 36.9}, "attack", "update"
            ),
        },
    ),
    "section3.2": Experiment(
        title="Section 3.2: PGD-1 through better gradients; standard training with them",
        baseline="standard",
        rows={
            "standard": _backward(
                "standard training",
                "Section 3.2; PGD-1 through ReLU's own gradient",
                {"clean": 76.8, "train_loss": 1.22, "pgd-1": 16.9},
                method="standard",
            ),
            "standard-probe": _backward(
                "standard training, PGD-1 through the substitute",
                "Section 3.2",
                {"pgd-1": 12.9},
                "eval",
                method="standard",
                note=_PROBE,
            ),
            "standard-update": _backward(
                "standard training, better gradients for the update",
                "Section 3.2",
                {"clean": 77.0, "train_loss": 1.18},
                "update",
                method="standard",
            ),
            "adversarial": _backward("adversarial training, PGD-1", "Section 3.2", {"pgd-1": 48.7}),
            "adversarial-probe": _backward(
                "adversarial training, PGD-1 through the substitute",
                "Section 3.2",
                {"pgd-1": 48.0},
                "eval",
                note=_PROBE,
            ),
        },
    ),
    "section3.3": Experiment(
        title="Section 3.3: can other enhancements remedy ReLU?",
        baseline="relu",
        rows={
            "relu": _backward("ReLU", "Table 1", {"clean": 68.8, "robust": 33.0, "train_loss": 2.71}),
            "pgd-2": Row(
                label="ReLU, PGD-2 training",
                source="Section 3.3: +0.6 robust, -0.1 clean",
                paper={"clean": 68.7, "robust": 33.6},
                changes={"act": "relu", "attack": "pgd-2"},
                note="The paper does not say PGD-2's step size; that of PGD-1 stays.",
            ),
            "longer": Row(
                label="ReLU, twice as long",
                source="Section 3.3: +2.6 clean, -1.8 robust",
                paper={"clean": 71.4, "robust": 31.2, "train_loss": 2.62},
                changes={"act": "relu", "epochs": 200, "decay_epochs": (60, 120, 180)},
                small=False,
                note="The paper does not say when the rate falls; the shares of the shorter run stay.",
            ),
        },
    ),
    "figure3": Experiment(
        title="Figure 3: smooth activations against ReLU",
        baseline="relu",
        rows={
            "relu": _activation("relu", "Table 1", clean=68.8, robust=33.0),
            "softplus": _activation("softplus", "Figure 3, only drawn"),
            "parametric_softplus": _activation(SUBSTITUTE, "Section 4.1; clean only drawn", robust=38.7),
            "swish": _activation("swish", "Section 4.1", clean=69.7, robust=42.3),
            "gelu": _activation(
                "gelu", "Figure 3, only drawn; the release's checkpoint: 69.9 clean, 41.5 under PGD-50"
            ),
            "elu": _activation("elu:1.0", "Table 2; Section 4.3 says 41.4; clean only drawn", robust=41.1),
            "smoothrelu": _activation("smoothrelu", "Section 4.2", clean=69.4, robust=40.3),
        },
    ),
    "table2": Experiment(
        title="Table 2: ELU, smooth for alpha 1 only, and CELU, always smooth",
        baseline="elu-1.0",
        rows={
            **_alphas("elu", {1.0: 41.1, 1.2: 40.8, 1.4: 39.1, 1.6: 37.4, 1.8: 34.9, 2.0: 33.2}),
            **_alphas("celu", {1.0: 41.1, 1.2: 41.2, 1.4: 40.8, 1.6: 40.8, 1.8: 40.9, 2.0: 40.6}),
        },
    ),
    "table3": Experiment(
        title="Table 3: larger ResNets with swish",
        baseline="resnet50",
        rows={
            "resnet50": _scaled("ResNet-50", "resnet50", 69.7, 42.3),
            "resnet101": _scaled("2x deeper (ResNet-101)", "resnet101", 72.9, 45.5),
            "resnet152": _scaled("3x deeper (ResNet-152)", "resnet152", 73.9, 46.0),
            "resnext50-32x4d": _scaled("2x wider (ResNeXt-50-32x4d)", "resnext50-32x4d", 71.2, 42.5),
            "resnext50-32x8d": _scaled("4x wider (ResNeXt-50-32x8d)", "resnext50-32x8d", 73.6, 45.1),
            "resnet50-299": _scaled("at 299 pixels", "resnet50-299", 70.9, 43.8),
            "resnet50-380": _scaled("at 380 pixels", "resnet50-380", 71.6, 44.1),
            "resnext152-32x8d-380": _scaled("all of it (ResNeXt-152-32x8d at 380)", "resnext152-32x8d-380", 78.2, 51.2),
        },
    ),
    "section5.1": Experiment(
        title="Section 5.1: larger ResNets with ReLU",
        baseline="resnet50",
        rows={
            "resnet50": _scaled("ResNet-50", "resnet50", 68.8, 33.0, "relu", "Table 1"),
            "resnet152": _scaled("ResNet-152", "resnet152", None, 39.4, "relu", "Section 5.1"),
            "resnext50-32x8d": _scaled("ResNeXt-50-32x8d", "resnext50-32x8d", None, 36.7, "relu", "Section 5.1"),
            "resnet50-380": _scaled("at 380 pixels", "resnet50-380", None, 36.9, "relu", "Section 5.1"),
            "resnext152-32x8d-380": _scaled(
                "ResNeXt-152-32x8d at 380", "resnext152-32x8d-380", None, 46.3, "relu", "Section 5.1"
            ),
        },
    ),
    "figure4": Experiment(
        title="Figure 4: EfficientNets with swish",
        baseline="b0",
        connected=tuple(_FIGURE4)[:-1],
        rows={
            name: Row(
                label=f"EfficientNet-{name.upper()}",
                source="Section 5.2 and Figure 4",
                paper=paper,
                small=False,
                base=f"efficientnet-{name}",
            )
            for name, paper in _FIGURE4.items()
        },
    ),
    "table4": Experiment(
        title="Table 4 and Section 5.2: EfficientNet-L1 with enhancements",
        baseline="standard",
        rows={
            "standard": Row(
                label="EfficientNet-L1 with enhancements, standard training",
                source="Section 5.2, Discussion",
                paper={"clean": 84.1},
                changes={"method": "standard"},
                base="efficientnet-l1-enhanced",
                small=False,
            ),
            "sat": Row(
                label="EfficientNet-L1 with enhancements",
                source="Table 4",
                paper={"clean": 82.2, "robust": 58.6},
                base="efficientnet-l1-enhanced",
                small=False,
                note="The prior art of the table, Qin et al. 2019, has 72.7 clean, 47.0 robust.",
            ),
        },
    ),
    **curriculum.EXPERIMENTS,
}
EXPERIMENTS |= {
    "mechanism": mechanism.experiment(EXPERIMENTS),
    "dose": dose.experiment(EXPERIMENTS),
    "rate": rate.experiment(),
}

DRAWN = {  # figures of activations and their derivatives: which ones
    "figure1": ("Figure 1: ReLU and Parametric Softplus", ("relu", SUBSTITUTE)),
    "figure2": (
        "Figure 2: smooth activations",
        ("softplus", "swish", "gelu", "elu", "smoothrelu:400", "smoothrelu:10"),
    ),
}


def rows_of(experiment: str, scale: str, chosen: Sequence[str] | None = None) -> list[str]:
    """Return the names of an experiment's rows at a scale, or of the `chosen` ones; a ValueError names what there is.

    The baseline is always among them. A row may be named as its recipe is, with the experiment before it.
    """
    f.one_of(*EXPERIMENTS)("experiment", experiment)
    content = EXPERIMENTS[experiment]
    if f.one_of(*SCALES)("scale", scale) not in content.scales:
        raise ValueError(
            f"Expected --scale={' or '.join(content.scales)} for {experiment}: its rows are "
            f"networks for ImageNet. Received: --scale={scale}."
        )
    there = [name for name, row in content.rows.items() if row.small or scale == "paper"]
    chosen = [name if name in there else name.removeprefix(f"{experiment}-") for name in chosen or ()]
    unknown = [name for name in chosen if name not in there]
    if unknown:
        raise ValueError(f"Expected --rows of {', '.join(there)}. Received: --rows={','.join(chosen)}.")
    return [name for name in there if not chosen or name in chosen or name == content.baseline]


def row_recipe(experiment: str, name: str, scale: str, changes: dict[str, Any] | None = None) -> Recipe:
    """Return the recipe of a row at a scale, with `changes` `{field: value}` that leave what makes it that row."""
    row, changes = EXPERIMENTS[experiment].rows[name], read(changes or {})
    fixed = _fixed(experiment, scale)
    if both := sorted(fixed & set(changes)):
        raise ValueError(
            f"Expected flags that leave the rows of {experiment} what they are, made by "
            f"{', '.join(sorted(fixed))}. Received: {both[0]}={show(both[0], changes[both[0]])}."
        )
    content = EXPERIMENTS[experiment]
    if scale == "paper":
        return row.make_recipe(f"{experiment}-{name}", content.setting(scale)).replace(**changes)
    base = small.SETTINGS[scale](changes.get("dataset", small.DATASET))
    base = _as_long(base, changes)
    base = base.replace(**content.setting(scale, base))
    made = base.replace(**{**changes, **row.changes_to(base)})
    return dataclasses.replace(made, name=f"{experiment}-{name}-{scale}")


def _as_long(base, changes):
    """Return a setting of as many epochs as are asked for."""
    made = base.replace(**{field: changes[field] for field in ("epochs",) if field in changes})
    if made.epochs is None:
        raise ValueError(
            "Expected a number of epochs, the same for all rows of an experiment. Received: epochs=none. Leave it out."
        )
    return made


def _fixed(experiment, scale):
    """Return the fields that tell an experiment's rows from each other."""
    rows = {name: EXPERIMENTS[experiment].rows[name] for name in rows_of(experiment, scale)}
    fixed = {field for row in rows.values() for field in (*row.changes, *row.shares)}
    if scale == "paper":  # their bases differ, too
        made = [row.make_recipe("", EXPERIMENTS[experiment].setting(scale)) for row in rows.values()]
        values = [{k: v for k, v in recipe.to_dict().items() if k != "name"} for recipe in made]
        fixed |= {field for field in values[0] if any(other[field] != values[0][field] for other in values)}
    return fixed


def run_name(experiment: str, name: str, scale: str) -> str:
    """Return what to call a row's runs: rows of several experiments that are the same row have the same name."""
    row = EXPERIMENTS[experiment].rows[name]
    words = [row.base] if scale == "paper" else []
    content = EXPERIMENTS[experiment]
    words += [content.family] if content.family and scale in content.settings else []
    words += [row.changes.get("act", "swish")]
    words += [f"{field}={show(field, value)}" for field, value in row.changes.items() if field != "act"]
    words += [f"{field}={part:g}x{of}" for field, (part, of) in row.shares.items()]
    return re.sub(r"[^\w.=-]+", "_", "-".join(words))


def _documented(experiment, name):
    """Return the recipe function of a row: what it is, its command, its cost, what to expect."""
    row, full = EXPERIMENTS[experiment].rows[name], f"{experiment}-{name}"
    setting = EXPERIMENTS[experiment].setting("paper")
    recipe = row.make_recipe(full, setting)
    return named(
        lambda: row.make_recipe(full, setting),
        f"""{row.origin}, {row.source}: {row.label}; {row.words}.

    Command: python main.py --recipe={full} --data_dir=DIR
    Cost: {recipe.epochs} epochs, and the evaluation, {", ".join(recipe.eval_attacks[1:])}; --plan tells forward
    passes, FLOPs, memory and accelerator-hours.
    {row.note}
    """,
    )


RECIPES = {
    f"{experiment}-{name}": _documented(experiment, name)
    for experiment, content in EXPERIMENTS.items()
    for name in content.rows
}
ROWS = tuple(RECIPES)
