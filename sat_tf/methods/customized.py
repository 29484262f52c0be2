"""Customized adversarial training: every image has a radius of its own."""

import dataclasses
from collections.abc import Mapping

import keras
import tensorflow as tf

from sat_tf import attacks, losses
from sat_tf.methods.adversarial import AdversarialTraining, climber
from sat_tf.methods.standard import Batch, Report, Updater
from sat_tf.replicas import gathered, uniform

RADII = "radii"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Customized(AdversarialTraining):
    """Attack each image within its own radius, which grows while the model withstands; smooth its label by it (CAT).

    An image's radius starts at 0. Whenever the image comes up the attack tries `increment` more, up to the attack's
    epsilon; the radius is kept if the model is still right, else it stays what it was. The update trains on what the
    attack found, towards (1 - s) onehot + s Dirichlet(1), s = label_share times the radius.

    Differs from source: the attack climbs the cross-entropy to the label itself, and the model is asked in inference
    mode whether it withstands. The paper's CAT-MIX adds a margin to the loss; this is CAT-CE. A batch that does not say
    which images it holds is told apart by its pixels, which works without augmentation only.

    Source: Cheng et al. 2020, "CAT: Customized Adversarial Training for Improved Robustness", Algorithm 1.

    Attributes:
      increment: what a radius grows by, a fraction of the pixel range.
      label_share: c.
    """

    increment: float = 0.005
    label_share: float = 10.0

    words = "by customized adversarial training (Cheng et al. 2020)"
    quantities = ("accuracy", "radius", "withstood")
    wants_ids = True
    takes_mixed = False

    def __post_init__(self):
        climber(self.attack, "customized adversarial training")

    @property
    def attack_equivalents(self) -> int:
        """Cost of the attack in forward passes, and of one to see whether it succeeded."""
        return self.attack.forward_equivalents + 1

    def memory(self, batch_size: int, image_shape: tuple[int, ...], images: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of the images' radii."""
        return {RADII: (images,)}

    def learn(self, model: keras.Model, batch: Batch, updater: Updater) -> Report:
        """Attack within the images' radii, learn the smoothed labels, keep the radii."""
        kept, places = _radii(batch.memory), _places(batch)
        before = tf.gather(tf.convert_to_tensor(kept), places)
        most = tf.cast(attacks.rounded_down(self.attack.epsilon), tf.float32)
        tried = tf.minimum(before + self.increment, most)
        attack = dataclasses.replace(self.attack, epsilon=tried[:, None, None, None])
        points = tf.stop_gradient(self.climbed(attack, model, batch.images, batch.labels, batch.seed))
        logits = self.backward.view(model, "attack")(points, training=False)
        withstood = losses.correct(logits, batch.labels)
        radii = tf.where(withstood > 0, tried, before)
        draws = tf.random.experimental.stateless_fold_in(batch.seed, 2)

        def update():
            answer = self.backward.view(model, "update")(points, training=True)
            report = {"accuracy": losses.correct(answer, batch.labels), "radius": radii, "withstood": withstood}
            return self.smoothed(answer, batch.labels, radii, draws), report

        report = updater(update)[0]
        places, radii = gathered(places), gathered(radii)
        kept.assign(tf.tensor_scatter_nd_update(tf.convert_to_tensor(kept), places[:, None], radii))
        return report

    def smoothed(self, logits: tf.Tensor, labels: tf.Tensor, radii: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return the cross-entropy to labels smoothed by radii `[batch]` and draws of a seed: `[batch]`."""
        share = tf.minimum(self.label_share * radii, 1.0)
        draws = -tf.math.log(1.0 - uniform(tf.shape(logits), seed))  # exponential
        targets = draws / tf.reduce_sum(draws, -1, keepdims=True)
        others = -tf.reduce_sum(targets * tf.nn.log_softmax(tf.cast(logits, tf.float32)), -1)
        return (1.0 - share) * self.loss_fn(logits, labels) + share * others


def _radii(memory: Mapping[str, tf.Variable]) -> tf.Variable:
    if RADII not in memory:
        raise ValueError(
            "Expected the variables of the method's memory(...), which keeps every image's radius. "
            f"Received: memory={sorted(memory)}. `train.make_memory` makes them."
        )
    return memory[RADII]


def _places(batch):
    """Return where each image's radius lies, int32 `[batch]`: at its id, or at a hash of its pixels."""
    size = batch.memory[RADII].shape[0]
    if batch.ids is not None:
        return tf.cast(batch.ids % tf.cast(size, batch.ids.dtype), tf.int32)
    bits = tf.bitcast(tf.reshape(batch.images, [tf.shape(batch.images)[0], -1]), tf.int32)
    factors = tf.bitcast(attacks.hashed(tf.range(tf.shape(bits)[1])), tf.int32) | 1
    return tf.reduce_sum(bits * factors, 1) % size
