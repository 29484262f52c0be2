"""Grouped convolution with its input gradient on the CPU: ours against Keras' own, in turn in one process.

python benchmarks/grouped_conv.py
"""

import argparse
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import keras
import tensorflow as tf

from sat_tf.layers.convolution import conv2d

WAYS = {"ours": lambda x, k: conv2d(x, k, 1, "SAME", 32), "keras": lambda x, k: keras.ops.conv(x, k, padding="same")}


def attack_pass(convolve):
    """Return a compiled function of images and kernel: the gradient to the images."""

    @tf.function
    def gradient(images, kernel):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(tf.square(convolve(images, kernel)))
        return tape.gradient(loss, images)

    return gradient


def main():
    """Print the median time of either at the four stages of a ResNeXt-50-32x4d at 128 pixels."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    for size, channels in ((32, 128), (16, 256), (8, 512), (4, 1024)):
        images = tf.random.stateless_normal([16, size, size, channels], [0, 1])
        kernel = tf.random.stateless_normal([3, 3, channels // 32, channels], [0, 2])
        passes = {name: attack_pass(convolve) for name, convolve in WAYS.items()}
        times = {name: [] for name in WAYS}
        for _ in range(6):
            for name, function in passes.items():
                started = time.perf_counter()
                function(images, kernel).numpy()
                times[name].append(time.perf_counter() - started)
        medians = {name: statistics.median(values[1:]) for name, values in times.items()}
        print(
            f"{size:3} px, {channels:4} channels: ours {1e3 * medians['ours']:7.1f} ms, Keras "
            f"{1e3 * medians['keras']:8.1f} ms, ratio {medians['keras'] / medians['ours']:.0f}"
        )


if __name__ == "__main__":
    main()
