"""Layers that every architecture shares."""

from layers.convolution import ConvNorm, DepthwiseConvNorm
from layers.noise import Dropout, StochasticDepth, drawing_from
from layers.settings import pinned

__all__ = ["ConvNorm", "DepthwiseConvNorm", "Dropout", "StochasticDepth", "drawing_from", "pinned"]
