"""Extra images to train on, from an .npz beside the data set."""

import dataclasses
import pathlib

from sat_tf import data, hparams


def check(recipe: hparams.Recipe, extra_data: str | pathlib.Path | None) -> None:
    """Refuse a file of extra images without a share of them, and a share without a file, before anything is read."""
    if extra_data is not None and not recipe.extra_share:
        raise ValueError(
            f"Expected a share of extra images in each batch, such as --set extra_share=0.7, with "
            f"--extra_data={extra_data}. Received: extra_share=0."
        )
    if extra_data is None and recipe.extra_share:
        raise ValueError(
            f"Expected --extra_data=FILE.npz, the extra images that extra_share={recipe.extra_share:g} is about. "
            "Received: none. Without them say --set extra_share=0."
        )
    if recipe.extra_share:
        data.extra_count(recipe.batch_size, recipe.extra_share)


def added(recipe: hparams.Recipe, dataset: data.Data, path: str | pathlib.Path, side: int) -> data.Data:
    """Return a data set with the extra images of a file to train on, `side` pixels a side."""
    extra = data.extra_images(path, classes=len(dataset.classes), side=side, of=dataset.name)
    count = data.extra_count(recipe.batch_size, recipe.extra_share)
    source = data.identity(path)
    note = f"{count} images of each batch of {recipe.batch_size} are from {extra.size:,} extra ones of {source}"
    return dataclasses.replace(dataset, extra=extra, extra_source=source, notes=(*dataset.notes, note))
