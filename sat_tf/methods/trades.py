"""TRADES: accuracy on clean images, and an answer that does not move."""

import dataclasses
import numbers
from typing import Any

import keras
import tensorflow as tf

from sat_tf import attacks, losses
from sat_tf.methods.adversarial import AdversarialTraining
from sat_tf.methods.standard import Report
from sat_tf.replicas import normal

START = 0.001  # standard deviation of the normal noise that the attack starts with


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trades(AdversarialTraining):
    """Minimise CE(f(x), y) + beta KL(p(x) || p(x')), x' where the same divergence is largest (Zhang et al. 2019).

    The divergence is summed over the classes and averaged over the batch, as the authors' code has it; its gradient
    flows into both answers. Clean and adversarial images are two forward passes in training mode, each normalised by
    its own statistics. The attack starts at x + 0.001 N(0, 1): at x itself the divergence has no gradient. beta = 0 is
    standard training, to the bit.

    Source: "Theoretically Principled Trade-off between Robustness and Accuracy", Section 4 and Algorithm 1.

    Attributes:
      beta: weight of the divergence, 1 / lambda in the paper.
    """

    beta: float = 6.0

    words = "by TRADES (Zhang et al. 2019)"
    quantities = ("accuracy", "clean_accuracy", "divergence")

    def __post_init__(self):
        if not (isinstance(self.beta, numbers.Real) and self.beta >= 0):
            raise ValueError(f"Expected a beta of at least 0, such as 6. Received: beta={self.beta!r}.")

    @property
    def attack_equivalents(self) -> int:
        """Cost of the attack in forward passes: it first asks for the clean answer."""
        return self.attack.forward_equivalents + 1 if self.beta else 0

    @property
    def update_equivalents(self) -> int:
        """Cost of an update in forward passes: clean and adversarial images, forward and backward."""
        return 2 * 3 if self.beta else 3

    def perturb(
        self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Return the images whose answer is farthest from the clean one, `[batch, h, w, 3]`."""
        if not self.beta:
            return images
        attacked = self.backward.view(model, "attack")
        target = tf.nn.log_softmax(tf.cast(attacked(images, training=False), tf.float32))

        def distance(points):
            return divergence(target, tf.nn.log_softmax(tf.cast(attacked(points, training=False), tf.float32)))

        return beside(self.attack, distance, images, seed)

    def loss(
        self, model: keras.Model, clean: tf.Tensor, adversarial: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, Report]:
        """Return losses `[batch]`, and how many adversarial images are right and how far the answer moves."""
        updated = self.backward.view(model, "update")
        logits = updated(clean, training=True)
        attacked = updated(adversarial, training=True) if self.beta else logits
        distance = divergence(*(tf.nn.log_softmax(tf.cast(each, tf.float32)) for each in (logits, attacked)))
        values = self.loss_fn(logits, labels)
        report = {
            "accuracy": losses.correct(attacked, labels),
            "clean_accuracy": losses.correct(logits, labels),
            "divergence": distance,
        }
        return values + self.beta * distance if self.beta else values, report


def divergence(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Return KL(p || q) of two logarithms of probabilities, `[batch, classes]` each: `[batch]`."""
    return tf.reduce_sum(tf.exp(one) * (one - other), -1)


def beside(attack: Any, loss_fn: Any, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return where an attack ends that starts beside the images, `[batch, h, w, 3]`.

    Differs from source: Auto-PGD and attacks without `climb` start as they always do.

    Args:
      attack: of training.
      loss_fn: `images -> [batch]`, what it climbs.
      images: `[batch, h, w, 3]`.
      seed: int32 `[2]`.
    """
    climb = getattr(attack, "climb", None)
    if climb is None:
        return attack(loss_fn, images, seed)
    start = images + START * normal(tf.shape(images), seed, images.dtype)
    start = tf.clip_by_value(start, *attacks.linf_ball(images, attack.epsilon))
    return climb(loss_fn, images, start, attack.steps)
