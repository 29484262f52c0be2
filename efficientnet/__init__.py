"""EfficientNet B0 to B8, L1, L2 and Lite with a pluggable activation: images in [0, 1] to logits."""

from sat_tf.efficientnet.model import build
from sat_tf.efficientnet.scaling import VARIANTS, sizes

__all__ = ["VARIANTS", "build", "sizes"]
