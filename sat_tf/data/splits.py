"""What a data set is: labelled images that can be read in any order (`Split`), three of them (`Data`)."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from sat_tf import preprocess
from sat_tf.data import contents


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """Labelled images, as an order of cheap items and a function that turns one item into an image.

    Attributes:
      size: number of images that can be used.
      order: `(seed, host, hosts, block, start) -> dataset` of items, dicts that hold at least `index` (int64, the
        place in the natural order of the whole part, see `places`). A pure function of its arguments. `seed` None
        is the natural order, a tensor [2] (may be traced) fixes the permutation. Of `hosts` pipelines this one is
        `host`, with its share of the items: every `hosts`-th block of `block` items, or any even part. Its first
        `start` blocks (may be traced) are left out cheaply.
      decode: `item -> (image, label int32 [], index int64 [])`. An image is uint8 [h, w, 3], or the bytes of an
        image file, string [], for `preprocess` to decode no more of it than a crop needs.
      in_memory: whether `decode` is only a look-up, so that whole batches are worth handling in one call.
      unreadable: each image of this part that cannot be used, by file (and record), with what is wrong with it.
      cached: returns the same Split with its files held in memory after one read; None where there are none to read.
      random_access: whether an item is its index and no more, so that any can be had without the others.
      names: returns the name of each image in natural order, str [size], "" for one without; may read the files.
        As in a folder of class folders, with forward slashes: "n01440764/ILSVRC2012_val_00000293.JPEG". None where
        images have no names.
      digests: returns what tells images apart, int64 [size] in natural order, see `contents.look`: copies of a file,
        and lossless files of the same pixels, have the same.
      places: where this is a selection, int64 [size], the places of its images among those of the whole part that
        can be used; None where it is the whole part.
    """

    size: int
    order: Callable[..., tf.data.Dataset]
    decode: Callable[[dict], tuple]
    in_memory: bool = False
    unreadable: tuple[str, ...] = ()
    cached: Callable[[], "Split"] | None = None
    random_access: bool = False
    names: Callable[[], np.ndarray] | None = None
    digests: Callable[[], np.ndarray] | None = None
    places: np.ndarray | None = dataclasses.field(default=None, compare=False)

    @property
    def broken(self) -> tuple[str, ...]:
        """What `unreadable` was called before version 0.2."""
        return self.unreadable

    def epoch(
        self, seed: tf.Tensor | None, host: int = 0, hosts: int = 1, *, block: int = 1, start: int | tf.Tensor = 0
    ) -> tf.data.Dataset:
        """Return this host's images of one epoch as a dataset of (image uint8 [h, w, 3], label, index)."""

        def decode(item):
            image, label, index = self.decode(item)
            return preprocess.decode(image), label, index

        items = self.order(seed, host, hosts, block, start)
        return items.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """A data set: three splits that share no image.

    Attributes:
      name: key in `DATASETS`.
      source: where the images came from and how they were split, for people.
      classes: class names; the label is the place.
      image_size: side in pixels that suits the set; None for photographs of any size: the model's own suits them.
      train, validation, test: for fitting, for choosing checkpoints, for the number to report. The first two are
        empty where there are files to evaluate on only.
      notes: what is worth knowing of the images, e.g. how many are PNG though their name says JPEG.
      diagnose: reads the files once more and says which one became unreadable since, None if all are
        well. Worth its time after a tf.errors.OpError in the input pipeline.
      extra: images to train on besides, see `extra.extra_images`; None for none.
      extra_source: what tells their file from another; empty without one.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    image_size: int | None
    train: Split
    validation: Split
    test: Split
    notes: tuple[str, ...] = ()
    diagnose: Callable[[], str | None] = lambda: None
    extra: Split | None = None
    extra_source: str = ""


def indexed(size: int, decode: Callable[[dict], tuple], **fields: Any) -> Split:
    """Return the Split of `size` images that `decode` finds by `item["index"]`, in any order at no cost.

    `fields` are further ones of the Split.

    The permutation is `stateless_shuffle`'s. Not `index_shuffle`'s, which would need no table: in TF 2.21 it knows only
    256 permutations for each value of the second half of the seed, of any number of images.
    """

    def order(seed, host, hosts, block, start):
        places = tf.range(tf.minimum(tf.cast(start, tf.int64) * block * hosts, size), size)
        places = tf.boolean_mask(places, places // block % hosts == host)
        if seed is not None:
            places = tf.gather(tf.random.experimental.stateless_shuffle(tf.range(size, dtype=tf.int64), seed), places)
        return tf.data.Dataset.from_tensor_slices({"index": places})

    return Split(size=size, order=order, decode=decode, random_access=True, **fields)


def from_arrays(
    images: np.ndarray,
    labels: np.ndarray,
    unreadable: Iterable[str] = (),
    names: Callable[[], np.ndarray] | None = None,
    digests: Callable[[], np.ndarray] | None = None,
) -> Split:
    """Return the Split of images in memory.

    Args:
      images: uint8 [n, h, w, 3].
      labels: integers [n].
      unreadable: names of images that should be there, too, and cannot be used.
      names: returns their names, see Split; None where they have none.
      digests: returns their digests, see Split; None for those of the pixels.

    Raises:
      ValueError: for another shape or type.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"Expected uint8 images [n, h, w, 3]. Received: images={images.dtype} {list(images.shape)}.")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"Expected one label an image. Received: labels={list(labels.shape)} for {len(images)}.")
    with tf.device("CPU:0"):  # the input pipeline runs there; an accelerator's memory is for the model
        images, labels = tf.constant(images), tf.constant(labels, tf.int32)

    def decode(item):
        return tf.gather(images, item["index"]), tf.gather(labels, item["index"]), item["index"]

    @functools.cache
    def of_pixels():
        parts = [contents.digests_of(images[place : place + 1000]).numpy() for place in range(0, len(images), 1000)]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    return indexed(
        int(images.shape[0]),
        decode,
        in_memory=True,
        unreadable=tuple(unreadable),
        names=names,
        digests=digests or of_pixels,
    )


def to_arrays(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return all images of a split of one image size as NumPy arrays (images, labels), in natural order."""
    batches = [(images, labels) for images, labels, _ in split.epoch(None).batch(1000).as_numpy_iterator()]
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def validation_size(validation: int | None, size: int, most: int = 1000) -> int:
    """Return how many of `size` training images to set aside: `validation`, by default `most` or a tenth if less."""
    if not size:
        return 0  # a set to evaluate on only
    count = min(most, max(1, size // 10), size - 1) if validation is None else validation
    if not 0 <= count < size:
        raise ValueError(
            f"Expected validation from 0 to {size - 1}, so that images to train on are left. Received: {validation=}."
        )
    return count


def draw(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose `count` images, from each class in proportion.

    Args:
      labels: integers [n] from 0.
      count: how many.
      seed: int. RandomState's numbers are frozen by NumPy's compatibility policy, so the draw is for good.

    Returns:
      bool [n], True for the chosen.
    """
    labels = np.asarray(labels)
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    fraction = (place + 0.5) / np.repeat(counts, counts)  # evenly spread within each class, whatever its size
    chosen = np.zeros(len(labels), bool)
    chosen[by_class[np.argsort(fraction, kind="stable")[:count]]] = True
    return chosen


def set_aside(images: np.ndarray, labels: np.ndarray, validation: int | None, seed: int) -> tuple[Split, Split]:
    """Return the Splits (train, validation) of training images in memory; see `draw`."""
    chosen = draw(labels, validation_size(validation, len(labels)), seed)
    return from_arrays(images[~chosen], labels[~chosen]), from_arrays(images[chosen], labels[chosen])


def nothing_to_find(name: str, data_dir: str | os.PathLike | None) -> None:
    """Refuse a data_dir for a set that needs none: whoever names one means another set."""
    if data_dir is not None:
        raise ValueError(
            f"Expected no data_dir for {name}, which needs no files. Received: {data_dir=}. "
            "For images of your own say --dataset=folder."
        )


def expand(data_dir: str | os.PathLike) -> str:
    """Return the folder with ~ written out; remote addresses stay as they are."""
    return os.path.expanduser(os.fspath(data_dir))
