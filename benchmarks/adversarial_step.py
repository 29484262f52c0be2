"""Cost of the adversarial training step against the standard one, in turn in one process.

    python benchmarks/adversarial_step.py --model=resnet50 --image_size=64 --batch_size=32

The floor of PGD-1 is 5 forward-equivalents (attack: forward and input gradient; update: forward, input and weight
gradients) against 3: a ratio of 1.67. Folding batch normalisation into the attack's convolutions is what can beat it.
"""

import argparse
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
import tensorflow as tf

from sat_tf import attacks, methods, models, optim, train


def make_step(method, arguments):
    """Return a function that runs one compiled training step on a fixed batch."""
    model = models.build(arguments.model, arguments.act, 1000)
    optimizer = optim.sgd(lambda step: tf.constant(1e-3), momentum=0.9)
    optimizer.build(model.trainable_variables)
    attack = attacks.PGD(epsilon=4 / 255, step_size=4 / 255, steps=1)
    loop = train.Loop(
        state=train.TrainState(model=model, optimizer=optimizer),
        method=methods.METHODS[method](attack),
        strategy=tf.distribute.get_strategy(),
        batch_size=arguments.batch_size,
        weight_decay=1e-4,
    )
    rng = np.random.default_rng(0)
    images = rng.random((arguments.batch_size, arguments.image_size, arguments.image_size, 3), np.float32)
    labels = rng.integers(0, 1000, arguments.batch_size).astype(np.int32)
    iterator = iter(tf.data.Dataset.from_tensors((images, labels)).repeat())
    steps = loop.compile()
    return lambda: steps(iterator, tf.constant(1))


def seconds(step):
    """Return the wall time of one step."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def main():
    """Time both steps in turn and print median times and the spread of the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--act", default="swish")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args()
    steps = {method: make_step(method, arguments) for method in ("standard", "sat")}
    for step in steps.values():
        step()
        step()
    rounds = [{method: seconds(step) for method, step in steps.items()} for _ in range(arguments.rounds)]
    ratios = sorted(times["sat"] / times["standard"] for times in rounds)
    for method in steps:
        print(f"{method:9} median {1e3 * statistics.median(times[method] for times in rounds):8.1f} ms")
    print(
        f"ratio     median {statistics.median(ratios):8.2f}, from {ratios[0]:.2f} to {ratios[-1]:.2f}, "
        f"{arguments.rounds} rounds (floor of five against three forward-equivalents: 1.67)"
    )


if __name__ == "__main__":
    main()
