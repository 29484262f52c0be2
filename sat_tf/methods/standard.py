"""What every method of training is: how images are perturbed before an update, and what the update minimises."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import keras
import tensorflow as tf

from sat_tf import losses, passes

LossFn = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # (logits, labels) -> [batch]
Report = dict[str, tf.Tensor]  # {quantity: [batch]}, whose means a step reports
Update = Callable[[], tuple[tf.Tensor, Report]]  # what one update minimises: -> ([batch], report)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """What a step of training is given, on one replica.

    Attributes:
      images: float32 `[batch, h, w, 3]` in [0, 1].
      labels: int32 `[batch]`; of mixed images probabilities, float32 `[batch, classes]`.
      step: int32 `[]`, the batches before this one.
      seed: int32 `[2]`, the step's own, the same on all replicas: see `sat_tf.replicas`.
      ids: int `[batch]`, the images' numbers in the training set; None where nobody gives them.
      memory: `{name: tf.Variable}` as the method's `memory` asks for it, kept from step to step.
    """

    images: tf.Tensor
    labels: tf.Tensor
    step: tf.Tensor
    seed: tf.Tensor
    ids: tf.Tensor | None = None
    memory: Mapping[str, tf.Variable] = dataclasses.field(default_factory=dict)


class Updater(Protocol):
    """What a training loop lends a method: the way to change the model."""

    def __call__(
        self, update: Update, *, watched: tf.Tensor | None = None, weights: list[tf.Tensor] | None = None
    ) -> tuple[Report, tf.Tensor | None]:
        """Make one update of the weights; return its report and, where asked for, the gradient to `watched`.

        Args:
          update: computes `([batch], report)`, what is minimised and what is told.
          watched: a tensor that `update` uses.
          weights: values at which the gradients are taken instead of at the trainable variables' own.
        """
        ...

    def gradients(self, update: Update) -> list[tf.Tensor]:
        """Return the gradients of the mean loss to the trainable variables over all replicas; change nothing."""
        ...

    @property
    def variables(self) -> list[Any]:
        """The trainable variables, in the order of `gradients`."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standard:
    """Train on the images as they are.

    What is defined here is the contract of every method. Most need `perturb` and `loss` alone; one that makes several
    updates of a batch, or wants more than one gradient, writes `learn`.

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
    quantities = ("accuracy",)  # what a step reports beside the loss
    best_by = "clean"  # the validation accuracy that chooses the best checkpoint: clean or robust
    updates = 1  # of the weights, a batch
    update_equivalents = 3  # forward passes that they cost: a forward pass, and twice that backwards
    attack_equivalents = 0  # forward passes that the perturbation costs
    ends_early = False  # whether the perturbation may cost less than that
    one_step = False  # whether it moves images by the attack's step, whatever number of these the attack has
    wants_ids = False  # whether a batch should say which images it holds
    takes_mixed = True  # whether labels may be probabilities, as those of mixed images are

    def __post_init__(self):
        if self.attack is None and self.backward.attack_precision is not None:
            raise ValueError(
                "Expected a method that attacks, such as sat, with a precision of the attack's own. Received: "
                f"attack_precision={self.backward.attack_precision} with training {self.words}."
            )

    @property
    def forward_equivalents(self) -> int:
        """Cost of a step in forward passes of its batch."""
        return self.attack_equivalents + self.update_equivalents

    def memory(self, batch_size: int, image_shape: tuple[int, ...], images: int) -> dict[str, tuple[int, ...]]:
        """Return `{name: shape}` of float32 variables, zeros at first, that are kept from step to step.

        Args:
          batch_size: over all replicas.
          image_shape: `(h, w, 3)`.
          images: in the training set.
        """
        return {}

    def perturb(
        self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Return the images to train on, `[batch, h, w, 3]`; no gradient flows through them."""
        return images

    def attacked(self, model: keras.Model, batch: Batch) -> tuple[tf.Tensor, Report]:
        """Return what `perturb` does, and quantities `[batch]` that tell of it."""
        return self.perturb(model, batch.images, batch.labels, batch.step, batch.seed), {}

    def loss(
        self, model: keras.Model, clean: tf.Tensor, adversarial: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, Report]:
        """Return losses `[batch]` of an update, and a dict of quantities `[batch]` whose means the step reports."""
        logits = self.backward.view(model, "update")(adversarial, training=True)
        return self.loss_fn(logits, labels), {"accuracy": losses.correct(logits, labels)}

    def learn(self, model: keras.Model, batch: Batch, updater: Updater) -> Report:
        """Perturb a batch and update the model by it; return what the updates report."""
        adversarial, told = self.attacked(model, batch)
        adversarial = tf.stop_gradient(adversarial)

        def update():
            values, report = self.loss(model, batch.images, adversarial, batch.labels)
            return values, {**report, **told}

        return updater(update)[0]
