"""Batch normalisation, with the statistics that this project's convolutions keep, too."""

from typing import Any

import keras
import tensorflow as tf

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("layers")
class Norm(keras.layers.Layer):
    """Normalise by batch (Ioffe & Szegedy 2015): `[b, h, w, c] -> [b, h, w, c]`.

    In training mode the batch's own statistics normalise, and the moving ones follow them:
    `moving = momentum * moving + (1 - momentum) * batch` (the variance with Bessel's correction, as TF1's fused
    operation does). In inference mode the moving statistics are a scale and an offset. `ConvNorm` is a convolution and
    this as one layer; this alone is for a normalisation that no convolution stands right before (He et al. 2016).

    Args:
      momentum, epsilon: of the batch normalisation.

    Under `tf.distribute` every replica normalises by its own part of the batch; the moving statistics are the mean
    over the replicas.
    """

    def __init__(self, momentum: float = 0.9, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, input_shape: Shape) -> None:
        self.add_norm(input_shape[-1])

    def add_norm(self, channels: int, gamma: str = "ones") -> None:
        """Add the variables of a normalisation of so many channels; `gamma` names its initializer."""
        vector = {"shape": (channels,), "autocast": False}
        self.gamma = self.add_weight(name="gamma", initializer=gamma, **vector)
        self.beta = self.add_weight(name="beta", initializer="zeros", **vector)
        moving = {**vector, "trainable": False, "aggregation": "mean"}
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **moving)
        self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", **moving)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return `[b, h, w, c]`; `training` says whose statistics normalise."""
        if training and self.trainable:  # frozen, it keeps its statistics, as Keras' own
            return self.by_batch(inputs)
        scale, offset = self.scale_and_offset()
        return inputs * tf.cast(scale, inputs.dtype) + tf.cast(offset, inputs.dtype)

    def by_batch(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the inputs normalised by their own statistics, which the moving ones follow."""
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))
        return outputs

    def scale_and_offset(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Return what the moving statistics do to each channel: `inputs * scale + offset`, both `[c]`."""
        scale = self.gamma * tf.math.rsqrt(self.moving_variance + self.epsilon)
        return scale, self.beta - self.moving_mean * scale

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "epsilon": self.epsilon}
