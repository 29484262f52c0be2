"""How long a training is, and what rises in the course of it."""

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

from sat_tf import schedules
from sat_tf.names import unknown

Schedule = Callable[[int | tf.Tensor], tf.Tensor]
PACES = ("linear", "steps")  # how lambda rises


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
    if lambda_schedule not in PACES:
        raise unknown("a known schedule of lambda", "lambda_schedule", lambda_schedule, PACES)
    if not lambda_start <= lambda_end:
        raise ValueError(f"Expected a lambda that rises. Received: {lambda_start=:g}, {lambda_end=:g}.")
    if lambda_schedule == "steps" and lambda_every is not None:
        raise ValueError(
            f"Expected lambda_every with lambda_schedule=linear, which rises step by step; steps has its epochs. "
            f"Received: lambda_every={lambda_every:g}. Leave it out."
        )
    if lambda_every is not None and not lambda_every > 0:
        raise ValueError(f"Expected a lambda_every above 0 epochs. Received: lambda_every={lambda_every:g}.")
    if not isinstance(lambda_epochs, Sequence) or isinstance(lambda_epochs, str):
        raise ValueError(f"Expected epochs such as (30, 70). Received: lambda_epochs={lambda_epochs!r}.")
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
    received = f"lambda_end={lambda_end:g}, lambda_epochs={given or 'none'}"
    if lambda_partial:
        _must_begin(schedule, length, lambda_start, lambda_end, received)
    else:
        must_reach_one(schedule, length, received, "To stop below 1 on purpose add --set lambda_partial=true.")
    return schedule


def _must_begin(schedule, length, first, end, received):
    """Refuse a schedule that is in the last step what it was in the first and should not be."""
    if first < end and _last_of(schedule, length) == first:
        raise ValueError(
            f"Expected a schedule that rises within the {length.epochs:g} epochs. Received: {received}, which stays at "
            f"{first:g}. Choose earlier lambda_epochs."
        )


def _last_of(schedule, length):
    with tf.init_scope():
        return float(schedule(length.steps - 1))


def must_reach_one(schedule: Schedule, length: Length, received: str, remedy: str) -> None:
    """Refuse a schedule that is below 1 in the last step: training would never come to the whole attack.

    Args:
      schedule: `step -> value`.
      length: of the training.
      received: what the user asked for, for the error.
      remedy: what to do, for the error.
    """
    last = _last_of(schedule, length)
    if last < 1.0:
        raise ValueError(
            f"Expected a schedule that reaches 1 within the {length.epochs:g} epochs, where the attack is whole. "
            f"Received: {received}, which ends at {last:.6g}. {remedy}"
        )
