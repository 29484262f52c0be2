"""Methods: how the images are perturbed before an update, and what the update minimises.

The mode of batch normalisation is written here and nowhere else: an attack looks at the model in inference mode, an
update in training mode. What others want to know of a method it says itself.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from sat_tf import losses, passes

LossFn = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standard:
    """Train on the images as they are.

    `perturb`, `loss` and the facts are the contract of every method.

    Attributes:
      loss_fn: `(logits, labels) -> [batch]`, what an update minimises.
      backward: whose gradient activations have in attack and update.
      attack: `(loss_fn, images, seed) -> images`; None: training sees no attack.
    """

    loss_fn: LossFn = losses.cross_entropy
    backward: passes.Backward = passes.OWN
    attack: Any = None

    words = "without an attack"  # how a model card says that it was trained
    trains_on = "clean"  # the images whose loss and accuracy a step reports
    best_by = "clean"  # the validation accuracy that chooses the best checkpoint: clean or robust

    @property
    def forward_equivalents(self) -> int:
        """Cost of a step in forward passes: an update is three of them, its forward pass and twice that backwards."""
        return 3

    def perturb(
        self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Return the images to train on, `[batch, h, w, 3]`; no gradient flows through them."""
        return images

    def loss(
        self, model: keras.Model, clean: tf.Tensor, adversarial: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Return losses `[batch]` of an update, and a dict of quantities `[batch]` whose means the step reports."""
        logits = self.backward.view(model, "update")(adversarial, training=True)
        return self.loss_fn(logits, labels), {"accuracy": losses.correct(logits, labels)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversarialTraining(Standard):
    """Train on adversarial images only (Madry et al. 2018); with a smooth activation this is SAT (Xie et al. 2020).

    The attack climbs the plain cross-entropy, also where the update minimises it with smoothed labels: an untargeted
    attack wants the label's logit down, not all others equal. It sees the model in inference mode: moving statistics
    stay as they are, dropout and stochastic depth do nothing.
    """

    climb_fn: LossFn = losses.cross_entropy

    words = "adversarially (Smooth Adversarial Training, Xie et al. 2020)"
    trains_on = "adversarial"
    best_by = "robust"

    @property
    def forward_equivalents(self) -> int:
        """Cost of a step in forward passes: the attack's and the update's."""
        return self.attack.forward_equivalents + super().forward_equivalents

    def perturb(
        self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Return adversarial images, `[batch, h, w, 3]`."""
        attacked = self.backward.view(model, "attack")
        return self.attack(lambda x: self.climb_fn(attacked(x, training=False), labels), images, seed)


def standard(attack: Any, loss_fn: LossFn = losses.cross_entropy, backward: passes.Backward = passes.OWN) -> Standard:
    """Train on clean images."""
    return Standard(loss_fn=loss_fn, backward=backward)


def sat(
    attack: Any, loss_fn: LossFn = losses.cross_entropy, backward: passes.Backward = passes.OWN
) -> AdversarialTraining:
    """Train on adversarial images that an attack makes before every update (the SAT paper with a smooth activation)."""
    return AdversarialTraining(attack=attack, loss_fn=loss_fn, backward=backward)


METHODS = {"standard": standard, "sat": sat}
