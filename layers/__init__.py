"""Layers that every architecture shares."""

from layers.convolution import ConvNorm

__all__ = ["ConvNorm"]
