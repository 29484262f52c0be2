"""PGD of this project against that of foolbox, ART and CleverHans, in turn in one process: time and success.

    python benchmarks/attack_libraries.py --checkpoint=RUN --images=200
    python benchmarks/attack_libraries.py --model=resnet20 --steps=20

The same Keras model, images, radius, step size and number of steps for all. A library that is not installed is left
out (pip install foolbox adversarial-robustness-toolbox cleverhans). With --checkpoint a run's own test images are
attacked, else random ones with the labels that the model gives them.
"""

import argparse
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
import tensorflow as tf

from sat_tf import attacks, evaluate, losses, models


def ours(model, setting):
    """Final iterate of `attacks.PGD`, compiled."""
    attack = attacks.PGD(epsilon=setting.epsilon, step_size=setting.step_size, steps=setting.steps)

    @tf.function
    def run(images, labels):
        return attack(lambda x: losses.cross_entropy(model(x, training=False), labels), images, 0)

    return run


def active(model, setting):
    """Worst iterate on an active set."""
    attacker = evaluate.Attacker(model, batch_size=setting.images)

    def run(images, labels):
        examples = evaluate.Examples(images=images.numpy(), labels=labels.numpy(), ids=np.arange(len(labels)))
        result = attacker.attack(examples, f"pgd-{setting.steps}", epsilon=setting.epsilon, step_size=setting.step_size)
        return tf.constant(result.attacked(examples.images))

    return run


def foolbox(model, setting):
    """`foolbox.attacks.LinfPGD`."""
    import foolbox

    if not hasattr(np, "find_common_type"):  # eagerpy 0.30 asks for it, NumPy 2 has dropped it
        np.find_common_type = lambda arrays, scalars: np.result_type(*arrays, *scalars)
    bounded = foolbox.TensorFlowModel(model, bounds=(0, 1), device="/CPU:0")
    attack = foolbox.attacks.LinfPGD(abs_stepsize=setting.step_size, steps=setting.steps, random_start=True)
    return lambda images, labels: attack(bounded, images, labels, epsilons=setting.epsilon)[1]


def art(model, setting):
    """`art.attacks.evasion.ProjectedGradientDescent` on `TensorFlowV2Classifier`."""
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import TensorFlowV2Classifier

    shape = (setting.image_size, setting.image_size, 3)
    classifier = TensorFlowV2Classifier(
        model=tf.function(lambda x, training=False: model(x, training=False)),
        nb_classes=setting.classes,
        input_shape=shape,
        clip_values=(0, 1),
        loss_object=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    attack = ProjectedGradientDescent(
        classifier,
        eps=setting.epsilon,
        eps_step=setting.step_size,
        max_iter=setting.steps,
        num_random_init=1,
        batch_size=setting.images,
        verbose=False,
    )
    return lambda images, labels: tf.constant(attack.generate(images.numpy(), np.eye(setting.classes)[labels.numpy()]))


def cleverhans(model, setting):
    """`cleverhans.tf2.attacks.projected_gradient_descent`."""
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

    def run(images, labels):
        return projected_gradient_descent(
            lambda x: model(x, training=False),
            images,
            setting.epsilon,
            setting.step_size,
            setting.steps,
            np.inf,
            clip_min=0.0,
            clip_max=1.0,
            y=tf.cast(labels, tf.int64),
            sanity_checks=False,
        )

    return run


CONTENDERS = {"sat_tf": ours, "sat_tf, active set": active, "foolbox": foolbox, "ART": art, "CleverHans": cleverhans}


def load(setting):
    """Return model, images and labels; sets the setting's size and classes."""
    if setting.checkpoint:
        from sat_tf import assembly, hparams
        from sat_tf.runs import checkpoints

        found = checkpoints.open_checkpoint(setting.checkpoint, hparams.read({"eval_images": setting.images}))
        dataset = assembly.load_data(found.recipe, setting.data_dir)
        batches = assembly.evaluation_batches(
            found.recipe, dataset.test, found.image_size, tf.distribute.get_strategy()
        )
        images, labels, _ = next(iter(batches.unbatch().batch(setting.images)))
        model = found.load(dataset.classes)
        setting.image_size, setting.classes = found.image_size, len(dataset.classes)
        return model, images, labels
    model = models.build(setting.model, "swish", setting.classes)
    images = tf.random.stateless_uniform([setting.images, setting.image_size, setting.image_size, 3], (0, 0))
    return model, images, tf.argmax(model(images, training=False), -1, tf.int32)


def main():
    """Time every contender in turn, `rounds` times, and print ratios to ours and the accuracy that each leaves."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint")
    parser.add_argument("--data_dir")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    setting = parser.parse_args()
    setting.epsilon, setting.step_size = 8 / 255, 1 / 255
    model, images, labels = load(setting)
    runs = {}
    for name, make in CONTENDERS.items():
        try:
            runs[name] = make(model, setting)
        except ImportError as error:
            print(f"{name}: not installed ({error})")
    first = {name: run(images, labels) for name, run in runs.items()}
    clean = tf.argmax(model(images, training=False), -1, tf.int32) == labels
    left = {
        name: float(
            tf.reduce_mean(tf.cast(clean & (tf.argmax(model(x, training=False), -1, tf.int32) == labels), tf.float32))
        )
        for name, x in first.items()
    }
    farthest = {name: float(tf.reduce_max(tf.abs(x - images))) for name, x in first.items()}
    rounds = [{name: seconds(run, images, labels) for name, run in runs.items()} for _ in range(setting.rounds)]
    for name in runs:
        each = statistics.median(times[name] for times in rounds) / setting.steps
        ratios = sorted(times[name] / times["sat_tf"] for times in rounds)
        print(
            f"{name:20} {1e3 * each:8.1f} ms a gradient, {statistics.median(ratios):6.2f} x ours "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}); leaves {100 * left[name]:5.1f} % right, "
            f"farthest {farthest[name] * 255:.4f}/255"
        )


def seconds(run, images, labels):
    """Return the wall time of one attack."""
    begun = time.perf_counter()
    run(images, labels)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
