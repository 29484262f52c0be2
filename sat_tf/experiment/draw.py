"""Figures 1 and 2 of the SAT paper: activations and their derivatives, from the layers themselves."""

import pathlib
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from sat_tf import activations, report


def draw(
    title: str, acts: Iterable[str], folder: str | pathlib.Path, *, edge: float = 4.0, points: int = 801
) -> pathlib.Path:
    """Evaluate activations and their derivatives on [-edge, edge]; write figure.png and figure.json.

    Args:
      title: of the figure.
      acts: activations as `activations.factory` reads them.
      folder: where to.

    Returns:
      The path of the figure.
    """
    curves = {}
    for act in acts:
        layer, x = activations.factory(act)("drawn"), tf.linspace(-edge, edge, points)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = layer(x)
        curves[act] = tuple(np.asarray(line) for line in (x, value, tape.gradient(value, x)))
    return pathlib.Path(report.write_activations(folder, title, curves)["figure.png"])
