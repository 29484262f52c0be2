"""The one table of attacks: what a name such as "pgd-20" means in training, in validation and in an evaluation.

An evaluation runs a row's *plan*: stages, each an attack that meets the images which are still robust. Training and
validation want one function of a whole batch, which not every attack has.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from sat_tf import losses
from sat_tf.attacks.apgd import APGD
from sat_tf.attacks.balls import BALLS, Linf
from sat_tf.attacks.fab import FAB
from sat_tf.attacks.pgd import PGD, marks
from sat_tf.attacks.square import Square, SquareL2
from sat_tf.attacks.states import Ascent, Noise, Once, Whole

LabelLoss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # (logits, labels) -> [batch]
TargetLoss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]  # (logits, labels, targets) -> [batch]

TARGETS = 9  # the most likely other classes that targeted attacks try


@dataclasses.dataclass(frozen=True)
class Attack:
    """A row of `ATTACKS`.

    Attributes:
      plan: `(Terms) -> [Stage]`, for an evaluation.
      training: `(epsilon, step_size, steps, random_start, clean_start) -> attack`, an `attack(loss_fn, images, seed)
        -> images` in L-infinity for training and validation; None where there is none.
    """

    plan: Callable
    training: Callable | None = None

    @property
    def about(self) -> str:
        """What `--list` says of it."""
        return (self.plan.__doc__ or "").partition("\n")[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Terms:
    """What an evaluation says beside an attack's name.

    Attributes:
      classes: of the model, 2 or more.
      norm: key of `BALLS`.
      steps: iterations or queries; None for the attack's own.
      restarts: of attacks that start at random.
      final: count the final iterate of PGD and its kin alone, the paper's definition, instead of the worst of all.
    """

    classes: int
    norm: str = "linf"
    steps: int | None = None
    restarts: int = 1
    final: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """An attack, what it climbs, and how often.

    Attributes:
      name: for the report.
      attack: `(ball, step_size) -> attack` as `states` describes them.
      loss: `(logits, labels, targets) -> [batch]`.
      runs: restarts, or targets: run r aims at the r-th most likely other class of the image as it is.
      final: the last iterate counts alone, and images that are misclassified as they are are attacked, too.
      paired: the attack takes seeds `[batch, 2]`, the seed and the image's id, as `PGD` does.
      passes: forward-equivalents of an iteration.
      marks: numbers of steps at which the attack's state says whether the model was wrong.
      program: the same word for stages that are compiled as one: their attacks differ in `steps`, `final` and `marks`
        alone, each of which may be a tensor. Empty: the stage is compiled by itself.
      facts: parameters for the report.
    """

    name: str
    attack: Callable
    loss: TargetLoss
    runs: int = 1
    final: bool = False
    paired: bool = False
    marks: tuple = ()
    program: str = ""
    passes: int = 2
    facts: dict = dataclasses.field(default_factory=dict)


def untargeted(loss: LabelLoss) -> TargetLoss:
    """Return a loss that does not look at targets."""
    return lambda logits, labels, targets: loss(logits, labels)


def clean(terms: Terms) -> list[Stage]:
    """Leave the images as they are: clean accuracy."""
    return []


def _ascent(terms, name, loss_fn, runs, **facts):
    seen = marks(terms.steps) if runs == 1 else ()
    return Stage(
        name=f"{name}-{terms.steps}",
        runs=runs,
        loss=loss_fn,
        paired=True,
        marks=seen,
        program=name,
        final=terms.final,
        attack=lambda ball, step_size: Ascent(
            ball=ball, step_size=step_size, steps=terms.steps, final=terms.final, marks=seen
        ),
        facts={"steps": terms.steps, "restarts": runs, "random_start": True, **facts},
    )


def pgd(terms: Terms) -> list[Stage]:
    """Climb the cross-entropy in k steps from random starts (Madry et al. 2018)."""
    return [_ascent(terms, "pgd", untargeted(losses.cross_entropy), terms.restarts)]


def fgsm(terms: Terms) -> list[Stage]:
    """Take one step to the edge of the ball from the image itself (Goodfellow et al. 2015)."""
    return [
        Stage(
            name="fgsm",
            loss=untargeted(losses.cross_entropy),
            final=terms.final,
            facts={"steps": 1, "restarts": 1, "random_start": False},
            attack=lambda ball, step_size: Ascent(
                ball=ball, step_size=ball.epsilon, steps=1, final=terms.final, random_start=False
            ),
        )
    ]


def margin(terms: Terms) -> list[Stage]:
    """Climb the margin, the loss of Carlini & Wagner 2017, in k steps from random starts."""
    return [_ascent(terms, "cw", untargeted(losses.margin), terms.restarts, loss="margin")]


def targeted(terms: Terms) -> list[Stage]:
    """Climb towards each of the 9 most likely other classes in k steps, by the cross-entropy."""
    runs = min(TARGETS, terms.classes - 1)
    return [_ascent(terms, "tpgd", losses.targeted_cross_entropy, runs, restarts=1, targets=runs)]


def apgd(terms: Terms) -> list[Stage]:
    """Run Auto-PGD on the cross-entropy in k steps (Croce & Hein 2020b)."""
    return [_apgd(terms, f"apgd-{terms.steps}", untargeted(losses.cross_entropy), terms.restarts)]


def apgd_ce(terms: Terms) -> list[Stage]:
    """Run Auto-PGD on the cross-entropy, 100 steps (Croce & Hein 2020b)."""
    return [_apgd(terms, "apgd-ce", untargeted(losses.cross_entropy), terms.restarts)]


def apgd_t(terms: Terms) -> list[Stage]:
    """Run Auto-PGD on the targeted difference of logits ratio, 9 targets, 100 steps (Croce & Hein 2020b).

    The targeted ratio needs four classes, the untargeted one three; with two there is one margin.
    """
    if terms.classes == 2:
        return [_apgd(terms, "apgd-t", untargeted(losses.margin), 1, loss="margin, for 2 classes")]
    if terms.classes == 3:
        return [_apgd(terms, "apgd-t", untargeted(losses.dlr), 1, loss="untargeted dlr, for 3 classes")]
    runs = min(TARGETS, terms.classes - 1)
    return [_apgd(terms, "apgd-t", losses.targeted_dlr, runs, loss="targeted dlr", restarts=1, targets=runs)]


def _apgd(terms, name, loss_fn, runs, **facts):
    steps = terms.steps or APGD.steps
    return Stage(
        name=name,
        attack=lambda ball, step_size: APGD(ball=ball, steps=steps),
        loss=loss_fn,
        runs=runs,
        facts={"steps": steps, "random_start": True, "loss": "cross-entropy", "restarts": runs, **facts},
    )


def once(terms: Terms, name: str, training: Callable) -> Stage:
    """Return the stage of an attack of a whole batch: its result counts, whatever came before it on the way.

    Args:
      terms: of the evaluation.
      name: for the report, without the steps.
      training: constructor of the attack, as `Attack.training`.
    """
    if terms.norm != "linf":
        raise ValueError(f"Expected the norm linf, in which {name} works. Received: norm={terms.norm}.")
    steps = terms.steps or 1

    def make(epsilon, step_size):
        return training(epsilon=epsilon, step_size=step_size, steps=steps, random_start=True, clean_start=0.0)

    return Stage(
        name=f"{name}-{terms.steps}" if terms.steps else name,
        attack=lambda ball, step_size: Once(attack=make(ball.epsilon, step_size)),
        loss=untargeted(losses.cross_entropy),
        runs=terms.restarts,
        paired=True,
        passes=1 + make(0.0, 0.0).forward_equivalents,
        facts={"steps": steps, "restarts": terms.restarts, "random_start": True},
    )


def fab_t(terms: Terms) -> list[Stage]:
    """Run FAB, the nearest image of another class, 9 targets, 100 steps (Croce & Hein 2020a)."""
    runs = min(TARGETS, terms.classes - 1)
    return [
        Stage(
            name="fab-t",
            attack=lambda ball, step_size: FAB(ball=ball),
            loss=losses.targeted_margin,
            runs=runs,
            passes=3,
            facts={"steps": FAB.steps, "targets": runs, "random_start": False},
        )
    ]


def square(terms: Terms) -> list[Stage]:
    """Run Square, random search without gradients, 5,000 queries (Andriushchenko et al. 2020).

    Its squares shrink as over 10,000 queries, as AutoAttack has it; over `steps` where another number is asked for.
    """
    kind = {"linf": Square, "l2": SquareL2}[terms.norm]
    queries, schedule = terms.steps or kind.steps, terms.steps or kind.schedule
    return [
        Stage(
            name="square",
            passes=1,
            loss=untargeted(losses.margin),
            attack=lambda ball, step_size: kind(ball=ball, steps=queries, schedule=schedule),
            facts={"steps": queries, "random_start": True, "loss": "margin"},
        )
    ]


def autoattack(terms: Terms) -> list[Stage]:
    """Run the standard ensemble: apgd-ce, apgd-t, fab-t, square, each on what is still robust (Croce & Hein 2020b)."""
    alone = Terms(classes=terms.classes, norm=terms.norm)
    return [stage for plan in (apgd_ce, apgd_t, fab_t, square) for stage in plan(alone)]


def noise(terms: Terms) -> list[Stage]:
    """Try 100 random points of the ball: no attack, but what every attack must be stronger than."""
    points = terms.steps or 100
    return [
        Stage(
            name="noise",
            passes=1,
            attack=lambda ball, step_size: Noise(ball=ball, steps=points),
            loss=untargeted(losses.margin),
            facts={"steps": points, "random_start": True},
        )
    ]


def _no_step(*, epsilon, step_size, steps, random_start, clean_start):
    return PGD(epsilon=0.0, step_size=0.0, steps=0, random_start=False)


def _one_step(*, epsilon, step_size, steps, random_start, clean_start):
    return PGD(epsilon=epsilon, step_size=epsilon, steps=1, random_start=False)


def _auto_pgd(*, epsilon, step_size, steps, random_start, clean_start):
    attack = APGD(ball=Linf(epsilon=epsilon), steps=steps, random_start=random_start)
    return Whole(attack=attack, clean_start=clean_start)


ATTACKS = {  # -k: the name carries the number of steps, pgd-20
    "clean": Attack(clean, training=_no_step),
    "fgsm": Attack(fgsm, training=_one_step),
    "pgd-k": Attack(pgd, training=PGD),
    "cw-k": Attack(margin),
    "tpgd-k": Attack(targeted),
    "apgd-k": Attack(apgd, training=_auto_pgd),
    "apgd-ce": Attack(apgd_ce),
    "apgd-t": Attack(apgd_t),
    "fab-t": Attack(fab_t),
    "square": Attack(square),
    "autoattack": Attack(autoattack),
    "noise": Attack(noise),
}


def row_of(name: str) -> tuple[Attack, int | None]:
    """Return the row that a name such as "pgd-20" means, and its number of steps, None where it has none.

    Raises:
      ValueError: there is no such row, or the name lacks its steps.
    """
    base, _, steps = name.rpartition("-")
    key, steps = (f"{base}-k", int(steps)) if steps.isdecimal() else (name, None)
    if key not in ATTACKS or (key.endswith("-k") and not steps):
        raise ValueError(f"Expected an attack of {', '.join(ATTACKS)}, a number for k. Received: attack={name}.")
    return ATTACKS[key], steps


def plan_of(name: str, terms: Terms) -> list[Stage]:
    """Return the stages of an evaluation under a name such as "pgd-20" on some `Terms`."""
    row, steps = row_of(name)
    return row.plan(dataclasses.replace(terms, steps=steps or terms.steps))


def for_training(
    name: str, *, epsilon: float, step_size: float | None = None, random_start: bool = True, clean_start: float = 0.0
) -> Callable:
    """Return the attack that a name such as "pgd-1" means in training: `(loss_fn, images, seed) -> images`.

    Args:
      name: of a row with `training`, with its steps.
      epsilon: radius of the L-infinity ball in [0, 1], 8/255.
      step_size: the same unit; None for `default_step_size`. FGSM's is epsilon, Auto-PGD finds its own.
      random_start: begin at a random point of the ball instead of the image.
      clean_start: probability with which a batch begins at its images after all.
    """
    row, steps = row_of(name)
    if row.training is None:
        fitting = ", ".join(key for key, other in ATTACKS.items() if other.training)
        raise ValueError(f"Expected an attack for training, of {fitting}. Received: attack={name}.")
    step_size = default_step_size(epsilon, steps, "linf") if step_size is None else step_size
    return row.training(
        epsilon=epsilon, step_size=step_size, steps=steps or 1, random_start=random_start, clean_start=clean_start
    )


def default_step_size(epsilon: float, steps: int | None, norm: str) -> float:
    """Return PGD's step size where none is given.

    L-infinity: 1/255, or epsilon / steps where that is larger, the release's rule: fewer steps than grey levels could
    not reach the edge of the ball. L2: 2.5 epsilon / steps (Madry et al.'s).
    """
    steps = steps or 1
    return min(2.5 / steps, 1.0) * epsilon if norm == "l2" else min(max(1 / 255, epsilon / steps), 1.0)


def forward_equivalents(name: str, terms: Terms) -> int:
    """Return how many forward passes an attack costs for an image that withstands it, with one to classify it."""
    ball = BALLS[terms.norm](epsilon=1.0)
    plan = plan_of(name, terms)
    return 1 + sum(stage.runs * stage.passes * stage.attack(ball, 1.0).evaluations for stage in plan)
