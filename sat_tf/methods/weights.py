"""Adversarial weight perturbation: an update where the weights, too, are the worst nearby."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from sat_tf.methods.standard import Batch, Report, Standard, Update, Updater


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightPerturbed(Standard):
    """Another method, each of whose updates has its gradients at w + v, v = gamma |w| g / |g| layer by layer (AWP).

    g is the gradient of what the update minimises, over the batch of all replicas; kernels move, vectors (biases,
    normalisation) do not. The weights themselves are never moved: the gradients at w + v are applied to w, so nothing
    of v is left after a step. Statistics of batch normalisation are those of the pass at w + v.

    Differs from source: weight decay acts on w, the authors' on w + v.

    Source: Wu et al. 2020, "Adversarial Weight Perturbation Helps Robust Generalization", equations 8 to 10, K2 = 1.

    Attributes:
      method: whose perturbation and loss these are.
      gamma: size of v relative to its layer.
      begin: step at which it begins.
    """

    method: Standard
    gamma: float = 0.005
    begin: int = 0

    def __post_init__(self):
        if not self.gamma >= 0:
            raise ValueError(f"Expected a gamma of at least 0, such as 0.005. Received: gamma={self.gamma}.")
        for name in ("loss_fn", "backward", "attack"):
            object.__setattr__(self, name, getattr(self.method, name))

    @property
    def words(self) -> str:
        """How a model card says that it was trained."""
        return f"{self.method.words}, with adversarial weight perturbation (Wu et al. 2020)"

    @property
    def trains_on(self) -> str:
        """The images whose loss and accuracy a step reports."""
        return self.method.trains_on

    @property
    def quantities(self) -> tuple[str, ...]:
        """What a step reports beside the loss."""
        return self.method.quantities

    @property
    def best_by(self) -> str:
        """The validation accuracy that chooses the best checkpoint."""
        return self.method.best_by

    @property
    def takes_mixed(self) -> bool:
        """Whether labels may be probabilities."""
        return self.method.takes_mixed

    @property
    def updates(self) -> int:
        """Updates of the weights, a batch."""
        return self.method.updates

    @property
    def ends_early(self) -> bool:
        """Whether the attack may cost less than is said."""
        return self.method.ends_early

    @property
    def wants_ids(self) -> bool:
        """Whether a batch should say which images it holds."""
        return self.method.wants_ids

    @property
    def attack_equivalents(self) -> int:
        """Cost of the attack in forward passes."""
        return self.method.attack_equivalents

    @property
    def update_equivalents(self) -> int:
        """Cost of an update in forward passes: its gradients are taken twice."""
        return 2 * self.method.update_equivalents

    def memory(self, batch_size: int, image_shape: tuple[int, ...], images: int) -> dict[str, tuple[int, ...]]:
        """Return what the method keeps from step to step."""
        return self.method.memory(batch_size, image_shape, images)

    def perturb(
        self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Return the method's images, `[batch, h, w, 3]`."""
        return self.method.perturb(model, images, labels, step, seed)

    def loss(
        self, model: keras.Model, clean: tf.Tensor, adversarial: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, Report]:
        """Return the method's losses `[batch]` and report."""
        return self.method.loss(model, clean, adversarial, labels)

    def learn(self, model: keras.Model, batch: Batch, updater: Updater) -> Report:
        """Learn as the method does, with gradients at the perturbed weights."""
        share = tf.cast(batch.step >= self.begin, tf.float32)
        return self.method.learn(model, batch, Perturbing(updater=updater, gamma=self.gamma * share))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perturbing:
    """An updater that takes its gradients at perturbed weights.

    Attributes:
      updater: makes the updates.
      gamma: size of the perturbation relative to each layer, a number or a scalar tensor.
    """

    updater: Updater
    gamma: Any

    @property
    def variables(self) -> list[Any]:
        """The trainable variables."""
        return self.updater.variables

    def gradients(self, update: Update) -> list[tf.Tensor]:
        """Return the gradients at the weights as they are."""
        return self.updater.gradients(update)

    def __call__(
        self, update: Update, *, watched: tf.Tensor | None = None, weights: list[tf.Tensor] | None = None
    ) -> tuple[Report, tf.Tensor | None]:
        """Make one update with gradients at the worst weights nearby."""
        gradients = self.updater.gradients(update)
        return self.updater(update, watched=watched, weights=perturbed(self.variables, gradients, self.gamma))


def perturbed(variables: list[Any], gradients: list[tf.Tensor | None], gamma: Any) -> list[tf.Tensor]:
    """Return the variables, each kernel of them moved by `gamma` times its own length along its gradient.

    Args:
      variables: of any shapes; those of one axis or none stay as they are.
      gradients: of the same shapes, None where a variable has none.
      gamma: a number or a scalar tensor.
    """
    moved = []
    for variable, gradient in zip(variables, gradients, strict=True):
        weight = tf.convert_to_tensor(variable.value)
        if gradient is not None and len(weight.shape) > 1:
            gradient = tf.cast(gradient, weight.dtype)
            size = tf.norm(gradient)
            known = tf.math.is_finite(size)  # else half precision has overflowed, and the update will be left out
            length = tf.cast(gamma, weight.dtype) * tf.norm(weight) / (tf.where(known, size, 1.0) + 1e-12)
            weight = weight + length * tf.where(known, gradient, tf.zeros_like(gradient))
        moved.append(weight)
    return moved
