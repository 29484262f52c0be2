"""What a command would cost, before anything is trained: parameters, operations, memory, steps, hours."""

import time

import numpy as np
import tensorflow as tf
from absl import logging

import hparams
from sat_tf import attacks, cost, evaluate, models, optim, train
from sat_tf.data.splits import validation_size
from sat_tf.experiment import assembly
from sat_tf.experiment.probing import compares

KNOWN = {  # images in train (held out among them), test; most held out by default; classes; side, None: the model's
    "imagenet2012": (1_281_167, 50_000, 10_000, 1000, None),
    "imagenette": (9_469, 3_925, 1_000, 10, 160),
    "cifar10": (50_000, 10_000, 1_000, 10, 32),
    "cifar100": (50_000, 10_000, 1_000, 100, 32),
    "fashion_mnist": (60_000, 10_000, 1_000, 10, 32),
}
WORKSPACE = 0.3 * 2**30  # bytes of graphs and buffers, measured on a CPU
CALIBRATION_FLOPS = 4e11  # of one step, so that a calibration takes seconds on a slow machine
CALIBRATION_STEPS = 3


def plan(recipe, *, data_dir=None, images_per_second=None):
    """Return what a recipe would cost, as `{line: value}` for people; nothing is trained or written.

    Args:
      recipe: an `hparams.Recipe`.
      data_dir: where the data set lies; not looked at for sets of `KNOWN` sizes.
      images_per_second: training images a second on one accelerator; None for a calibration on this machine.

    Raises:
      ValueError, OSError: unknown names, a batch larger than the data, or data that can't be read.
    """
    assembly.check_names(recipe)
    train_size, validation, test_size, classes, side = _sizes(recipe, data_dir)
    size = recipe.image_size or side or models.image_size(recipe.model)
    with cost.weightless():
        model = assembly.build_model(recipe, classes)
    if recipe.batch_size > train_size:
        raise ValueError(
            f"Expected a batch of at most the {train_size} training images. Received: batch_size={recipe.batch_size}."
        )
    steps = recipe.epochs * (train_size // recipe.batch_size)
    images = steps * recipe.batch_size
    attack_steps = 0 if recipe.method == "standard" else recipe.attack_steps
    forward = cost.forward_flops(model, size)
    step = cost.step_flops(forward, attack_steps)
    evaluated = _evaluated_forwards(recipe, validation, test_size, classes)
    share = evaluated / (images * (2 * attack_steps + 3))  # of the training's
    return {
        "model": f"{recipe.model} with {recipe.act}, {classes} classes, {size} x {size} pixels",
        "parameters": f"{cost.parameters(model):,}",
        "forward pass": f"{_flops(forward)} an image (convolutions and dense layers, a multiply-add is 2)",
        "training step": f"{_flops(step)} an image: {2 * attack_steps} forward-equivalents for the attack, 3 for the "
        "update",
        "peak memory": _memory(recipe, model, size),
        "steps": f"{steps:,} of {recipe.batch_size} images: {recipe.epochs} epochs of {train_size:,} images",
        "images to process": f"{images:,}, {_flops(images * step)} in all",
        "probes and final evaluation": f"{evaluated:,} forward-equivalents, {100 * share:.1f} % of the training's",
        **_hours(images_per_second or calibrate(recipe, classes, size, step), images, share),
    }


def _hours(throughput, images, share):
    """Return the lines on time; `throughput` is a number of images a second, or (number or None, how it is known)."""
    throughput, how = throughput if isinstance(throughput, tuple) else (throughput, "as given")
    if not throughput:
        return {"throughput": f"unknown: {how}"}
    hours = images / throughput / 3600
    return {
        "throughput": f"{throughput:.4g} images a second, {how}",
        "accelerator-hours": f"{hours:,.2f} of training, {hours * (1 + share):,.2f} with probes and evaluation",
    }


def calibrate(recipe, classes, size, flops):
    """Train a few steps on noise here; return images a second (None where too slow to try) and how it was measured.

    The batch is cut so that a step stays in seconds; the input pipeline is not part of it.
    """
    batch = int(min(recipe.batch_size, CALIBRATION_FLOPS // flops))
    if not batch:
        return None, "one image is too much for a calibration here; say --images_per_second=N"
    logging.info("Calibrating: %d steps of %d images.", CALIBRATION_STEPS, batch)
    small = recipe.replace(batch_size=batch)
    model = assembly.build_model(small, classes)
    optimizer = assembly.make_optimizer(small, 100, 100)
    optimizer.build(model.trainable_variables)
    state = train.TrainState(model=model, optimizer=optimizer, average=assembly.make_average(small, model))
    loop = train.Loop(
        state=state,
        method=assembly.make_method(small),
        strategy=tf.distribute.get_strategy(),
        batch_size=batch,
        seed=0,
        weight_decay=small.weight_decay,
    )
    rng = np.random.default_rng(0)
    images = rng.random((batch, size, size, 3), np.float32), rng.integers(0, classes, batch, np.int32)
    times = []
    before = time.perf_counter()
    for _ in loop.run(tf.data.Dataset.from_tensors(images).repeat(), until=1 + CALIBRATION_STEPS, steps_per_call=1):
        times.append(time.perf_counter() - before)
        before = time.perf_counter()
    return batch / min(times[1:]), f"measured here in {CALIBRATION_STEPS} steps of {batch} images"


def _sizes(recipe, data_dir):
    """Return images in train, held out, test; number of classes; side in pixels (None: the model's own)."""
    if recipe.dataset in KNOWN:
        total, test, most, classes, side = KNOWN[recipe.dataset]
        validation = validation_size(recipe.validation, total, most)
        return total - validation, validation, test, classes, side
    dataset = assembly.load_data(recipe, data_dir)
    return dataset.train.size, dataset.validation.size, dataset.test.size, len(dataset.classes), dataset.image_size


def _evaluated_forwards(recipe, validation, test_size, classes):
    """Return the forward-equivalents of all probes and of the final evaluation: two a step, one to classify."""

    def forwards(name):
        key, steps = hparams.split_attack(name)
        return 1 + 2 * (0 if key == "clean" else steps or 1)

    probes = max(1, round(recipe.epochs / recipe.validation_every))
    each = forwards("clean") + forwards(recipe.validation_attack)
    if compares(recipe):
        each += 1 + 2 * recipe.attack_steps
        each += forwards(recipe.validation_attack) if recipe.validation_weights == "averaged" else 0
    evaluated = [
        forwards(name)
        if hparams.split_attack(name)[0] in attacks.ATTACKS
        else evaluate.forward_equivalents(name, classes, recipe.eval_norm, recipe.eval_restarts)
        for name in recipe.eval_attacks
    ]
    return probes * validation * each + test_size * sum(evaluated)


def _memory(recipe, model, size):
    """Return the expected peak memory of a training step: weights and what goes with them, and what a batch keeps.

    On two CPU cores, beyond the imports: efficientnet-b0 with 128 images of 32 px 0.6 GiB expected, 0.6 measured;
    with 16 of 128 px 0.8 and 0.9; resnet50 with 32 of 64 px 0.9 and 0.9; efficientnet-b7 with 128 of 32 px 2.5 and 3.2.
    """
    values = sum(int(np.prod(variable.shape)) for variable in model.variables)
    slots = optim.slots(assembly.make_optimizer(recipe, 1, 1))
    copies = 2 + slots + bool(recipe.average_decay)  # weight, gradient, what the optimizer keeps, average
    weights = cost.BYTES * values * copies
    batch = recipe.batch_size * (cost.kept_bytes(model, size) + 5 * cost.BYTES * size * size * 3)
    return (
        f"about {(weights + batch + WORKSPACE) / 2**30:,.1f} GiB over all accelerators: {weights / 2**30:.2f} for "
        f"weights and what goes with them, {batch / 2**30:,.1f} for {recipe.batch_size} images, the rest buffers"
    )


def _flops(number):
    """Write a number of operations with its prefix: 3.9 GFLOP."""
    for prefix, factor in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if number >= factor:
            return f"{number / factor:.3g} {prefix}FLOP"
    return f"{number / 1e6:.3g} MFLOP"
