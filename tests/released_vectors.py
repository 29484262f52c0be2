"""The random weights on which the release's own network code gave the reference numbers."""

import zlib

import numpy as np


def value(name, shape, kind=None):
    """Draw a variable of the release by its name, as the reference vectors were made.

    `kind`: the name without the suffix of a moving average, where it has one.
    """
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    name = kind or name
    if name.endswith("conv3/bn/gamma"):
        return rng.uniform(0.1, 0.3, shape)
    if name.endswith(("gamma", "variance/EMA", "moving_variance")):
        return rng.uniform(0.5, 1.5, shape)
    if name.endswith(("beta", "mean/EMA", "moving_mean")):
        return rng.normal(0, 0.2, shape)
    if name.endswith(("/b", "bias")):
        return rng.normal(0, 0.1, shape)
    if name.endswith(("linear/W", "dense/kernel")):
        return rng.normal(0, 0.02, shape)
    fan_in = np.prod(shape[:2] if name.endswith("depthwise_kernel") else shape[:-1])
    return rng.normal(0, np.sqrt(2 / fan_in), shape)
