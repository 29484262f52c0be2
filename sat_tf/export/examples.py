"""The images on which an export is compared with its model."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from sat_tf import preprocess
from sat_tf.export import signatures


def drawn(split: Any, prepare: Callable, size: int, count: int) -> tuple[np.ndarray, np.ndarray, list[bytes]]:
    """Return a fixed draw of images, labels, and the same images encoded as JPEG or PNG.

    Args:
      split: a `data.Split`, all of a part.
      prepare: `(bytes of an image file, size) -> image`, the model's evaluation preprocessing.
      size: pixels a side.
      count: images at most.

    Returns:
      float32 `[n, size, size, 3]` in [0, 1], int32 `[n]`, a list of n bytes.
    """
    images, labels, encoded = [], [], []
    for item in split.order(tf.constant([0, 0]), 0, 1, 1, 0).take(count):
        image, label, _ = split.decode(item)
        content = image.numpy() if image.dtype == tf.string else b""
        if not content.startswith((signatures.JPEG, signatures.PNG)):
            content = tf.io.encode_png(preprocess.decode(image)).numpy()
        encoded.append(content)
        images.append(prepare(tf.constant(content), size).numpy())
        labels.append(int(label))
    return np.stack(images), np.array(labels, np.int32), encoded
