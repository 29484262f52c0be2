"""Attacks: they climb a per-image loss inside a ball around the image, and know neither model nor label."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from sat_tf.replicas import uniform

Loss = Callable[[tf.Tensor], tf.Tensor]  # images `[batch, h, w, 3]` -> `[batch]`


@dataclasses.dataclass(frozen=True, kw_only=True)
class PGD:
    """Projected gradient ascent in the L-infinity ball (Madry et al. 2018): signs of the gradient, final iterate.

    `attack(loss_fn, images, seed) -> adversarial`: `images` float32 `[batch, h, w, 3]` in [0, 1], `loss_fn` maps
    such a batch to losses `[batch]`, `seed` fixes the random start: an int, an int32 `[2]` for the whole batch, or
    int32 `[batch, 2]`, one an image. The result has the shape of `images`, lies inside ball and [0, 1] to the last
    bit of float32, and carries no gradient.

    Attributes:
      epsilon: radius of the ball as a fraction of the pixel range, 8/255.
      step_size: step of each iteration, the same unit.
      steps: iterations, a Python int; they run in one `tf.while_loop`, memory does not grow with them.
      random_start: begin at a uniform random point of the ball instead of the image.
      clean_start: probability with which a batch begins at its images after all (the SAT release trains with 0.2).
    """

    epsilon: float
    step_size: float
    steps: int
    random_start: bool = True
    clean_start: float = 0.0
    norm: str = dataclasses.field(default="linf", init=False)

    def __post_init__(self):
        for name in ("epsilon", "step_size"):
            value = getattr(self, name)
            if not tf.is_tensor(value) and not 0 <= value <= 1:
                raise ValueError(f"Expected {name} in [0, 1], such as 8/255. Received: {name}={value}.")
        if self.steps < 0:
            raise ValueError(f"Expected steps >= 0. Received: steps={self.steps}.")
        if not 0 <= self.clean_start <= 1:
            raise ValueError(f"Expected a probability clean_start. Received: clean_start={self.clean_start}.")

    @property
    def forward_equivalents(self) -> int:
        """Cost of a batch in forward passes: each step is one pass and the gradient to the images."""
        return 2 * self.steps

    def __call__(self, loss_fn: Loss, images: tf.Tensor, seed: tf.Tensor | int) -> tf.Tensor:
        """Return adversarial images, `[batch, h, w, 3]`."""
        return self.climb(loss_fn, images, self.start(images, seed), self.steps)

    def start(self, images: tf.Tensor, seed: tf.Tensor | int) -> tf.Tensor:
        """Return the point that the first step leaves from, `[batch, h, w, 3]`."""
        images = tf.stop_gradient(images)
        if not self.random_start:
            return images
        seed = as_seed(seed)
        epsilon = tf.cast(self.epsilon, images.dtype)
        noise = epsilon * uniform_noise(tf.shape(images), seed, images.dtype)
        if self.clean_start:
            noise *= tf.cast(~starts_clean(seed, self.clean_start), images.dtype)
        return tf.clip_by_value(images + noise, *linf_ball(images, self.epsilon))

    def climb(self, loss_fn: Loss, images: tf.Tensor, start: tf.Tensor, steps: int | tf.Tensor) -> tf.Tensor:
        """Return where `steps` iterations from `start` end, inside the ball around `images`; all `[batch, h, w, 3]`."""
        if isinstance(steps, int) and not steps:
            return tf.stop_gradient(start)
        images = tf.stop_gradient(images)
        ball = linf_ball(images, self.epsilon)

        def body(i, adversarial):
            return i + 1, self.moved(adversarial, input_gradient(loss_fn, adversarial), ball)

        _, adversarial = tf.while_loop(
            lambda i, _: i < steps, body, (0, tf.stop_gradient(start)), parallel_iterations=1, maximum_iterations=steps
        )
        return tf.stop_gradient(adversarial)

    def moved(self, points: tf.Tensor, gradient: tf.Tensor, ball: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Return where one step along a gradient leads, inside a ball of `linf_ball`; all `[batch, h, w, 3]`."""
        step = tf.cast(self.step_size, points.dtype) * tf.sign(gradient)
        return tf.clip_by_value(points + step, *ball)


def marks(steps: int) -> tuple[int, ...]:
    """Return 1, 2, 5, 10, 20, 50 ... up to a number of steps, and that number."""
    found = {mark * 10**power for power in range(9) for mark in (1, 2, 5) if mark * 10**power < steps}
    return tuple(sorted({*found, steps}))


def input_gradient(loss_fn: Loss, images: tf.Tensor) -> tf.Tensor:
    """Return the gradient of the summed losses to the images only: `[batch, h, w, 3]`."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        loss = tf.reduce_sum(loss_fn(images))
    return tape.gradient(loss, images, unconnected_gradients="zero")


def linf_ball(images: tf.Tensor, epsilon: float | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the lowest and highest image of the ball, cut to [0, 1]: two tensors `[batch, h, w, 3]`.

    `images - epsilon` and `images + epsilon` round to the nearest float, which may lie outside the ball by half an
    ulp. The error of either sum is computed exactly (Knuth's two-sum), and a bound that lies outside moves to the
    next float inside; the ball itself is that of `epsilon` rounded down to the images' precision.
    """
    if not tf.is_tensor(epsilon):
        epsilon = rounded_down(epsilon, images.dtype.as_numpy_dtype)
    epsilon = tf.cast(epsilon, images.dtype)
    high = inward(images, epsilon, images)
    low = inward(images, -epsilon, images)
    return tf.maximum(low, 0.0), tf.minimum(high, 1.0)


def rounded_down(epsilon: float, dtype: type = np.float32) -> np.floating | np.ndarray:
    """Return a radius in another precision, never a larger one."""
    rounded = np.asarray(epsilon, dtype)
    return np.nextafter(rounded, rounded.dtype.type(0)) if float(rounded) > epsilon else rounded


def inward(a: tf.Tensor, b: tf.Tensor, center: tf.Tensor) -> tf.Tensor:
    """Return a + b, rounded towards `center` where the nearest float lies on the other side of the exact sum."""
    total = a + b
    b_used = total - a
    error = (a - (total - b_used)) + (b - b_used)  # a + b = total + error, exactly
    outside = error * tf.sign(b) < 0
    return tf.where(outside, _next_float(total, center), total)


def _next_float(x, center):
    """Return `tf.math.nextafter(x, center)` for another x than it and 0, in a tenth of its time on a CPU.

    A little more than half a unit in the last place of 1 moves x by 0.5 to 1 of its own, which rounds to one.
    """
    kind = np.finfo(x.dtype.as_numpy_dtype)
    step = tf.maximum(tf.abs(x) * (1.001 * float(kind.epsneg)), kind.tiny)
    return x + step * tf.sign(center - x)


def as_seed(seed: tf.Tensor | int) -> tf.Tensor:
    """Return a stateless seed, int32 `[2]` or `[batch, 2]`, of an int or of such a tensor."""
    seed = tf.cast(seed, tf.int32)
    return tf.stack([0, seed]) if seed.shape.rank == 0 else seed


def starts_clean(seed: tf.Tensor, probability: float) -> tf.Tensor:
    """Say whether the batch of a stateless seed `[2]` or `[batch, 2]` begins at its images: a scalar bool."""
    coin = tf.random.experimental.stateless_fold_in(tf.reshape(seed, [-1, 2])[0], 1)
    return tf.random.stateless_uniform([], coin) < probability


def uniform_noise(shape: tf.Tensor, seed: tf.Tensor, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Return uniform numbers in [-1, 1) of `shape`; a seed `[batch, 2]` draws every image from its own."""
    if seed.shape.rank == 1:
        return uniform(shape, seed, -1.0, 1.0, dtype)
    draw = lambda one: tf.random.stateless_uniform(shape[1:], one, -1.0, 1.0, dtype)  # noqa: E731
    return tf.map_fn(draw, seed, fn_output_signature=dtype)
