"""Layers that every architecture shares."""

from layers.convolution import ConvNorm, DepthwiseConvNorm
from layers.noise import Dropout, StochasticDepth, drawing_from

__all__ = ["ConvNorm", "DepthwiseConvNorm", "Dropout", "StochasticDepth", "drawing_from"]
