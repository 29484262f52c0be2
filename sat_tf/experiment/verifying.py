"""Adversarial images of a file, checked against the data set and read again by a model."""

import pathlib

import hparams
from sat_tf import data, evaluate, verify
from sat_tf.experiment import assembly, checkpoints, evaluating


def run(content, changes, place, checkpoint_dir, data_dir):
    """Return the findings about a file's content, and its accuracies by precision.

    Args:
      content: as `verify.read` returns it.
      changes: `{field: value}` of how the images are evaluated.
      place: a checkpoint, or the folder of a SavedModel.
    """
    exported = is_saved_model(place)
    if exported:
        recipe = hparams.choose(
            {
                "dataset": str(content["dataset"]),
                "eval_preprocess": str(content["preprocess"]),
                "image_size": str(content["image_size"]),
                **changes,
            }
        )
        image_size, classes = int(content["image_size"]), None
    else:
        found = checkpoints.open_checkpoint(place, changes, checkpoint_dir)
        recipe, image_size, classes = found.recipe, found.image_size, found.classes
    recipe = recipe.replace(eval_images=None)  # ids are places in the whole test part
    dataset = assembly.load_data(recipe, data_dir)
    if classes is not None and list(dataset.classes) != list(classes):
        raise ValueError(
            f"Expected the {len(classes)} classes of the checkpoint. Received: dataset={recipe.dataset} "
            f"with {len(dataset.classes)}."
        )
    clean = images_of(dataset.test, content["ids"], recipe, image_size)
    findings = verify.check(
        content,
        clean.images,
        clean.labels,
        clean.ids,
        norm=recipe.eval_norm if "eval_norm" in changes else None,
        epsilon=recipe.eval_epsilon,
    )
    model = evaluate.predictor(place) if exported else evaluate.predictor(found.load(dataset.classes))
    size = min(recipe.eval_batch_size, len(content["ids"]))
    counts = verify.rescore(content, lambda images: model(images), size)
    return findings, {name: count / len(content["ids"]) for name, count in counts.items()}


def is_saved_model(place):
    """Say whether a place is the folder of a SavedModel."""
    return place is not None and (pathlib.Path(place).expanduser() / "saved_model.pb").is_file()


def images_of(split, ids, recipe, image_size):
    """Return the `Examples` of the data set that a file's ids name, in increasing order; unknown ids are left out."""
    known = sorted({int(place) for place in ids if 0 <= place < split.size})
    chosen = data.selected(split, known)
    batches = data.evaluation_batches(
        chosen,
        batch_size=min(recipe.eval_batch_size, max(len(known), 1)),
        image_size=image_size,
        preprocess=assembly.preprocess(recipe),
    )
    return evaluating.load_images(batches, chosen, pathlib.Path("."))
