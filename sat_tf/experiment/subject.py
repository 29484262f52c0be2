"""What is evaluated: a recipe's model on the test images of its data, with the devices that compute."""

import dataclasses
from typing import Any

from sat_tf.experiment import assembly


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """A model, the data it is evaluated on, and how.

    Attributes:
      recipe: an `hparams.Recipe`; says which attacks.
      model: images -> logits.
      dataset: a `data.Data` whose test part is evaluated.
      batches: of that part.
      strategy: a `tf.distribute.Strategy`.
    """

    recipe: Any
    model: Any
    dataset: Any
    batches: Any
    strategy: Any

    @classmethod
    def of(cls, recipe, model, dataset, image_size, strategy):
        """Return the subject of a model on the test part of a data set."""
        batches = assembly.evaluation_batches(recipe, dataset.test, image_size, strategy)
        return cls(recipe=recipe, model=model, dataset=dataset, batches=batches, strategy=strategy)

    @property
    def batch_size(self):
        """Images at a time, over all replicas."""
        return self.batches.element_spec[1].shape[0]

    @property
    def image_size(self):
        """Pixels a side."""
        return self.batches.element_spec[0].shape[1]

    @property
    def count(self):
        """The number of test images."""
        return self.dataset.test.size

    @property
    def attacked(self):
        """The model as attacks see it, with the gradient of another activation; None for the model itself."""
        return assembly.attacked_view(self.recipe, self.model) if self.recipe.eval_backward else None
