"""Cost of AutoAugment and RandAugment on top of decode, crop and flip, in turn in one process on one core.

    python benchmarks/augmentation.py --data_dir=/data/images

Images are the JPEG files below --data_dir, or else matplotlib's sample photograph at 400 x 468 pixels. An image per
second and core is one per second of processor time; every pipeline has a single thread.
"""

import argparse
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import tensorflow as tf

from sat_tf.autoaugment import POLICIES
from sat_tf.preprocess import random_resized_crop_flip, to_levels


def photographs(data_dir):
    """Return encoded JPEG files, at most 256."""
    if data_dir:
        files = sorted(file for file in pathlib.Path(data_dir).rglob("*") if file.suffix.lower() in (".jpg", ".jpeg"))
        if not files:
            raise ValueError(f"Expected a folder with JPEG files. Received: data_dir={data_dir}.")
        return [file.read_bytes() for file in files[:256]]
    from matplotlib.cbook import get_sample_data

    photograph = tf.io.decode_jpeg(tf.io.read_file(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    resized = tf.image.resize(photograph, [468, 400], antialias=True)
    return [tf.io.encode_jpeg(tf.cast(resized + 0.5, tf.uint8), quality=90).numpy()]


def pipeline(encoded, policy, size):
    """Return an endless iterator of uint8 [size, size, 3]: decode, crop, flip, then a row of `POLICIES`."""

    def prepare(seed, jpeg):
        seed = tf.stack([0, tf.cast(seed, tf.int32)])
        return POLICIES[policy](to_levels(random_resized_crop_flip(jpeg, size, seed)), seed)

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    data_set = tf.data.Dataset.from_tensor_slices(encoded).repeat().enumerate()
    return iter(data_set.map(prepare, num_parallel_calls=1).with_options(options))


def seconds(images, count):
    """Return the processor time of a number of images."""
    started = time.process_time()
    for _ in range(count):
        next(images)
    return time.process_time() - started


def main():
    """Print images per second and core of the three pipelines, and what share of the plain one's the others keep."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data_dir")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=200, help="of each pipeline in a round")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    encoded = photographs(arguments.data_dir)
    pipelines = {policy: pipeline(encoded, policy, arguments.size) for policy in POLICIES}
    for images in pipelines.values():
        seconds(images, 20)
    rounds = [
        {policy: seconds(images, arguments.images) for policy, images in pipelines.items()}
        for _ in range(arguments.rounds)
    ]
    print(f"{arguments.size} px, one core; share: images per second against none")
    for policy in POLICIES:
        spent = statistics.median(times[policy] for times in rounds) / arguments.images
        shares = sorted(times["none"] / times[policy] for times in rounds)
        print(
            f"{policy:11} {1 / spent:5.0f} images per second and core, {1e3 * spent:.2f} ms each, "
            f"share median {statistics.median(shares):.2f}, from {shares[0]:.2f} to {shares[-1]:.2f}"
        )


if __name__ == "__main__":
    main()
