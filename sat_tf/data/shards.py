"""Sets in the form in which the release reads ImageNet: files train-00000-of-01024 and validation-00000-of-00128.

Their records hold `image/encoded`, the bytes of an image file, `image/class/label`, numbered from 1, and often
`image/filename`, the name of the file without its folder.
`python -m sat_tf.data.make_shards` writes such files from a folder of images.
"""

import dataclasses
import os
import re
from typing import Any

import tensorflow as tf

from sat_tf.data import index, tfrecords
from sat_tf.data.splits import Data, expand, validation_size

CLASSES_FILE = "classes.txt"  # the name of each class, a line each
COUNTS_FILE = "counts.txt"  # lines "file count": how many records were written to it
PARTS = ("train", "validation")
_SPLITS = {"train": "train", "validation": "test"}  # fields of Data
_NAME = re.compile(rf"({'|'.join(PARTS)})-(\d{{5}})-of-(\d{{5}})")


def shards(data_dir: str | os.PathLike | None, validation: int | None, seed: int) -> Data:
    """Images of your own in TFRecord shards, as written by `python -m sat_tf.data.make_shards`."""
    if data_dir is None:
        raise ValueError("Expected data_dir, a folder written by sat_tf.data.make_shards. Received: data_dir=None.")
    root = expand(data_dir)
    path = os.path.join(root, CLASSES_FILE)
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(
            f"There is no {path}, which names the classes: write the folder by "
            "`python -m sat_tf.data.make_shards --data_dir=IMAGES --output_dir=FOLDER ...`."
        )
    classes = tuple(_lines(path))
    if len(classes) < 2:
        raise ValueError(f"Expected the names of two or more classes in {path}. Received: {len(classes)}.")
    return load("shards", root, classes, validation, most_validation=1000)


def are_in(root: str) -> bool:
    """Return whether a folder holds files named as shards are."""
    return tf.io.gfile.isdir(root) and any(map(_NAME.fullmatch, tf.io.gfile.listdir(root)))


def load(
    name: str,
    root: str,
    classes: tuple[str, ...],
    validation: int | None,
    most_validation: int,
    known: dict[str, tuple[int, int]] | None = None,
) -> Data:
    """Return Data of a folder of shards; its validation images are the last training records, which are shuffled.

    Args:
      name, root, classes: the set, its folder, its class names.
      validation: number of validation images, None for `most_validation` or a tenth if that is less.
      most_validation: see there.
      known: `{part: (files, records)}` of the whole set. Fewer records in as many files are a fault of the part,
        in another number of files (a set of the user's own) worth a note.
    """
    parts = _parts(root)
    if not any(parts.values()):
        raise FileNotFoundError(f"There are no files like train-00000-of-00008 or validation-00000-of-00008 in {root}.")
    features = tfrecords.Features(
        image="image/encoded",
        label="image/class/label",
        first=1,
        classes=len(classes),
        name="image/filename",
        class_names=tuple(classes),
    )
    lengths = _lengths(root)
    _refuse_missing(root, parts, lengths)
    records = tfrecords.look_through(root, parts, features, lengths)
    fields, held = fields_of(records, validation, most_validation)
    for part, (files, count) in (known or {}).items():
        found = int(records[part].index.counts.sum())
        if len(parts[part]) == files and found < count:
            split = fields[_SPLITS[part]]
            lost = f"{root}/{part}-*: {count - found:,} of {count:,} records are not in the files"
            fields[_SPLITS[part]] = dataclasses.replace(split, unreadable=(*split.unreadable, lost))
        elif parts[part] and found != count:
            fields["notes"] += (f"{part}: {found:,} records, {name} has {count:,}",)
    where = f"{root} (TFRecord shards, test = validation files"
    where += f", held out = the last {held} training records)" if parts["train"] else ", no training files)"
    return Data(name=name, source=where, classes=classes, image_size=None, **fields)


def fields_of(
    records: dict[str, tfrecords.Records], validation: int | None, most_validation: int
) -> tuple[dict[str, Any], int]:
    """Return the fields of Data that some Records decide, and the number of validation images.

    These are the last good ones of the training part: whoever wrote the files has shuffled them.
    """
    train, test = records["train"], records["validation"]
    held = validation_size(validation, train.size, most_validation)
    phrases = (index.summary(part.index, title) for title, part in records.items())
    fields = {
        "train": train.split(0, train.size - held, unreadable=train.unreadable),
        "validation": train.split(train.size - held),
        "test": test.split(unreadable=test.unreadable),
        "notes": tuple(phrase for phrase in phrases if phrase),
        "diagnose": lambda: tfrecords.find_unreadable(records),
    }
    return fields, held


def _parts(root):
    """Return `{part: sorted paths}` of the shards in a folder, all that their names promise.

    Raises:
      FileNotFoundError: if one is missing; names it.
      ValueError: if they are not of one set.
    """
    if not tf.io.gfile.isdir(root):
        raise FileNotFoundError(f"There is no folder {root}.")
    names = [match for match in map(_NAME.fullmatch, tf.io.gfile.listdir(root)) if match]
    parts = {}
    for part in PARTS:
        found = {match[0] for match in names if match[1] == part}
        totals = sorted({match[3] for match in names if match[1] == part})
        if len(totals) > 1:
            raise ValueError(
                f"Expected the {part} shards of one set in {root}. Received: some of {' and some of '.join(totals)}."
            )
        expected = [f"{part}-{number:05d}-of-{totals[0]}" for number in range(int(totals[0]))] if totals else []
        if not found <= set(expected):
            raise ValueError(f"Expected shards numbered from 0 in {root}. Received: {min(found - set(expected))}.")
        _refuse(root, part, [name for name in expected if name not in found], len(expected))
        parts[part] = [os.path.join(root, name) for name in expected]
    return parts


def _refuse_missing(root, parts, lengths):
    """Refuse a part that was written and of which some files, or all, are gone."""
    for part, paths in parts.items():
        written = sorted(path for path in lengths if os.path.basename(path).startswith(f"{part}-"))
        if paths:  # a part that is wholly absent is a set to evaluate, or to train on, only
            _refuse(root, part, [os.path.basename(path) for path in written if path not in paths], len(written))


def _refuse(root, part, missing, total):
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {total} {part} shards are missing in {root}, {missing[0]} for one: copy or write them "
            "once more."
        )


def _lengths(root):
    """Return `{path: number of records}` as the tool wrote it down, {} for sets that were not written by it."""
    path = os.path.join(root, COUNTS_FILE)
    if not tf.io.gfile.exists(path):
        return {}
    pairs = [line.split() for line in _lines(path)]
    if any(len(pair) != 2 or not pair[1].isdigit() for pair in pairs):
        raise ValueError(f"Expected lines of a file and its number of records in {path}. Received: something else.")
    return {os.path.join(root, name): int(count) for name, count in pairs}


def _lines(path):
    with tf.io.gfile.GFile(path) as file:
        return [line.strip() for line in file.read().splitlines() if line.strip()]
