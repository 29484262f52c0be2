"""The images of an evaluation, out of batches of a data set."""

import os
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from sat_tf.evaluate.results import Examples

IN_MEMORY = 2 * 2**30  # bytes of images; more than that lie on the disk


def read_examples(
    batches: tf.data.Dataset,
    count: int,
    ids: np.ndarray | None = None,
    folder: str | os.PathLike = ".",
    progress: Callable[[int], None] | None = None,
) -> Examples:
    """Return the `Examples` of batches; where they are many, in a file of `folder`.

    Args:
      batches: data set of images, labels and a mask that is 0 where a batch is padded.
      count: the number of images.
      ids: int `[count]`, places in the data; None for 0, 1, ...
      folder: is made when it is needed.
      progress: is called with the number of images of every batch.
    """
    shape, folder = (count, *batches.element_spec[0].shape[1:]), pathlib.Path(folder)
    if np.prod(shape, dtype=np.int64) * 4 > IN_MEMORY:
        folder.mkdir(parents=True, exist_ok=True)
        images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.float32, shape)
    else:
        images = np.empty(shape, np.float32)
    labels, place = np.empty(count, np.int32), 0
    for batch, batch_labels, mask in batches.as_numpy_iterator():
        real = mask > 0
        end = place + int(real.sum())
        images[place:end], labels[place:end] = batch[real], batch_labels[real]
        if progress:
            progress(end - place)
        place = end
    return Examples(images=images, labels=labels, ids=ids)
