"""The experiment on dose and response: how round a kink is, and what that does to robustness."""

from sat_tf.hparams.rows import Experiment, Row

ALPHAS = {  # activation: {alpha: what the paper has under PGD-200}; those of ELU are Table 2's
    "parametric_softplus": {"1": None, "3": None, "10": 38.7, "30": None, "100": None},
    "smoothrelu": {"4": None, "40": None, "400": 40.3},
}
TITLES = {
    "parametric_softplus": "Parametric Softplus: alpha (rounder to the left, ReLU at infinity)",
    "smoothrelu": "SmoothReLU: alpha at the start of training (ReLU at infinity)",
    "elu": "ELU: alpha (smooth for 1 alone, its kink grows to the right)",
}
SOURCES = {"parametric_softplus": "Section 4.1", "smoothrelu": "Section 4.2"}


def _row(act, alpha, robust):
    return Row(
        label=f"{act}:{alpha}",
        source=SOURCES[act] if robust else "ours",
        paper={"robust": robust} if robust else {},
        changes={"act": "smoothrelu" if (act, alpha) == ("smoothrelu", "400") else f"{act}:{alpha}"},
        without="no number: the paper has not varied it",
    )


def experiment(published: dict[str, Experiment]) -> Experiment:
    """Return the experiment, with ELU's rows from Table 2.

    Args:
      published: the paper's experiments by name.
    """
    rows = {
        act: {f"{act}-{alpha}": _row(act, alpha, robust) for alpha, robust in numbers.items()}
        for act, numbers in ALPHAS.items()
    }
    rows["elu"] = {name: row for name, row in published["table2"].rows.items() if name.startswith("elu-")}
    relu = Row(
        label="ReLU, no rounding",
        source="Table 1",
        paper=published["table1"].rows["relu"].paper,
        changes={"act": "relu"},
    )
    return Experiment(
        title="Dose and response: how round a kink is, and robustness",
        baseline="relu",
        rows={"relu": relu} | {name: row for each in rows.values() for name, row in each.items()},
        doses={TITLES[act]: {name: float(name.partition("-")[2]) for name in each} for act, each in rows.items()},
    )
