"""Gradients of models in half precision: an attack's must not be lost where a confident model's become small.

Half precision ends at 6e-8. The cross-entropy's gradient to a logit is the probability of its class, so that of an
image read with certainty would be zero, and the model look robust. Training scales the loss for that reason; here each
image's gradient at the logits is brought to one size, and what comes out at the image is scaled back.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

SIZE = 16.0  # of the largest gradient at an image's logits; 65504 is the largest number


def in_half_precision(layer: keras.Layer) -> bool:
    """Say whether a model computes in float16 anywhere."""
    dtype = getattr(layer, "compute_dtype", None)
    return dtype == "float16" or any(map(in_half_precision, getattr(layer, "layers", ())))


def keeping_gradients(call: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return `images -> logits` whose gradient to the images survives half precision in between.

    What returns several tensors returns logits first; the others are handed on without a gradient.

    Gradients to anything else, such as weights, are not those of the model.

    Args:
      call: images float32 `[batch, h, w, c]` -> logits float32 `[batch, classes]`.
    """

    def kept(images):
        sizes = []  # the way back begins at the logits: their gradient is known when the images' is asked for

        @tf.custom_gradient
        def entrance(x):
            def gradient(upstream):
                size = tf.reshape(sizes[-1], [-1] + [1] * (len(x.shape) - 1)) / SIZE if sizes else 1.0
                return tf.where(tf.math.is_finite(upstream), upstream * size, tf.zeros_like(upstream))

            return tf.identity(x), gradient

        @tf.custom_gradient
        def end(z):
            def gradient(upstream):
                size = tf.reduce_max(tf.abs(upstream), -1, keepdims=True)
                sizes.append(size)
                return SIZE * tf.math.divide_no_nan(upstream, size)

            return tf.identity(z), gradient

        outputs = call(entrance(images))
        if isinstance(outputs, (list, tuple)):
            return (end(tf.cast(outputs[0], tf.float32)), *map(tf.stop_gradient, outputs[1:]))
        return end(tf.cast(outputs, tf.float32))

    return kept
