"""What an evaluation's name means: stages, each an attack that is run on the images that are still robust."""

import dataclasses
from collections.abc import Callable

from sat_tf import attacks, losses

TARGETS = 9  # the most likely other classes that targeted attacks try


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """An attack, what it climbs, and how often.

    Attributes:
      name: for the report.
      attack: `(ball, step_size) -> attack` as `attacks.states` describes them.
      loss: `(logits, labels, targets) -> [batch]`.
      runs: restarts, or targets: run r aims at the r-th most likely other class of the image as it is.
      paired: the attack takes seeds `[batch, 2]`, the seed and the image's id, as `attacks.PGD` does.
      passes: forward-equivalents of an iteration.
      marks: numbers of steps at which the attack's state says whether the model was wrong.
      facts: parameters for the report.
    """

    name: str
    attack: Callable
    loss: Callable
    runs: int = 1
    paired: bool = False
    marks: tuple = ()
    passes: int = 2
    facts: dict = dataclasses.field(default_factory=dict)


def untargeted(loss):
    """Return a loss that does not look at targets."""
    return lambda logits, labels, targets: loss(logits, labels)


def iterates(final):
    """Return the word for what counts: the final iterate, or the worst of all."""
    return "final" if final else "worst"


def _ascent(name, loss, steps, runs, final, facts=()):
    marks = attacks.marks(steps) if runs == 1 else ()
    return Stage(
        name=name,
        runs=runs,
        loss=loss,
        paired=True,
        marks=marks,
        attack=lambda ball, step_size: attacks.Ascent(
            ball=ball, step_size=step_size, steps=steps, final=final, marks=marks
        ),
        facts={"steps": steps, "restarts": runs, "random_start": True, "iterates": iterates(final), **dict(facts)},
    )


def pgd(*, steps, restarts, final, classes, norm):
    """Climb the cross-entropy in k steps from random starts (Madry et al. 2018)."""
    return [_ascent(f"pgd-{steps}", untargeted(losses.cross_entropy), steps, restarts, final)]


def fgsm(*, classes, steps=None, restarts=1, final=False, norm="linf"):
    """Take one step to the edge of the ball from the image itself (Goodfellow et al. 2015)."""
    return [
        Stage(
            name="fgsm",
            loss=untargeted(losses.cross_entropy),
            facts={"steps": 1, "restarts": 1, "random_start": False, "iterates": iterates(final)},
            attack=lambda ball, step_size: attacks.Ascent(
                ball=ball, step_size=ball.epsilon, steps=1, final=final, random_start=False
            ),
        )
    ]


def margin(*, steps, restarts, final, classes, norm):
    """Climb the margin, the loss of Carlini & Wagner 2017, in k steps from random starts."""
    return [_ascent(f"cw-{steps}", untargeted(losses.margin), steps, restarts, final, {"loss": "margin"})]


def targeted(*, steps, restarts, final, classes, norm):
    """Climb towards each of the 9 most likely other classes in k steps, by the cross-entropy."""
    runs = min(TARGETS, classes - 1)
    stage = _ascent(f"tpgd-{steps}", losses.targeted_cross_entropy, steps, runs, final)
    return [dataclasses.replace(stage, facts={**stage.facts, "restarts": 1, "targets": runs})]


def apgd_ce(*, classes, steps=None, restarts=1, final=False, norm="linf"):
    """Run Auto-PGD on the cross-entropy, 100 steps (Croce & Hein 2020b)."""
    facts = {"loss": "cross-entropy", "restarts": restarts}
    return [_apgd("apgd-ce", untargeted(losses.cross_entropy), restarts, facts)]


def apgd_t(*, classes, steps=None, restarts=1, final=False, norm="linf"):
    """Run Auto-PGD on the targeted difference of logits ratio, 9 targets, 100 steps (Croce & Hein 2020b).

    The targeted ratio needs four classes, the untargeted one three; with two there is one margin.
    """
    if classes < 4:
        loss, words = (
            (losses.dlr, "untargeted dlr, for 3 classes") if classes == 3 else (losses.margin, "margin, for 2 classes")
        )
        return [_apgd("apgd-t", untargeted(loss), 1, {"loss": words})]
    runs = min(TARGETS, classes - 1)
    return [_apgd("apgd-t", losses.targeted_dlr, runs, {"loss": "targeted dlr", "targets": runs})]


def _apgd(name, loss, runs, facts):
    return Stage(
        name=name,
        attack=lambda ball, step_size: attacks.APGD(ball=ball),
        loss=loss,
        runs=runs,
        facts={"steps": attacks.APGD.steps, "random_start": True, **facts},
    )


def fab_t(*, classes, steps=None, restarts=1, final=False, norm="linf"):
    """Run FAB, the nearest image of another class, 9 targets, 100 steps (Croce & Hein 2020a)."""
    runs = min(TARGETS, classes - 1)
    return [
        Stage(
            name="fab-t",
            attack=lambda ball, step_size: attacks.FAB(ball=ball),
            loss=losses.targeted_margin,
            runs=runs,
            passes=3,
            facts={"steps": attacks.FAB.steps, "targets": runs, "random_start": False},
        )
    ]


def square(*, classes, steps=None, restarts=1, final=False, norm="linf"):
    """Run Square, random search without gradients, 5,000 queries (Andriushchenko et al. 2020).

    Its squares shrink as over 10,000 queries, as AutoAttack has it; over `steps` where another number is asked for.
    """
    kind = {"linf": attacks.Square, "l2": attacks.SquareL2}[norm]
    queries, schedule = steps or kind.steps, steps or kind.schedule
    return [
        Stage(
            name="square",
            passes=1,
            loss=untargeted(losses.margin),
            attack=lambda ball, step_size: kind(ball=ball, steps=queries, schedule=schedule),
            facts={"steps": queries, "random_start": True, "loss": "margin"},
        )
    ]


def autoattack(*, classes, steps=None, restarts=1, final=False, norm="linf"):
    """Run the standard ensemble: apgd-ce, apgd-t, fab-t, square, each on what is still robust (Croce & Hein 2020b)."""
    return [stage for plan in (apgd_ce, apgd_t, fab_t, square) for stage in plan(classes=classes, norm=norm)]


def noise(*, classes, steps=None, restarts=1, final=False, norm="linf"):
    """Try 100 random points of the ball: no attack, but what every attack must be stronger than."""
    points = steps or 100
    return [
        Stage(
            name="noise",
            passes=1,
            attack=lambda ball, step_size: attacks.Noise(ball=ball, steps=points),
            loss=untargeted(losses.margin),
            facts={"steps": points, "random_start": True},
        )
    ]


PLANS = {
    "fgsm": fgsm,
    "pgd-k": pgd,
    "cw-k": margin,
    "tpgd-k": targeted,
    "apgd-ce": apgd_ce,
    "apgd-t": apgd_t,
    "fab-t": fab_t,
    "square": square,
    "autoattack": autoattack,
    "noise": noise,
}
