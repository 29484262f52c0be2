"""What a run was trained on is remembered with it, and never evaluated."""

import pathlib
import shutil
from collections.abc import Callable

import numpy as np
from absl import logging

from sat_tf import assembly, data, hparams
from sat_tf.runs import checkpoints, folders

FILE = "seen.npz"  # in the folder of a run; beside NAME.keras it is NAME.seen.npz
OWN = ("folder", "shards")  # sets of the user's own; others were published with whatever they hold twice
FEW = 0.01  # the share of a test part that a set may hold twice


def remember(model_dir: pathlib.Path, dataset: data.Data, whole: Callable[[], data.Data | None] = lambda: None) -> None:
    """Write down which images a run is trained on, before its first step; refuse to go on with others.

    Args:
      model_dir: folder of the run.
      dataset: what it is trained on.
      whole: returns the data set with its whole test part, where `dataset` has only a sample of it; else None.
    """
    path = pathlib.Path(model_dir) / FILE
    before = data.read_seen(path)
    dataset = dataset if before else whole() or dataset
    seen = data.seen(dataset)
    if seen is None:
        return
    if before is None:
        if dataset.name in OWN:
            _refuse_doubles(dataset, seen)
        data.write_seen(path, seen)
    elif new := before.new(seen):
        raise ValueError(
            f"Expected the images that the run in {model_dir} was begun with. Received: {new} other training images in "
            f"{dataset.source}. Put the old ones back, or name another --model_dir."
        )


def same(model_dir: pathlib.Path, dataset: data.Data) -> bool:
    """Say whether a data set of the user's own is known to hold the very training images of a run, wherever it lies."""
    before = data.read_seen(pathlib.Path(model_dir) / FILE) if dataset.name in OWN else None
    seen = before and data.seen(dataset)
    return bool(seen) and before.new(seen) == 0


def whole(recipe: hparams.Recipe, data_dir: str | pathlib.Path | None) -> Callable[[], data.Data | None]:
    """Return what `remember` takes: a function that loads a recipe's data with the whole test part, where it is cut."""
    cut = recipe.eval_images is not None and recipe.dataset in OWN
    return lambda: assembly.load_data(recipe.replace(eval_images=None), data_dir) if cut else None


def refuse(found: checkpoints.Checkpoint, dataset: data.Data) -> None:
    """Refuse test images that a checkpoint was trained on, or that chose it; say so where that is not known.

    Args:
      found: the checkpoint.
      dataset: its test part is to be used.
    """
    seen = data.read_seen(_place(found))
    if seen is None:
        _refuse_unknown(found, dataset)
        return
    among = data.overlap(dataset.test, seen)
    if among.any() and (dataset.name in OWN or among.mean() > FEW):
        raise ValueError(
            f"Expected test images that {found.path} has not seen in training. Received: {among.sum()} of the "
            f"{len(among)} test images of {dataset.source} that it has{_first(dataset.test, among)}. Evaluate on "
            "others, in another --data_dir or its folder test/."
        )
    twice = data.overlap(dataset.test, seen, doubles=True)
    if twice.any():
        logging.warning("%d of the %d test images are copies of training images.", twice.sum(), len(twice))


def tell(dataset: data.Data) -> None:
    """Say on screen how many of a data set's images are evaluated, and what is worth knowing of them."""
    total = sum(getattr(dataset, part).size for part in ("train", "validation", "test"))
    logging.info("Evaluating %d of %d images of %s.", dataset.test.size, total, dataset.source)
    for note in dataset.notes:
        logging.info("Worth knowing of the images: %s.", note)


def carry(found: checkpoints.Checkpoint, path: pathlib.Path) -> None:
    """Copy what is remembered of a checkpoint beside the .keras file that it was converted to."""
    place = _place(found)
    if place.is_file():
        shutil.copyfile(place, pathlib.Path(path).with_suffix(f".{FILE}"))


def _place(found):
    if found.path.suffix == ".keras":
        return found.path.with_suffix(f".{FILE}")
    inside = found.path / FILE
    return inside if inside.is_file() else folders.run_of(found.path) / FILE


def _refuse_doubles(dataset, seen):
    """Refuse data of which many test images are training images, too; warn of a few."""
    count = int(np.isin(dataset.test.digests(), seen.doubles).sum())
    if count > FEW * dataset.test.size:
        among = data.overlap(dataset.test, seen, doubles=True)
        raise ValueError(
            f"Expected test images that are not trained on. Received: {count} of the {dataset.test.size} test images "
            f"of {dataset.source} are copies of training images{_first(dataset.test, among)}. Remove one of each two."
        )
    if count:
        logging.warning(
            "%d of the %d test images are copies of training images%s.",
            count,
            dataset.test.size,
            _first(dataset.test, data.overlap(dataset.test, seen, doubles=True)),
        )


def _refuse_unknown(found, dataset):
    """Refuse a test part drawn from the folder that a run of old was trained on: it was drawn otherwise then."""
    trained = found.state["data"].get("source") or ""
    if found.source not in ("run", "keras") or dataset.name not in OWN:
        return
    if "drawn" in dataset.source and trained.split(",")[0] == dataset.source.split(",")[0]:
        raise ValueError(
            f"Expected a folder test/ in {dataset.source.split(',')[0]}. Received: {found.path}, of which it is not "
            "known what images it was trained on; others are drawn to test by today. Put images that it has not seen "
            "into test/ beside train/."
        )
    logging.warning("It is not known what images %s was trained on: see that these are others.", found.path)


def _first(split, among):
    """Return ", the first NAME" of the images that are among others, "" where they have no names or these are far."""
    if split.names is None or not split.random_access:
        return ""
    return f", the first {split.names()[among][0]}"
