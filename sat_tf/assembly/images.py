"""A recipe's images: its data set, its batches, their size."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import tensorflow as tf

from sat_tf import autoaugment, data, hparams, mixing, models, replicas
from sat_tf.assembly import extra
from sat_tf.assembly.models import fixed_side, model_side

PREPROCESS = "resize_crop"  # of networks that are none of the table's


def load_data(
    recipe: hparams.Recipe, data_dir: str | pathlib.Path | None, extra_data: str | pathlib.Path | None = None
) -> data.Data:
    """Return the recipe's data set, its test part cut to what the recipe evaluates by.

    Args:
      recipe: says which.
      data_dir: where it lies.
      extra_data: an .npz of images to train on besides; None for none.
    """
    dataset = data.load(recipe.dataset, data_dir=data_dir, validation=recipe.validation, cache=recipe.cache)
    if extra_data is not None:
        dataset = extra.added(recipe, dataset, extra_data, dataset.image_size or image_size(recipe, dataset))
    if recipe.eval_images is None or recipe.eval_images >= dataset.test.size:
        return dataset
    note = f"evaluated on {recipe.eval_images} of the {dataset.test.size} test images, the same ones every time"
    return dataclasses.replace(
        dataset, test=data.sampled(dataset.test, recipe.eval_images), notes=(*dataset.notes, note)
    )


def train_batches(recipe: hparams.Recipe, dataset: data.Data, size: int, **places: int) -> tf.data.Dataset:
    """Return the batches that a recipe trains on.

    Args:
      recipe: says how images are drawn, changed and mixed.
      dataset: where they come from.
      size: their side in pixels.
      **places: batch_size, start_step, host, hosts as `data.train_batches` takes them.
    """
    return data.composed_batches(
        dataset.train,
        image_size=size,
        augment=recipe.augment,
        policy=make_policy(recipe),
        seed=recipe.seed,
        extra=dataset.extra,
        extra_share=recipe.extra_share,
        classes=len(dataset.classes),
        alphas=mixed(recipe),
        **places,
    )


def mixed(recipe: hparams.Recipe) -> dict[str, float]:
    """Return `{key of mixing.MIXTURES: number}` of what a recipe mixes."""
    return {name: getattr(recipe, name) for name in mixing.MIXTURES if getattr(recipe, name)}


def image_size(recipe: hparams.Recipe, dataset: data.Data) -> int:
    """Return the side of the images: the recipe's, the data's own, or for photographs the model's.

    A .keras file that takes one size alone gets it, whatever the data's is.
    """
    fixed = fixed_side(recipe)
    if fixed and recipe.image_size not in (None, fixed):
        raise ValueError(
            f"Expected image_size={fixed}, which {recipe.model} takes. Received: image_size={recipe.image_size}."
        )
    return fixed or recipe.image_size or dataset.image_size or model_side(recipe)


def evaluation_batches(
    recipe: hparams.Recipe, split: data.Split, image_size: int, strategy: tf.distribute.Strategy
) -> tf.data.Dataset:
    """Return the batches of a split; a batch larger than the split would be padding only, so it is cut to that.

    Of several processes each has a part of the images, or attacks a part: a batch is that of one process.
    """
    here = replicas.here(strategy)
    share = max(recipe.eval_batch_size * here // strategy.num_replicas_in_sync // here, 1) * here
    most = -(-split.size // here) * here
    return data.evaluation_batches(
        split, batch_size=min(share, most), image_size=image_size, preprocess=preprocess(recipe)
    )


def preprocess(recipe: hparams.Recipe) -> str:
    """Return how evaluation brings images to their size, a key of `preprocess.EVALUATIONS`."""
    if recipe.eval_preprocess:
        return recipe.eval_preprocess
    return PREPROCESS if hparams.kind(recipe.model) else models.evaluation_preprocess(recipe.model)


def make_policy(recipe: hparams.Recipe) -> Callable | None:
    """Return the recipe's policy, `(image uint8, seed) -> image uint8`; None where it has none."""
    key, _, magnitude = recipe.policy.partition(":")
    if key == "none":
        return None
    policy = autoaugment.POLICIES[key]
    return functools.partial(policy, magnitude=float(magnitude)) if magnitude else policy
