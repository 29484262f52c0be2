"""How hard an adversarial image is: what a curriculum bounds while the attack goes on."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from sat_tf.replicas import gathered


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """What one look of the attack at its current points shows; all of one forward and backward pass.

    Attributes:
      images: `[batch, h, w, 3]`, where the attack came from.
      points: `[batch, h, w, 3]`, where it is.
      labels: int32 `[batch]`.
      logits: `[batch, classes]` at the points.
      features: `[batch, n]`, what the last layer sees, for metrics that ask for it.
      gradient: `[batch, h, w, 3]`, of each image's loss to its point.
      epsilon: radius of the ball.
      steps: float32 `[]`, steps taken so far.
      scale: what the metric's `begin` returned.
    """

    images: tf.Tensor
    points: tf.Tensor
    labels: tf.Tensor
    logits: tf.Tensor
    features: tf.Tensor | None
    gradient: tf.Tensor
    epsilon: Any
    steps: tf.Tensor
    scale: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difficulty:
    """A metric psi: `(Seen) -> [batch]`; an image is attacked on while psi <= lambda. At 1 and above nothing stops it.

    A subclass defines `__call__`; one that asks for `features` gets the last layer's inputs.
    """

    features = False  # whether it looks at what the last layer sees
    extra_passes = 0  # forward passes of `begin`

    def begin(self, look: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]], images: tf.Tensor) -> Any:
        """Return what every look is to know, from the images as they are; `look(images) -> (logits, features)`."""
        return None

    def __call__(self, seen: Seen) -> tf.Tensor:
        """Return psi of each image, float32 `[batch]`."""
        raise TypeError(f"Expected a subclass that defines __call__(seen). Received: {type(self).__name__}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbabilityGap(Difficulty):
    """The largest other probability minus the label's, in [-1, 1]: 0 at the decision boundary (P-SAT).

    Source: Sitawarin et al. 2021, Section 4 (equation 8 of the authors' slides); the same as ATES in arXiv v1 and v2.
    """

    def __call__(self, seen: Seen) -> tf.Tensor:
        probabilities = tf.nn.softmax(tf.cast(seen.logits, tf.float32))
        label = tf.one_hot(seen.labels, tf.shape(probabilities)[-1])
        others = tf.reduce_max(probabilities - 2.0 * label, -1)
        return others - tf.reduce_sum(probabilities * label, -1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadCurvature(Difficulty):
    """The largest eigenvalue of the loss' Hessian to the last layer's weights, as a share of its largest value (H-SAT).

    With phi the last layer's input and p the softmax of its output, the cross-entropy has the Hessian
    (diag p - p p^T) (x) [phi; 1] [phi; 1]^T, hence the eigenvalue top(p) (|phi|^2 + 1), top(p) <= 1/2. Here

        psi = min(2 top(p) (|phi|^2 + 1) / S, 1),   S = the 95th percentile of |phi|^2 + 1 over the clean batch.

    This form is ours. Sitawarin et al. 2021 define psi by the Hessian to *all* weights, and approximate it in a way
    that their public material does not say; the top layer alone is what Wang et al. 2022 (arXiv 2211.12624)
    regularise, for the same reason. docs/methods.md has how well it ranks images as the whole Hessian does.

    Attributes:
      percentile: of |phi|^2 + 1, in (0, 1].
    """

    percentile: float = 0.95

    features = True
    extra_passes = 1

    def begin(self, look: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]], images: tf.Tensor) -> tf.Tensor:
        """Return S, float32 `[]`, of the clean images of all replicas."""
        values = tf.sort(gathered(lengths(look(images)[1])))
        place = tf.cast(tf.math.ceil(self.percentile * tf.cast(tf.shape(values)[0], tf.float32)), tf.int32) - 1
        return tf.maximum(values[tf.maximum(place, 0)], 1.0)

    def __call__(self, seen: Seen) -> tf.Tensor:
        curvature = top_eigenvalue(tf.nn.softmax(tf.cast(seen.logits, tf.float32))) * lengths(seen.features)
        return tf.minimum(2.0 * curvature / seen.scale, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convergence(Difficulty):
    """How far an attack has converged: 1 - FOSC / highest, FOSC = epsilon |g|_1 - <z - x, g> (Dynamic AT).

    FOSC is at least 0 in the ball, and 0 where z - x = epsilon sign(g): no step could raise the loss' first order.
    lambda = t allows FOSC of (1 - t) highest and more.

    Source: Wang et al. 2019, "On the Convergence and Robustness of Adversarial Training", equation 5. The difference is
    taken from the image, as the paper has it; the authors' code takes it from the random start.

    Attributes:
      highest: FOSC at which psi is 0, c_max.
    """

    highest: float = 0.5

    def __call__(self, seen: Seen) -> tf.Tensor:
        return 1.0 - fosc(seen.images, seen.points, seen.gradient, seen.epsilon) / self.highest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Steps(Difficulty):
    """The share of steps taken, whatever they led to (the curriculum of Cai et al. 2018 without its batch mixing).

    Attributes:
      most: steps of the attack.
    """

    most: int

    def __call__(self, seen: Seen) -> tf.Tensor:
        return tf.fill(tf.shape(seen.labels), (seen.steps + 1.0) / self.most)


def fosc(images: tf.Tensor, points: tf.Tensor, gradient: tf.Tensor, epsilon: Any) -> tf.Tensor:
    """Return the first-order stationary condition of each image in its L-infinity ball, float32 `[batch]`."""
    room = tf.cast(epsilon, gradient.dtype) * tf.abs(gradient) - (points - images) * gradient
    return tf.reduce_sum(room, [1, 2, 3])


def lengths(features: tf.Tensor) -> tf.Tensor:
    """Return |phi|^2 + 1, the squared length of features and a bias: `[batch, n]` -> float32 `[batch]`."""
    return tf.reduce_sum(tf.square(tf.cast(features, tf.float32)), -1) + 1.0


def top_eigenvalue(probabilities: tf.Tensor, halvings: int = 24) -> tf.Tensor:
    """Return the largest eigenvalue of diag(p) - p p^T: float32 `[batch, classes]` -> `[batch]`, in [0, 1/2].

    It lies between the second and the first of the probabilities p1 >= p2 >= ..., where

        p1 (1 - p1) - e + (p1 - e) sum_{i > 1} p_i^2 / (e - p_i)

    falls through 0 (the characteristic polynomial, divided by the factors above 0); the interval is halved.
    """
    top, places = tf.math.top_k(probabilities, 2)
    first, second = top[:, 0], top[:, 1]
    others = probabilities * (1.0 - tf.one_hot(places[:, 0], tf.shape(probabilities)[-1]))
    constant = first * tf.reduce_sum(others, -1)

    def halve(i, low, high):
        middle = 0.5 * (low + high)
        room = tf.maximum(middle[:, None] - others, 1e-30)
        value = constant - middle + (first - middle) * tf.reduce_sum(tf.square(others) / room, -1)
        return i + 1, tf.where(value > 0, middle, low), tf.where(value > 0, high, middle)

    _, low, high = tf.while_loop(
        lambda i, *_: i < halvings, halve, (0, second, first), parallel_iterations=1, maximum_iterations=halvings
    )
    return 0.5 * (low + high)


def with_features(model: keras.Model) -> Callable:
    """Return a model of the same layers whose output is `[logits, features]`, features the last dense layer's input.

    Args:
      model: functional or sequential; or a view of one that has a `with_features()` of its own.

    Raises:
      ValueError: the model does not end in a dense layer, or its layers cannot be seen.
    """
    if hasattr(model, "with_features"):
        return model.with_features()
    layers = [layer for layer in getattr(model, "layers", ()) if not isinstance(layer, keras.layers.Activation)]
    if not getattr(model, "inputs", None) or not layers or not isinstance(layers[-1], keras.layers.Dense):
        last = type(layers[-1]).__name__ if layers else type(model).__name__
        raise ValueError(
            "Expected a functional or sequential model that ends in a dense layer, whose curvature is the difficulty. "
            f"Received: {last} at its end. Take another method, such as p-sat."
        )
    return keras.Model(model.inputs, [model.outputs[0], layers[-1].input])
