"""A look at the data that `fit` was given, before any work: images in their range, labels of the model's classes."""

import types
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from sat_tf import inputs

FEW = 8  # images that the model is tried on
OUTSIDE = (
    "Expected images within value_range in every batch. Received: a batch beyond it. Scale the images, or state "
    "AdversarialModel(..., value_range=(LOWEST, HIGHEST))."
)


def first_of(x: Any, y: Any) -> tuple[Any, Any, Any]:
    """Return what `fit` is to be given for `x`, and the first images and labels; None for labels without a batch.

    Arrays are looked at as a whole; of anything else the first batch is, and a generator gets it back.
    """
    if isinstance(x, types.GeneratorType):
        first = next(x)

        def again(rest=x):
            yield first
            yield from rest

        return again(), *_parts(first)
    if isinstance(x, keras.utils.PyDataset):
        return x, *_parts(x[0])
    if _is_batches(x):
        return x, *_parts(next(iter(x)))
    if isinstance(x, list) and x and np.ndim(x[0]) == 3:  # Keras takes a list for several inputs
        x = inputs.array(x)
    return x, whole(x), whole(y)


def whole(values: Any) -> Any:
    """Return the one array of a dictionary, list or tuple as Keras takes them for inputs."""
    while isinstance(values, (dict, list, tuple)) and len(values) == 1:
        values = next(iter(values.values())) if isinstance(values, dict) else values[0]
    if isinstance(values, (dict, tuple)) or (isinstance(values, list) and values and np.ndim(values[0]) > 1):
        raise ValueError(f"Expected one input, images. Received: {len(values)} inputs.")
    return values


def check_images(images: Any, value_range: tuple[float, float]) -> np.ndarray:
    """Return a few of the images after a look at all of them.

    Raises:
      ValueError: they are no images `[n, h, w, c]`, or leave the range, or are those of another one.
    """
    images = inputs.array(_local(images))
    low, high = inputs.span(value_range)
    found = inputs.extent(images)
    inputs.in_unit_range(images[:1], value_range, found=found)
    if images.dtype.kind == "f" and high - low > 2 and found[0] >= 0 and found[1] <= 1 and len(images):
        raise ValueError(
            f"Expected images with values from {low:g} to {high:g}. Received: values from {found[0]:.4g} to "
            f"{found[1]:.4g}. State value_range=(0, 1), which they have."
        )
    return images[:FEW]


def check_labels(labels: Any, classes: int, sparse: bool | None, loss: str) -> None:
    """Refuse labels that are not classes of the model, nor rows of weights of them.

    Args:
      labels: `[n]`, `[n, 1]` or `[n, classes]`.
      classes: of the model.
      sparse: whether the loss `loss` takes whole numbers; None where it does not say.
    """
    labels = np.asarray(_local(labels))
    rows = labels.ndim == 2 and labels.shape[1] > 1
    if sparse is not None and sparse == rows:
        wanted, other = ("whole numbers", "categorical") if rows else ("one-hot rows", "sparse_categorical")
        raise ValueError(
            f"Expected labels of {wanted}, which the loss {loss} takes. Received: labels={list(labels.shape)}. "
            f"Compile with the {other} one."
        )
    if rows and labels.dtype.kind == "f" and labels.shape[1] == classes:  # soft ones, of mixing or smoothing
        if not ((labels >= 0).all() and np.allclose(labels.sum(-1), 1, atol=1e-3)):
            raise ValueError(
                f"Expected rows of labels that sum to 1. Received: sums from {labels.sum(-1).min():.4g} to "
                f"{labels.sum(-1).max():.4g}."
            )
        return
    inputs.classes_of(labels, len(labels), classes)


def _is_batches(x):
    arrays = (np.ndarray, list, tuple, dict, tf.Tensor)
    return isinstance(x, tf.data.Dataset) or (hasattr(x, "__iter__") and not isinstance(x, arrays) and x is not None)


def _parts(batch):
    """Return images and labels of a batch."""
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        raise ValueError(f"Expected batches of images and labels. Received: batches of {type(batch).__name__}.")
    return whole(batch[0]), whole(batch[1])


def _local(values):
    """Return a batch that was split over replicas, or a tensor, as one array."""
    if hasattr(values, "values") and isinstance(values.values, tuple):  # tf.distribute's PerReplica
        return np.concatenate([part.numpy() for part in values.values])
    return values
