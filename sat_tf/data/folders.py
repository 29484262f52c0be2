"""Images of the user's own: one sub-folder a class, with files in it that TensorFlow or Pillow reads."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from sat_tf import preprocess, progress
from sat_tf.data import contents, index
from sat_tf.data.listing import ENDINGS, ending, listing
from sat_tf.data.splits import Data, draw, expand, from_arrays, indexed, validation_size

_SMALL_SIDE, _SMALL_COUNT = 64, 100_000  # up to this the set is decoded once, into memory: at most 1.2 GB
_LARGE_SIZE = 224
_CHECKED = 20_000  # files looked through between two chances to remember what was found
_READ = 1000  # files read between two moves of the progress bar


def folder(data_dir: str | os.PathLike | None, validation: int | None, seed: int) -> Data:
    """Images of your own: data_dir/train/<class>/* and data_dir/test/<class>/*, or only data_dir/<class>/*."""
    if data_dir is None:
        raise ValueError(
            "Expected data_dir, the folder that holds a sub-folder for each class. Received: data_dir=None."
        )
    root = expand(data_dir)
    found = listing(root)
    paths, labels = found.paths, found.labels
    looked = index.look_through(root, paths.tolist(), check_files, "image files", _CHECKED)
    tested, source, notes = found.split(looked.digests)
    usable = index.good(looked)
    read = contents.reader(looked.kinds)
    shapes = set(map(tuple, np.unique(looked.sides[usable], axis=0).tolist()))
    images = _decode_all(paths, usable, read, *shapes) if _fit_in_memory(shapes, len(paths)) else None

    def split(chosen, complete=True):
        unreadable = looked.select(chosen).names_of_faults(paths[chosen], numbered=False) if complete else ()
        chosen = chosen[usable[chosen]]
        fields = {"names": lambda: found.names[chosen], "digests": lambda: looked.digests[chosen]}
        if images is None:
            return _from_files(paths[chosen], labels[chosen], read, unreadable=unreadable, **fields)
        return from_arrays(images[chosen], labels[chosen], unreadable, **fields)

    learnt = np.flatnonzero(~tested)
    candidates = learnt[usable[learnt]]
    held = candidates[draw(labels[candidates], validation_size(validation, len(candidates)), seed)]
    return Data(
        name="folder",
        source=source,
        classes=found.classes,
        image_size=_image_size(shapes),
        train=split(np.setdiff1d(learnt, held)),
        validation=split(held, complete=False),
        test=split(np.flatnonzero(tested)),
        notes=(*_notes(paths, looked), *notes),
        diagnose=lambda: _newly_unreadable(paths, usable),
    )


def check_files(paths: list[str], advance: Callable[[int], Any]) -> index.Index:
    """Return the Index of some image files; every one is decoded."""
    kinds, sides = np.full(len(paths), contents.UNREADABLE, np.int8), np.zeros([len(paths), 2], np.int32)
    digests = np.zeros(len(paths), np.int64)

    @tf.autograph.experimental.do_not_convert
    def look(place, path):
        content = tf.io.read_file(path)
        return place, *contents.look_in_place(content), tf.strings.length(content)

    names = tf.data.Dataset.from_tensor_slices(_tensor_of(paths)).enumerate()
    looked = names.map(look, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False).ignore_errors()
    for place, kind, size, digest, length in looked.prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
        kinds[place], sides[place], digests[place] = kind, size, digest
        advance(int(length))
    faults = [(place, 0, _fault_of(paths[place])) for place in np.flatnonzero(kinds == contents.UNREADABLE).tolist()]
    return index.make(np.ones(len(paths)), np.zeros(len(paths)), kinds, sides, digests, faults)


def _tensor_of(paths):
    """Return paths as bytes, string [n]: the name of a file need not be text."""
    return tf.constant([os.fsencode(path) for path in paths], tf.string)


def _fault_of(path):
    try:
        with open(path, "rb") as file:
            return contents.fault_of(file.read()) or "reads differently each time"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _newly_unreadable(paths, usable):
    """Look through the files once more, return a sentence about the first that became unreadable, None if none did."""
    faults = check_files(paths[usable].tolist(), lambda count: None).names_of_faults(paths[usable], numbered=False)
    if not faults:
        return None
    return f"{faults[0]}. Replace the file, or start again to have what is unreadable found and left out."


def _notes(paths, looked):
    """Return one note on how many files are of another kind than their name says, none if all are of that kind."""
    said = [ENDINGS.get(ending(path)) for path in paths.tolist()]
    pairs = zip(looked.kinds.tolist(), said, strict=True)
    others = [
        f"{contents.KINDS[kind]} named as {name}"
        for kind, name in pairs
        if name and kind != contents.UNREADABLE and not contents.KINDS[kind].endswith(name)
    ]
    counts = {phrase: others.count(phrase) for phrase in sorted(set(others))}
    return tuple(f"{count:,} {phrase}" for phrase, count in counts.items())


def _fit_in_memory(shapes, count):
    return len(shapes) == 1 and max(max(shape) for shape in shapes) <= _SMALL_SIDE and count <= _SMALL_COUNT


def _image_size(shapes):
    """Return the common side of square images, or 32 or 64 where all are at most that; None for other photographs."""
    sides = {side for shape in shapes for side in shape}
    if not sides or (len(sides) == 1 and max(sides) <= _LARGE_SIZE):
        return max(sides, default=None)
    return next((size for size in (32, _SMALL_SIDE) if max(sides) <= size), None)


def _decode_all(paths, usable, read, shape):
    """Return all images as uint8 [n, h, w, 3]; those that cannot be used are black."""
    images = np.zeros((len(paths), *shape, 3), np.uint8)
    chosen = np.flatnonzero(usable)
    files = tf.data.Dataset.from_tensor_slices(_tensor_of(paths[chosen]))
    decoded = files.map(
        lambda path: preprocess.decode(read(tf.io.read_file(path))), num_parallel_calls=tf.data.AUTOTUNE
    )
    batches = decoded.batch(_READ).as_numpy_iterator()
    for begin, batch in zip(range(0, len(chosen), _READ), _progress(batches, len(chosen)), strict=True):
        images[chosen[begin : begin + _READ]] = batch
    return images


def _progress(batches, count):
    """Show how many batches of images are read, if it takes longer than three seconds."""
    return progress.over(batches, -(-count // _READ), f"reading images, {_READ} a step", "step")


def _from_files(paths, labels, read, *, keep=False, **fields):
    """Return the Split of images that are read from their files, one by one; with `keep` all at once, into memory."""
    with tf.device("CPU:0"):
        paths_tensor, labels_tensor = _tensor_of(paths), tf.constant(labels)
        kept = None
        if keep and len(paths):
            files = tf.data.Dataset.from_tensor_slices(paths_tensor).map(tf.io.read_file, tf.data.AUTOTUNE)
            kept = tf.concat(list(_progress(files.batch(_READ), len(paths))), axis=0)

    def decode(item):
        place = item["index"]
        content = tf.io.read_file(tf.gather(paths_tensor, place)) if kept is None else tf.gather(kept, place)
        return read(content), tf.gather(labels_tensor, place), place

    cached = None if keep else lambda: _from_files(paths, labels, read, keep=True, **fields)
    return indexed(len(paths), decode, cached=cached, **fields)
