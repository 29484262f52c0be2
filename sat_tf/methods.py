"""Methods: how the images are perturbed before an update, and what the update minimises.

The mode of batch normalisation is written here and nowhere else: an attack looks at the model in inference mode, an
update in training mode.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from sat_tf import attacks, losses, passes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standard:
    """Train on the images as they are.

    `perturb` and `loss` are the contract of every method. `loss` returns the values `[batch]` to minimise and a dict
    of quantities `[batch]` to report. `backward` says whose gradient activations have in attack and update.
    """

    loss_fn: Callable = losses.cross_entropy
    backward: passes.Backward = passes.OWN

    def perturb(self, model, images, labels, step, seed):
        """Return the images to train on, `[batch, h, w, 3]`; no gradient flows through them."""
        return images

    def loss(self, model, clean, adversarial, labels):
        """Return losses `[batch]` of an update and `{"accuracy": [batch]}` on the images it sees."""
        logits = self.backward.view(model, "update")(adversarial, training=True)
        correct = tf.argmax(logits, -1, labels.dtype) == labels
        return self.loss_fn(logits, labels), {"accuracy": tf.cast(correct, tf.float32)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversarialTraining(Standard):
    """Train on adversarial images only (Madry et al. 2018); with a smooth activation this is SAT (Xie et al. 2020).

    The attack climbs the plain cross-entropy, also where the update minimises it with smoothed labels: an untargeted
    attack wants the label's logit down, not all others equal. It sees the model in inference mode: moving statistics
    stay as they are, dropout and stochastic depth do nothing.
    """

    attack: attacks.PGD
    climb_fn: Callable = losses.cross_entropy

    def perturb(self, model, images, labels, step, seed):
        attacked = self.backward.view(model, "attack")
        return self.attack(lambda x: self.climb_fn(attacked(x, training=False), labels), images, seed)


def standard(attack, loss_fn=losses.cross_entropy, backward=passes.OWN):
    """Train on clean images."""
    return Standard(loss_fn=loss_fn, backward=backward)


def sat(attack, loss_fn=losses.cross_entropy, backward=passes.OWN):
    """Train on adversarial images that PGD makes before every update (the SAT paper with a smooth activation)."""
    return AdversarialTraining(attack=attack, loss_fn=loss_fn, backward=backward)


METHODS = {"standard": standard, "sat": sat}
