"""What callers hand in: the harmless is converted, the rest is refused in one sentence before anything is traced."""

import math
import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Range = tuple[float, float] | None

UNIT = (0.0, 1.0)
ROUNDED = 1e-5  # of a range, by which values computed in half or single precision may leave it
CHUNK = 256  # images at a time, so that those of a file need not fit into memory


def array(images: ArrayLike) -> np.ndarray:
    """Return images as an array `[n, h, w, c]`: floats as float32, whole numbers as they are.

    Args:
      images: an array, a tensor, or a list of images.

    Raises:
      ValueError: they are no numbers, or not such a batch.
    """
    values = _numbers("images", images, "an array [n, h, w, channels] of images of one size")
    if values.ndim != 4:
        hint = " Write images[None] for a single one." if values.ndim == 3 else ""
        raise ValueError(f"Expected images [n, h, w, 3]. Received: images={list(values.shape)}.{hint}")
    return values if values.dtype.kind in "iu" else np.asarray(values, np.float32)


def examples(given: Any) -> Any:
    """Return what `Examples` holds; anything else is refused."""
    if not all(hasattr(given, name) for name in ("images", "labels", "ids", "in_unit_range")):
        raise ValueError(f"Expected Examples(images=..., labels=...). Received: examples of {type(given).__name__}.")
    return given


def extent(images: Any) -> tuple[float, float]:
    """Return the smallest and the largest value, both not a number where one is; of no image: nothing, (inf, -inf)."""
    low, high = math.inf, -math.inf
    for begin in range(0, len(images), CHUNK):
        part = np.asarray(images[begin : begin + CHUNK])
        low, high = np.minimum(low, part.min()), np.maximum(high, part.max())
    return float(low), float(high)


def in_unit_range(
    images: ArrayLike, value_range: Range = None, *, stated: bool = True, found: tuple[float, float] | None = None
) -> np.ndarray:
    """Return images as float32 in [0, 1].

    Args:
      images: as `array` takes them.
      value_range: of their values, (0, 255) or (-1, 1); None for [0, 1].
      stated: whether it is said of these images, and not of the model alone.
      found: their `extent`, where it is known.

    Raises:
      ValueError: values leave the range, or are whole numbers and no range is given.
    """
    images, (low, high) = array(images), span(value_range)
    if images.dtype.kind in "iu" and (low, high) == UNIT:
        raise ValueError(
            f"Expected images of floats in [0, 1]. Received: images of {images.dtype}. Divide by 255, or "
            "state value_range=(0, 255) where that is taken."
        )
    least, most = extent(images) if found is None else found
    slack = ROUNDED * (high - low)
    if not len(images):
        return np.asarray(images, np.float32)
    if not (low - slack <= least and most <= high + slack):
        raise ValueError(
            f"Expected images with values from {low:g} to {high:g}. Received: values from {least:.4g} to {most:.4g}. "
            "Scale them, or state value_range=(LOWEST, HIGHEST) where that is taken."
        )
    if not stated and (low, high) != UNIT and least >= 0 and most <= 1:
        raise ValueError(
            f"Expected images with values from {low:g} to {high:g}, as the model wants them. Received: values from "
            f"{least:.4g} to {most:.4g}. State which range they have: Examples(..., value_range=(0, 1))."
        )
    if (low, high) != UNIT:
        images = np.asarray((np.asarray(images, np.float64) - low) / (high - low), np.float32)
    elif least >= 0 and most <= 1:
        return images
    return np.clip(images, 0, 1)


def span(value_range: Range) -> tuple[float, float]:
    """Return a range of values as two floats; None is [0, 1]."""
    try:
        low, high = UNIT if value_range is None else (float(end) for end in value_range)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"Expected a range (lowest, highest), such as (0, 255). Received: value_range={value_range}.")
    return low, high


def classes_of(labels: ArrayLike, count: int, classes: int | None = None) -> np.ndarray:
    """Return labels as int32 `[count]`.

    Args:
      labels: whole numbers `[count]` or `[count, 1]`, or one-hot rows `[count, classes]`.
      count: how many images they belong to.
      classes: of the model, where it is known.

    Raises:
      ValueError: another number of labels, or no labels from 0 to `classes` - 1.
    """
    values = _numbers("labels", labels, "a label for each image")
    if values.ndim not in (1, 2) or len(values) != count:
        raise ValueError(
            f"Expected images [n, h, w, 3] with n labels and n ids. Received: {count} images, "
            f"labels={list(values.shape)}."
        )
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2:
        if not (np.isin(values, (0, 1)).all() and (values.sum(-1) == 1).all()):
            raise ValueError(
                f"Expected labels [n], or one-hot rows [n, classes]. Received: labels={list(values.shape)}, whose rows "
                "are not one 1 among zeros."
            )
        if classes is not None and values.shape[1] != classes:
            raise ValueError(f"Expected rows of {classes} classes. Received: labels={list(values.shape)}.")
        values = values.argmax(-1)
    low, high = (values.min(), values.max()) if count else (0, 0)
    if not (low >= 0 and high < (classes or 2**31) and (values == np.floor(values)).all()):
        most = "" if classes is None else f" to {classes - 1}, the classes of the logits"
        raise ValueError(
            f"Expected whole labels from 0{most}. Received: labels from {low:g} to {high:g}"
            f"{'' if values.dtype.kind in 'iu' else ' of ' + str(values.dtype)}."
        )
    return np.asarray(values, np.int32)


def check_ball(
    norm: str, shape: tuple[int, ...], epsilon: float, step_size: float | None = None
) -> tuple[float, float | None]:
    """Return a radius and a step size as floats.

    Args:
      norm: "linf" or "l2".
      shape: of an image, whose cube no radius need leave.
      epsilon, step_size: fractions of the range of values; no step size is None.

    Raises:
      ValueError: one is negative, not a number, or longer than the cube is wide.
    """
    most = 1.0 if norm == "linf" else math.sqrt(math.prod(shape))
    epsilon = _length("epsilon", epsilon, norm, most)
    if step_size is None:
        return epsilon, None
    step_size = _length("step_size", step_size, norm, most)
    if epsilon and not step_size:
        raise ValueError(f"Expected a step_size above 0. Received: step_size={step_size}.")
    return epsilon, step_size


def whole(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number of at least `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise ValueError(f"Expected {name} as a whole number of at least {least}. Received: {name}={value!r}.")
    return number


def _length(name, value, norm, most):
    """Return a length in a norm as a float."""
    try:
        number = math.nan if isinstance(value, (str, bytes, bool)) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if 0 <= number <= most:
        return number
    hint = f" Did you mean {number:g}/255?" if most < number <= 255 else ""
    raise ValueError(
        f"Expected {name} from 0 to {most:g} in {norm}, in fractions of the range of values, such as 8/255. "
        f"Received: {name}={value!r}.{hint}"
    )


def _numbers(name, given, wanted):
    """Return what was given as an array of numbers."""
    try:
        values = np.asarray(given)
    except Exception as error:  # every library has its own for rows of several lengths, or a tensor on a device
        raise ValueError(f"Expected {wanted}. Received: {name} of {type(given).__name__}, {error}.") from error
    if values.dtype.kind == "b":
        return values.astype(np.int32)
    if values.dtype.kind not in "iuf":
        try:  # bfloat16 and its like, which NumPy takes for objects of no kind
            if values.dtype.kind != "V":
                raise TypeError(values.dtype)
            return values.astype(np.float32)
        except (TypeError, ValueError):
            raise ValueError(f"Expected {wanted}. Received: {name} of {type(given).__name__}.") from None
    return values
