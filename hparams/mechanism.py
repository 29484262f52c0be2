"""The experiment that looks at the mechanism: better gradients, stronger attacks, better networks (Xie et al. 2020)."""

from sat_tf.hparams.recipe import Recipe
from sat_tf.hparams.rows import Experiment, Row

CHECKPOINTS = 8  # over a training, evenly spread: what is measured over time


def _often(recipe: Recipe) -> dict:
    """Return what a training keeps so that it can be looked at over time."""
    return {"validation_every": recipe.epochs / CHECKPOINTS, "keep_checkpoints": CHECKPOINTS}


def experiment(published: dict[str, Experiment]) -> Experiment:
    """Return the experiment, whose rows are those of the paper's own tables and figures where these have them.

    Args:
      published: the paper's experiments by name.
    """
    backward, forward = published["table1"].rows, published["figure3"].rows
    standard = Row(
        label="standard training, ReLU",
        source="Section 3.2",
        paper={"clean": 76.8, "train_loss": 1.22},
        changes=published["section3.2"].rows["standard"].changes,
    )
    return Experiment(
        title="The mechanism: better gradients, stronger attacks, better networks",
        baseline="relu",
        rows={"standard": standard, **backward, **{act: forward[act] for act in ("parametric_softplus", "swish")}},
        family="mechanism",
        settings={"small": _often},  # at the other scales the runs are those of the tables
        measured="mechanism",
    )
