"""A plain network of three convolutions for 28-pixel grey images, without normalisation."""

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """What tells one network of the family from another.

    about: what it is, with parameters for 10 classes. channels, kernels: of the three convolutions. image_size,
    preprocess, rates: as `models.MODELS` says.
    """

    about: str
    channels: tuple[int, int, int] = (64, 128, 128)
    kernels: tuple[int, int, int] = (8, 6, 5)
    image_size: int = 28
    preprocess: str = "resize_crop"
    rates: tuple[str, ...] = ()


VARIANTS = {
    "convnet3": Variant(about="0.73 million parameters, grey, 28 pixels, no normalisation (Sitawarin et al. 2021).")
}


def build_plain(variant: str, act: Callable[[str], keras.Layer], classes: int, **norm: float) -> keras.Model:
    """Build a network of three convolutions and a dense layer, that of the curriculum paper's MNIST; no normalisation.

    It sees the mean of the channels: grey images as RGB are attacked as the grey ones would be. Images of another size
    are brought to 28 pixels first.

    Source: the configuration and code of Sitawarin et al. 2021: 8 x 8 with stride 2, 6 x 6 with stride 2, 5 x 5; maps
    of 14, 8 and 4 pixels; kernels by He et al. 2015 (fan out).
    """
    kind = VARIANTS[variant]
    start = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    inputs = keras.Input((None, None, 3), name="images")
    x = Grey(name="grey")(keras.layers.Resizing(kind.image_size, kind.image_size, name="resize")(inputs))
    for number, (channels, kernel) in enumerate(zip(kind.channels, kind.kernels, strict=True)):
        last = number == len(kind.channels) - 1
        x = x if last else keras.layers.ZeroPadding2D(3, name=f"conv{number}_pad")(x)
        strides = 1 if last else 2
        x = keras.layers.Conv2D(channels, kernel, strides, kernel_initializer=start, name=f"conv{number}")(x)
        x = act(f"conv{number}_act")(x)
    x = keras.layers.Flatten(name="features")(x)
    logits = keras.layers.Dense(classes, dtype="float32", name="linear")(x)
    return keras.Model(inputs, logits, name=variant)


@keras.saving.register_keras_serializable("resnet")
class Grey(keras.layers.Layer):
    """Take the mean of the channels: `[b, h, w, c] -> [b, h, w, 1]`."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return `[b, h, w, 1]`."""
        return tf.reduce_mean(inputs, -1, keepdims=True)
