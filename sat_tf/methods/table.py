"""The one table of methods, and how each is made from an attack, a loss and settings of its own."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from sat_tf import losses, passes, schedules
from sat_tf.methods.adversarial import AdversarialTraining, AutoStep, Fast, MultiStep
from sat_tf.methods.curriculum import Curriculum
from sat_tf.methods.customized import Customized
from sat_tf.methods.difficulty import Convergence, HeadCurvature, ProbabilityGap
from sat_tf.methods.free import Free
from sat_tf.methods.mart import Mart
from sat_tf.methods.pace import Length, must_reach_one, pace
from sat_tf.methods.standard import LossFn, Standard
from sat_tf.methods.trades import Trades
from sat_tf.methods.warmup import GrowingRadius
from sat_tf.methods.weights import WeightPerturbed
from sat_tf.names import unknown

FAST = 1.25  # radii, the step of FGSM-RS
GROWTHS = {"linear": lambda share: share, "cosine": lambda share: 0.5 * (1.0 - tf.cos(math.pi * share))}


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of `METHODS` that wants another attack than a recipe's own.

    Attributes:
      make: `(attack, loss_fn, backward, **settings) -> method`.
      attack: with which the method is trained where nobody names one, "pgd-10".
      step: its step size in radii; None for the attack's own.
      starts: whether its attack has a random start whatever is asked for; None: as is asked for.
    """

    make: Callable
    attack: str
    step: float | None = None
    starts: bool | None = None

    @property
    def about(self) -> str:
        """What `--list` says of it."""
        return (self.make.__doc__ or "").partition("\n")[0]

    def __call__(self, *args: Any, **settings: Any) -> Standard:
        """Return the method of an attack, a loss and settings."""
        return self.make(*args, **settings)


def standard(attack: Any, loss_fn: LossFn = losses.cross_entropy, backward: passes.Backward = passes.OWN) -> Standard:
    """Train on clean images."""
    return Standard(loss_fn=loss_fn, backward=backward)


def sat(
    attack: Any, loss_fn: LossFn = losses.cross_entropy, backward: passes.Backward = passes.OWN
) -> AdversarialTraining:
    """Train on adversarial images that an attack makes before every update (the SAT paper with a smooth activation)."""
    return AdversarialTraining(attack=attack, loss_fn=loss_fn, backward=backward)


def multi_step(
    attack: Any, loss_fn: LossFn = losses.cross_entropy, backward: passes.Backward = passes.OWN
) -> MultiStep:
    """Train on adversarial images after several steps of the attack (Madry et al. 2018)."""
    return MultiStep(attack=attack, loss_fn=loss_fn, backward=backward)


def auto_step(attack: Any, loss_fn: LossFn = losses.cross_entropy, backward: passes.Backward = passes.OWN) -> AutoStep:
    """Train on adversarial images after some steps of Auto-PGD (Croce & Hein 2020)."""
    return AutoStep(attack=attack, loss_fn=loss_fn, backward=backward)


def fast(attack: Any, loss_fn: LossFn = losses.cross_entropy, backward: passes.Backward = passes.OWN) -> Fast:
    """Train on images after one step of 1.25 epsilon from a random start (FGSM-RS, Wong et al. 2020)."""
    own = dataclasses.replace(attack, steps=1, step_size=FAST * attack.epsilon, random_start=True, clean_start=0.0)
    return Fast(attack=own, loss_fn=loss_fn, backward=backward)


def free(
    attack: Any, loss_fn: LossFn = losses.cross_entropy, backward: passes.Backward = passes.OWN, *, replays: int = 8
) -> Free:
    """Update several times on each batch, by the pass that also moves the images (free-m, Shafahi et al. 2019)."""
    return Free(attack=attack, loss_fn=loss_fn, backward=backward, replays=replays)


def trades(
    attack: Any, loss_fn: LossFn = losses.cross_entropy, backward: passes.Backward = passes.OWN, *, beta: float = 6.0
) -> Trades:
    """Train on clean images and on how far adversarial ones move the answer (TRADES, Zhang et al. 2019)."""
    return Trades(attack=attack, loss_fn=loss_fn, backward=backward, beta=beta)


def mart(
    attack: Any, loss_fn: LossFn = losses.cross_entropy, backward: passes.Backward = passes.OWN, *, beta: float = 5.0
) -> Mart:
    """Train on adversarial images, those the most that are hard when clean (MART, Wang et al. 2020)."""
    return Mart(attack=attack, loss_fn=loss_fn, backward=backward, beta=beta)


def p_sat(
    attack: Any,
    loss_fn: LossFn = losses.cross_entropy,
    backward: passes.Backward = passes.OWN,
    *,
    length: Length | None = None,
    lambda_schedule: str = "linear",
    lambda_start: float = 0.0,
    lambda_end: float = 1.0,
    lambda_epochs: Sequence[float] = (),
    lambda_every: float | None = None,
    lambda_partial: bool = False,
) -> Curriculum:
    """Stop the attack on an image where it is confidently wrong, later and later (P-SAT, Sitawarin et al. 2021)."""
    schedule = pace(
        length,
        lambda_schedule=lambda_schedule,
        lambda_start=lambda_start,
        lambda_end=lambda_end,
        lambda_epochs=lambda_epochs,
        lambda_every=lambda_every,
        lambda_partial=lambda_partial,
    )
    words = "by curriculum-based loss smoothing (P-SAT, Sitawarin et al. 2021)"
    return Curriculum(
        attack=attack, loss_fn=loss_fn, backward=backward, metric=ProbabilityGap(), schedule=schedule, words=words
    )


def h_sat(
    attack: Any,
    loss_fn: LossFn = losses.cross_entropy,
    backward: passes.Backward = passes.OWN,
    *,
    length: Length | None = None,
    lambda_schedule: str = "linear",
    lambda_start: float = 0.0,
    lambda_end: float = 1.0,
    lambda_epochs: Sequence[float] = (),
    lambda_every: float | None = None,
    lambda_partial: bool = False,
) -> Curriculum:
    """Stop the attack on an image where the loss curves too much in the last layer's weights (H-SAT, form of ours)."""
    schedule = pace(
        length,
        lambda_schedule=lambda_schedule,
        lambda_start=lambda_start,
        lambda_end=lambda_end,
        lambda_epochs=lambda_epochs,
        lambda_every=lambda_every,
        lambda_partial=lambda_partial,
        window=(0.0, 0.7),
    )
    words = "by curriculum-based loss smoothing (H-SAT, Sitawarin et al. 2021, by the last layer's curvature)"
    return Curriculum(
        attack=attack, loss_fn=loss_fn, backward=backward, metric=HeadCurvature(), schedule=schedule, words=words
    )


def dynamic(
    attack: Any,
    loss_fn: LossFn = losses.cross_entropy,
    backward: passes.Backward = passes.OWN,
    *,
    length: Length | None = None,
    fosc_max: float = 0.5,
    fosc_epochs: float | None = None,
) -> Curriculum:
    """Stop the attack on an image once it has converged, more strictly as training goes on (Wang et al. 2019)."""
    if not fosc_max > 0:
        raise ValueError(f"Expected a fosc_max above 0, such as 0.5. Received: fosc_max={fosc_max}.")
    schedule = schedules.constant(peak=1.0)
    if length is not None:
        schedule = length.rise(0.8 * length.epochs if fosc_epochs is None else fosc_epochs)
        must_reach_one(schedule, length, f"fosc_epochs={fosc_epochs}", "Choose fewer fosc_epochs.")
    words = "by dynamic adversarial training (Wang et al. 2019)"
    return Curriculum(
        attack=attack,
        loss_fn=loss_fn,
        backward=backward,
        metric=Convergence(highest=fosc_max),
        schedule=schedule,
        words=words,
    )


def customized(
    attack: Any,
    loss_fn: LossFn = losses.cross_entropy,
    backward: passes.Backward = passes.OWN,
    *,
    radius_increment: float = 0.005,
    label_share: float = 10.0,
) -> Customized:
    """Attack each image in a radius of its own, and smooth its label by it (CAT, Cheng et al. 2020)."""
    return Customized(
        attack=attack, loss_fn=loss_fn, backward=backward, increment=radius_increment, label_share=label_share
    )


def growing(
    attack: Any,
    loss_fn: LossFn = losses.cross_entropy,
    backward: passes.Backward = passes.OWN,
    *,
    length: Length | None = None,
    growth: str = "linear",
    growth_epochs: float | None = None,
) -> GrowingRadius:
    """Attack within a radius that grows to epsilon (epsilon warm-up, Liu et al. 2020)."""
    if growth not in GROWTHS:
        raise unknown("a known growth", "growth", growth, GROWTHS)
    schedule = schedules.constant(peak=1.0)
    if length is not None:
        rise = length.rise(0.5 * length.epochs if growth_epochs is None else growth_epochs)
        must_reach_one(rise, length, f"growth_epochs={growth_epochs}", "Choose fewer growth_epochs.")
        schedule = lambda step: GROWTHS[growth](rise(step))  # noqa: E731
    return GrowingRadius(attack=attack, loss_fn=loss_fn, backward=backward, schedule=schedule)


def sat_awp(
    attack: Any,
    loss_fn: LossFn = losses.cross_entropy,
    backward: passes.Backward = passes.OWN,
    *,
    length: Length | None = None,
    awp_gamma: float = 0.01,
    awp_begin: float = 0.0,
) -> WeightPerturbed:
    """Train adversarially at the worst weights nearby (AWP, Wu et al. 2020)."""
    return at_worst_weights(sat(attack, loss_fn, backward), length, awp_gamma, awp_begin)


def trades_awp(
    attack: Any,
    loss_fn: LossFn = losses.cross_entropy,
    backward: passes.Backward = passes.OWN,
    *,
    length: Length | None = None,
    beta: float = 6.0,
    awp_gamma: float = 0.005,
    awp_begin: float | None = None,
) -> WeightPerturbed:
    """Train by TRADES at the worst weights nearby (AWP, Wu et al. 2020)."""
    if awp_begin is None:  # the authors': 10 of 200 epochs
        awp_begin = min(10.0, length.epochs / 20) if length else 0.0
    return at_worst_weights(trades(attack, loss_fn, backward, beta=beta), length, awp_gamma, awp_begin)


METHODS = {
    "standard": standard,
    "sat": sat,
    "pgd-at": Method(multi_step, attack="pgd-10", step=0.25),
    "apgd-at": Method(auto_step, attack="apgd-2"),
    "p-sat": Method(p_sat, attack="pgd-10", step=0.25),
    "h-sat": Method(h_sat, attack="pgd-10", step=0.25),
    "dynamic": Method(dynamic, attack="pgd-10", step=0.25),
    "trades": Method(trades, attack="pgd-10", step=0.25),
    "mart": Method(mart, attack="pgd-10", step=0.25),
    "cat": Method(customized, attack="pgd-10", step=0.25),
    "fast": Method(fast, attack="pgd-1", step=FAST, starts=True),
    "free": Method(free, attack="pgd-1", step=1.0),
    "epsilon-warmup": Method(growing, attack="pgd-10", step=0.25),
    "sat-awp": sat_awp,
    "trades-awp": Method(trades_awp, attack="pgd-10", step=0.25),
}


def at_worst_weights(method: Standard, length: Length | None, gamma: float, begin: float) -> WeightPerturbed:
    """Return a method with adversarial weight perturbation.

    Args:
      method: any.
      length: of the training; None: the perturbation begins at once.
      gamma: its relative size.
      begin: epochs without it.

    Raises:
      ValueError: it would never begin.
    """
    if length and begin >= length.epochs:
        raise ValueError(
            f"Expected a weight perturbation that begins within the {length.epochs:g} epochs. "
            f"Received: awp_begin={begin:g}. Choose an earlier epoch."
        )
    return WeightPerturbed(method=method, gamma=gamma, begin=round(begin * length.epoch_steps) if length else 0)
