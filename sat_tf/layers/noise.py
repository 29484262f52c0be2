"""Layers that draw random numbers in training, and where their seed comes from."""

import contextlib
import contextvars
import zlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from sat_tf.replicas import uniform

_SEED = contextvars.ContextVar("seed of the forward pass", default=None)  # each replica is traced in its own thread


@contextlib.contextmanager
def drawing_from(seed: tf.Tensor) -> Iterator[None]:
    """Let every layer of this module draw from `seed`, int32 `[2]`, in the forward passes inside.

    The seed is fixed when a pass is traced, and differs from layer to layer by the layer's name: the same seed gives
    the same draws, and no state is left in the model. Outside, layers draw from TensorFlow's global generator.
    """
    token = _SEED.set(seed)
    try:
        yield
    finally:
        _SEED.reset(token)


class Noise(keras.layers.Layer):
    """Drop parts of the input with probability `rate` in training, and divide the rest by 1 - rate."""

    def __init__(self, rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"Expected a rate in [0, 1). Received: rate={rate}.")
        self.rate = rate

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return the inputs, with parts of them dropped in training: `[...] -> [...]`."""
        if not training or not self.rate:
            return inputs
        shape, seed = self.parts(tf.shape(inputs)), _SEED.get()
        if seed is None:
            draw = tf.random.uniform(shape)
        else:
            name = zlib.crc32(self.name.encode()) & 0x7FFFFFFF
            draw = uniform(shape, tf.random.experimental.stateless_fold_in(seed, name))
        return inputs * tf.cast(tf.cast(draw >= self.rate, tf.float32) / (1.0 - self.rate), inputs.dtype)

    def parts(self, shape: tf.Tensor) -> tf.Tensor:
        """Return the shape of the draw for inputs of a shape, an int32 tensor."""
        raise TypeError(f"Expected a subclass that defines parts(shape). Received: {type(self).__name__}.")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate}


@keras.saving.register_keras_serializable("layers")
class Dropout(Noise):
    """Drop single values (Srivastava et al. 2014): `[...] -> [...]`."""

    def parts(self, shape: tf.Tensor) -> tf.Tensor:
        return shape


@keras.saving.register_keras_serializable("layers")
class StochasticDepth(Noise):
    """Drop a residual branch, example by example (Huang et al. 2016): `[b, h, w, c] -> [b, h, w, c]`."""

    def parts(self, shape: tf.Tensor) -> tf.Tensor:
        return tf.concat([shape[:1], tf.ones_like(shape[1:])], 0)
