"""Data sets by name, and batches from them.

To add one: a function `(data_dir, validation, seed) -> Data` in a file of its own, and a row in `DATASETS`.
"""

import dataclasses
import os

from sat_tf.data.batches import evaluation_batches, one_replica_each, steps_per_epoch, train_batches
from sat_tf.data.composition import composed_batches, extra_count
from sat_tf.data.extra import extra_images, identity
from sat_tf.data.fashion import fashion_mnist, fashion_mnist_12k, mnist
from sat_tf.data.folders import folder
from sat_tf.data.left_out import left_out
from sat_tf.data.overlap import overlap, read_seen, seen, write_seen
from sat_tf.data.patterns import synthetic
from sat_tf.data.records import cifar10, cifar100, imagenet2012, imagenet_classes, imagenette
from sat_tf.data.shards import shards
from sat_tf.data.splits import Data, Split, from_arrays
from sat_tf.data.subset import part, read_subset, sampled, selected
from sat_tf.names import unknown

__all__ = [
    "DATASETS",
    "Data",
    "Split",
    "composed_batches",
    "evaluation_batches",
    "extra_count",
    "extra_images",
    "from_arrays",
    "identity",
    "imagenet_classes",
    "left_out",
    "load",
    "one_replica_each",
    "overlap",
    "part",
    "read_seen",
    "read_subset",
    "sampled",
    "seen",
    "selected",
    "steps_per_epoch",
    "train_batches",
    "write_seen",
]

DATASETS = {
    "fashion_mnist_12k": fashion_mnist_12k,
    "fashion_mnist": fashion_mnist,
    "mnist": mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "imagenette": imagenette,
    "imagenet2012": imagenet2012,
    "shards": shards,
    "folder": folder,
    "synthetic": synthetic,
}


CACHES = ("none", "memory")


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    validation: int | None = None,
    seed: int = 0,
    cache: str = "none",
    held_out: int | None = None,
) -> Data:
    """Return the data set called `name`.

    Sets of files are looked through the first time: every image is decoded, and what was found is remembered in
    their folder. Images that cannot be used are left out and named in the `unreadable` of their Split.

    Args:
      name: key of `DATASETS`.
      data_dir: folder of its files, where it needs any and they are not in their usual place.
      validation: number of training images to set aside for choosing checkpoints, from each class in proportion
        where labels are in memory; None for 1,000 (imagenet2012: 10,000) or a tenth, whichever is smaller.
      seed: draws the validation images. Not the seed of a run: leave it, and all runs compare on the same images.
      cache: "memory" holds the files' bytes in memory after reading them once (for a moment it takes twice their
        size); "none" reads them every time. The order of the images is the same.
      held_out: what `validation` was called before version 0.2.

    Raises:
      FileNotFoundError: if the set, or a file of it, is not at hand; says how to get it.
      ValueError: for an unknown name, or files that are not what the set needs.
    """
    if name not in DATASETS:
        raise unknown("a known data set", "name", name, DATASETS)
    if cache not in CACHES:
        raise ValueError(f"Expected cache in {CACHES}. Received: {cache=}.")
    loaded = DATASETS[name](data_dir, held_out if validation is None else validation, seed)
    if cache == "none":
        return loaded
    parts = {part: getattr(loaded, part) for part in ("train", "validation", "test")}
    return dataclasses.replace(loaded, **{part: split.cached() for part, split in parts.items() if split.cached})
