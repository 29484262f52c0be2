"""Small ResNets for 32-pixel images."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from sat_tf.layers import ConvNorm, subsampled


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """What tells one network of the family from another.

    about: what it is, with parameters for 10 classes. blocks: blocks in each of the three groups. channels: of the
    first. image_size, preprocess, rates: as `models.MODELS` says.
    """

    about: str
    blocks: int
    channels: int = 16
    image_size: int = 32
    preprocess: str = "resize_crop"
    rates: tuple[str, ...] = ()


VARIANTS = {
    "resnet2-w8": Variant(about="0.00032 million parameters, for tests: no blocks, 32 pixels.", blocks=0, channels=8),
    "resnet8-w8": Variant(about="0.02 million parameters, half as wide, 32 pixels.", blocks=1, channels=8),
    "resnet14": Variant(about="0.17 million parameters, 32 pixels (He et al. 2015, Section 4.2).", blocks=2),
    "resnet20": Variant(about="0.27 million parameters, 32 pixels (He et al. 2015, Section 4.2).", blocks=3),
    "resnet32": Variant(about="0.46 million parameters, 32 pixels (He et al. 2015, Section 4.2).", blocks=5),
    "resnet20-w8": Variant(about="0.07 million parameters, half as wide, 32 pixels.", blocks=3, channels=8),
    "resnet32-w8": Variant(about="0.12 million parameters, half as wide, 32 pixels.", blocks=5, channels=8),
    "resnet20-w32": Variant(about="1.1 million parameters, twice as wide, 32 pixels.", blocks=3, channels=32),
}


def build_small(variant: str, act: Callable[[str], keras.Layer], classes: int, **norm: float) -> keras.Model:
    """Build a ResNet of 6n + 2 layers for 32-pixel images (He et al. 2015, Section 4.2); arguments as `resnet.build`.

    Three groups of n two-layer blocks with 16, 32 and 64 channels, or from the number after `-w`; shortcuts without
    parameters (option A).
    """
    blocks, channels = VARIANTS[variant].blocks, VARIANTS[variant].channels
    inputs = keras.Input((None, None, 3), name="images")
    x = keras.layers.Rescaling(2.0, -1.0, name="scale")(inputs)
    x = act("conv0_act")(ConvNorm(channels, 3, name="conv0", **norm)(x))
    for group in range(3):
        for block in range(blocks):
            strides = 2 if group > 0 and block == 0 else 1
            x = _block(x, f"group{group}_block{block}", channels * 2**group, strides, act, norm)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    logits = keras.layers.Dense(classes, kernel_initializer="he_normal", dtype="float32", name="linear")(x)
    return keras.Model(inputs, logits, name=variant)


def _block(x, name, filters, strides, act, norm):
    shortcut = x if strides == 1 else Subsample(filters, name=f"{name}_shortcut")(x)
    x = act(f"{name}_conv1_act")(ConvNorm(filters, 3, strides, name=f"{name}_conv1", **norm)(x))
    x = ConvNorm(filters, 3, name=f"{name}_conv2", **norm)(x)
    return act(f"{name}_act")(keras.layers.Add(name=f"{name}_add")([x, shortcut]))


@keras.saving.register_keras_serializable("resnet")
class Subsample(keras.layers.Layer):
    """Take every second pixel and pad with zero channels, half on each side: `[b, h, w, c] -> [b, h/2, w/2, filters]`.

    Source: He et al. 2015, Section 4.2, shortcut option A.
    """

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return `[b, h/2, w/2, filters]`."""
        missing = self.filters - inputs.shape[-1]
        return tf.pad(subsampled(inputs, 2), [[0, 0], [0, 0], [0, 0], [missing // 2, missing - missing // 2]])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, _ = input_shape
        return (batch, *(None if n is None else -(-n // 2) for n in (height, width)), self.filters)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters}
