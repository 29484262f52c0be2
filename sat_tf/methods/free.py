"""Free adversarial training: one backward pass for the weights and for the images."""

import dataclasses

import keras
import tensorflow as tf

from sat_tf import attacks
from sat_tf.methods.adversarial import AdversarialTraining, climber
from sat_tf.methods.standard import Batch, Report, Updater
from sat_tf.replicas import gathered, own

DELTA = "delta"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Free(AdversarialTraining):
    """Update the model m times on each batch; each backward pass also moves the images (free-m).

    The perturbation moves by the attack's step size (the paper's: epsilon) along the sign of its gradient and stays in
    the ball; the next batch begins with the last one's, where `batch.memory` has it. A pass is attack and update in
    one, and so sees the model in training mode. Schedules of the learning rate count the updates: a run of n epochs
    makes m n passes over the images, so divide the epochs by m for an equal number.

    Source: Shafahi et al. 2019, "Adversarial Training for Free!", Algorithm 1.

    Attributes:
      replays: m; the paper finds 8 best on CIFAR-10, 4 on ImageNet.
    """

    replays: int = 8

    one_step = True
    words = "by free adversarial training (Shafahi et al. 2019)"

    def __post_init__(self):
        climber(self.attack, "free adversarial training")
        if self.replays < 1 or self.replays != int(self.replays):
            raise ValueError(f"Expected 1, 2, ... replays of a batch. Received: replays={self.replays}.")
        if self.backward.attack_precision is not None:
            raise ValueError(
                "Expected no precision of the attack's own with free adversarial training, whose attack and update are "
                f"one pass. Received: attack_precision={self.backward.attack_precision}."
            )
        if self.backward.attack != self.backward.update:
            raise ValueError(
                "Expected the same gradients for attack and update with free adversarial training, where they are of "
                f"one pass. Received: attack_backward={self.backward.attack}, update_backward={self.backward.update}."
            )

    @property
    def updates(self) -> int:
        """Updates of the weights, a batch."""
        return self.replays

    @property
    def attack_equivalents(self) -> int:
        """Cost of the attack in forward passes: none of its own."""
        return 0

    @property
    def update_equivalents(self) -> int:
        """Cost of all updates of a batch in forward passes."""
        return 3 * self.replays

    def memory(self, batch_size: int, image_shape: tuple[int, ...], images: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of the perturbation that a batch hands to the next."""
        return {DELTA: (batch_size, *image_shape)}

    def learn(self, model: keras.Model, batch: Batch, updater: Updater) -> Report:
        """Update the model `replays` times; return the means of what the updates report."""
        images, count = batch.images, tf.shape(batch.images)[0]
        kept = batch.memory.get(DELTA)
        delta = tf.zeros_like(images) if kept is None else own(tf.convert_to_tensor(kept), count)
        delta = tf.ensure_shape(delta, images.shape)
        ball = attacks.linf_ball(images, self.attack.epsilon)
        edge = tf.cast(attacks.rounded_down(self.attack.epsilon), images.dtype)
        step_size = tf.cast(self.attack.step_size, images.dtype)
        reports = []
        for _ in range(self.replays):
            points = tf.clip_by_value(images + delta, *ball)

            def update(points=points):
                return self.loss(model, images, points, batch.labels)

            report, gradient = updater(update, watched=points)
            known = tf.where(tf.math.is_finite(gradient), gradient, 0.0)  # where half precision overflows it is not
            delta = tf.clip_by_value(delta + step_size * tf.sign(known), -edge, edge)
            reports.append(report)
        if kept is not None:
            delta = gathered(delta)
            kept.assign(tf.concat([delta, tf.convert_to_tensor(kept)[tf.shape(delta)[0] :]], 0))
        return {name: sum(each[name] for each in reports) / self.replays for name in reports[0]}
