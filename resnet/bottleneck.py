"""Bottleneck ResNets and ResNeXts for ImageNet-sized images, as the SAT release builds them."""

import dataclasses
from collections.abc import Callable

import keras

from sat_tf.layers import ConvNorm


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """What tells one network of the family from another.

    about: what it is, with parameters for 1,000 classes. blocks: blocks in each of the four groups. groups,
    group_width: cardinality and width of a group in the first stage (ResNeXt's 32x4d: 32 and 4); a ResNet is one group
    of 64. image_size, preprocess, rates: as `models.MODELS` says.
    """

    about: str
    blocks: tuple[int, int, int, int]
    groups: int = 1
    group_width: int = 64
    image_size: int = 224
    preprocess: str = "resize_crop"
    rates: tuple[str, ...] = ()


VARIANTS = {
    "resnet50": Variant(about="25.6 million parameters, 224 pixels (He et al. 2015, Table 1).", blocks=(3, 4, 6, 3)),
    "resnet101": Variant(about="44.5 million parameters, 224 pixels (He et al. 2015, Table 1).", blocks=(3, 4, 23, 3)),
    "resnet152": Variant(about="60.2 million parameters, 224 pixels (He et al. 2015, Table 1).", blocks=(3, 8, 36, 3)),
    "resnext50-32x4d": Variant(
        about="25.0 million parameters in 32 groups, 224 pixels (Xie et al. 2017, Table 1).",
        blocks=(3, 4, 6, 3),
        groups=32,
        group_width=4,
    ),
    "resnext50-32x8d": Variant(
        about="48.0 million parameters in 32 groups, 224 pixels (Xie et al. 2017).",
        blocks=(3, 4, 6, 3),
        groups=32,
        group_width=8,
    ),
    "resnext152-32x8d": Variant(
        about="122.4 million parameters in 32 groups, 224 pixels (Xie et al. 2017).",
        blocks=(3, 8, 36, 3),
        groups=32,
        group_width=8,
    ),
}


def build_bottleneck(variant: str, act: Callable[[str], keras.Layer], classes: int, **norm: float) -> keras.Model:
    """Build a bottleneck ResNet (He et al. 2015, Table 1; Xie et al. 2017, Table 1); arguments as `resnet.build`.

    The stride sits on the 3x3 convolution; a projection shortcut stands only where the number of channels changes;
    the last normalisation of a block starts with gamma zero (Goyal et al. 2017).
    """
    shape = VARIANTS[variant]
    inputs = keras.Input((None, None, 3), name="images")
    x = keras.layers.Rescaling(2.0, -1.0, name="scale")(inputs)
    x = ConvNorm(64, 7, strides=2, padding="symmetric", name="conv0", **norm)(x)
    x = act("conv0_act")(x)
    x = keras.layers.MaxPooling2D(3, 2, "same", name="pool0")(x)
    for group, blocks in enumerate(shape.blocks):
        for block in range(blocks):
            strides = 2 if group > 0 and block == 0 else 1
            x = _block(x, f"group{group}_block{block}", 64 * 2**group, strides, shape, act, norm)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    logits = keras.layers.Dense(
        classes, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01), dtype="float32", name="linear"
    )(x)
    return keras.Model(inputs, logits, name=variant)


def _block(x, name, planes, strides, shape, act, norm):
    width = planes * shape.groups * shape.group_width // 64
    shortcut = x
    if x.shape[-1] != 4 * planes:
        shortcut = ConvNorm(4 * planes, 1, strides, name=f"{name}_convshortcut", **norm)(x)
    x = act(f"{name}_conv1_act")(ConvNorm(width, 1, name=f"{name}_conv1", **norm)(x))
    x = ConvNorm(width, 3, strides, shape.groups, "symmetric", name=f"{name}_conv2", **norm)(x)
    x = act(f"{name}_conv2_act")(x)
    x = ConvNorm(4 * planes, 1, zero_gamma=True, name=f"{name}_conv3", **norm)(x)
    return act(f"{name}_act")(keras.layers.Add(name=f"{name}_add")([x, shortcut]))
