"""Layers that every architecture shares."""

from sat_tf.layers.convolution import ConvNorm, DepthwiseConvNorm
from sat_tf.layers.noise import Dropout, StochasticDepth, drawing_from
from sat_tf.layers.settings import pinned

__all__ = ["ConvNorm", "DepthwiseConvNorm", "Dropout", "StochasticDepth", "drawing_from", "pinned"]
