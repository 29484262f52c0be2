"""PGD on an active set against PGD on every image to its end, in turn: time, and peak memory against PGD-1.

    python benchmarks/active_set.py --checkpoint=RUN --steps=200 --images=500

Both attack the same images of the run's test part with the same random starts; the first counts the worst iterate of
each image and leaves fooled ones alone, the second (--no_active_set of main.py) the final one. Each attack is run in
a process of its own, so that the peak memory is its own.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))


def attack(arguments):
    """Run one attack and print what it took, as JSON."""
    from sat_tf import assembly, evaluate, hparams
    from sat_tf.runs import checkpoints

    found = checkpoints.open_checkpoint(arguments.checkpoint, hparams.read({"eval_images": arguments.images}))
    dataset = assembly.load_data(found.recipe, arguments.data_dir)
    strategy = assembly.make_strategy(found.recipe, ["eval_batch_size"])
    batches = assembly.evaluation_batches(found.recipe, dataset.test, found.image_size, strategy)
    examples = evaluate.read_examples(batches, dataset.test.size, dataset.test.places)
    attacker = evaluate.Attacker(found.load(dataset.classes), batch_size=arguments.batch_size)
    logits = attacker.logits(examples.images)
    name, options = f"pgd-{arguments.run_steps}", {"epsilon": arguments.epsilon / 255, "logits": logits}
    final = arguments.run == "every image"
    attacker.attack(examples.take(slice(0, 8)), name, **{**options, "logits": logits[:8]}, final=final)  # compiles some
    begun = time.perf_counter()
    result = attacker.attack(examples, name, **options, final=final)
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - begun,
                "left": result.robust_accuracy,
                "clean": result.clean_accuracy,
                "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    )


def main():
    """Time both in turn and print the ratio and the spread."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data_dir")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--batch_size", type=int, default=100)
    parser.add_argument("--epsilon", type=float, default=8, help="in 255ths")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--run_steps", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        attack(arguments)
        return
    runs = [("every image", arguments.steps), ("active set", arguments.steps), ("active set", 1)]
    rounds = []
    for _ in range(arguments.rounds):
        rounds.append(
            [
                json.loads(
                    subprocess.run(
                        [sys.executable, *sys.argv, f"--run={name}", f"--run_steps={steps}"],
                        capture_output=True,
                        text=True,
                        check=True,
                    ).stdout.splitlines()[-1]
                )
                for name, steps in runs
            ]
        )
    for (name, steps), found in zip(runs, zip(*rounds, strict=True), strict=True):
        print(
            f"{name + ',':15} PGD-{steps:<4} {statistics.median(one['seconds'] for one in found):8.1f} s, leaves "
            f"{100 * found[0]['left']:.1f} of {100 * found[0]['clean']:.1f} %, peak memory "
            f"{statistics.median(one['peak'] for one in found):.0f} MiB"
        )
    ratios = sorted(one[0]["seconds"] / one[1]["seconds"] for one in rounds)
    memory = [one[1]["peak"] / one[2]["peak"] for one in rounds]
    print(
        f"active set: {statistics.median(ratios):.2f} x as fast ({ratios[0]:.2f} to {ratios[-1]:.2f}); peak memory "
        f"{statistics.median(memory):.3f} of PGD-1's"
    )


if __name__ == "__main__":
    main()
