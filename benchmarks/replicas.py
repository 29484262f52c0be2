"""Throughput of two replicas against one at the same global batch, in turn, on logical devices of one CPU.

    python benchmarks/replicas.py --model=resnet20-w8 --batch_size=128

One replica computes with all cores; two share them.
"""

import argparse
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
import tensorflow as tf

from sat_tf import attacks, data, methods, models, optim, train
from sat_tf.distribute import strategies


def make_steps(strategy, arguments):
    """Return a function that runs so many compiled training steps under a strategy."""
    with strategy.scope():
        model = models.build(arguments.model, "swish", 10)
        optimizer = optim.sgd(lambda step: tf.constant(1e-3), momentum=0.9)
        optimizer.build(model.trainable_variables)
    attack = attacks.PGD(epsilon=4 / 255, step_size=4 / 255, steps=1)
    loop = train.Loop(
        state=train.TrainState(model=model, optimizer=optimizer),
        method=methods.sat(attack),
        strategy=strategy,
        batch_size=arguments.batch_size,
        weight_decay=1e-4,
    )
    rng = np.random.default_rng(0)
    images = rng.random((arguments.batch_size, arguments.image_size, arguments.image_size, 3), np.float32)
    labels = rng.integers(0, 10, arguments.batch_size).astype(np.int32)

    def batches(context):
        batch = tf.data.Dataset.from_tensors((images, labels)).repeat()
        return data.one_replica_each(batch, context.num_replicas_in_sync)

    iterator, steps = iter(strategy.distribute_datasets_from_function(batches)), loop.compile()
    return lambda count: steps(iterator, tf.constant(count))


def seconds(steps, count):
    """Return wall and processor time of so many steps."""
    started = time.perf_counter(), time.process_time()
    steps(count)
    return np.array([time.perf_counter() - started[0], time.process_time() - started[1]])


def main():
    """Time both in turn and print medians and the ratio of every pair."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="resnet20-w8")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="of a round")
    arguments = parser.parse_args()
    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
    names = tuple(device.name for device in tf.config.list_logical_devices("CPU"))
    both = {"one replica": tf.distribute.OneDeviceStrategy(names[0]), "two replicas": strategies.mirrored(names)}
    both = {name: make_steps(strategy, arguments) for name, strategy in both.items()}
    for steps in both.values():
        steps(1)
    times = {name: [] for name in both}
    for number in range(arguments.rounds):
        for name in list(both)[:: 1 if number % 2 else -1]:
            times[name].append(seconds(both[name], arguments.steps))
            wall, cpu = times[name][-1] / (arguments.steps * arguments.batch_size)
            print(f"{name}: {1 / wall:.1f} images/s, {1e3 * cpu:.2f} ms of processor time each", flush=True)
    ratios = [one / two for one, two in zip(times["one replica"], times["two replicas"], strict=True)]
    wall, cpu = np.median(ratios, axis=0)
    spread = ", ".join(f"{ratio[0]:.3f}" for ratio in ratios)
    print(f"two replicas reach {wall:.3f} of one's throughput (pairs: {spread}), and {cpu:.3f} by processor time")


if __name__ == "__main__":
    main()
