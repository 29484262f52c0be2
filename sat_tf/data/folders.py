"""Pictures of the user's own: one sub-folder a class, with JPEG, PNG, BMP or GIF (first frame) files in it."""

import os

import numpy as np
import tensorflow as tf

from sat_tf.data.splits import Data, draw, expand, from_arrays, held_out_size, indexed

_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
_TEST_FOLDERS = ("test", "val", "validation")
_SMALL_SIDE, _SMALL_COUNT = 64, 100_000  # up to this the set is decoded once, into memory: at most 1.2 GB
_LARGE_SIZE = 224
_LOOKED_AT = 20_000  # up to this many larger pictures are decoded before training, half a minute, to find broken ones
_PROBES = 32
_READ = 500  # pictures between two moves of the progress bar


def folder(data_dir, held_out, seed):
    """Pictures of your own: data_dir/train/<class>/* and data_dir/test/<class>/*, or only data_dir/<class>/*."""
    if data_dir is None:
        raise ValueError(
            "Expected data_dir, the folder that holds a sub-folder for each class. Received: data_dir=None."
        )
    classes, paths, labels, tested, source = _listing(expand(data_dir))
    shapes = _probe(paths)
    images = _decode_all(paths, shapes[0]) if _fit_in_memory(shapes, len(paths)) else None
    if images is None and len(paths) <= _LOOKED_AT and (broken := find_broken(paths)):
        raise ValueError(_complaint(broken))

    def split(chosen):
        if images is None:
            return _from_files(paths[chosen], labels[chosen])
        return from_arrays(images[chosen], labels[chosen])

    learnt = np.flatnonzero(~tested)
    held = draw(labels[learnt], held_out_size(held_out, len(learnt)), seed)
    return Data(
        name="folder",
        source=source,
        classes=classes,
        image_size=_image_size(shapes),
        train=split(learnt[~held]),
        held_out=split(learnt[held]),
        test=split(np.flatnonzero(tested)),
        diagnose=lambda: _complaint(find_broken(paths)),
    )


def find_broken(paths):
    """Return those of the files that cannot be read and decoded."""
    paths = np.array([os.fspath(path) for path in paths])
    numbered = tf.data.Dataset.from_tensor_slices(paths).enumerate()
    looked = numbered.map(
        lambda index, path: (index, tf.size(_decode_file(path))), num_parallel_calls=tf.data.AUTOTUNE
    ).ignore_errors()
    broken = np.ones(len(paths), bool)
    for index, _ in _progress(looked.as_numpy_iterator(), len(paths), "Looking for broken pictures"):
        broken[index] = False
    return [str(path) for path in paths[broken]]


def _complaint(broken):
    """Return one sentence about files that cannot be decoded, None if there are none."""
    if not broken:
        return None
    others = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
    return (
        f"Expected pictures that can be decoded as JPEG, PNG, BMP or GIF. Received: {broken[0]}{others}. "
        "Replace or remove what is broken."
    )


def _listing(root):
    """Return (classes, paths [n], labels [n], tested [n], source); `tested` marks the test split."""
    if not os.path.isdir(root):
        raise FileNotFoundError(
            f"There is no folder {root}: data_dir must be one that holds a sub-folder for each class."
        )
    train_dir = os.path.join(root, "train")
    if not _folders(train_dir):
        train_dir = root
    test_dirs = [os.path.join(root, name) for name in _TEST_FOLDERS] if train_dir != root else []
    test_dir = next(filter(_folders, test_dirs), None)
    classes, paths, labels = _scan(train_dir)
    if test_dir is None:
        tested = draw(labels, min(max(len(paths) // 10, len(classes)), len(paths) // 2), seed=0)
        source = f"{train_dir}, a tenth of each class ({tested.sum()} of {len(paths)} pictures) drawn as the test split"
        return classes, paths, labels, tested, source
    test_classes, test_paths, test_labels = _scan(test_dir)
    if classes != test_classes:
        differing = ", ".join(sorted(set(classes) ^ set(test_classes))[:5])
        message = (
            f"Expected the same class folders in {train_dir} and {test_dir}. Received: only in one of them {differing}."
        )
        raise ValueError(message)
    tested = np.repeat([False, True], [len(paths), len(test_paths)])
    source = f"{train_dir}, test split {test_dir}"
    return classes, np.concatenate([paths, test_paths]), np.concatenate([labels, test_labels]), tested, source


def _folders(path):
    """Return the sorted names of the sub-folders, without hidden ones; none if there is no such folder."""
    if not os.path.isdir(path):
        return []
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _scan(path):
    """Return (class names, paths [n], labels [n]) of the pictures in the class folders of `path`."""
    classes = tuple(_folders(path))
    if not classes:
        raise FileNotFoundError(
            f"There is no class folder in {path}: make one for each class and put its pictures there."
        )
    if len(classes) == 1:
        raise ValueError(f"Expected two or more class folders in {path}. Received: only {classes[0]}.")
    files = [_pictures(os.path.join(path, name)) for name in classes]
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(names) for names in files])
    return classes, np.array(sum(files, [])), labels


def _pictures(path):
    """Return the sorted paths of the pictures in a class folder; there must be some, and none may be empty."""
    with os.scandir(path) as entries:
        files = [
            (entry.path, entry.stat().st_size)
            for entry in entries
            if entry.name.lower().endswith(_ENDINGS) and not entry.name.startswith(".") and entry.is_file()
        ]
    if not files:
        raise ValueError(f"Expected pictures ({', '.join(_ENDINGS)}) in every class folder. Received: none in {path}.")
    empty = sorted(file for file, size in files if not size)
    if empty:
        raise ValueError(_complaint(empty))
    return sorted(file for file, _ in files)


def _probe(paths):
    """Decode a few pictures from all over the set and return their shapes, each once."""
    probes = paths[np.unique(np.linspace(0, len(paths) - 1, _PROBES).astype(int))]
    try:
        return list(dict.fromkeys(tuple(_decode_file(path).shape) for path in probes))
    except tf.errors.OpError as error:
        raise ValueError(_complaint(find_broken(probes)) or error.message) from error


def _fit_in_memory(shapes, count):
    return len(shapes) == 1 and max(shapes[0]) <= _SMALL_SIDE and count <= _SMALL_COUNT


def _image_size(shapes):
    """Return the common side of square pictures, or the next of 32, 64 and 224 for any others."""
    sides = {side for height, width, _ in shapes for side in (height, width)}
    if len(sides) == 1 and max(sides) <= _LARGE_SIZE:
        return max(sides)
    return next((size for size in (32, _SMALL_SIDE) if max(sides) <= size), _LARGE_SIZE)


def _decode_all(paths, shape):
    """Return all pictures as uint8 [n, h, w, 3], or None if they are not all of `shape` after all.

    Raises:
        ValueError: if one is broken; names it.
    """

    def picture(path):
        image = _decode_file(path)
        fits = tf.reduce_all(tf.shape(image) == shape)
        return tf.cond(fits, lambda: tf.ensure_shape(image, shape), lambda: tf.zeros(shape, tf.uint8)), fits

    batches = tf.data.Dataset.from_tensor_slices(paths).map(picture, num_parallel_calls=tf.data.AUTOTUNE).batch(_READ)
    images = np.empty((len(paths), *shape), np.uint8)
    try:
        for number, (batch, fits) in enumerate(
            _progress(batches.as_numpy_iterator(), -(-len(paths) // _READ), f"Reading pictures, {_READ} a step")
        ):
            if not fits.all():
                return None
            images[number * _READ :][: len(batch)] = batch
    except tf.errors.OpError as error:
        raise ValueError(_complaint(find_broken(paths)) or error.message) from error
    return images


def _progress(steps, total, what):
    """Show a bar if it takes longer than three seconds and somebody is looking."""
    from tqdm import tqdm

    return tqdm(steps, what, total, delay=3, disable=None, leave=False)


def _decode_file(path):
    image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def _from_files(paths, labels):
    """Return the Split of pictures that are read from their files one by one."""
    with tf.device("CPU:0"):
        paths_tensor, labels = tf.constant(paths, tf.string), tf.constant(labels)

    def decode(item):
        path = tf.gather(paths_tensor, item["index"])
        return _decode_file(path), tf.gather(labels, item["index"]), item["index"]

    return indexed(len(paths), decode)
