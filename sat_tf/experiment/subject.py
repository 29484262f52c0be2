"""What is evaluated: a recipe's model on the test images of its data, with the devices that compute."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from sat_tf import assembly, data, hparams


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """A model, the data it is evaluated on, and how.

    Attributes:
      recipe: says which attacks.
      model: images `[n, size, size, 3]` in [0, 1] -> logits `[n, classes]`.
      dataset: its test part is evaluated.
      batches: of that part.
      strategy: the devices that compute.
    """

    recipe: hparams.Recipe
    model: Callable | None
    dataset: data.Data
    batches: tf.data.Dataset
    strategy: tf.distribute.Strategy

    @classmethod
    def of(
        cls,
        recipe: hparams.Recipe,
        model: Callable | None,
        dataset: data.Data,
        image_size: int,
        strategy: tf.distribute.Strategy,
    ) -> "Subject":
        """Return the subject of a model on the test part of a data set."""
        batches = assembly.evaluation_batches(recipe, dataset.test, image_size, strategy)
        return cls(recipe=recipe, model=model, dataset=dataset, batches=batches, strategy=strategy)

    @property
    def batch_size(self) -> int:
        """Images at a time, over all replicas."""
        return self.batches.element_spec[1].shape[0]

    @property
    def image_size(self) -> int:
        """Pixels a side."""
        return self.batches.element_spec[0].shape[1]

    @property
    def count(self) -> int:
        """The number of test images."""
        return self.dataset.test.size

    @property
    def attacked(self) -> Callable | None:
        """The model as attacks see it, with the gradient of another activation; None for the model itself."""
        return assembly.attacked_view(self.recipe, self.model) if self.recipe.eval_backward else None
