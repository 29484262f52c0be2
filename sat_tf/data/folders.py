"""Images of the user's own: one sub-folder a class, with JPEG, PNG, BMP or GIF (first frame) files in it."""

import os

import numpy as np
import tensorflow as tf

from sat_tf import preprocess
from sat_tf.data import contents, index
from sat_tf.data.splits import Data, draw, expand, from_arrays, indexed, validation_size

_ENDINGS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".gif": "GIF"}
_TEST_FOLDERS = ("test", "val", "validation")
_SMALL_SIDE, _SMALL_COUNT = 64, 100_000  # up to this the set is decoded once, into memory: at most 1.2 GB
_LARGE_SIZE = 224
_CHECKED = 20_000  # files looked through between two chances to remember what was found
_READ = 1000  # files read between two moves of the progress bar


def folder(data_dir, validation, seed):
    """Images of your own: data_dir/train/<class>/* and data_dir/test/<class>/*, or only data_dir/<class>/*."""
    if data_dir is None:
        raise ValueError(
            "Expected data_dir, the folder that holds a sub-folder for each class. Received: data_dir=None."
        )
    classes, paths, labels, tested, source = listing(expand(data_dir))
    looked = index.look_through(expand(data_dir), paths.tolist(), check_files, "image files", _CHECKED)
    usable = index.good(looked)
    shapes = set(map(tuple, np.unique(looked.sides[usable], axis=0).tolist()))
    images = _decode_all(paths, usable, *shapes) if _fit_in_memory(shapes, len(paths)) else None

    def split(chosen, complete=True):
        unreadable = looked.select(chosen).names_of_faults(paths[chosen], numbered=False) if complete else ()
        chosen = chosen[usable[chosen]]
        if images is None:
            return _from_files(paths[chosen], labels[chosen], unreadable)
        return from_arrays(images[chosen], labels[chosen], unreadable, lambda: _names(paths[chosen]))

    learnt = np.flatnonzero(~tested)
    candidates = learnt[usable[learnt]]
    held = candidates[draw(labels[candidates], validation_size(validation, len(candidates)), seed)]
    return Data(
        name="folder",
        source=source,
        classes=classes,
        image_size=_image_size(shapes),
        train=split(np.setdiff1d(learnt, held)),
        validation=split(held, complete=False),
        test=split(np.flatnonzero(tested)),
        notes=_notes(paths, looked),
        diagnose=lambda: _newly_unreadable(paths, usable),
    )


def check_files(paths, advance):
    """Return the Index of some image files; every one is decoded."""
    kinds, sides = np.full(len(paths), contents.UNREADABLE, np.int8), np.zeros([len(paths), 2], np.int32)

    def look(place, path):
        content = tf.io.read_file(path)
        return place, *contents.look(content), tf.strings.length(content)

    names = tf.data.Dataset.from_tensor_slices(np.array(paths, np.str_)).enumerate()
    looked = names.map(look, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False).ignore_errors()
    for place, kind, size, length in looked.prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
        kinds[place], sides[place] = kind, size
        advance(int(length))
    faults = [(place, 0, _fault_of(paths[place])) for place in np.flatnonzero(kinds == contents.UNREADABLE).tolist()]
    return index.make(np.ones(len(paths)), np.zeros(len(paths)), kinds, sides, faults)


def _fault_of(path):
    try:
        with open(path, "rb") as file:
            return contents.fault_of(file.read()) or "reads differently each time"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _newly_unreadable(paths, usable):
    """Look through the files once more, return a sentence about the first that broke, None if none did."""
    faults = check_files(paths[usable].tolist(), lambda count: None).names_of_faults(paths[usable], numbered=False)
    if not faults:
        return None
    return f"{faults[0]}. Replace the file, or start again to have what is unreadable found and left out."


def _notes(paths, looked):
    """Return one note on how many files are of another kind than their name says, none if all are of that kind."""
    said = [_ENDINGS[_ending(path)] for path in paths.tolist()]
    pairs = zip(looked.kinds.tolist(), said, strict=True)
    others = [
        f"{contents.KINDS[kind]} named as {name}"
        for kind, name in pairs
        if kind != contents.UNREADABLE and contents.KINDS[kind] != name
    ]
    counts = {phrase: others.count(phrase) for phrase in sorted(set(others))}
    return tuple(f"{count:,} {phrase}" for phrase, count in counts.items())


def listing(root):
    """Return (classes, paths [n], labels [n], tested [n], source); `tested` marks the test split."""
    if not os.path.isdir(root):
        raise FileNotFoundError(
            f"There is no folder {root}: data_dir must be one that holds a sub-folder for each class."
        )
    train_dir, test_dir = _train_and_test(root)
    if train_dir is None:
        classes, paths, labels = _scan(test_dir)
        return classes, paths, labels, np.ones(len(paths), bool), f"test split {test_dir}, no training images"
    classes, paths, labels = _scan(train_dir)
    if test_dir is None:
        tested = draw(labels, min(max(len(paths) // 10, len(classes)), len(paths) // 2), seed=0)
        source = f"{train_dir}, a tenth of each class ({tested.sum()} of {len(paths)} images) drawn as the test split"
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


def _train_and_test(root):
    """Return the folders of the training and the test images; None for the one that there is not."""
    names = _folders(root)
    train_dir = os.path.join(root, "train")
    test_dir = next((os.path.join(root, name) for name in _TEST_FOLDERS if _folders(os.path.join(root, name))), None)
    if _folders(train_dir):
        return train_dir, test_dir
    if test_dir and set(names) <= set(_TEST_FOLDERS):
        return None, test_dir
    return root, None


def _folders(path):
    """Return the sorted names of the sub-folders, without hidden ones; none if there is no such folder."""
    if not os.path.isdir(path):
        return []
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _scan(path):
    """Return (class names, paths [n], labels [n]) of the images in the class folders of `path`."""
    classes = tuple(_folders(path))
    if not classes:
        raise FileNotFoundError(
            f"There is no class folder in {path}: make one for each class and put its images there."
        )
    if len(classes) == 1:
        raise ValueError(f"Expected two or more class folders in {path}. Received: only {classes[0]}.")
    files = [_images(os.path.join(path, name)) for name in classes]
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(names) for names in files])
    return classes, np.array([name for names in files for name in names]), labels


def _images(path):
    """Return the sorted paths of the images in a class folder; there must be some."""
    with os.scandir(path) as entries:
        files = sorted(
            entry.path
            for entry in entries
            if _ending(entry.name) in _ENDINGS and not entry.name.startswith(".") and entry.is_file()
        )
    if not files:
        raise ValueError(f"Expected images ({', '.join(_ENDINGS)}) in every class folder. Received: none in {path}.")
    return files


def _names(paths):
    """Return "class/file" of each path: what it is called within the folder of its split."""
    return np.array(["/".join(path.split(os.sep)[-2:]) for path in paths.tolist()], np.str_)


def _ending(path):
    return os.path.splitext(path)[1].lower()


def _fit_in_memory(shapes, count):
    return len(shapes) == 1 and max(max(shape) for shape in shapes) <= _SMALL_SIDE and count <= _SMALL_COUNT


def _image_size(shapes):
    """Return the common side of square images, or 32 or 64 where all are at most that; None for other photographs."""
    sides = {side for shape in shapes for side in shape}
    if not sides or (len(sides) == 1 and max(sides) <= _LARGE_SIZE):
        return max(sides, default=None)
    return next((size for size in (32, _SMALL_SIDE) if max(sides) <= size), None)


def _decode_all(paths, usable, shape):
    """Return all images as uint8 [n, h, w, 3]; those that cannot be used are black."""
    images = np.zeros((len(paths), *shape, 3), np.uint8)
    chosen = np.flatnonzero(usable)
    files = tf.data.Dataset.from_tensor_slices(paths[chosen])
    decoded = files.map(lambda path: preprocess.decode(tf.io.read_file(path)), num_parallel_calls=tf.data.AUTOTUNE)
    batches = decoded.batch(_READ).as_numpy_iterator()
    for begin, batch in zip(range(0, len(chosen), _READ), _progress(batches, len(chosen)), strict=True):
        images[chosen[begin : begin + _READ]] = batch
    return images


def _progress(batches, count):
    """Show a bar if it takes longer than three seconds and somebody is looking."""
    from tqdm import tqdm

    return tqdm(batches, f"Reading images, {_READ} a step", -(-count // _READ), delay=3, disable=None, leave=False)


def _from_files(paths, labels, unreadable, keep=False):
    """Return the Split of images that are read from their files, one by one; with `keep` all at once, into memory."""
    with tf.device("CPU:0"):
        paths_tensor, labels_tensor = tf.constant(paths, tf.string), tf.constant(labels)
        kept = None
        if keep and len(paths):
            files = tf.data.Dataset.from_tensor_slices(paths_tensor).map(tf.io.read_file, tf.data.AUTOTUNE)
            kept = tf.concat(list(_progress(files.batch(_READ), len(paths))), axis=0)

    def decode(item):
        place = item["index"]
        content = tf.io.read_file(tf.gather(paths_tensor, place)) if kept is None else tf.gather(kept, place)
        return content, tf.gather(labels_tensor, place), place

    cached = None if keep else lambda: _from_files(paths, labels, unreadable, keep=True)
    return indexed(len(paths), decode, unreadable=unreadable, cached=cached, names=lambda: _names(paths))
