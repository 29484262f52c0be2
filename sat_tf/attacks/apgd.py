"""Auto-PGD (Croce & Hein 2020b, Algorithm 1): a step size that each image halves for itself."""

import dataclasses
from typing import Any

import tensorflow as tf

from sat_tf.attacks import draws
from sat_tf.attacks.states import Objective, State, begun, climbed, each, looked, pick


@dataclasses.dataclass(frozen=True, kw_only=True)
class APGD:
    """Projected gradient ascent with momentum, whose step size halves where the loss stops to rise; as `states`.

    Attributes:
      ball: of `balls`.
      steps: iterations.
      rho: share of the steps since a checkpoint that must raise the loss.
      alpha: share of the new step, the rest is momentum.
      random_start: begin at a random point at the edge of the ball instead of the image.
    """

    ball: Any
    steps: int = 100
    rho: float = 0.75
    alpha: float = 0.75
    random_start: bool = True

    @property
    def evaluations(self) -> int:
        """Gradients an image: the start and every iteration."""
        return self.steps + 1

    @property
    def lengths(self) -> tuple[int, int, int]:
        """The first interval between checkpoints, what the next is shorter by, and the shortest."""
        return max(int(0.22 * self.steps), 1), max(int(0.03 * self.steps), 1), max(int(0.06 * self.steps), 1)

    def begin(self, images: tf.Tensor, seeds: tf.Tensor) -> State:
        """Return the state at the start."""
        start = images
        if self.random_start:
            noise = draws.noise(seeds, tf.shape(images)[1:], normal=self.ball.normal)
            start = self.ball.project(images + self.ball.fill(noise), images)
        zeros, none = tf.zeros_like(images), tf.zeros_like(images[:, 0, 0, 0])
        return {
            **begun(images),
            "current": start,
            "previous": start,
            "gradient": zeros,
            "value": none,
            "best": start,
            "best_gradient": zeros,
            "best_value": none,
            "checked_value": none,
            "step_size": none + 2.0 * self.ball.epsilon,
            "interval": tf.fill(tf.shape(none), self.lengths[0]),
            "since": tf.cast(none, tf.int32),
            "rises": tf.cast(none, tf.int32),
            "halved": tf.ones_like(none, tf.bool),
        }

    def advance(self, objective: Objective, images: tf.Tensor, state: State) -> State:
        """Return the state after one more iteration of every image; its first is a look at the start."""
        s = dict(state)
        first = s["step"] == 0
        moved = pick(first, s["current"], self._moved(images, s))
        values, fooled, margin, gradient = climbed(objective, moved)
        s["rises"] += tf.cast(~first & (values > s["value"]), tf.int32)
        s["since"] += tf.cast(~first, tf.int32)
        s["previous"], s["current"], s["gradient"], s["value"] = s["current"], moved, gradient, values
        better = first | (values > s["best_value"])
        for name, new in (("best", moved), ("best_gradient", gradient)):
            s[name] = pick(better, new, s[name])
        s["best_value"] = tf.where(better, values, s["best_value"])
        s["checked_value"] = tf.where(first, values, s["checked_value"])
        return self._checked(looked(s, moved, fooled, margin))

    def _moved(self, images, s):
        """Return where a step with momentum leads; the first has none."""
        alpha = each(tf.where(s["step"] > 1, self.alpha, 1.0))
        stepped = s["current"] + each(s["step_size"]) * self.ball.direction(s["gradient"])
        stepped = self.ball.project(stepped, images)
        momentum = (1 - alpha) * (s["current"] - s["previous"])
        return self.ball.project(s["current"] + alpha * (stepped - s["current"]) + momentum, images)

    def _checked(self, s):
        """Halve the step and go back to the best point where a checkpoint finds too little progress."""
        due = s["since"] == s["interval"]
        few = tf.cast(s["rises"], tf.float32) <= self.rho * tf.cast(s["interval"], tf.float32)
        stuck = ~s["halved"] & (s["checked_value"] >= s["best_value"])
        halve = due & (few | stuck)
        s["step_size"] = tf.where(halve, s["step_size"] / 2, s["step_size"])
        s["current"] = pick(halve, s["best"], s["current"])
        s["gradient"] = pick(halve, s["best_gradient"], s["gradient"])
        s["halved"] = tf.where(due, few | stuck, s["halved"])
        s["checked_value"] = tf.where(due, s["best_value"], s["checked_value"])
        _, less, shortest = self.lengths
        s["interval"] = tf.where(due, tf.maximum(s["interval"] - less, shortest), s["interval"])
        for name in ("since", "rises"):
            s[name] = tf.where(due, 0, s[name])
        return s
