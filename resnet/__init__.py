"""ResNet, ResNeXt and Wide ResNet with a pluggable activation: images in [0, 1] to logits."""

from collections.abc import Callable

import keras

from sat_tf.layers import pinned
from sat_tf.resnet.bottleneck import VARIANTS as BOTTLENECK_VARIANTS
from sat_tf.resnet.bottleneck import build_bottleneck
from sat_tf.resnet.plain import VARIANTS as PLAIN_VARIANTS
from sat_tf.resnet.plain import build_plain
from sat_tf.resnet.preactivation import VARIANTS as PREACTIVATION_VARIANTS
from sat_tf.resnet.preactivation import build_preactivation
from sat_tf.resnet.small import VARIANTS as SMALL_VARIANTS
from sat_tf.resnet.small import build_small

FAMILIES = (  # a table of variants, and the function that builds them
    (SMALL_VARIANTS, build_small),
    (PLAIN_VARIANTS, build_plain),
    (PREACTIVATION_VARIANTS, build_preactivation),
    (BOTTLENECK_VARIANTS, build_bottleneck),
)
VARIANTS = {**SMALL_VARIANTS, **PLAIN_VARIANTS, **PREACTIVATION_VARIANTS, **BOTTLENECK_VARIANTS}


@pinned()
def build(variant: str, act: Callable[[str], keras.Layer], classes: int = 1000, **norm: float) -> keras.Model:
    """Build one network of the family.

    Args:
      variant: a key of `VARIANTS`, such as "resnet50", "resnext50-32x4d", "resnet20", "wrn-28-10".
      act: activation factory, `layer_name -> keras.Layer`; called once for every activation site.
      classes: number of logits.
      **norm: `momentum` and `epsilon` of every batch normalisation.

    Returns:
      A `keras.Model`: float32 RGB `[batch, h, w, 3]` in [0, 1] -> float32 logits `[batch, classes]`.
    """
    if variant not in VARIANTS:
        raise ValueError(f"Expected a variant of {', '.join(VARIANTS)}. Received: variant={variant!r}.")
    builder = next(build for variants, build in FAMILIES if variant in variants)
    return builder(variant, act, classes, **norm)


__all__ = ["BOTTLENECK_VARIANTS", "PLAIN_VARIANTS", "PREACTIVATION_VARIANTS", "SMALL_VARIANTS", "VARIANTS", "build"]
