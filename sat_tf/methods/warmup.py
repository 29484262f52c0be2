"""Adversarial training whose radius grows."""

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf

from sat_tf.methods.adversarial import AdversarialTraining, climber
from sat_tf.methods.standard import Batch, Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrowingRadius(AdversarialTraining):
    """Attack within a radius that grows to epsilon; the step size grows with it.

    Source: Liu et al. 2020, "On the Loss Landscape of Adversarial Training" (cosine and linear schedules, Section 5).

    Attributes:
      schedule: `step -> share of epsilon`, traceable; 1 and above is all of it.
    """

    schedule: Callable[[tf.Tensor], tf.Tensor]

    words = "adversarially, with a growing radius (Liu et al. 2020)"
    quantities = ("accuracy", "epsilon")

    def __post_init__(self):
        climber(self.attack, "a growing radius")

    def perturb(
        self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Return adversarial images, `[batch, h, w, 3]`."""
        share = self._share(step)
        attack = dataclasses.replace(
            self.attack, epsilon=self.attack.epsilon * share, step_size=self.attack.step_size * share
        )
        return self.climbed(attack, model, images, labels, seed)

    def attacked(self, model: keras.Model, batch: Batch) -> tuple[tf.Tensor, Report]:
        """Return adversarial images, and the radius."""
        adversarial = self.perturb(model, batch.images, batch.labels, batch.step, batch.seed)
        epsilon = self.attack.epsilon * self._share(batch.step)
        return adversarial, {"epsilon": epsilon * tf.ones_like(batch.images[:, 0, 0, 0])}

    def _share(self, step):
        return tf.clip_by_value(tf.cast(self.schedule(step), tf.float32), 0.0, 1.0)
