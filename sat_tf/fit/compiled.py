"""The loss that `compile` was given, as methods want it: one value an image, of logits and labels."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from sat_tf.fit.view import PROBABILITIES


class _Reduced(keras.losses.Loss):
    """Keras' own reduction of values that are there already."""

    def call(self, y_true, y_pred):
        return y_pred


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompiledLoss:
    """A loss as `compile` takes it.

    Attributes:
      function: `(y_true, y_pred) -> values`, or a `keras.losses.Loss`.
      from_logits: what it says of a model's outputs, None where it says nothing.
      reduction: of the values, as Keras names it.
      weight: of `loss_weights`.
    """

    function: Callable
    from_logits: bool | None
    reduction: str | None
    weight: float

    @classmethod
    def of(cls, loss: Any, weights: Any = None) -> "CompiledLoss":
        """Return the loss that a name, function or `keras.losses.Loss` means.

        Raises:
          ValueError: there is none, or several.
        """
        loss, weight = _only("loss", loss), _only("loss_weights", weights)
        if loss is None:
            raise ValueError("Expected a loss, such as 'sparse_categorical_crossentropy'. Received: loss=None.")
        if isinstance(loss, str):
            loss = keras.losses.get({"ce": "crossentropy"}.get(loss, loss))
        function = loss() if inspect.isclass(loss) else loss
        reduction = function.reduction if isinstance(function, keras.losses.Loss) else "sum_over_batch_size"
        return cls(
            function=function,
            from_logits=_says(function),
            reduction=reduction,
            weight=1.0 if weight is None else float(weight),
        )

    @property
    def sparse(self) -> bool | None:
        """Whether its labels are whole numbers, as its name says; None where that says nothing."""
        words = f"{self.name} {type(self.function).__name__}".lower()
        return None if "categorical" not in words else "sparse" in words

    @property
    def name(self) -> str:
        """What it is called."""
        return getattr(self.function, "name", None) or getattr(self.function, "__name__", type(self.function).__name__)

    def values(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Return the loss of each image, float32 `[batch]`; a function that returns one number says it of all."""
        y_true, y_pred = tf.cast(y_true, tf.float32), _kept(y_pred)
        is_loss = isinstance(self.function, keras.losses.Loss)
        found = tf.cast((self.function.call if is_loss else self.function)(y_true, y_pred), tf.float32)
        if found.shape.rank == 0:
            return tf.fill(tf.shape(y_pred)[:1], found)
        return tf.reduce_mean(tf.reshape(found, [tf.shape(found)[0], -1]), -1)

    def of_logits(self, kind: str, y_true: tf.Tensor, labels: tf.Tensor) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """Return it as `(logits, labels) -> [batch]`.

        Args:
          kind: what the model's outputs are, as `view.View` has it.
          y_true: the batch's labels as the user gave them, which may be soft.
          labels: the same as classes, int32 `[batch]`; asked of this very tensor the loss is that of `y_true`.
        """

        def loss(logits, asked):
            y_pred = keras.activations.softmax(logits) if kind == PROBABILITIES else logits
            if asked is labels:
                return self.values(y_true, y_pred)
            if y_true.shape.rank == 2 and y_true.shape[-1] != 1:
                return self.values(tf.one_hot(asked, logits.shape[-1]), y_pred)
            return self.values(asked if y_true.shape.rank == 1 else asked[:, None], y_pred)

        return loss

    def total(self, values: tf.Tensor, sample_weight: tf.Tensor | None) -> tf.Tensor:
        """Return one number of the values `[batch]`, weighted and reduced as Keras does, for one of the replicas."""
        return self.weight * tf.reduce_sum(
            _Reduced(reduction=self.reduction, name="reduced")(values, values, sample_weight)
        )


def _only(name, given):
    """Return the one item of a list or dictionary."""
    if isinstance(given, (dict, list, tuple)):
        if len(given) != 1:
            raise ValueError(f"Expected one {name} for a model with one output. Received: {name}={given!r}.")
        return next(iter(given.values())) if isinstance(given, dict) else given[0]
    return given


def _says(function):
    """Return whether a loss says that it takes logits; None where it says nothing."""
    if isinstance(function, keras.losses.Loss):
        try:
            said = function.get_config().get("from_logits")
        except (NotImplementedError, TypeError, ValueError):
            said = None
        return getattr(function, "from_logits", None) if said is None else bool(said)
    try:
        said = inspect.signature(function).parameters.get("from_logits")
    except (TypeError, ValueError):
        return None
    return said.default if said is not None and isinstance(said.default, bool) else None


def _kept(y_pred):
    """Return outputs in float32 without losing what Keras notes on them, the logits of a softmax."""
    return y_pred if y_pred.dtype == tf.float32 else tf.cast(y_pred, tf.float32)
