"""Batch normalisation, with the statistics that this project's convolutions keep, too."""

from typing import Any

import keras
import tensorflow as tf

from sat_tf import replicas

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
      synchronized: whether the replicas of `tf.distribute` normalise by the statistics of the whole batch. Else every
        replica normalises by those of its own part, and the moving ones are the mean over the replicas.
    """

    def __init__(self, momentum: float = 0.9, epsilon: float = 1e-5, synchronized: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.epsilon = epsilon
        self.synchronized = synchronized

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
        if self.synchronized and replicas.count() > 1:
            outputs, mean, variance = self._by_whole_batch(inputs)
        else:
            outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
                inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
            )
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))
        return outputs

    def _by_whole_batch(self, inputs):
        """Return outputs, mean and variance (with Bessel's correction) by the statistics of all replicas' inputs.

        The replicas tell each other their means as distances from the moving mean, whose squares are small.
        """
        mean, variance = tf.nn.moments(tf.cast(inputs, tf.float32), [0, 1, 2])
        count, centre = replicas.count(), tf.stop_gradient(tf.convert_to_tensor(self.moving_mean))
        distance = mean - centre
        distance, square = replicas.added([distance / count, (variance + tf.square(distance)) / count])
        variance = square - tf.square(distance)
        mean = centre + distance
        scale = self.gamma * tf.math.rsqrt(variance + self.epsilon)
        outputs = tf.cast(inputs, tf.float32) * scale + (self.beta - mean * scale)
        values = tf.cast(count * tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
        return tf.cast(outputs, inputs.dtype), mean, variance * values / tf.maximum(values - 1.0, 1.0)

    def scale_and_offset(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Return what the moving statistics do to each channel: `inputs * scale + offset`, both `[c]`."""
        scale = self.gamma * tf.math.rsqrt(self.moving_variance + self.epsilon)
        return scale, self.beta - self.moving_mean * scale

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        kept = {"synchronized": True} if self.synchronized else {}
        return {**super().get_config(), "momentum": self.momentum, "epsilon": self.epsilon, **kept}


def synchronize(model: keras.Model) -> None:
    """Let every batch normalisation of a model, of this package or Keras' own, look at the whole batch in training."""
    for layer in model._flatten_layers():
        if isinstance(layer, (Norm, keras.layers.BatchNormalization)):
            layer.synchronized = True
