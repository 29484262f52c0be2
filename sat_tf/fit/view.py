"""A user's model as methods and attacks see it: images in [0, 1] -> logits."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from sat_tf import inputs
from sat_tf.evaluate.predictor import logits_of
from sat_tf.half import in_half_precision, keeping_gradients
from sat_tf.methods.difficulty import with_features

LOGITS, PROBABILITIES = "logits", "probabilities"
LEAST = 1e-30  # of a probability whose logarithm is taken


class View:
    """A Keras model that wants images of some range and may end in a softmax, as `(images, training) -> logits`.

    What it does not have itself it has of the model: variables, layers, losses. In inference mode, where attacks are,
    gradients to the images are kept within half precision, where the model has that.

    Args:
      model: one input, images; one output.
      value_range: of the images that it wants.
      kind: what it returns, `LOGITS` or `PROBABILITIES`.
      seen: `(images, outputs)` of the passes in training mode, in their order.
    """

    def __init__(self, model: keras.Model, value_range: tuple[float, float], kind: str) -> None:
        self.model, self.kind, self.seen = model, kind, []
        self.low, self.high = inputs.span(value_range)
        self.keeps = in_half_precision(model)

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return logits, float32 `[batch, classes]`, of images `[batch, h, w, c]` in [0, 1]."""

        def call(x):
            outputs = self.model(self._scaled(x), training=training)
            if training:
                self.seen.append((images, outputs))
            return logits_of_outputs(outputs, self.kind)

        return keeping_gradients(call)(images) if self.keeps and not training else call(images)

    def _scaled(self, images):
        """Return images in [0, 1] in the range that the model wants."""
        return images if (self.low, self.high) == inputs.UNIT else self.low + (self.high - self.low) * images

    def trained_on(self, images: tf.Tensor) -> tf.Tensor:
        """Return the model's outputs of the last pass in training mode, which is that of the images trained on.

        Where there was none, of `images` in inference mode.
        """
        return self.seen[-1][1] if self.seen else self.model(self._scaled(images), training=False)

    def with_features(self) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
        """Return `(images, training) -> (logits, features)`, for methods that ask for the last layer's input, too."""
        model = with_features(self.model)

        def call(images, training=False):
            outputs, features = model(self._scaled(images), training=training)
            return logits_of_outputs(outputs, self.kind), tf.cast(features, tf.float32)

        return call

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["model"], name)


def logits_of_outputs(outputs: Any, kind: str) -> tf.Tensor:
    """Return the logits, float32 `[batch, classes]`, of what a model returned.

    A softmax' are what it was computed from, where Keras knows that; else the logarithms of its probabilities, whose
    cross-entropy is the same.
    """
    if kind == LOGITS:
        return logits_of(outputs)
    probabilities = single(outputs)
    known = getattr(probabilities, "_keras_logits", None)
    if known is None and not tf.executing_eagerly() and probabilities.op.type == "Softmax":
        known = probabilities.op.inputs[0]
    return logits_of(tf.math.log(logits_of(probabilities) + LEAST) if known is None else known)


def kind_of(outputs: Any, from_logits: bool | None, loss: str) -> str:
    """Return what a model's outputs are: `LOGITS` or `PROBABILITIES`.

    Args:
      outputs: for some images.
      from_logits: what the loss says of them, None where it says nothing.
      loss: its name.

    Raises:
      ValueError: they are not what the loss says.
    """
    values = logits_of(outputs).numpy()
    off = float(abs(values.sum(-1) - 1).max())
    found = PROBABILITIES if values.min() >= 0 and values.max() <= 1 and off < 1e-2 else LOGITS
    if from_logits is None or (found == LOGITS) == from_logits:
        return found
    received = f"outputs from {values.min():.4g} to {values.max():.4g}, whose sums are up to {off:.4g} from 1"
    if from_logits:
        raise ValueError(
            f"Expected logits, since the loss {loss} says from_logits=True. Received: probabilities, {received}. "
            "Take the softmax off the model's end, or compile with a loss of from_logits=False."
        )
    raise ValueError(
        f"Expected probabilities, since the loss {loss} says from_logits=False. Received: {received}. Compile with "
        "keras.losses.SparseCategoricalCrossentropy(from_logits=True) or its like, or end the model in a softmax."
    )


def single(outputs: Any) -> tf.Tensor:
    """Return the one tensor of a dictionary or list as it is."""
    while isinstance(outputs, (dict, list, tuple)) and len(outputs) == 1:
        outputs = next(iter(outputs.values())) if isinstance(outputs, dict) else outputs[0]
    return outputs
