"""The balls of L-infinity and L2: where an attack may go, which way is up, where to start."""

import dataclasses

import tensorflow as tf

from sat_tf.attacks import draws
from sat_tf.attacks.pgd import inward, linf_ball

TINY = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linf:
    """`|x' - x|_inf <= epsilon`, cut to [0, 1]; all images `[batch, h, w, c]`."""

    epsilon: float
    norm = "linf"
    normal = False  # kind of noise that fills it evenly

    def project(self, moved: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        """Return the nearest images inside, to the last bit of float32."""
        return tf.clip_by_value(moved, *linf_ball(images, self.epsilon))

    def direction(self, gradient: tf.Tensor) -> tf.Tensor:
        """Return the steepest ascent of length one in this norm."""
        return tf.sign(gradient)

    def fill(self, noise: tf.Tensor) -> tf.Tensor:
        """Scale noise so that it ends at the edge of the ball around 0."""
        return self.epsilon * noise / (tf.reduce_max(tf.abs(noise), [1, 2, 3], keepdims=True) + TINY)

    def spread(self, noise: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Scale uniform noise so that it is uniform in the ball around 0."""
        return self.epsilon * noise

    def contains(self, moved: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        """Say which images lie inside, to the last bit of float32: `[batch]`."""
        low, high = linf_ball(images, self.epsilon)
        return tf.reduce_all((low <= moved) & (moved <= high), [1, 2, 3])

    def length(self, difference: tf.Tensor) -> tf.Tensor:
        """Return how long differences of images are in this norm: `[batch]`."""
        return tf.reduce_max(tf.abs(difference), [1, 2, 3])


@dataclasses.dataclass(frozen=True, kw_only=True)
class L2:
    """`|x' - x|_2 <= epsilon` and [0, 1]; all images `[batch, h, w, c]`."""

    epsilon: float
    norm = "l2"
    normal = True

    @property
    def _radius(self):
        """A part in a million short, so that float32's rounding of the sum of squares does not leave the ball."""
        return self.epsilon * (1 - 1e-6)

    def project(self, moved: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        """Return images inside: cut to [0, 1], then drawn back to the ball, which stays in [0, 1].

        Coordinates are rounded towards the image, which matters where the radius is small.
        """
        difference = tf.clip_by_value(moved, 0.0, 1.0) - images
        norm = self.length(difference)[:, None, None, None]
        shrink = tf.minimum(1.0, self._radius / tf.maximum(norm, TINY))
        return tf.clip_by_value(inward(images, difference * shrink, images), 0.0, 1.0)

    def direction(self, gradient: tf.Tensor) -> tf.Tensor:
        """Return the steepest ascent of length one in this norm."""
        gradient /= tf.reduce_max(tf.abs(gradient), [1, 2, 3], keepdims=True) + 1e-37  # or their squares vanish
        return gradient / (self.length(gradient)[:, None, None, None] + TINY)

    def fill(self, noise: tf.Tensor) -> tf.Tensor:
        """Scale noise so that it ends at the edge of the ball around 0."""
        return self.epsilon * self.direction(noise)

    def spread(self, noise: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Scale normal noise to a random length up to the radius.

        Uniform in length, not in volume: in thousands of dimensions a uniform point is always at the edge.
        """
        return draws.uniform(draws.hashed(seeds, -2))[:, None, None, None] * self.fill(noise)

    def contains(self, moved: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        """Say which images lie inside: `[batch]`."""
        inside = self.length(moved - images) <= self._radius
        return inside & tf.reduce_all((moved >= 0) & (moved <= 1), [1, 2, 3])

    def length(self, difference: tf.Tensor) -> tf.Tensor:
        """Return how long differences of images are in this norm: `[batch]`."""
        return tf.sqrt(tf.reduce_sum(tf.square(difference), [1, 2, 3]))


BALLS = {"linf": Linf, "l2": L2}
