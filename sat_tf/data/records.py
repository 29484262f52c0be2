"""Data sets prepared by tensorflow-datasets (TFDS). Nothing is downloaded here; TFRecord files are read directly.

CIFAR is decoded into memory, the others are streamed. ImageNet may also come in the release's own shards.
"""

import importlib.util
import os
import re

import numpy as np
import tensorflow as tf

from sat_tf.data import shards, tfrecords
from sat_tf.data.splits import Data, expand, from_arrays, set_aside

_BUFFER = 1 << 20  # bytes read at a time from a file
_IMAGENET_VALIDATION = 10_000
_IMAGENET_RECORDS = {"train": (1024, 1_281_167), "validation": (128, 50_000)}  # files, records


def cifar10(data_dir: str | os.PathLike | None, validation: int | None, seed: int) -> Data:
    """CIFAR-10, 50,000 + 10,000 photographs of 10 classes, prepared by tensorflow-datasets (32 px)."""
    return _in_memory("cifar10", data_dir, validation, seed)


def cifar100(data_dir: str | os.PathLike | None, validation: int | None, seed: int) -> Data:
    """CIFAR-100, 50,000 + 10,000 photographs of 100 classes, prepared by tensorflow-datasets (32 px)."""
    return _in_memory("cifar100", data_dir, validation, seed)


def imagenette(data_dir: str | os.PathLike | None, validation: int | None, seed: int) -> Data:
    """Imagenette, 9,469 + 3,925 photographs of 10 ImageNet classes, prepared by tensorflow-datasets (160 px)."""
    return _streamed("imagenette", data_dir, validation, config="160px-v2", image_size=160)


def imagenet2012(data_dir: str | os.PathLike | None, validation: int | None, seed: int) -> Data:
    """ImageNet, 1.28 million + 50,000 photographs of 1,000 classes: TFRecord shards, or by tensorflow-datasets."""
    if data_dir is not None and shards.are_in(expand(data_dir)):
        return shards.load(
            "imagenet2012",
            expand(data_dir),
            imagenet_classes(),
            validation,
            _IMAGENET_VALIDATION,
            known=_IMAGENET_RECORDS,
        )
    note = (
        " after putting the archives from https://image-net.org (account needed) into downloads/manual there, or name "
        "the folder of the shards train-00000-of-01024, ... and validation-00000-of-00128, ... as data_dir"
    )
    return _streamed(
        "imagenet2012", data_dir, validation, image_size=None, note=note, most_validation=_IMAGENET_VALIDATION
    )


def imagenet_classes() -> tuple[str, ...]:
    """Return the 1,000 classes of ImageNet in the order of their labels, as tensorflow-datasets ships them."""
    package = os.path.dirname(importlib.util.find_spec("tensorflow_datasets").origin)  # importing it takes seconds
    folder = os.path.join(package, "datasets", "imagenet2012")
    with open(os.path.join(folder, "labels.txt"), encoding="utf-8") as file:
        return tuple(file.read().split())


def _in_memory(name, data_dir, validation, seed):
    builder = _prepared(name, data_dir)
    try:
        train, held = set_aside(*_arrays(builder, "train"), validation, seed)
        test = from_arrays(*_arrays(builder, "test"))
    except tf.errors.OpError as error:
        raise OSError(_find_unreadable(_all_files(builder)) or error.message) from error
    return _data(
        name,
        builder,
        "",
        image_size=32,
        train=train,
        validation=held,
        test=test,
        diagnose=lambda: _find_unreadable(_all_files(builder)),
    )


def _streamed(name, data_dir, validation, *, image_size, config="", note="", most_validation=1000):
    """Return Data whose validation images are the last records of the training split: TFDS has shuffled them."""
    builder = _prepared(name, data_dir, config, note)
    splits = _splits(builder, ["train", "validation"])
    classes = tuple(builder.info.features["label"].names)
    file_name = "file_name" if "file_name" in builder.info.features else ""  # ImageNet has it, Imagenette has not
    features = tfrecords.Features(
        image="image", label="label", first=0, classes=len(classes), name=file_name, class_names=classes
    )
    parts = {part: paths for part, (paths, _) in splits.items()}
    lengths = {path: count for files in splits.values() for path, count in zip(*files, strict=True)}
    records = tfrecords.look_through(os.fspath(builder.data_path), parts, features, lengths)
    fields, held = shards.fields_of(records, validation, most_validation)
    how = f", test = validation split, held out = the last {held} training records"
    return _data(name, builder, how, image_size=image_size, **fields)


def _data(name, builder, how, **fields):
    return Data(
        name=name,
        source=f"{builder.data_path} (tensorflow-datasets{how})",
        classes=tuple(builder.info.features["label"].names),
        **fields,
    )


def _prepared(name, data_dir, config="", note=""):
    """Return the read-only TFDS builder of the newest version under `data_dir`."""
    import tensorflow_datasets as tfds

    root = expand(data_dir or tfds.core.constants.DATA_DIR)
    folder = os.path.join(root, name, config) if config else os.path.join(root, name)
    found = tf.io.gfile.glob(os.path.join(folder, "*", "dataset_info.json"))
    versions = [path for path in map(os.path.dirname, found) if re.fullmatch(r"\d+\.\d+\.\d+", os.path.basename(path))]
    if not versions:
        full_name = f"{name}/{config}" if config else name
        # Not `tfds build`: in tensorflow-datasets 4.9.10 that program does not start without apache_beam.
        command = f"tfds.builder({full_name!r}, data_dir={root!r}).download_and_prepare()"
        raise FileNotFoundError(
            f"{name} is not prepared for tensorflow-datasets under {folder}: "
            f'run `python -c "import tensorflow_datasets as tfds; {command}"`{note}.'
        )
    newest = max(versions, key=lambda path: [int(part) for part in os.path.basename(path).split(".")])
    builder = tfds.builder_from_directory(newest)
    if builder.info.file_format.value != "tfrecord":
        raise ValueError(f"Expected TFRecord files in {newest}. Received: {builder.info.file_format.value} files.")
    return builder


def _all_files(builder):
    return [path for split in builder.info.splits.values() for path in _files(split)]


def _files(split_info):
    return [os.fspath(path) for path in split_info.filepaths]


def _splits(builder, names):
    """Return `{split: (files, records in each)}`; a missing file is refused by name."""
    present, splits = set(tf.io.gfile.listdir(os.fspath(builder.data_path))), {}
    for name in names:
        info = builder.info.splits[name]
        paths = _files(info)
        missing = {os.path.basename(path) for path in paths} - present
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(paths)} files of the {name} split are missing in {builder.data_path}, "
                f"{min(missing)} for one: remove the folder and prepare the set again."
            )
        splits[name] = paths, list(map(int, info.shard_lengths))
    return splits


def _arrays(builder, split_name):
    """Return all images of a split of one image size as NumPy arrays (images, labels)."""
    paths, _ = _splits(builder, [split_name])[split_name]
    records = tf.data.TFRecordDataset(paths, buffer_size=_BUFFER)
    examples = records.map(builder.info.features.deserialize_example, num_parallel_calls=tf.data.AUTOTUNE)
    batches = list(examples.batch(1000).as_numpy_iterator())
    return tuple(np.concatenate([batch[key] for batch in batches]) for key in ("image", "label"))


def _find_unreadable(files):
    """Return a sentence about the first file that cannot be read to its end, None if all can."""
    for path in files:
        try:
            for _ in tf.data.TFRecordDataset(path, buffer_size=_BUFFER).batch(1024):
                pass
        except tf.errors.OpError as error:
            return f"{path} cannot be read to its end ({error.message}): prepare the data set again."
    return None
