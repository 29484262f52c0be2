"""Extra training images from an .npz, in the form of the generated sets of the field: `image` and `label`.

An uncompressed file (`numpy.savez`) stays on disk and is read as it is needed; of a compressed one the images are
unpacked into memory, where they have to fit.
"""

import math
import os
import struct
import zipfile
import zlib

import numpy as np
import tensorflow as tf

from sat_tf.data import contents
from sat_tf.data.splits import Split, expand, indexed

KEYS = ("image", "label")
MEMORY_SHARE = 0.8  # of the free memory that unpacked images may take
_LOCAL_HEADER, _LOCAL_MARK = 30, b"PK\3\4"
CHUNK = 1000  # images at a time


def extra_images(path: str | os.PathLike, *, classes: int, side: int, of: str = "the data set") -> Split:
    """Return the images of an .npz as a Split.

    Args:
      path: of the file; `image` is uint8 `[n, side, side, 3]`, `label` holds whole numbers `[n]`.
      classes: of the data set that they are added to: every one of them has to be among the labels.
      side: in pixels, that of the data set's images.
      of: what to call the data set in an error.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no .npz, lacks a key, or holds another shape, other classes, or more than fits into memory.
    """
    path = expand(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no file {path}: --extra_data names an .npz that holds image and label.")
    try:
        with zipfile.ZipFile(path) as file:
            members = {key: _member(file, key, path) for key in KEYS}
            images, labels = members["image"], members["label"]
            if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (side, side, 3):
                wanted = f"uint8 images [n, {side}, {side}, 3], as those of {of},"
                raise ValueError(f"Expected {wanted} in {path}. Received: image={images.dtype} {list(images.shape)}.")
            if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
                wanted = f"a whole number for each of the {len(images)} images"
                raise ValueError(f"Expected {wanted} in {path}. Received: label={labels.dtype} {list(labels.shape)}.")
            images, labels = (_read(file, path, members[key]) for key in KEYS)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, struct.error, RuntimeError) as error:
        raise ValueError(f"Expected an .npz that holds image and label. Received: {path} ({error}).") from error
    _check_classes(labels, classes, of, path)
    return _split(images, labels)


def identity(path: str | os.PathLike) -> str:
    """Return what tells one file from another, so that a run goes on with its own: name, sizes and checksums."""
    with zipfile.ZipFile(expand(path)) as file:
        parts = [f"{info.filename} {info.file_size} {info.CRC:08x}" for info in map(file.getinfo, _names())]
    return f"{os.path.basename(expand(path))}: {', '.join(parts)}"


def free_memory() -> int | None:
    """Return the bytes of memory that could be had, None where this system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            return None


class _Member:
    """An array of an .npz whose header was read, and not yet its values."""

    def __init__(self, info, header, dtype, shape, fortran):
        self.info, self.header, self.dtype, self.shape, self.fortran = info, header, dtype, shape, fortran
        self.ndim = len(shape)

    def __len__(self):
        return self.shape[0] if self.shape else 0


def _names():
    return tuple(f"{key}.npy" for key in KEYS)


def _member(file, key, path):
    """Return the `_Member` of a key."""
    try:
        info = file.getinfo(f"{key}.npy")
    except KeyError:
        found = ", ".join(name.removesuffix(".npy") for name in file.namelist()) or "nothing"
        raise ValueError(f"Expected the keys image and label in {path}. Received: {found}.") from None
    with file.open(info) as stream:
        try:
            version = np.lib.format.read_magic(stream)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, fortran, dtype = read[version](stream)
        except (ValueError, KeyError) as error:
            raise ValueError(f"Expected an array for {key} in {path}. Received: {error}.") from error
        header = stream.tell()
    if info.file_size != header + math.prod(shape) * dtype.itemsize and not dtype.hasobject:
        raise ValueError(f"Expected the whole array {key} in {path}. Received: {info.file_size} bytes of {shape}.")
    return _Member(info, header, dtype, shape, fortran)


def _read(file, path, member):
    """Return the values of an array: left on disk where they are stored as they are, else unpacked into memory."""
    order = "F" if member.fortran else "C"
    if member.info.compress_type == zipfile.ZIP_STORED:
        offset = _begin(path, member.info) + member.header
        if offset + member.info.file_size - member.header > os.path.getsize(path):
            raise EOFError("it ends within its images")
        return (
            np.memmap(path, member.dtype, "r", offset, member.shape, order) if len(member) else np.zeros(member.shape)
        )
    free = free_memory()
    if free is not None and member.info.file_size > MEMORY_SHARE * free:
        most, size = (f"{number / 2**30:.1f} GiB" for number in (MEMORY_SHARE * free, member.info.file_size))
        raise ValueError(
            f"Expected extra images that fit into {most} of free memory. Received: {path}, whose images take {size} "
            "unpacked. Save them by numpy.savez, without compression: then they are read from the disk as needed."
        )
    with file.open(member.info) as stream:
        stream.read(member.header)
        values = np.empty(member.shape, member.dtype, order)
        view, done = memoryview(values.reshape(-1, order="A")).cast("B"), 0
        while part := stream.read(CHUNK * 3072):
            view[done : done + len(part)] = part
            done += len(part)
    return values


def _begin(path, info):
    """Return where the bytes of a member begin in the file."""
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER)
    if header[:4] != _LOCAL_MARK:
        raise zipfile.BadZipFile("a member has no header")
    name, more = struct.unpack("<HH", header[26:30])
    return info.header_offset + _LOCAL_HEADER + name + more


def _check_classes(labels, classes, of, path):
    if not len(labels):
        raise ValueError(f"Expected extra images in {path}. Received: none.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"Expected labels from 0 to {classes - 1}, the classes of {of}, in {path}. "
            f"Received: labels from {low} to {high}."
        )
    found = len(np.unique(labels))
    if found < classes:
        raise ValueError(
            f"Expected images of all {classes} classes of {of} in {path}. Received: images of {found} classes."
        )


def _split(images, labels):
    """Return the Split of images that may lie on disk."""
    shape = images.shape[1:]

    def look(index):
        return np.ascontiguousarray(images[index]), np.int32(labels[index])

    def decode(item):
        image, label = tf.numpy_function(look, [item["index"]], (tf.uint8, tf.int32), stateful=False)
        return tf.ensure_shape(image, shape), tf.ensure_shape(label, []), item["index"]

    def digests():
        starts = range(0, len(images), CHUNK)
        return np.concatenate([contents.digests_of(np.asarray(images[i : i + CHUNK])).numpy() for i in starts])

    return indexed(len(images), decode, digests=digests)
