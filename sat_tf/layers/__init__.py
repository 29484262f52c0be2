"""Layers that every architecture shares."""

from sat_tf.layers.convolution import Conv, ConvNorm, DepthwiseConvNorm, on_cpu, subsampled
from sat_tf.layers.noise import Dropout, StochasticDepth, drawing_from
from sat_tf.layers.normalisation import Norm, synchronize
from sat_tf.layers.settings import pinned

__all__ = [
    "Conv",
    "ConvNorm",
    "DepthwiseConvNorm",
    "Dropout",
    "Norm",
    "StochasticDepth",
    "drawing_from",
    "on_cpu",
    "pinned",
    "subsampled",
    "synchronize",
]
