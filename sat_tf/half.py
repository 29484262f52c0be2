"""Models in half precision: which layers compute in it, and gradients of attacks that must not be lost in it.

Half precision ends at 6e-8. The cross-entropy's gradient to a logit is the probability of its class, so that of an
image read with certainty would be zero, and the model look robust. Training scales the loss for that reason; here each
image's gradient at the logits is brought to one size, and what comes out at the image is scaled back.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import keras
import tensorflow as tf

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
SCALING = (keras.layers.Rescaling, keras.layers.Normalization)
SIZE = 16.0  # of the largest gradient at an image's logits; 65504 is the largest number


def compute_in(model: keras.Model, precision: str) -> None:
    """Have the layers of a model compute in a precision from now on; weights are float32 in each.

    The last layer, whose outputs are logits, and what scales images at the beginning compute in float32 always. What
    was traced before stays as it was; layers of neither float32 nor half precision are left alone.

    Args:
      model: built.
      precision: of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"Expected precision of {', '.join(PRECISIONS)}. Received: precision={precision}.")
    known = [keras.DTypePolicy(name) for name in PRECISIONS]
    last = model.layers[-1:] if hasattr(model, "layers") else []
    for layer in model._flatten_layers():
        if layer.dtype_policy in known:
            exact = layer in last or isinstance(layer, SCALING)
            layer.dtype_policy = "float32" if exact else precision


@contextlib.contextmanager
def computing_in(model: keras.Model, precision: str) -> Iterator[None]:
    """Have a model compute in a precision for as long, then as before: for what is traced inside."""
    with having(policies_of([model])):
        compute_in(model, precision)
        yield


def policies_of(layers: Iterable[keras.Layer]) -> list[tuple[keras.Layer, keras.DTypePolicy]]:
    """Return what layers, and those inside of them, compute in now."""
    return [(each, each.dtype_policy) for layer in layers for each in layer._flatten_layers()]


@contextlib.contextmanager
def having(policies: list[tuple[keras.Layer, keras.DTypePolicy]]) -> Iterator[None]:
    """Have layers compute in what `policies_of` returned for as long, then as before."""
    before = [(layer, layer.dtype_policy) for layer, _ in policies]
    try:
        _give(policies)
        yield
    finally:
        _give(before)


def _give(policies):
    for layer, policy in policies:
        if layer.dtype_policy is not policy:
            layer.dtype_policy = policy


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
