"""The experiment on dose and response: how round a kink is, and what that does to robustness."""

from sat_tf.hparams.rows import Experiment, Row

ALPHAS = {  # activation: {alpha: what the paper has under PGD-200}
    "parametric_softplus": {"1": None, "3": None, "10": 38.7, "30": None, "100": None},
    "smoothrelu": {"4": None, "40": None, "400": 40.3},
    "elu": {"1.0": 41.1, "1.2": 40.8, "1.4": 39.1, "1.6": 37.4, "1.8": 34.9, "2.0": 33.2},
}
TITLES = {
    "parametric_softplus": "Parametric Softplus: rounder to the left, ReLU at infinity",
    "smoothrelu": "SmoothReLU: alpha at the start of training, ReLU at infinity",
    "elu": "ELU: smooth for alpha 1 alone, its kink grows to the right",
}
SOURCES = {"elu": "Table 2; differences to 41.1", "parametric_softplus": "Section 4.1", "smoothrelu": "Section 4.2"}


def _row(act, alpha, robust):
    return Row(
        label=f"{act}:{alpha}",
        source=SOURCES[act] if robust else "ours",
        paper={"robust": robust} if robust else {},
        changes={"act": "smoothrelu" if (act, alpha) == ("smoothrelu", "400") else f"{act}:{alpha}"},
        without="no number: the paper has not varied it",
    )


EXPERIMENTS = {
    "dose": Experiment(
        title="Dose and response: how round a kink is, and robustness",
        baseline="relu",
        rows={
            "relu": Row(
                label="ReLU, no rounding",
                source="Table 1",
                paper={"clean": 68.8, "robust": 33.0, "train_loss": 2.71},
                changes={"act": "relu"},
            ),
            **{
                f"{act}-{alpha}": _row(act, alpha, robust)
                for act, numbers in ALPHAS.items()
                for alpha, robust in numbers.items()
            },
        },
        doses={TITLES[act]: {f"{act}-{a}": float(a) for a in numbers} for act, numbers in ALPHAS.items()},
    )
}
