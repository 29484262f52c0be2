"""The one table of methods, and how each is made from an attack, a loss and settings of its own."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from sat_tf import losses, passes, schedules
from sat_tf.methods.adversarial import AdversarialTraining, Fast, MultiStep
from sat_tf.methods.curriculum import Curriculum
from sat_tf.methods.customized import Customized
from sat_tf.methods.difficulty import Convergence, HeadCurvature, ProbabilityGap
from sat_tf.methods.free import Free
from sat_tf.methods.mart import Mart
from sat_tf.methods.standard import LossFn, Standard
from sat_tf.methods.trades import Trades
from sat_tf.methods.warmup import GrowingRadius
from sat_tf.methods.weights import WeightPerturbed

Schedule = Callable[[int | tf.Tensor], tf.Tensor]
FAST = 1.25  # radii, the step of FGSM-RS


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of `METHODS` that wants another attack than a recipe's own.

    Attributes:
      make: `(attack, loss_fn, backward, **settings) -> method`.
      attack: with which the method is trained where nobody names one, "pgd-10".
      step: its step size in radii; None for the attack's own.
    """

    make: Callable
    attack: str
    step: float | None = None

    @property
    def about(self) -> str:
        """What `--list` says of it."""
        return (self.make.__doc__ or "").partition("\n")[0]

    def __call__(self, *args: Any, **settings: Any) -> Standard:
        """Return the method of an attack, a loss and settings."""
        return self.make(*args, **settings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Length:
    """How long a training is: epochs, which may be a fraction, and steps of one."""

    epochs: float
    epoch_steps: int

    @property
    def every(self) -> float:
        """Epochs between two values of a schedule: one, or a hundredth of a training that is shorter than 100."""
        return min(1.0, self.epochs / 100)

    @property
    def steps(self) -> int:
        """Steps in all."""
        return round(self.epochs * self.epoch_steps)

    def rise(self, epochs: float) -> Schedule:
        """Return `step -> share`, which is 0 in the first epoch and 1 after so many."""
        begin, every = self.every, self.every
        return schedules.ramp(
            first=0.0, last=1.0, begin=begin, until=begin + epochs, epoch_steps=self.epoch_steps, every=every
        )


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
    schedule = schedules.constant(peak=1.0)
    if length is not None:
        schedule = length.rise(0.8 * length.epochs if fosc_epochs is None else fosc_epochs)
        _must_reach_one(schedule, length, f"fosc_epochs={fosc_epochs}", "Choose fewer fosc_epochs.")
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
    schedule = schedules.constant(peak=1.0)
    if length is not None:
        rise = length.rise(0.5 * length.epochs if growth_epochs is None else growth_epochs)
        _must_reach_one(rise, length, f"growth_epochs={growth_epochs}", "Choose fewer growth_epochs.")
        schedule = {"linear": rise, "cosine": lambda step: 0.5 * (1.0 - tf.cos(math.pi * rise(step)))}[growth]
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
    "apgd-at": Method(multi_step, attack="apgd-2"),
    "p-sat": Method(p_sat, attack="pgd-10", step=0.25),
    "h-sat": Method(h_sat, attack="pgd-10", step=0.25),
    "dynamic": Method(dynamic, attack="pgd-10", step=0.25),
    "trades": Method(trades, attack="pgd-10", step=0.25),
    "mart": Method(mart, attack="pgd-10", step=0.25),
    "cat": Method(customized, attack="pgd-10", step=0.25),
    "fast": Method(fast, attack="pgd-1", step=FAST),
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


def pace(
    length: Length | None,
    *,
    lambda_schedule: str = "linear",
    lambda_start: float = 0.0,
    lambda_end: float = 1.0,
    lambda_epochs: Sequence[float] = (),
    lambda_every: float | None = None,
    lambda_partial: bool = False,
    window: Sequence[float] = (0.3, 0.7),
) -> Schedule:
    """Return the schedule `step -> lambda` of a curriculum, in one of the forms of Sitawarin et al. 2021's code.

    Args:
      length: of the training; None: lambda is `lambda_end` throughout.
      lambda_schedule: linear between two epochs, or steps at some epochs.
      lambda_start: lambda before.
      lambda_end: lambda after.
      lambda_epochs: linear: first and last epoch of the rise, by default the shares `window` of the training; steps: at
        which it rises, by default 30, 45 and 60 seventieths of the training.
      lambda_every: linear: epochs between two rises; None for `Length.every`.
      lambda_partial: whether lambda may end below 1.
      window: see `lambda_epochs`.

    Raises:
      ValueError: lambda falls, its epochs are no rise, or it never reaches 1 and may not.
    """
    if lambda_end < lambda_start:
        raise ValueError(f"Expected a lambda that rises. Received: {lambda_start=:g}, {lambda_end=:g}.")
    if length is None:
        return schedules.constant(peak=lambda_end)
    ends = {"first": lambda_start, "last": lambda_end, "epoch_steps": length.epoch_steps}
    given = ",".join(f"{epoch:g}" for epoch in lambda_epochs)
    if lambda_schedule == "steps":
        epochs = lambda_epochs or [length.epochs * share / 70 for share in (30, 45, 60)]
        schedule = schedules.stairs(epochs=epochs, **ends)
    else:
        epochs = lambda_epochs or [length.epochs * share for share in window]
        if len(epochs) != 2 or not epochs[0] < epochs[1]:
            raise ValueError(
                f"Expected first and last epoch of the linear rise of lambda, such as 30,70. Received: "
                f"lambda_epochs={given}. For more than two rises take --set lambda_schedule=steps."
            )
        every = length.every if lambda_every is None else lambda_every
        schedule = schedules.ramp(begin=epochs[0], until=epochs[1], every=every, **ends)
    if not lambda_partial:
        received = f"lambda_end={lambda_end:g}, lambda_epochs={given or 'none'}"
        _must_reach_one(schedule, length, received, "To stop below 1 on purpose add --set lambda_partial=true.")
    return schedule


def _must_reach_one(schedule, length, received, remedy):
    """Refuse a schedule that is below 1 in the last step: training would never come to the whole attack."""
    with tf.init_scope():
        last = float(schedule(length.steps - 1))
    if last < 1.0:
        raise ValueError(
            f"Expected a schedule that reaches 1 within the {length.epochs:g} epochs, where the attack is whole. "
            f"Received: {received}, which ends at {last:.3g}. {remedy}"
        )
