"""What a folder of the user's own holds: its images, their classes, which of them are to test by, and all that is left.

No image there is passed over in silence: whatever is not taken is counted and named in the notes.
"""

import dataclasses
import hashlib
import os

import numpy as np

from sat_tf.data import contents
from sat_tf.data.index import shown
from sat_tf.names import no_folder

ENDINGS = {  # of files that must be images, with the format that they promise; None for those that cannot be read
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "JPEG"),
    **dict.fromkeys((".png", ".apng"), "PNG"),
    **dict.fromkeys((".bmp", ".dib"), "BMP"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM"),
    **dict.fromkeys((".jp2", ".j2k"), "JPEG 2000"),
    **{".gif": "GIF", ".webp": "WebP", ".avif": "AVIF"},
    **dict.fromkeys(
        (".heic", ".heif", ".jxl", ".svg", ".psd", ".ico", ".tga", ".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef",
         ".arw", ".orf", ".raw")
    ),
}  # fmt: skip
_TRAIN_FOLDERS = ("train", "training")
_TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")  # of several the first is taken
_LITTER = ("thumbs.db", "desktop.ini", "__macosx")  # of operating systems, as are hidden files
_DRAWN = 2**64 // 10  # a tenth of all hashes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """The images of a folder.

    Attributes:
      classes: their names.
      paths: str [n], in the order of classes and names.
      names: str [n], "class/file".
      labels: int32 [n].
      tested: bool [n], whether it is of the test part; None where that must be drawn, see `drawn`.
      source: where they are, for people.
      notes: what was left out.
    """

    classes: tuple[str, ...]
    paths: np.ndarray
    names: np.ndarray
    labels: np.ndarray
    tested: np.ndarray | None
    source: str
    notes: tuple[str, ...]

    def split(self, digests: np.ndarray) -> tuple[np.ndarray, str, tuple[str, ...]]:
        """Return (tested bool [n], source, notes); `digests` int64 [n] tell copies of an image, 0 stands for none."""
        if self.tested is not None:
            return self.tested, self.source, self.notes
        tested = drawn(self.names, self.labels, digests)
        count = f"{tested.sum()} of {len(tested)} images"
        source = f"{self.source}, a tenth of each class ({count}) drawn by name as the test split"
        note = f"the test split is {count}, drawn by their names; a folder test/ would be evaluated whole"
        return tested, source, (*self.notes, note)


def listing(root: str) -> Listing:
    """Return the Listing of a folder: root/train/<class>/* and root/test/<class>/*, one of them, or root/<class>/*.

    Raises:
      FileNotFoundError: there is no such folder, or no class folder in it.
      ValueError: the folders contradict each other, or a class has no image.
    """
    if not os.path.isdir(root):
        raise FileNotFoundError(no_folder(shown(root)))
    train_dir, test_dir = _train_and_test(root)
    parts = [_Part(path) for path in (train_dir, test_dir) if path]
    if len(parts) == 2 and parts[0].classes != parts[1].classes:
        differing = ", ".join(sorted(set(parts[0].classes) ^ set(parts[1].classes))[:5])
        raise ValueError(
            f"Expected the same class folders in {shown(train_dir)} and {shown(test_dir)}. Received: only in one of "
            f"them {differing}."
        )
    if train_dir is None:
        source = f"test split {shown(test_dir)}, no training images"
    else:
        source = shown(train_dir) + (f", test split {shown(test_dir)}" if test_dir else "")
    tested = np.repeat([path == test_dir for path in (train_dir, test_dir) if path], [len(p.paths) for p in parts])
    return Listing(
        classes=parts[0].classes,
        paths=np.array([path for part in parts for path in part.paths], np.str_),
        names=np.array([name for part in parts for name in part.names], np.str_),
        labels=np.concatenate([part.labels for part in parts]),
        tested=tested if test_dir else None,
        source=source,
        notes=tuple(_left_out(root, [part.path for part in parts])) + tuple(n for part in parts for n in part.notes),
    )


def drawn(names: np.ndarray, labels: np.ndarray, digests: np.ndarray) -> np.ndarray:
    """Choose a tenth of the images to test by, each by the hash of its own name: whatever comes and goes beside it.

    Differs from that: a copy of a training image is never tested; a class of which no image would be tested gives the
    one of the least hash, one of which none would be trained on keeps that of the greatest.

    Args:
      names: str [n].
      labels: int [n].
      digests: int64 [n], equal for copies; 0 for images without.

    Returns:
      bool [n], True for the chosen.
    """
    hashes = [hashlib.sha256(f"test split\0{name}".encode()).digest()[:8] for name in names.tolist()]
    ranks = np.array([int.from_bytes(value, "big") for value in hashes], np.uint64)
    chosen = ranks < _DRAWN
    chosen &= (digests == 0) | ~np.isin(digests, digests[~chosen])
    _, place, counts = np.unique(digests, return_inverse=True, return_counts=True)
    single = (digests == 0) | (counts[place] == 1)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if chosen[members].all():
            chosen[members[ranks[members].argmax()]] = False
        alone = members[single[members]]
        if len(members) > 1 and len(alone) and not chosen[members].any():
            chosen[alone[ranks[alone].argmin()]] = True
    return chosen


def _train_and_test(root):
    """Return the folders of the training and the test images; None for the one that there is not."""
    names = _folders(root)
    holding = [name for name in names if _part_of(name) and _folders(os.path.join(root, name))]
    trains = [name for name in holding if _part_of(name) == "train"]
    tests = sorted((name for name in holding if _part_of(name) == "test"), key=_preference)
    if len(trains) > 1 or (len(tests) > 1 and _preference(tests[0]) == _preference(tests[1])):
        both = trains if len(trains) > 1 else tests[:2]
        raise ValueError(
            f"Expected one folder of that part in {shown(root)}. Received: {both[0]} and {both[1]}. Put the images of "
            "one into the other, or one of the folders elsewhere."
        )
    test_dir = os.path.join(root, tests[0]) if tests else None
    if trains:
        return os.path.join(root, trains[0]), test_dir
    others = [name for name in names if not _part_of(name) and any(map(_named, _walk(os.path.join(root, name))))]
    if test_dir and others:
        raise ValueError(
            f"Expected the class folders in {os.path.join(shown(root), 'train')} beside {tests[0]}. Received: "
            f"{shown(others[0])} beside {tests[0]} in {shown(root)}. Move the training images into train, or "
            f"{tests[0]} elsewhere."
        )
    return (None, test_dir) if test_dir else (root, None)


def _part_of(name):
    """Return "train" or "test" for a folder that is called as such a part is, in any case; None for others."""
    name = name.lower()
    return "train" if name in _TRAIN_FOLDERS else "test" if name in _TEST_FOLDERS else None


def _preference(name):
    return _TEST_FOLDERS.index(name.lower())


class _Part:
    """The images in the class folders of one folder: path, classes, paths, names, labels, notes."""

    def __init__(self, path):
        self.path, folders = path, _folders(path)
        if not folders:
            raise FileNotFoundError(
                f"There is no class folder in {shown(path)}: make one for each class and put its images there."
            )
        if len(folders) == 1:
            raise ValueError(
                f"Expected two or more class folders in {shown(path)}. Received: only {shown(folders[0])}."
            )
        self.classes = tuple(map(shown, folders))
        found = [_images(os.path.join(path, name)) for name in folders]
        self.paths = [file for images, _ in found for file in images]
        self.labels = np.repeat(np.arange(len(folders), dtype=np.int32), [len(images) for images, _ in found])
        self.names = [shown(os.path.relpath(file, path)).replace(os.sep, "/") for file in self.paths]
        deeper = [name for name in self.names if name.count("/") > 1]
        others = [shown(file) for _, others in found for file in others]
        self.notes = [*_note(deeper, "in sub-folders of a class")] if deeper else []
        self.notes += [f"{len(others)} files that are no images left out, the first {others[0]}"] if others else []


def _note(names, where):
    """Yield a note on some images."""
    yield f"{len(names)} images {where}, the first {names[0]}"


def _left_out(root, used):
    """Yield a note on the images in each place that is no class folder."""
    for place in dict.fromkeys([root, *used]):
        with os.scandir(place) as entries:
            files = sorted(
                shown(e.path) for e in entries if not e.is_dir() and not _is_litter(e.name) and _named(e.name)
            )
        if files:
            yield from _note(files, f"in no class folder of {shown(place)} left out")
    if root in used:
        return
    for name in _folders(root):
        path = os.path.join(root, name)
        if path not in used:
            files = [shown(file) for file in _walk(path) if _named(file)]
            if files:
                yield from _note(files, f"in {shown(path)} left out: neither trained nor tested on")


def _folders(path):
    """Return the sorted names of the sub-folders, without hidden ones; none if there is no such folder."""
    if not os.path.isdir(path):
        return []
    with os.scandir(path) as entries:
        return sorted((e.name for e in entries if e.is_dir() and not _is_litter(e.name)), key=os.fsencode)


def _images(path):
    """Return the sorted paths of the images in a class folder, of which there must be some, and of its other files."""
    files = _walk(path)
    taken = [_is_image(file) for file in files]
    images = [file for file, is_image in zip(files, taken, strict=True) if is_image]
    if not images:
        endings = ", ".join(ending for ending, kind in ENDINGS.items() if kind)
        raise ValueError(f"Expected images ({endings}) in every class folder. Received: none in {shown(path)}.")
    return images, [file for file, is_image in zip(files, taken, strict=True) if not is_image]


def _walk(path):
    """Return the sorted paths of the files below a folder, without hidden ones; links are followed, once."""

    def fail(error):
        raise error

    found, seen = [], set()
    for folder, names, files in os.walk(path, onerror=fail, followlinks=True):
        seen.add(os.path.realpath(folder))
        names[:] = [
            name for name in names if not _is_litter(name) and os.path.realpath(os.path.join(folder, name)) not in seen
        ]
        found += [os.path.join(folder, name) for name in files if not _is_litter(name)]
    return sorted(found, key=os.fsencode)


def _is_image(path):
    """Return whether a file is to be read as an image: ending or content say so, or neither says otherwise."""
    if _named(path):
        return True
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError:
        return not ending(path)
    return bool(contents.named(head)) or not (ending(path) or _is_text(head))


def _is_text(head):
    """Return whether the first bytes of a file are text, or there are none; the last character may be cut."""
    return b"\0" not in head and "\ufffd" not in head.decode("utf-8", "replace")[:-1]


def _is_litter(name):
    return name.startswith(".") or name.lower() in _LITTER


def _named(path):
    return ending(path) in ENDINGS


def ending(path: str | os.PathLike) -> str:
    """Return the ending of a file's name in small letters, "" for none."""
    return os.path.splitext(path)[1].lower()
