"""Cost of the adversarial training step with each activation against ReLU's, in turn in one process.

    python benchmarks/activation_step.py --model=resnet20-w8 --image_size=32 --batch_size=128 --threads=1

The paper's claim is that smoothness costs nothing. An operation more a pixel and channel does cost on a CPU, where
memory traffic counts; beside convolutions of ResNet-50's width it shrinks.
"""

import argparse
import statistics

import adversarial_step
import tensorflow as tf

ACTS = ("relu", "parametric_softplus:10", "softplus", "swish", "gelu", "elu", "celu:1.4", "smoothrelu")


def main():
    """Time a step of each activation in turn; print median times, and median and spread of the ratios to ReLU's."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="resnet20-w8")
    parser.add_argument("--acts", default=",".join(ACTS), help="activations to time, ReLU first")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=0, help="of one operation; 0: one a core")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    steps = {}
    acts = arguments.acts.split(",")
    for act in acts:
        arguments.act = act
        steps[act] = adversarial_step.make_step("sat", arguments)
    for step in 2 * [*steps.values()]:
        step()
    rounds = [{act: adversarial_step.seconds(step) for act, step in steps.items()} for _ in range(arguments.rounds)]
    for act in acts:
        ratios = sorted(times[act] / times["relu"] for times in rounds)
        print(
            f"{act:24} median {1e3 * statistics.median(times[act] for times in rounds):8.1f} ms, ratio to relu "
            f"{statistics.median(ratios):5.2f}, from {ratios[0]:.2f} to {ratios[-1]:.2f}, {arguments.rounds} rounds"
        )


if __name__ == "__main__":
    main()
