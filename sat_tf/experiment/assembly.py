"""What a recipe's words mean: its model, optimizer, attack, method, strategy."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable

import keras
import tensorflow as tf

from sat_tf import activations, attacks, autoaugment, data, hparams, losses, methods, models, optim, passes, schedules
from sat_tf import machine as machine_of


def check_names(recipe: hparams.Recipe) -> None:
    """Refuse an activation that can't be made, before anything is read or written."""
    for act in (recipe.act, recipe.attack_backward, recipe.update_backward, recipe.eval_backward):
        if act is not None:
            activations.factory(act)


def build_model(recipe: hparams.Recipe, classes: int) -> keras.Model:
    """Return the recipe's model with fresh weights."""
    return models.build(
        recipe.model,
        recipe.act,
        classes,
        momentum=recipe.norm_momentum,
        epsilon=recipe.norm_epsilon,
        dropout=recipe.dropout,
        stochastic_depth=recipe.stochastic_depth,
    )


def load_data(recipe: hparams.Recipe, data_dir: str | pathlib.Path | None) -> data.Data:
    """Return the recipe's data set, its test part cut to what the recipe evaluates by."""
    dataset = data.load(recipe.dataset, data_dir=data_dir, validation=recipe.validation, cache=recipe.cache)
    if recipe.eval_images is None or recipe.eval_images >= dataset.test.size:
        return dataset
    note = f"evaluated on {recipe.eval_images} of the {dataset.test.size} test images, the same ones every time"
    return dataclasses.replace(
        dataset, test=data.sampled(dataset.test, recipe.eval_images), notes=(*dataset.notes, note)
    )


def image_size(recipe: hparams.Recipe, dataset: data.Data) -> int:
    """Return the side of the images: the recipe's, the data's own, or for photographs the model's."""
    return recipe.image_size or dataset.image_size or models.image_size(recipe.model)


def make_deterministic(seed: int) -> None:
    """Fix every source of randomness: the same seed on the same machine gives the same bits."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def make_strategy(
    recipe: hparams.Recipe, batches: Iterable[str] = ("batch_size", "eval_batch_size")
) -> tf.distribute.Strategy:
    """Return the recipe's distribution strategy; the `batches` that will be used must split over its replicas."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    mirrored = recipe.strategy == "mirrored" or (
        recipe.strategy == "auto" and len(devices) > 1 and devices[0].device_type == "GPU"
    )
    strategy = mirrored_strategy(tuple(d.name for d in devices)) if mirrored else tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    for name in batches:
        if getattr(recipe, name) % replicas:
            received = f"{name}={getattr(recipe, name)}"
            raise ValueError(f"Expected a multiple of the {replicas} replicas. Received: {received}.")
    return strategy


@functools.cache
def mirrored_strategy(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """Return the one MirroredStrategy of these devices, a tuple of names.

    One a process: a second over the same devices would number its collectives from the start again, and TensorFlow
    would take them for those of the first.
    """
    return tf.distribute.MirroredStrategy(devices)


def evaluation_batches(
    recipe: hparams.Recipe, split: data.Split, image_size: int, strategy: tf.distribute.Strategy
) -> tf.data.Dataset:
    """Return the batches of a split; a batch larger than the split would be padding only, so it is cut to that."""
    replicas = strategy.num_replicas_in_sync
    most = -(-split.size // replicas) * replicas
    return data.evaluation_batches(
        split, batch_size=min(recipe.eval_batch_size, most), image_size=image_size, preprocess=preprocess(recipe)
    )


def preprocess(recipe: hparams.Recipe) -> str:
    """Return how evaluation brings images to their size, a key of `preprocess.EVALUATIONS`."""
    return recipe.eval_preprocess or models.evaluation_preprocess(recipe.model)


def published_facts(name: str, accuracies: dict[str, float], image_size: int) -> dict | None:
    """Return what the release publishes of a checkpoint, for the report; None where it publishes nothing."""
    return (
        {
            "name": name,
            "dataset": "ImageNet validation set",
            "image_size": image_size,
            "epsilon": 4 / 255,
            "step_size": 1 / 255,
            "accuracies": accuracies,
        }
        if accuracies
        else None
    )


def make_method(recipe: hparams.Recipe) -> methods.Standard:
    """Return the recipe's training method with its attack."""
    attack = attacks.for_training(
        recipe.attack,
        epsilon=recipe.epsilon,
        step_size=recipe.step_size,
        random_start=recipe.random_start,
        clean_start=recipe.clean_start,
    )
    backward = passes.Backward(attack=recipe.attack_backward, update=recipe.update_backward)
    return methods.METHODS[recipe.method](attack, losses.smoothed_cross_entropy(recipe.label_smoothing), backward)


def make_optimizer(recipe: hparams.Recipe, epoch_steps: int, total_steps: int) -> keras.optimizers.Optimizer:
    """Return the recipe's optimizer; its rate is quoted for 256 images and scales with the batch."""
    schedule = schedules.SCHEDULES[recipe.schedule](
        peak=recipe.learning_rate * recipe.batch_size / 256,
        total_steps=total_steps,
        decay_steps=[max(1, round(epoch * epoch_steps)) for epoch in recipe.decay_epochs],
        decay_rate=recipe.decay_rate,
    )
    schedule = schedules.warm_up(schedule, round(recipe.warmup_epochs * epoch_steps))
    return optim.OPTIMIZERS[recipe.optimizer](schedule, momentum=recipe.momentum, nesterov=recipe.nesterov)


def attacked_view(recipe: hparams.Recipe, model: keras.Model) -> Callable:
    """Return the model as the recipe's evaluation attacks see it."""
    return passes.Backward(attack=recipe.eval_backward).view(model, "attack")


def make_policy(recipe: hparams.Recipe) -> Callable | None:
    """Return the recipe's policy, `(image uint8, seed) -> image uint8`; None where it has none."""
    key, _, magnitude = recipe.policy.partition(":")
    if key == "none":
        return None
    policy = autoaugment.POLICIES[key]
    return functools.partial(policy, magnitude=float(magnitude)) if magnitude else policy


def make_average(recipe: hparams.Recipe, model: keras.Model) -> optim.MovingAverage | None:
    """Return the recipe's moving average of a model, None where it has none."""
    return optim.MovingAverage(model, recipe.average_decay) if recipe.average_decay else None


versions = machine_of.versions
machine = machine_of.devices
