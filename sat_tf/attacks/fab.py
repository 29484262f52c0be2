"""FAB (Croce & Hein 2020a): the nearest point of another class, by projections on linearised decision boundaries."""

import dataclasses
from typing import Any

import tensorflow as tf

from sat_tf.attacks.states import Objective, State, begun, climbed, each, pick


@dataclasses.dataclass(frozen=True, kw_only=True)
class FAB:
    """Minimal perturbations towards one class an image: `objective`'s value is that class's logit minus the label's.

    Attributes:
      ball: of `balls`; what is found counts where it lies inside.
      steps: iterations.
      overshoot, pull, back: eta, alpha_max and beta of the paper.
    """

    ball: Any
    steps: int = 100
    overshoot: float = 1.05
    pull: float = 0.1
    back: float = 0.9

    @property
    def evaluations(self) -> int:
        """Gradients an image, each with a forward pass behind it."""
        return self.steps

    def begin(self, images: tf.Tensor, seeds: tf.Tensor) -> State:
        """Return the state at the image itself."""
        return {**begun(images), "current": images, "length": tf.zeros_like(images[:, 0, 0, 0]) + 1e10}

    def advance(self, objective: Objective, images: tf.Tensor, state: State) -> State:
        """Return the state after one more iteration of every image."""
        s = dict(state)
        values, _, _, gradient = climbed(objective, s["current"])
        current, origin, normal = (tf.reshape(x, [tf.shape(x)[0], -1]) for x in (s["current"], images, gradient))
        # boundary: normal . x = offset, where the linearised difference of logits is zero
        offset = tf.reduce_sum(normal * current, 1) - values
        onto = PROJECTIONS[self.ball.norm]
        steps = onto(tf.concat([current, origin], 0), tf.tile(normal, [2, 1]), tf.tile(offset, [2]))
        here, there = (tf.reshape(part, tf.shape(images)) for part in tf.split(steps, 2))
        lengths = [tf.maximum(self.ball.length(part), 1e-8) for part in (here, there)]
        alpha = each(tf.minimum(lengths[0] / (lengths[0] + lengths[1]), self.pull))
        moved = (s["current"] + self.overshoot * here) * (1 - alpha) + (images + self.overshoot * there) * alpha
        moved = tf.clip_by_value(moved, 0.0, 1.0)
        _, fooled, margin = objective(moved)
        length = self.ball.length(moved - images)
        nearer = fooled & (length < s["length"])
        inside = self.ball.contains(moved, images)
        s["adversarial"] = pick(nearer & inside, moved, s["adversarial"])
        s["length"] = tf.where(nearer, length, s["length"])
        s["current"] = pick(fooled, images + self.back * (moved - images), moved)
        s["fooled"] |= nearer & inside
        s["margin"] = tf.where(inside, tf.minimum(margin, s["margin"]), s["margin"])
        s["step"] += 1
        return s


def onto_linf(points: tf.Tensor, normals: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
    """Return the smallest L-infinity steps that bring points in [0, 1] to hyperplanes inside [0, 1]: `[n, d]`.

    A step of size t moves each coordinate by t towards the plane, or to the box's wall where that is nearer.
    """
    missing, towards = _way(points, normals, offsets)
    room = tf.where(towards > 0, 1 - points, points) * tf.abs(towards)
    size = filled(room, tf.abs(normals), tf.abs(missing))
    return towards * tf.minimum(room, size[:, None])


def onto_l2(points: tf.Tensor, normals: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
    """Return the smallest L2 steps that bring points in [0, 1] to hyperplanes inside [0, 1]: `[n, d]`.

    A coordinate moves by t times its weight, or to its wall.
    """
    missing, towards = _way(points, normals, offsets)
    weights = tf.abs(normals)
    room = tf.where(towards > 0, 1 - points, points)
    walls = tf.where(weights > 1e-12, room / tf.maximum(weights, 1e-12), 0.0)
    size = filled(walls, tf.square(weights), tf.abs(missing))
    return towards * tf.minimum(room, size[:, None] * weights)


def _way(points, normals, offsets):
    """Return what points miss of their hyperplanes, `[n]`, and the sign of each coordinate's way there, `[n, d]`."""
    missing = offsets - tf.reduce_sum(normals * points, 1)
    return missing, tf.sign(missing)[:, None] * tf.sign(normals)


def filled(limits: tf.Tensor, weights: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Return the least t with sum(weights * min(t, limits)) = target: `[n, d]`, `[n, d]`, `[n]` -> `[n]`.

    The sum is piecewise linear and concave in t, so that Newton's steps from 0 never pass the target and end on its
    piece, after a handful. Where no t will do, the largest limit is returned.
    """

    def body(t, step, count):
        t += step
        left = target - tf.reduce_sum(weights * tf.minimum(t[:, None], limits), 1)
        slope = tf.reduce_sum(tf.where(limits > t[:, None], weights, 0.0), 1)
        step = tf.where(slope > 0, tf.maximum(left, 0.0) / tf.maximum(slope, 1e-30), 0.0)
        return t, tf.where(step > 1e-6 * t, step, 0.0), count + 1  # who is done stays, however long others take

    zeros = tf.zeros_like(target)
    t, _, _ = tf.while_loop(
        lambda t, step, count: (count < 100) & tf.reduce_any(step > 0.0),
        body,
        body(zeros, zeros, 0),
        parallel_iterations=1,
    )
    reached = tf.reduce_sum(weights * limits, 1) >= target
    return tf.where(reached, t, tf.reduce_max(limits, 1))


PROJECTIONS = {"linf": onto_linf, "l2": onto_l2}
