"""The experiment that looks at the mechanism: better gradients, stronger attacks, better networks (Xie et al. 2020)."""

from sat_tf.hparams.recipe import Recipe
from sat_tf.hparams.rows import SUBSTITUTE, Experiment, Row

CHECKPOINTS = 8  # over a training, evenly spread: what is measured over time


def _often(recipe: Recipe) -> dict:
    """Return what a training keeps so that it can be looked at over time."""
    return {"validation_every": recipe.epochs / CHECKPOINTS, "keep_checkpoints": CHECKPOINTS}


def _row(label, source, paper, **changes):
    return Row(label=label, source=source, paper=paper, changes={"act": "relu", **changes})


ROWS = {
    "standard": _row("standard training, ReLU", "Section 3.2", {"clean": 76.8, "train_loss": 1.22}, method="standard"),
    "relu": _row("ReLU", "Table 1", {"clean": 68.8, "robust": 33.0, "train_loss": 2.71}),
    "attack": _row(
        "better gradients for the attack", "Table 1", {"clean": 68.3, "robust": 34.5}, attack_backward=SUBSTITUTE
    ),
    "update": _row(
        "better gradients for the update",
        "Table 1; loss: Section 3.2",
        {"clean": 69.4, "robust": 35.8, "train_loss": 2.59},
        update_backward=SUBSTITUTE,
    ),
    "both": _row(
        "better gradients for both",
        "Table 1",
        {"clean": 68.9, "robust": 36.9},
        attack_backward=SUBSTITUTE,
        update_backward=SUBSTITUTE,
    ),
    "parametric_softplus": _row(SUBSTITUTE, "Section 4.1; clean only drawn", {"robust": 38.7}, act=SUBSTITUTE),
    "swish": _row("swish", "Section 4.1", {"clean": 69.7, "robust": 42.3}, act="swish"),
}

EXPERIMENTS = {
    "mechanism": Experiment(
        title="The mechanism: better gradients, stronger attacks, better networks",
        baseline="relu",
        rows=ROWS,
        family="mechanism",
        settings={"small": _often},  # at the other scales the runs are those of the tables
        measured="mechanism",
    )
}
