"""TFRecord files of labelled images: what is in them, and Splits that read them around what is unreadable.

A record is its length (8 bytes, little-endian), a masked CRC-32C of these (4), the content, and a masked CRC-32C of
that (4). The records are streamed: files in seeded order, sixteen at a time, shuffled in blocks.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from sat_tf.data import contents, index
from sat_tf.data.splits import Split

_CYCLE = 16  # files read at a time
_BUFFER = 1 << 20  # bytes read at a time from each
_BLOCK = 2048  # records shuffled at a time: some 230 MB of ImageNet
_KEPT = 1000  # records read at a time to be held in memory
_CHECKED = 32  # files looked through between two chances to remember what was found
_HEADER, _FRAME = 12, 16  # bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """Where a record holds its image, its label and the name of its file.

    Attributes:
      image, label: names of the features: bytes of an image file, int64.
      first: label of the first class.
      classes: number of classes.
      name: name of the feature that holds a file's name; "" for none. Not in the repr, nor is `class_names`: what was
        found in files looked through is remembered under it, and names have no part in that.
      class_names: the classes.
    """

    image: str
    label: str
    first: int
    classes: int
    name: str = dataclasses.field(default="", repr=False)
    class_names: tuple[str, ...] = dataclasses.field(default=(), repr=False)

    def parse(self, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return (image string [], label int32 [] from 0; negative where there is none)."""
        example = tf.io.parse_single_example(
            record,
            {
                self.image: tf.io.FixedLenFeature([], tf.string, ""),
                self.label: tf.io.FixedLenFeature([], tf.int64, self.first - 1),
            },
        )
        return example[self.image], tf.cast(example[self.label] - self.first, tf.int32)

    def parse_name(self, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return (name of the file string [], label int64 [] from 0) and leave the image alone."""
        kinds = {self.name: tf.io.FixedLenFeature([], tf.string, ""), self.label: tf.io.FixedLenFeature([], tf.int64)}
        example = tf.io.parse_single_example(record, kinds)
        return example[self.name], example[self.label] - self.first

    def full_name(self, name: bytes, label: int) -> str:
        """Return what the image is called within a folder of class folders: "class/file", "" without a name."""
        file = index.shown(name).rpartition("/")[2]
        return f"{self.class_names[label]}/{file}" if file else ""

    def fault_of(self, record: bytes) -> str | None:
        """Return what is wrong with the bytes of a record in a few words, None if they can be used."""
        try:
            found = tf.train.Example.FromString(record).features.feature
        except Exception:  # protobuf's DecodeError, which has no public name
            return "not a tf.train.Example"
        if len(found[self.image].bytes_list.value) != 1:
            return f"no {self.image}"
        labels = found[self.label].int64_list.value
        if len(labels) != 1:
            return f"no {self.label}"
        last = self.first + self.classes - 1
        if not self.first <= labels[0] <= last:
            return f"label {labels[0]}, which is not from {self.first} to {last}"
        return contents.fault_of(found[self.image].bytes_list.value[0])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
    """The records of a part of a data set that can be used, and the names of the others."""

    paths: np.ndarray
    index: index.Index
    features: Features
    unreadable: tuple[str, ...]

    @property
    def size(self) -> int:
        """Return the number of records that can be used."""
        return int(index.good(self.index).sum())

    def split(self, first: int = 0, last: int | None = None, unreadable: tuple[str, ...] = ()) -> Split:
        """Return the Split of the good records `first` to `last` (default: all), in the order of their files."""
        return _split(self, first, self.size if last is None else last, unreadable, keep=False)

    @functools.cached_property
    def good(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (file, number in the file, offset) of each good record, each int64 [n]."""
        counts = self.index.counts
        numbers = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        chosen = index.good(self.index)
        return self.index.files[chosen], numbers[chosen], self.index.offsets[chosen]

    @functools.cached_property
    def named(self) -> bool:
        """Return whether the images have names: the first one tells."""
        if not self.features.name or not self.size:
            return False
        record = next(iter(_in_order(self.runs(0, 1, 0), _read)))["record"].numpy()
        names = tf.train.Example.FromString(record).features.feature[self.features.name].bytes_list.value
        return len(names) == 1 and bool(names[0])

    def names(self, begin: int, end: int) -> np.ndarray:
        """Return the names of the good records `begin` to `end`, str [n]; reads these records."""
        items = _in_order(self.runs(begin, end, begin), _read)
        pairs = items.map(lambda item: self.features.parse_name(item["record"]), tf.data.AUTOTUNE, deterministic=True)
        batches = pairs.batch(_KEPT).as_numpy_iterator()
        found = [self.features.full_name(*pair) for batch in batches for pair in zip(*batch, strict=True)]
        return np.array(found, np.str_)

    def runs(self, begin: int, end: int, origin: int) -> tuple[np.ndarray, ...]:
        """Return the gapless runs of good records `begin` to `end`: arrays (path, offset, count, index of first)."""
        files, numbers, offsets = (values[begin:end] for values in self.good)
        starts = np.flatnonzero(np.diff(files, prepend=-1) | (np.diff(numbers, prepend=-1) != 1))
        counts = np.diff(starts, append=end - begin)
        return self.paths[files[starts]], offsets[starts], counts, starts + begin - origin


def look_through(
    root: str, parts: dict[str, list[str]], features: Features, lengths: dict[str, int] | None = None
) -> dict[str, Records]:
    """Return `{part: Records}` of a folder's TFRecord files; see `index.look_through`.

    Args:
      root: the folder, where the index is kept.
      parts: `{part: [path]}`.
      features: Features.
      lengths: `{path: number of records}` where that is known.
    """
    paths = [path for files in parts.values() for path in files]
    check = functools.partial(check_files, features=features)
    whole = index.look_through(root, paths, check, str(features), _CHECKED)
    looked, begin = {}, 0
    for part, files in parts.items():
        found = whole.select(range(begin, begin + len(files)))
        if lengths:
            found = _with_lost(found, [lengths.get(path, 0) for path in files])
        names = np.array(files, np.str_)
        unreadable = found.names_of_faults(files)
        looked[part] = Records(paths=names, index=found, features=features, unreadable=unreadable)
        begin += len(files)
    return looked


def find_unreadable(records: dict[str, Records]) -> str | None:
    """Look through files once more, return a sentence about the first new fault, None if there is none."""
    for part in records.values():
        for path in part.paths.tolist():
            found = check_files([path], lambda count: None, part.features)
            new = [name for name in found.names_of_faults([path]) if name not in part.unreadable]
            if new:
                return f"{new[0]}. Replace the file, or start again to have what is unreadable found and left out."
    return None


def check_files(paths: Sequence[str], advance: Callable[[int], Any], features: Features) -> index.Index:
    """Return the Index of some TFRecord files; every record is read, parsed and decoded."""
    faults, offsets = [], []
    for file, path in enumerate(paths):
        places, fault = scan(path)
        offsets.append(places)
        faults += [(file, len(places), fault)] if fault else []
    counts = np.array([len(places) for places in offsets], np.int64)
    offsets = np.concatenate(offsets) if paths else np.zeros(0, np.int64)
    files = np.repeat(np.arange(len(paths)), counts)
    firsts = np.cumsum(counts) - counts
    kinds, sides = np.full(len(offsets), contents.UNREADABLE, np.int8), np.zeros([len(offsets), 2], np.int32)
    digests = np.zeros(len(offsets), np.int64)
    found, names = (kinds, sides, digests), np.array(paths, np.str_)
    _look(names, np.zeros_like(counts), counts, firsts, features, found, advance)
    unseen = np.flatnonzero(kinds == contents.UNREADABLE)  # behind a wrong checksum nothing is read: now one by one
    if len(unseen):
        _look(names[files[unseen]], offsets[unseen], np.ones_like(unseen), unseen, features, found, advance)
    for place in np.flatnonzero(kinds == contents.UNREADABLE).tolist():
        file = int(files[place])
        fault = _fault_at(paths[file], offsets[place], features)
        if fault is None:
            raise OSError(f"{paths[file]} reads differently each time: check the disk, or whoever writes to the file.")
        faults.append((file, place - int(firsts[file]), fault))
    return index.make(counts, offsets, *found, sorted(faults))


def scan(path: str) -> tuple[np.ndarray, str | None]:
    """Find the records of a TFRecord file by their lengths.

    Returns:
      offsets int64 [n] of the whole records, and what is wrong behind the last of them (None if the file ends there).
    """
    offsets, place = [], 0
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            size = file.size()
            while place < size:
                file.seek(place)
                header = file.read(_HEADER)
                if len(header) < _HEADER:
                    return np.array(offsets, np.int64), "the file ends within its header"
                if _masked_crc(header[:8]) != int.from_bytes(header[8:], "little"):
                    return np.array(offsets, np.int64), "its length is damaged, and what follows cannot be found"
                end = place + _FRAME + int.from_bytes(header[:8], "little")
                if end > size:
                    return np.array(offsets, np.int64), "the file ends within it"
                offsets.append(place)
                place = end
    except tf.errors.OpError as error:
        raise OSError(f"{path} cannot be read: {error.message}") from error
    return np.array(offsets, np.int64), None if offsets else "the file is empty"


def read_from(path: str | tf.Tensor, offset: int | tf.Tensor) -> tf.data.Dataset:
    """Return the records of a TFRecord file from the one that begins at byte `offset` on.

    For functions of `flat_map` and `interleave` only: TensorFlow (2.21) cannot write this op into the graph of a
    pipeline, and so not begin to iterate where it stands outside of such a function.
    """
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[path], compression_type="", buffer_size=_BUFFER, byte_offsets=[offset]
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))


@functools.cache
def _crc_table():
    values = list(range(256))
    for _ in range(8):
        values = [value >> 1 ^ (0x82F63B78 if value & 1 else 0) for value in values]
    return values


def _masked_crc(content):
    """Return the CRC-32C of a few bytes as TFRecord files store it."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in content:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _look(paths, offsets, counts, firsts, features, found, advance):
    """Write kind, sides and digest of every record that can be read and decoded to its place in three arrays."""

    def read(path, offset, count, first):
        return read_from(path, offset).take(count).enumerate(first).ignore_errors()

    @tf.autograph.experimental.do_not_convert
    def look(place, record):
        image, label = features.parse(record)
        kind, *others = contents.look_in_place(image)
        kind = tf.where((label >= 0) & (label < features.classes), kind, contents.UNREADABLE)
        return place, (kind, *others), tf.strings.length(record) + _FRAME

    items = tf.data.Dataset.from_tensor_slices((paths, offsets, counts, firsts))
    items = items.interleave(read, _CYCLE, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
    looked = items.map(look, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False).ignore_errors()
    for place, facts, length in looked.prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
        for values, fact in zip(found, facts, strict=True):
            values[place] = fact
        advance(int(length))


def _fault_at(path, offset, features):
    place = tf.data.Dataset.from_tensors((path, offset))
    try:
        record = next(iter(place.flat_map(lambda path, offset: read_from(path, offset).take(1)))).numpy()
    except tf.errors.DataLossError:
        return "its checksum does not match"
    return features.fault_of(record)


def _with_lost(found, lengths):
    """Return the Index with a fault for each record that its file should hold and does not."""
    known = set(map(tuple, found.fault_places.tolist()))
    faults = [(*place, fault) for place, fault in zip(found.fault_places.tolist(), found.faults.tolist(), strict=True)]
    for file, (count, length) in enumerate(zip(found.counts.tolist(), lengths, strict=True)):
        lost = [(file, record) for record in range(count, length) if (file, record) not in known]
        faults += [(*place, "missing: the file ends before it, or what precedes it is damaged") for place in lost]
    return dataclasses.replace(found, **index.faults_of(sorted(faults)))


def _split(records, first, last, unreadable, keep):
    """Return a Split of good records; with `keep` all of this host's are held in memory after one read."""
    size, features = int(last - first), records.features
    plain = contents.reader(records.index.kinds)

    @functools.cache
    def in_memory(begin, end):
        with tf.init_scope(), tf.device("CPU:0"):
            items = _in_order(records.runs(begin, end, first), _read)
            chunks = list(items.map(lambda item: item["record"]).batch(_KEPT))
            return tf.concat(chunks, axis=0) if chunks else tf.zeros([0], tf.string)

    def order(seed, host, hosts, block, start):
        begin, end = first + size * host // hosts, first + size * (host + 1) // hosts
        runs, read = records.runs(begin, end, first), _number if keep else _read
        items = (_in_order(runs, read) if seed is None else _shuffled(runs, seed, read)).skip(start * block)
        if not keep:
            return items
        kept = in_memory(begin, end)
        return items.map(lambda item: item | {"record": tf.gather(kept, item["index"] - (begin - first))})

    def decode(item):
        image, label = features.parse(item["record"])
        return plain(image), label, item["index"]

    cached = None if keep else lambda: _split(records, first, last, unreadable, keep=True)
    names = functools.cache(lambda: records.names(first, last)) if records.named else None
    return Split(
        size=size,
        order=order,
        decode=decode,
        unreadable=unreadable,
        cached=cached,
        names=names,
        digests=lambda: records.index.digests[index.good(records.index)][first:last],
    )


def _read(path, offset, count, first):
    """Return items (dicts of index and record) of one run of records."""
    records = read_from(path, offset).take(count).enumerate(first)
    return records.map(lambda number, record: {"index": number, "record": record})


def _number(path, offset, count, first):
    """Return the items of one run of records without what is in them."""
    return tf.data.Dataset.range(first, first + count).map(lambda number: {"index": number})


def _in_order(runs, read):
    return tf.data.Dataset.from_tensor_slices(runs).flat_map(read)


def _shuffled(runs, seed, read):
    """Return the records in an order that only `seed` decides.

    Not `Dataset.shuffle`: the order of that depends on the global seed, too.
    """
    fold_in, permute = tf.random.experimental.stateless_fold_in, tf.random.experimental.stateless_shuffle
    block_seed = fold_in(seed, 1)
    places = permute(tf.range(len(runs[0])), fold_in(seed, 0))
    runs = tuple(tf.gather(values, places) for values in runs)

    def shuffle_block(number, items):
        places = permute(tf.range(tf.shape(items["index"])[0]), fold_in(block_seed, number))
        return {key: tf.gather(values, places) for key, values in items.items()}

    items = tf.data.Dataset.from_tensor_slices(runs)
    items = items.interleave(read, _CYCLE, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    blocks = items.batch(_BLOCK).enumerate().map(shuffle_block)
    return blocks.prefetch(1).unbatch()  # one block is read while the one before it is used
