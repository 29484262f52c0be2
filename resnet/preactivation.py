"""Pre-activation ResNets and Wide ResNets for 32-pixel images, the standards of adversarial training on CIFAR."""

import dataclasses
from collections.abc import Callable

import keras

from sat_tf.layers import Conv, ConvNorm, Norm


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """What tells one network of the family from another.

    about: what it is, with parameters for 10 classes. blocks: blocks in each group, a tuple. channels: of each group, a
    tuple as long. stem: channels of the first convolution. final_norm: whether a normalisation and an activation stand
    before the pooling. image_size, preprocess, rates: as `models.MODELS` says.
    """

    about: str
    blocks: tuple[int, ...]
    channels: tuple[int, ...]
    stem: int = 16
    final_norm: bool = True
    image_size: int = 32
    preprocess: str = "resize_crop"
    rates: tuple[str, ...] = ()


VARIANTS = {
    "preact-resnet18": Variant(
        about="11.2 million parameters, pre-activation, 32 pixels (He et al. 2016).",
        blocks=(2, 2, 2, 2),
        channels=(64, 128, 256, 512),
        stem=64,
        final_norm=False,
    ),
    "wrn-10-1": Variant(
        about="0.08 million parameters, pre-activation, for tests, 32 pixels.", blocks=(1, 1, 1), channels=(16, 32, 64)
    ),
    "wrn-28-10": Variant(
        about="36.5 million parameters, pre-activation, 32 pixels (Zagoruyko & Komodakis 2016).",
        blocks=(4, 4, 4),
        channels=(160, 320, 640),
    ),
    "wrn-34-10": Variant(
        about="46.2 million parameters, pre-activation, 32 pixels (Zagoruyko & Komodakis 2016).",
        blocks=(5, 5, 5),
        channels=(160, 320, 640),
    ),
}


def build_preactivation(variant: str, act: Callable[[str], keras.Layer], classes: int, **norm: float) -> keras.Model:
    """Build a network of basic blocks whose activations stand before the convolutions; arguments as `resnet.build`.

    Every block is normalisation, activation, 3x3 convolution, twice, and its sum is left as it is (He et al. 2016,
    "Identity Mappings in Deep Residual Networks", Figure 4e). Where channels change, a 1x1 convolution of the first
    activation stands in for the shortcut; the first block of every group but the first halves the sides.
    Wide ResNets end in a normalisation and an activation (Zagoruyko & Komodakis 2016, Section 2).
    Differs from source: preact-resnet18 does not, as the field has it: so it has RobustBench's 11,171,146 parameters.
    """
    shape = VARIANTS[variant]
    inputs = keras.Input((None, None, 3), name="images")
    x = keras.layers.Rescaling(2.0, -1.0, name="scale")(inputs)
    x = _conv(shape.stem, 3, name="conv0")(x)
    for group, (blocks, filters) in enumerate(zip(shape.blocks, shape.channels, strict=True)):
        for block in range(blocks):
            strides = 2 if group > 0 and block == 0 else 1
            x = _block(x, f"group{group}_block{block}", filters, strides, act, norm)
    if shape.final_norm:
        x = act("final_act")(Norm(name="final_norm", **norm)(x))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    logits = keras.layers.Dense(classes, kernel_initializer="he_normal", dtype="float32", name="linear")(x)
    return keras.Model(inputs, logits, name=variant)


def _block(x, name, filters, strides, act, norm):
    shortcut = x
    x = act(f"{name}_conv1_act")(Norm(name=f"{name}_norm", **norm)(x))
    if shortcut.shape[-1] != filters:
        shortcut = _conv(filters, 1, strides, name=f"{name}_convshortcut")(x)
    x = ConvNorm(filters, 3, strides, padding="symmetric", name=f"{name}_conv1", **norm)(x)
    x = _conv(filters, 3, name=f"{name}_conv2")(act(f"{name}_conv2_act")(x))
    return keras.layers.Add(name=f"{name}_add")([x, shortcut])


def _conv(filters, kernel_size, strides=1, **rest):
    initializer = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    return Conv(filters, kernel_size, strides=strides, use_bias=False, kernel_initializer=initializer, **rest)
