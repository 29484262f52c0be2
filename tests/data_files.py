"""Images, files and batches that the tests of the data sets share."""

import functools
import gzip
import io
import json
import pathlib

import numpy as np
import tensorflow as tf

from sat_tf import data, hparams, models, saving


def noise(count, height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


@functools.cache
def portrait():
    """Return a real photograph, uint8 [600, 512, 3]: Grace Hopper's, in the public domain, which matplotlib ships."""
    import matplotlib

    path = pathlib.Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return tf.io.decode_jpeg(path.read_bytes(), channels=3).numpy()


@functools.cache
def photographs(count):
    """Return JPEG files, as bytes, of `count` different cuts out of a photograph, no two of one place."""
    image, random, files = portrait(), np.random.default_rng(0), []
    for number in range(count):
        height, width = random.integers(60, 160, 2)
        top, left = 5 * (number % 80), random.integers(0, 512 - width)
        files.append(tf.io.encode_jpeg(image[top : top + height, left : left + width], quality=90).numpy())
    return tuple(files)


def write_photographs(root, per_class, *, classes=("ant", "bee", "cat"), first=0):
    """Write `photographs` from number `first` on into a folder for each class; return their paths."""
    files = iter(photographs(first + per_class * len(classes))[first:])
    for name in classes:
        (root / name).mkdir(parents=True)
        for place in range(per_class):
            (root / name / f"{place:03d}.JPEG").write_bytes(next(files))
    return sorted(root.glob("*/*.JPEG"))


def as_format(content, name, mode="RGB"):
    """Return the bytes of an image file rewritten by Pillow: another format, or colours."""
    import PIL.Image

    out = io.BytesIO()
    PIL.Image.open(io.BytesIO(content)).convert(mode).save(out, name)
    return out.getvalue()


def write_idx(root, part, per_class, compress):
    """Write `per_class` images of each class, in mixed order, as the two IDX files of a part."""
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(10), per_class)).astype(np.uint8)
    images = noise(len(labels), 28, 28, 1, seed=per_class)[..., 0]
    prefix = {"train": "train", "test": "t10k"}[part]
    for array, kind in ((images, "images-idx3"), (labels, "labels-idx1")):
        content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
        path = root / f"{prefix}-{kind}-ubyte{'.gz' if compress else ''}"
        path.write_bytes(gzip.compress(content) if compress else content)
    return images, labels


def write_tfds(root, name, classes, splits, config="", sides=32, named=False):
    """Write a prepared TFDS data set: real TFRecord shards and metadata.

    Args:
        root, name, classes, config, sides: Where, which set, how many classes, its variant, pixels.
        splits: `{split: images in each shard}`.
        named: Whether a record holds the name of its file, as ImageNet's do.
    """
    import tensorflow_datasets as tfds

    folder = root / name / config / "1.0.0"
    folder.mkdir(parents=True)
    names = [f"class {number}" for number in range(classes)]
    file_name = {"file_name": tfds.features.Text()} if named else {}
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(None, None, 3)), "label": tfds.features.ClassLabel(names=names)}
        | file_name
    )
    infos = []
    for split, shards in splits.items():
        images = iter(noise(sum(shards), sides, sides, seed=len(split)))
        for shard, count in enumerate(shards):
            path = folder / f"{name}-{split}.tfrecord-{shard:05d}-of-{len(shards):05d}"
            with tf.io.TFRecordWriter(str(path)) as writer:
                for number in range(count):
                    row = {"image": next(images), "label": number % classes}
                    row |= {"file_name": f"{split}_{shard}_{number:03d}.JPEG"} if named else {}
                    example = features.encode_example(row)
                    writer.write(features.serialize_example(example))
        infos.append(tfds.core.SplitInfo(name=split, shard_lengths=shards, num_bytes=0))
    tfds.folder_dataset.write_metadata(data_dir=folder, features=features, split_infos=infos, check_data=False)
    return folder


def write_folder(root, per_class, *, classes=("ant", "bee", "cat"), height=32, width=32, seed=0):
    """Write PNG images into a folder for each class."""
    for number, name in enumerate(classes):
        folder = root / name
        folder.mkdir(parents=True)
        for place, image in enumerate(noise(per_class, height, width, seed=100 * seed + number)):
            (folder / f"{place:03d}.png").write_bytes(tf.io.encode_png(image).numpy())
    return root


def write_run(folder, model="resnet8-w8", act="swish", classes=10):
    """Write the folder of a run whose weights are fresh ones: recipe and one checkpoint; return the model."""
    recipe = hparams.choose({"model": model, "act": act, "dataset": "synthetic"})
    built = models.build(model, act, classes, momentum=recipe.norm_momentum, epsilon=recipe.norm_epsilon)
    about = {"classes": [f"pattern {number}" for number in range(classes)], "image_size": 32}
    state = {"step": 1, "recipe": recipe.to_dict(), "data": about, "history": [], "best": None, "seconds": 0.0}
    state |= {"sums": {}, "summed": 0}
    saving.save(folder / "checkpoints", {"model": saving.by_path(built)}, state, kinds=("latest", "best"))
    (folder / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    return built


def batches(split, count=None, **arguments):
    """Return a list of training batches as NumPy arrays."""
    defaults = {"batch_size": 8, "image_size": 32, "augment": "pad_crop_flip", "seed": 5, "epochs": 2}
    dataset = data.train_batches(split, **(defaults | arguments))
    return list(dataset.take(-1 if count is None else count).as_numpy_iterator())


def labelled(split):
    """Return the images of a split, of any sizes, as a list of (bytes of the pixels, label) in natural order."""
    return [(image.tobytes(), int(label)) for image, label, _ in split.epoch(None).as_numpy_iterator()]


def assert_same(left, right):
    assert len(left) == len(right)
    for (left_images, left_labels), (right_images, right_labels) in zip(left, right, strict=True):
        np.testing.assert_array_equal(left_images, right_images)
        np.testing.assert_array_equal(left_labels, right_labels)


def indices(dataset):
    return [int(index) for _, _, index in dataset.as_numpy_iterator()]


def places(items):
    """Return the places of the images of a dataset of items, see `Split.order`; none is decoded."""
    return [int(place) for place in items.map(lambda item: item["index"]).as_numpy_iterator()]
