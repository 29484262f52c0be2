"""Extra images to train on, from an .npz beside the data set."""

import dataclasses
import pathlib

from sat_tf import data, hparams


def check(recipe: hparams.Recipe, extra_data: str | pathlib.Path | None) -> None:
    """Refuse a file of extra images without a share of them, and a share without a file, before anything is read."""
    hparams.check_extra(recipe, extra_data)
    if recipe.extra_share:
        data.extra_count(recipe.batch_size, recipe.extra_share)


def added(recipe: hparams.Recipe, dataset: data.Data, path: str | pathlib.Path, side: int) -> data.Data:
    """Return a data set with the extra images of a file to train on, `side` pixels a side."""
    extra = data.extra_images(path, classes=len(dataset.classes), side=side, of=dataset.name)
    count = data.extra_count(recipe.batch_size, recipe.extra_share)
    source = data.identity(path)
    note = f"{count} images of each batch of {recipe.batch_size} are from {extra.size:,} extra ones of {source}"
    return dataclasses.replace(dataset, extra=extra, extra_source=source, notes=(*dataset.notes, note))
