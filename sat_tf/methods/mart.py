"""MART: misclassified images count more."""

import dataclasses

import keras
import tensorflow as tf

from sat_tf import losses
from sat_tf.methods.adversarial import AdversarialTraining
from sat_tf.methods.standard import Report
from sat_tf.methods.trades import beside, divergence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mart(AdversarialTraining):
    """Minimise BCE(p(x'), y) + beta KL(p(x) || p(x')) (1 - p_y(x)), x' where the cross-entropy is largest.

    BCE = -log p_y(x') - log(1 - max_{j != y} p_j(x')): the margin counts beside the cross-entropy. The divergence of an
    image counts the more the less sure the model is of the clean image. Two forward passes in training mode.

    Source: Wang et al. 2020, "Improving Adversarial Robustness Requires Revisiting Misclassified Examples", Section 3.

    Attributes:
      beta: weight of the divergence; 5 is the default of the authors' training script, 6 that of its loss.
    """

    beta: float = 5.0

    words = "by MART (Wang et al. 2020)"
    quantities = ("accuracy", "clean_accuracy", "divergence")
    takes_mixed = False
    update_equivalents = 2 * 3

    def perturb(
        self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Return adversarial images of an attack that starts beside the images, `[batch, h, w, 3]`."""
        attacked = self.backward.view(model, "attack")
        return beside(self.attack, lambda x: self.climb_fn(attacked(x, training=False), labels), images, seed)

    def loss(
        self, model: keras.Model, clean: tf.Tensor, adversarial: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, Report]:
        """Return losses `[batch]`, and how many images are right under attack and clean."""
        updated = self.backward.view(model, "update")
        logits, attacked = (tf.cast(updated(each, training=True), tf.float32) for each in (clean, adversarial))
        label = tf.one_hot(labels, tf.shape(logits)[-1])
        sure = tf.reduce_sum(tf.nn.softmax(logits) * label, -1)
        other = tf.reduce_max(tf.nn.softmax(attacked) - 2.0 * label, -1)
        margin = -tf.math.log(1.0001 - other)  # as the authors' code; 1 - other may be 0
        distance = divergence(tf.nn.log_softmax(logits), tf.nn.log_softmax(attacked))
        values = self.loss_fn(attacked, labels) + margin + self.beta * distance * (1.0 - sure)
        report = {
            "accuracy": losses.correct(attacked, labels),
            "clean_accuracy": losses.correct(logits, labels),
            "divergence": distance,
        }
        return values, report
