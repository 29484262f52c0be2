"""EfficientNet with a pluggable activation, as the SAT release builds it."""

from collections.abc import Callable

import keras

from sat_tf.efficientnet.scaling import VARIANTS, sizes
from sat_tf.layers import Conv, ConvNorm, DepthwiseConvNorm, Dropout, StochasticDepth, pinned

SCALES = {False: (2.0, -1.0), True: (255 / 128, -127 / 128)}  # by `lite`: what the weights of either family want


@pinned()
def build(
    variant: str,
    act: Callable[[str], keras.Layer],
    classes: int = 1000,
    *,
    dropout: float | None = 0.0,
    stochastic_depth: float = 0.0,
    zero_gamma: bool = False,
    **norm: float,
) -> keras.Model:
    """Build one network of the family (Tan & Le 2019), for images of any size.

    Padding is SAME everywhere; squeeze-excite (Hu et al. 2018) has the same activation between its layers.
    Differs from source: the classifier starts within 1 / sqrt(1000) also where there are fewer classes; the release's
    1 / sqrt(classes) gives ten classes logits of 5 and more before the first step, from which B7 hardly recovers.

    Args:
      variant: a key of `VARIANTS`, such as "efficientnet-b0", "efficientnet-lite0".
      act: activation factory, `layer_name -> keras.Layer`; called once for every activation site.
      classes: number of logits.
      dropout: rate before the classifier; None for the variant's own.
      stochastic_depth: block i of n drops its residual branch with probability `stochastic_depth * i / n`.
      zero_gamma: let every residual branch start at zero by the gamma of its last normalisation (Goyal et al. 2017).
      **norm: `momentum` and `epsilon` of every batch normalisation.

    Returns:
      A `keras.Model`: float32 RGB `[batch, h, w, 3]` in [0, 1] -> float32 logits `[batch, classes]`.
    """
    if variant not in VARIANTS:
        raise ValueError(f"Expected a variant of {', '.join(VARIANTS)}. Received: variant={variant!r}.")
    stem, blocks, head = sizes(variant)
    dropout = VARIANTS[variant].dropout if dropout is None else dropout
    inputs = keras.Input((None, None, 3), name="images")
    x = keras.layers.Rescaling(*SCALES[VARIANTS[variant].lite], name="scale")(inputs)
    x = act("stem_act")(ConvNorm(stem, 3, strides=2, name="stem", **norm)(x))
    for i, block in enumerate(blocks):
        x = _block(x, f"block{i}", block, stochastic_depth * i / len(blocks), zero_gamma, act, norm)
    x = act("head_act")(ConvNorm(head, 1, name="head", **norm)(x))
    x = Dropout(dropout, name="dropout")(keras.layers.GlobalAveragePooling2D(name="pool")(x))
    bound = max(classes, 1000) ** -0.5
    initializer = keras.initializers.RandomUniform(-bound, bound)
    logits = keras.layers.Dense(classes, kernel_initializer=initializer, dtype="float32", name="linear")(x)
    return keras.Model(inputs, logits, name=variant)


def _block(x, name, block, drop_rate, zero_gamma, act, norm):
    shortcut = x
    if block.expansion > 1:
        x = act(f"{name}_expand_act")(ConvNorm(block.expanded, 1, name=f"{name}_expand", **norm)(x))
    x = DepthwiseConvNorm(block.kernel_size, block.strides, name=f"{name}_depthwise", **norm)(x)
    x = act(f"{name}_depthwise_act")(x)
    if block.squeezed:
        x = _squeeze_excite(x, name, block, act)
    zero_gamma = zero_gamma and block.residual
    x = ConvNorm(block.outputs, 1, zero_gamma=zero_gamma, name=f"{name}_project", **norm)(x)
    if not block.residual:
        return x
    x = StochasticDepth(drop_rate, name=f"{name}_drop")(x)
    return keras.layers.Add(name=f"{name}_add")([x, shortcut])


def _squeeze_excite(x, name, block, act):
    """Scale each channel by a gate in (0, 1) that the means of all channels decide."""
    initializer = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_se_pool")(x)
    reduce = Conv(block.squeezed, 1, kernel_initializer=initializer, name=f"{name}_se_reduce")
    gate = act(f"{name}_se_act")(reduce(gate))
    expand = Conv(block.expanded, 1, activation="sigmoid", kernel_initializer=initializer, name=f"{name}_se_expand")
    gate = expand(gate)
    return keras.layers.Multiply(name=f"{name}_se_scale")([x, gate])
