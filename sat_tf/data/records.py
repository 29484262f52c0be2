"""Data sets prepared by tensorflow-datasets (TFDS). Nothing is downloaded here; TFRecord files are read directly.

CIFAR is decoded into memory. The others are streamed: files in seeded order, sixteen at a time, shuffled in blocks.
"""

import os
import re

import numpy as np
import tensorflow as tf

from sat_tf.data.splits import Data, Split, expand, from_arrays, held_out_size, set_aside, to_arrays

_CYCLE = 16  # files read at a time
_BUFFER = 1 << 20  # bytes read at a time from each
_BLOCK = 2048  # records shuffled at a time: some 230 MB of ImageNet


def cifar10(data_dir, held_out, seed):
    """CIFAR-10, 50,000 + 10,000 photographs of 10 classes, prepared by tensorflow-datasets (32 px)."""
    return _in_memory("cifar10", data_dir, held_out, seed)


def cifar100(data_dir, held_out, seed):
    """CIFAR-100, 50,000 + 10,000 photographs of 100 classes, prepared by tensorflow-datasets (32 px)."""
    return _in_memory("cifar100", data_dir, held_out, seed)


def imagenette(data_dir, held_out, seed):
    """Imagenette, 9,469 + 3,925 photographs of 10 ImageNet classes, prepared by tensorflow-datasets (160 px)."""
    return _streamed("imagenette", data_dir, held_out, config="160px-v2", image_size=160)


def imagenet2012(data_dir, held_out, seed):
    """ImageNet, 1.28 million + 50,000 photographs of 1,000 classes, prepared by tensorflow-datasets (224 px)."""
    note = " after putting the archives from https://image-net.org (account needed) into downloads/manual there"
    return _streamed("imagenet2012", data_dir, held_out, image_size=224, note=note)


def _in_memory(name, data_dir, held_out, seed):
    builder = _prepared(name, data_dir)
    try:
        train, held = set_aside(*to_arrays(_records(builder, "train")), held_out, seed)
        test = from_arrays(*to_arrays(_records(builder, "test")))
    except tf.errors.OpError as error:
        raise OSError(_find_broken(_all_files(builder)) or error.message) from error
    return _data(name, builder, "", image_size=32, train=train, held_out=held, test=test)


def _streamed(name, data_dir, held_out, *, image_size, config="", note=""):
    """Return Data whose held-out pictures are the last records of the training split: TFDS has shuffled them."""
    builder = _prepared(name, data_dir, config, note)
    total = builder.info.splits["train"].num_examples
    kept = total - held_out_size(held_out, total)
    return _data(
        name,
        builder,
        f", test = validation split, held out = the last {total - kept} training records",
        image_size=image_size,
        train=_records(builder, "train", last=kept),
        held_out=_records(builder, "train", first=kept),
        test=_records(builder, "validation"),
    )


def _data(name, builder, how, **fields):
    return Data(
        name=name,
        source=f"{builder.data_path} (tensorflow-datasets{how})",
        classes=tuple(builder.info.features["label"].names),
        diagnose=lambda: _find_broken(_all_files(builder)),
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


def _records(builder, split_name, first=0, last=None):
    """Return the Split of records `first` to `last` (default: all) of a TFDS split, in the order of its files."""
    info = builder.info.splits[split_name]
    paths, lengths = _files(info), np.asarray(info.shard_lengths, np.int64)
    missing = {os.path.basename(path) for path in paths} - set(tf.io.gfile.listdir(os.fspath(builder.data_path)))
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} files of the {split_name} split are missing in {builder.data_path}, "
            f"{min(missing)} for one: remove the folder and prepare the set again."
        )
    last = info.num_examples if last is None else last
    size = int(last - first)

    def order(seed, host, hosts, block, start):
        share = (first + size * host // hosts, first + size * (host + 1) // hosts)
        parts = _cut(paths, lengths, *share, first)
        items = _in_order(parts) if seed is None else _shuffled(parts, seed)
        return items.skip(start * block)

    def decode(item):
        example = builder.info.features.deserialize_example(item["record"])
        return example["image"], tf.cast(example["label"], tf.int32), item["index"]

    return Split(size=size, order=order, decode=decode)


def _cut(paths, lengths, begin, end, origin):
    """Return the parts of the files that hold records `begin` to `end`: arrays (path, skip, take, index of first)."""
    starts = np.cumsum(lengths) - lengths
    skip = np.clip(begin - starts, 0, lengths)
    take = np.clip(end - starts, 0, lengths) - skip
    used = take > 0
    return np.array(paths)[used], skip[used], take[used], (starts + skip - origin)[used]


def _read(path, skip, take, index):
    """Return items (dicts of index and record) of one part of a file."""
    records = tf.data.TFRecordDataset(path, buffer_size=_BUFFER).skip(skip).take(take).enumerate(index)
    return records.map(lambda index, record: {"index": index, "record": record})


def _in_order(parts):
    return tf.data.Dataset.from_tensor_slices(parts).flat_map(_read)


def _shuffled(parts, seed):
    """Return the records in an order that only `seed` decides.

    Not `Dataset.shuffle`: the order of that depends on the global seed, too.
    """
    fold_in, permute = tf.random.experimental.stateless_fold_in, tf.random.experimental.stateless_shuffle
    block_seed = fold_in(seed, 1)
    places = permute(tf.range(len(parts[0])), fold_in(seed, 0))
    parts = tuple(tf.gather(values, places) for values in parts)

    def shuffle_block(number, items):
        places = permute(tf.range(tf.shape(items["index"])[0]), fold_in(block_seed, number))
        return {key: tf.gather(values, places) for key, values in items.items()}

    items = tf.data.Dataset.from_tensor_slices(parts)
    items = items.interleave(_read, _CYCLE, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return items.batch(_BLOCK).enumerate().map(shuffle_block).unbatch()


def _find_broken(files):
    """Return a sentence about the first file that cannot be read to its end, None if all can."""
    for path in files:
        try:
            for _ in tf.data.TFRecordDataset(path, buffer_size=_BUFFER).batch(1024):
                pass
        except tf.errors.OpError as error:
            return f"{path} cannot be read to its end ({error.message}): prepare the data set again."
    return None
