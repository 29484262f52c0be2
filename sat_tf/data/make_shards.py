"""Write TFRecord shards, as --dataset=shards reads them, from a folder of images.

    python -m sat_tf.data.make_shards --data_dir=FOLDER --output_dir=DIR

FOLDER is what --dataset=folder takes: train/<class>/* and test/ or val/<class>/*, or only <class>/*, of which the tenth
that --dataset=folder draws to test by becomes the validation part. JPEG and PNG files are taken over byte by byte,
others are stored as PNG. The images are shuffled. DIR gets the shards, classes.txt (a name a line, label 1 first) and
counts.txt (the records in each shard).
"""

import argparse
import os
import sys
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from sat_tf import files, preprocess, progress
from sat_tf.data import contents, folders
from sat_tf.data.listing import listing
from sat_tf.data.shards import CLASSES_FILE, COUNTS_FILE, PARTS
from sat_tf.data.splits import expand

_KEPT = ("JPEG", "CMYK JPEG", "PNG")
_IN_A_SHARD = 1250  # images, as in ImageNet's 1024 shards


def make(
    data_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    shards: dict[str, int | None],
    *,
    seed: int = 0,
    skip_unreadable: bool = False,
    tell: Callable[[str], None] = lambda note: None,
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Write the shards, into a folder of another name that becomes the output folder when all is written.

    Args:
      data_dir: folder of images.
      output_dir: folder to write to; absent or empty.
      shards: `{part: number of files}`; None for one for each 1,250 images.
      seed: shuffles the images.
      skip_unreadable: leave out unreadable images instead of refusing them.
      tell: is called with each note on the folder, e.g. what else is in it.

    Returns:
      `{part: number of images}`, and the names of the unreadable images that were left out.

    Raises:
      ValueError: for unreadable images, an output folder that is not empty, or more shards than images.
    """
    data_dir, output_dir = expand(data_dir), expand(output_dir)
    if os.path.isdir(output_dir) and os.listdir(output_dir):
        raise ValueError(f"Expected an output_dir that is absent or empty. Received: {output_dir}.")
    found = listing(data_dir)
    paths, labels = found.paths, found.labels
    with _bar(
        sum(os.path.getsize(path) for path in paths if os.path.exists(path)), "looking for unreadable images", "B"
    ) as bar:
        looked = folders.check_files(paths.tolist(), bar.update)
    unreadable = looked.names_of_faults(paths, numbered=False)
    if unreadable and not skip_unreadable:
        raise ValueError(
            f"Expected whole images. Received: {len(unreadable)} unreadable, the first {unreadable[0]}. "
            "Replace them, or leave them out by --skip_unreadable."
        )
    tested, _, notes = found.split(looked.digests)
    for note in notes:
        tell(note)
    usable = looked.kinds != contents.UNREADABLE
    members = {"train": np.flatnonzero(~tested & usable), "validation": np.flatnonzero(tested & usable)}
    random, pieces = np.random.RandomState(seed), []
    for part in PARTS:
        number = _number_of_shards(part, len(members[part]), shards[part])
        pieces += _cut(part, random.permutation(members[part]), number)
    with files.replacing(output_dir) as partial:
        partial.mkdir()
        with _bar(int(usable.sum()), "writing shards", "image") as bar:
            for name, chosen in pieces:
                _write_shard(partial / name, paths[chosen], labels[chosen], looked.kinds[chosen], bar)
        _write_lines(partial / COUNTS_FILE, (f"{name} {len(chosen)}" for name, chosen in pieces))
        _write_lines(partial / CLASSES_FILE, found.classes)
    return {part: len(places) for part, places in members.items()}, unreadable


def _number_of_shards(part, images, wanted):
    """Return how many files a part gets."""
    if wanted is None:
        return max(1, round(images / _IN_A_SHARD))
    if images and not 1 <= wanted <= images:
        raise ValueError(
            f"Expected {part}_shards from 1 to the {images} images of that part. Received: {part}_shards={wanted}."
        )
    return wanted


def _cut(part, places, total):
    """Return (name, places) of each shard of a part; none for a part without images."""
    if not len(places):
        return []
    pieces = np.array_split(places, total)
    return [(f"{part}-{number:05d}-of-{total:05d}", piece) for number, piece in enumerate(pieces)]


def _write_shard(path, paths, labels, kinds, bar):
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for name, label, kind in zip(paths.tolist(), labels.tolist(), kinds.tolist(), strict=True):
            with open(name, "rb") as file:
                content = file.read()
            if contents.KINDS[kind] not in _KEPT:
                content = tf.io.encode_png(preprocess.decode(contents.plain(tf.constant(content)))).numpy()
            writer.write(_example(content, label + 1, os.path.basename(name)).SerializeToString())
            bar.update()


def _example(content, label, name):
    features = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[content])),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        "image/filename": tf.train.Feature(bytes_list=tf.train.BytesList(value=[os.fsencode(name)])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features))


def _write_lines(path, lines):
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _bar(total, what, unit):
    """Return progress with ETA."""
    return progress.make_progress(total, what, unit, unit_scale=unit == "B")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="folder of images, a sub-folder a class")
    parser.add_argument("--output_dir", required=True, help="folder to write, absent or empty")
    parser.add_argument("--train_shards", type=int, help="number of files; default: 1 for 1,250 images")
    parser.add_argument("--validation_shards", type=int, help="number of files; default: 1 for 1,250 images")
    parser.add_argument("--seed", type=int, default=0, help="shuffles the images")
    parser.add_argument(
        "--skip_unreadable", action="store_true", help="leave out unreadable images instead of stopping"
    )
    arguments = parser.parse_args()
    shards = {"train": arguments.train_shards, "validation": arguments.validation_shards}
    try:
        counts, unreadable = make(
            arguments.data_dir,
            arguments.output_dir,
            shards,
            seed=arguments.seed,
            skip_unreadable=arguments.skip_unreadable,
            tell=lambda note: print(f"note: {note}"),
        )
    except (ValueError, OSError, tf.errors.OpError, KeyboardInterrupt) as error:
        print(f"make_shards: {getattr(error, 'message', str(error)) or 'Stopped.'}", file=sys.stderr)
        sys.exit(1)
    for name in unreadable:
        print(f"left out: {name}")
    print(
        f"{counts['train']} training and {counts['validation']} validation images written, {len(unreadable)} left out. "
        f"Train on them by: python main.py --dataset=shards --data_dir={arguments.output_dir}"
    )


if __name__ == "__main__":
    main()
