"""The experiment that gives each activation its own learning rate and warm-up, all by one rule and one budget."""

from sat_tf.hparams.rows import Experiment, Row

RATES = (1, 0.25, 0.5, 2)  # times the setting's own, which was chosen with ReLU; of equals the first is taken
WARMUP = 0.3  # of the epochs; a tenth at the small scale
TITLES = {"relu": "ReLU", "parametric_softplus:10": "Parametric Softplus", "swish": "swish", "elu:1.0": "ELU"}


def _rows(act, title):
    """Return the candidates of an activation by name: each rate, and one with a longer warm-up."""
    tried = {f"{rate:g}": (f"{rate:g} x the rate", {"learning_rate": (rate, "learning_rate")}) for rate in RATES}
    tried["1"] = "the setting's rate", {}
    tried["warmup"] = f"warm-up in {WARMUP:.0%} of the epochs", {"warmup_epochs": (WARMUP, "epochs")}
    return {
        f"{act.partition(':')[0]}-{name}": Row(
            label=f"{title}, {words}",
            source="ours",
            paper={},
            changes={"act": act},
            shares=shares,
            without="no number: the paper has one rate for all",
        )
        for name, (words, shares) in tried.items()
    }


def experiment() -> Experiment:
    """Return the experiment; the candidate that is best on held-out training images is an activation's own."""
    choices = {title: _rows(act, title) for act, title in TITLES.items()}
    return Experiment(
        title="Each activation at its own learning rate, chosen on held-out images",
        baseline="relu-1",
        rows={name: row for rows in choices.values() for name, row in rows.items()},
        doses={
            f"{title}: learning rate, times the setting's": dict(zip(rows, RATES, strict=False))
            for title, rows in choices.items()
        },
        choices={title: tuple(rows) for title, rows in choices.items()},
    )
