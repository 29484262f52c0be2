"""Adversarial training: an attack before every update."""

import dataclasses

import keras
import tensorflow as tf

from sat_tf import attacks, losses
from sat_tf.methods.standard import LossFn, Standard


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
    def attack_equivalents(self) -> int:
        """Cost of the attack in forward passes."""
        return self.attack.forward_equivalents

    def perturb(
        self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Return adversarial images, `[batch, h, w, 3]`."""
        return self.climbed(self.attack, model, images, labels, seed)

    def climbed(
        self, attack: attacks.PGD, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Return the images after an attack on the model, `[batch, h, w, 3]`."""
        attacked = self.backward.view(model, "attack")
        return attack(lambda x: self.climb_fn(attacked(x, training=False), labels), images, seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiStep(AdversarialTraining):
    """Train on adversarial images only, after several steps of the attack (Madry et al. 2018)."""

    words = "adversarially, by an attack of several steps (Madry et al. 2018)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoStep(MultiStep):
    """Train on adversarial images only, after some steps of Auto-PGD (Croce & Hein 2020)."""

    words = "adversarially, by Auto-PGD (Croce & Hein 2020)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fast(AdversarialTraining):
    """Train on the images of one step of 1.25 epsilon from a random start (FGSM-RS, Wong et al. 2020)."""

    words = "by fast adversarial training (FGSM with a random start, Wong et al. 2020)"


def climber(attack: attacks.PGD, what: str) -> attacks.PGD:
    """Return an attack whose steps a method takes itself; `what` does so, for the error.

    Raises:
      ValueError: it is not PGD or one step of it, or it climbs in a way of its own.
    """
    if not isinstance(attack, attacks.PGD) or type(attack).climb is not attacks.PGD.climb:
        raise ValueError(
            f"Expected the attack pgd-k or fgsm with {what}, which makes its steps itself. "
            f"Received: attack={type(attack).__name__}."
        )
    return attack
