"""What a command would cost, before anything is trained: parameters, operations, memory, steps, hours."""

import pathlib

from sat_tf import assembly, attacks, cost, data, hparams, optim
from sat_tf.assembly import validation
from sat_tf.data.splits import validation_size

KNOWN = {  # images in train and validation, test; most in validation by default; classes; side, None: the model's
    "imagenet2012": (1_281_167, 50_000, 10_000, 1000, None),
    "imagenette": (9_469, 3_925, 1_000, 10, 160),
    "cifar10": (50_000, 10_000, 1_000, 10, 32),
    "cifar100": (50_000, 10_000, 1_000, 100, 32),
    "mnist": (60_000, 10_000, 1_000, 10, 28),
    "fashion_mnist": (60_000, 10_000, 1_000, 10, 32),
}


def plan(
    recipe: hparams.Recipe,
    *,
    data_dir: str | pathlib.Path | None = None,
    extra_data: str | pathlib.Path | None = None,
    images_per_second: float | None = None,
) -> dict[str, str]:
    """Return what a recipe would cost, as `{line: value}` for people; nothing is trained or written.

    Args:
      recipe: what would be trained.
      data_dir: where the data set lies; not looked at for sets of `KNOWN` sizes.
      extra_data: the .npz of extra images, to be checked; the cost does not depend on it.
      images_per_second: training images a second on one accelerator; None for a calibration on this machine.

    Raises:
      ValueError, OSError: unknown names, a batch larger than the data, or data that can't be read.
    """
    assembly.check_names(recipe.sized())
    train_size, validated, test_size, classes, side = _sizes(recipe, data_dir)
    recipe = recipe.sized(train_size)
    size = assembly.fixed_side(recipe) or recipe.image_size or side or assembly.model_side(recipe)
    if extra_data is not None:
        assembly.check_extra(recipe, extra_data)
        data.extra_images(extra_data, classes=classes, side=side or size, of=recipe.dataset)
    model = assembly.sketch(recipe, classes, size)
    if recipe.batch_size > train_size:
        raise ValueError(
            f"Expected a batch of at most the {train_size} training images. Received: batch_size={recipe.batch_size}."
        )
    steps = recipe.epochs * (train_size // recipe.batch_size)
    images = steps * recipe.batch_size
    method = assembly.make_method(recipe)
    passes = method.forward_equivalents
    step = passes * (forward := cost.forward_flops(model, size))
    slots = optim.slots(assembly.make_optimizer(recipe, 1, 1))
    copies = 2 + slots + bool(recipe.average_decay)  # weight, gradient, what the optimizer keeps, average
    evaluated = _evaluated_forwards(recipe, validated, test_size, classes)
    share = evaluated / (images * passes)  # of the training's
    return {
        "model": f"{recipe.model} with {recipe.act}, {classes} classes, {size} x {size} pixels",
        "parameters": f"{cost.parameters(model):,}",
        "forward pass": f"{cost.in_words(forward)} an image (convolutions and dense layers, a multiply-add is 2)",
        "training step": f"{cost.in_words(step)} an image: {'at most ' if method.ends_early else ''}"
        f"{passes - method.update_equivalents} forward-equivalents for the attack, {method.update_equivalents} for "
        f"{'the update' if method.updates == 1 else f'the {method.updates} updates'}",
        "peak memory": cost.memory(model, size, recipe.batch_size // recipe.accumulate_steps, copies),
        "steps": f"{steps:,} of {recipe.batch_size} images: {recipe.epochs} epochs of {train_size:,} images",
        "images to process": f"{images:,}, {cost.in_words(images * step)} in all",
        "validation and final evaluation": f"{evaluated:,} forward-equivalents, {100 * share:.1f} % of the training's",
        **_hours(images_per_second or assembly.calibrate(recipe, classes, size, step), images, share),
    }


def _hours(throughput, images, share):
    """Return the lines on time; `throughput` is a number of images a second, or (number or None, how it is known)."""
    throughput, how = throughput if isinstance(throughput, tuple) else (throughput, "as given")
    if not throughput:
        return {"throughput": f"unknown: {how}"}
    hours = images / throughput / 3600
    unit, factor = ("accelerator-hours", 1) if hours >= 1 else ("accelerator-minutes", 60)
    return {
        "throughput": f"{throughput:.4g} images a second, {how}",
        unit: f"{hours * factor:,.2f} of training, {hours * factor * (1 + share):,.2f} with validation and evaluation",
    }


def _sizes(recipe, data_dir):
    """Return images in train, validation, test; number of classes; side in pixels (None: the model's own)."""
    if recipe.dataset in KNOWN:
        total, test, most, classes, side = KNOWN[recipe.dataset]
        validation = validation_size(recipe.validation, total, most)
        return total - validation, validation, min(test, recipe.eval_images or test), classes, side
    dataset = assembly.load_data(recipe, data_dir)
    return dataset.train.size, dataset.validation.size, dataset.test.size, len(dataset.classes), dataset.image_size


def _evaluated_forwards(recipe, validated, test_size, classes):
    """Return the forward-equivalents of all validations and of the final evaluation."""
    method = assembly.make_method(recipe)
    attack = attacks.for_training(recipe.validation_attack, epsilon=recipe.epsilon)
    times = max(1, round(recipe.epochs / recipe.validation_every))
    each = 1 + (longer := 1 + attack.forward_equivalents)  # one pass classifies
    if validation.compares(method, attack):
        each += 1 + method.attack.forward_equivalents
        each += longer if recipe.validation_weights == "averaged" else 0
    terms = attacks.Terms(classes=classes, norm=recipe.eval_norm, restarts=recipe.eval_restarts)
    evaluated = sum(attacks.forward_equivalents(name, terms) for name in recipe.eval_attacks)
    return times * validated * each + test_size * evaluated
