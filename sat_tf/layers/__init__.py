"""Layers that every architecture shares."""

from sat_tf.layers.convolution import ConvNorm, DepthwiseConvNorm
from sat_tf.layers.noise import Dropout, StochasticDepth, drawing_from

__all__ = ["ConvNorm", "DepthwiseConvNorm", "Dropout", "StochasticDepth", "drawing_from"]
