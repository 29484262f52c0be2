"""What a look through all files of a data set found, remembered beside them, so that it is done only once.

A file holds any number of records (an image file: one). The index says where each begins, what kind of image it is,
and what is wrong with those that cannot be used. It is kept in the set's folder as `.sat_index.npz`; files whose name,
size or time of change are not those that were looked through are looked through again.
"""

import dataclasses
import io
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from sat_tf import files, progress
from sat_tf.data.contents import KINDS, UNREADABLE

FILE_NAME = ".sat_index.npz"
_VERSION = 2  # of what is looked for: a greater one makes every remembered index void
_SAVE_EVERY = 60.0  # seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """Facts on f files and the n records in them.

    Attributes:
      counts: int64 [f], number of records found in each file.
      offsets: int64 [n], first byte of each record in its file.
      kinds: int8 [n], place in `KINDS`, or `UNREADABLE`.
      sides: int32 [n, 2], height and width.
      digests: int64 [n], what tells images apart, see `contents.look`.
      fault_places: int64 [k, 2], (file, record) of each fault, in that order. The record may be one that could not
        be found any more: what follows a cut is no record.
      faults: str [k], what is wrong.
    """

    counts: np.ndarray
    offsets: np.ndarray
    kinds: np.ndarray
    sides: np.ndarray
    digests: np.ndarray
    fault_places: np.ndarray
    faults: np.ndarray

    @property
    def files(self) -> np.ndarray:
        """Return the file of each record, int64 [n]."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def names_of_faults(self, paths: Sequence[str], *, numbered: bool = True) -> tuple[str, ...]:
        """Return each fault as a person wants to read it."""
        places = self.fault_places.tolist()
        middle = [f", record {record}" if numbered else "" for _, record in places]
        return tuple(
            f"{shown(paths[file])}{text}: {fault}"
            for (file, _), text, fault in zip(places, middle, self.faults.tolist(), strict=True)
        )

    def select(self, rows: Sequence[int] | np.ndarray) -> "Index":
        """Return the Index of some files only, in the order of `rows`."""
        rows = np.asarray(rows, np.int64)
        counts = self.counts[rows]
        starts = (np.cumsum(self.counts) - self.counts)[rows]
        records = np.arange(counts.sum()) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
        new_row = np.full(len(self.counts), -1, np.int64)
        new_row[rows] = np.arange(len(rows))
        places = np.stack([new_row[self.fault_places[:, 0]], self.fault_places[:, 1]], axis=1)
        kept = np.flatnonzero(places[:, 0] >= 0)
        kept = kept[np.lexsort((places[kept, 1], places[kept, 0]))]
        return Index(
            counts=counts,
            offsets=self.offsets[records],
            kinds=self.kinds[records],
            sides=self.sides[records],
            digests=self.digests[records],
            fault_places=places[kept],
            faults=self.faults[kept],
        )


def make(
    counts: Sequence[int] | np.ndarray,
    offsets: Sequence[int] | np.ndarray,
    kinds: Sequence[int] | np.ndarray,
    sides: Sequence | np.ndarray,
    digests: Sequence[int] | np.ndarray,
    faults: list[tuple[int, int, str]],
) -> Index:
    """Return the Index of plain lists and arrays; `faults` is a list of (file, record, what)."""
    return Index(
        counts=np.asarray(counts, np.int64),
        offsets=np.asarray(offsets, np.int64),
        kinds=np.asarray(kinds, np.int8),
        sides=np.asarray(sides, np.int32).reshape(-1, 2),
        digests=np.asarray(digests, np.int64),
        **faults_of(faults),
    )


def faults_of(rows: list[tuple[int, int, str]]) -> dict[str, np.ndarray]:
    """Return the fields of an Index that hold faults, a list of (file, record, what)."""
    return {
        "fault_places": np.array([fault[:2] for fault in rows], np.int64).reshape(-1, 2),
        "faults": np.array([fault[2] for fault in rows], np.str_),
    }


def concatenate(parts: list[Index]) -> Index:
    """Return the Index of the files of several, one after the other."""
    shifts = np.cumsum([0] + [len(part.counts) for part in parts[:-1]])
    fields = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(Index)
    }
    fields["fault_places"] = np.concatenate(
        [part.fault_places + [shift, 0] for part, shift in zip(parts, shifts, strict=True)]
    )
    return Index(**fields)


def look_through(root: str, paths: Sequence[str | os.PathLike], check: Callable, key: str, chunk: int) -> Index:
    """Return the Index of some files: what is remembered in `root`, and for all others what `check` finds.

    Args:
      root: folder of the set, where the index is kept.
      paths: the files.
      check: `(paths, advance) -> Index`; calls `advance(bytes)` as it goes.
      key: str, says what `check` looks for: an index of another key is void.
      chunk: files to check at a time; an interrupted look keeps the chunks that were done.
    """
    key = f"{_VERSION} {key}"
    paths = [os.fspath(path) for path in paths]
    names = [os.path.relpath(path, root) for path in paths]
    stats = np.array([_stat(path) for path in paths], np.int64).reshape(-1, 2)
    old_names, old_stats, old = _remembered(root, key)
    rows = {name: row for row, name in enumerate(old_names)}
    found = np.array([rows.get(name, -1) for name in names], np.int64)
    if len(old_names):
        found[(found >= 0) & (old_stats[found] != stats).any(axis=1)] = -1
    parts, done = [old.select(found[found >= 0])], np.flatnonzero(found >= 0).tolist()
    missing = np.flatnonzero(found < 0)
    if not len(missing):
        return _in_order(parts, done)
    logging.info(
        "Looking through %d files of %s for unreadable images; what is found is remembered.", len(missing), shown(root)
    )
    saver = _Saver(root, key)
    try:
        with _progress(int(stats[missing, 0].sum())) as bar:
            for begin in range(0, len(missing), chunk):
                chosen = missing[begin : begin + chunk].tolist()
                parts.append(check([paths[row] for row in chosen], bar.update))
                done += chosen
                if begin + chunk < len(missing):
                    saver.save([names[row] for row in done], stats[done], parts, every=_SAVE_EVERY)
    finally:
        saver.save([names[row] for row in done], stats[done], parts)
    return _in_order(parts, done)


def shown(path: str | bytes | os.PathLike) -> str:
    """Return a path as text that any encoding of Unicode can hold: bytes that are no UTF-8 are written out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def summary(index: Index, title: str) -> str | None:
    """Return a phrase on the images that are not plain JPEG, None if all are: "train: 1 PNG, 22 CMYK JPEG"."""
    counts = [(int((index.kinds == place).sum()), kind) for place, kind in enumerate(KINDS) if kind != "JPEG"]
    present = ", ".join(f"{count:,} {kind}" for count, kind in counts if count)
    return f"{title}: {present}" if present else None


def good(index: Index) -> np.ndarray:
    """Return which records can be used, bool [n]."""
    return index.kinds != UNREADABLE


def _in_order(parts, done):
    return concatenate(parts).select(np.argsort(done))


def _stat(path):
    if "://" in path:
        stat = tf.io.gfile.stat(path)
        return stat.length, stat.mtime_nsec
    try:
        stat = os.stat(path)
    except OSError:  # a link to nowhere: a fault of the file, which is found when it is read
        return 0, -1
    return stat.st_size, stat.st_mtime_ns


def _progress(total):
    """Return progress with ETA that is seen after three seconds."""
    options = {"unit_scale": True, "delay": 3}
    return progress.make_progress(total, "looking for unreadable images", "B", passing=True, **options)


_NOTHING = make([], [], [], [], [], [])


def _remembered(root, key):
    """Return (names, stats, Index) of the index in a folder, empty ones where there is none of this key."""
    path = os.path.join(root, FILE_NAME)
    nothing = [], np.zeros([0, 2], np.int64), _NOTHING
    try:
        with _open(path, "rb") as file:
            content = file.read()
    except (tf.errors.OpError, OSError):
        return nothing
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            if str(arrays["key"]) != key:
                return nothing
            names = os.fsdecode(arrays["names"].tobytes()).split("\0")[:-1]
            fields = {field.name: arrays[field.name] for field in dataclasses.fields(Index)}
            return names, arrays["stats"], Index(**fields)
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        logging.warning("%s cannot be read (%s): the files are looked through anew.", shown(path), error)
        return nothing


def _open(path, mode):
    """Open a file: TensorFlow's functions know remote ones, and only names that are UTF-8."""
    return tf.io.gfile.GFile(path, mode) if "://" in path else open(path, mode)


class _Saver:
    """Writes an index from time to time; where it cannot, says so once."""

    def __init__(self, root, key):
        self.path, self.key, self.last, self.works = os.path.join(root, FILE_NAME), key, time.monotonic(), True

    def save(self, names, stats, parts, every=0.0):
        if not self.works or time.monotonic() - self.last < every:
            return
        arrays = {field.name: getattr(concatenate(parts), field.name) for field in dataclasses.fields(Index)}
        packed = os.fsencode("".join(name + "\0" for name in names))
        content = io.BytesIO()
        np.savez_compressed(
            content, key=np.array(self.key), names=np.frombuffer(packed, np.uint8), stats=stats, **arrays
        )
        try:
            if "://" in self.path:  # an object of a bucket appears when it is whole
                with _open(self.path, "wb") as file:
                    file.write(content.getvalue())
            else:
                files.write(self.path, content.getvalue())
        except (OSError, tf.errors.OpError) as error:
            self.works = False
            logging.warning(
                "%s cannot be written (%s): the next start looks through the files once more.",
                shown(self.path),
                getattr(error, "message", error),
            )
        self.last = time.monotonic()
