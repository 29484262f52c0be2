"""The experiment that asks what Sitawarin et al. 2021 claim of their curricula, at a moderate and at a large radius.

The small setting is a network of three blocks, `resnet8-w8`, that sees CIFAR-10 once, trained by PGD-5, the fewest
steps that a curriculum can still stop early in. What costs most is to judge it: AutoAttack takes 9,721 passes for an
image that withstands it, of 1,000 images, more than twice the training's own. Sixty runs (five methods, two
activations, two radii, three seeds) take some six and a half hours of a core with AVX512, twelve without. The radii are
those that the authors' CIFAR configuration names, 8/255 and its largest, 16/255; a step is a quarter of the radius, as
there.
"""

from sat_tf.hparams.rows import Experiment, Row

METHODS = {  # clean accuracy and under AutoAttack on Imagenette at 16/255, and at 24/255 (slide 19)
    "pgd-at": ("adversarial training", (49.10, 28.00), (42.55, 21.05)),
    "trades": ("TRADES", (78.05, 8.90), (68.50, 1.90)),
    "dynamic": ("Dynamic AT", (66.20, 30.30), (52.50, 24.50)),
    "h-sat": ("H-SAT", (69.10, 35.45), (47.50, 27.75)),
    "p-sat": ("P-SAT", (72.20, 31.25), (62.15, 20.00)),
}
JUDGED = {"eval_attacks": ("clean", "pgd-20", "autoattack"), "eval_images": 1000}
LONG = {"attack": "pgd-5", "validation_attack": "pgd-10", **JUDGED}
SMALL = {**LONG, "model": "resnet8-w8"}


def _rows(radius):
    rows = {}
    for act in ("relu", "swish"):
        for method, (label, *numbers) in METHODS.items():
            clean, robust = numbers[radius]
            rows[method if act == "relu" else f"{method}-{act}"] = Row(
                label=f"{label}, {act}",
                source=f"Imagenette at {(16, 24)[radius]}/255, slide 19",
                paper={"clean": clean, "autoattack": robust} if act == "relu" else {},
                changes={"act": act, "method": method},
                base="imagenette-p-sat",
                origin="Curriculum SAT paper",
                without="no number: the paper has no smooth activation",
                note="The paper's network is not known to be this one, nor is its H-SAT this project's form.",
            )
    return rows


EXPERIMENTS = {
    "curriculum": Experiment(
        title="Curriculum SAT: a curriculum against its rivals at a moderate radius (16/255; 8/255 on small images)",
        baseline="pgd-at",
        rows=_rows(0),
        family="moderate",
        settings={
            "paper": JUDGED,
            "small": {"epsilon": 8 / 255, "step_size": 2 / 255, **SMALL},
            "long": {"epsilon": 8 / 255, "step_size": 2 / 255, **LONG},
        },
    ),
    "curriculum-large": Experiment(
        title="Curriculum SAT: a curriculum against its rivals at a large radius (24/255; 16/255 on small images)",
        baseline="pgd-at",
        rows=_rows(1),
        family="large",
        settings={
            "paper": {"epsilon": 24 / 255, "step_size": 6 / 255, **JUDGED},
            "small": {"epsilon": 16 / 255, "step_size": 4 / 255, **SMALL},
            "long": {"epsilon": 16 / 255, "step_size": 4 / 255, **LONG},
        },
    ),
}
