"""--mode=verify: adversarial images of a file, checked against the data set and classified again by a model."""

import pathlib
from collections.abc import Iterable

from sat_tf import assembly, data, graphs, hparams
from sat_tf import verify as file_of
from sat_tf.evaluate import Examples, predictor, read_examples
from sat_tf.runs import checkpoints, places


@graphs.job
def verify(
    file: str | pathlib.Path,
    changes: dict,
    *,
    model_dir: str | pathlib.Path | None = None,
    checkpoint: str | pathlib.Path | None = None,
    checkpoint_dir: str | pathlib.Path | None = None,
    data_dir: str | pathlib.Path | None = None,
) -> tuple[list[file_of.Finding], dict[str, float]]:
    """Check a file of adversarial images against the data set, and rescore it with a checkpoint or a SavedModel.

    Args:
      file: of `--save_adversarial`, or of anyone who writes the format of `sat_tf.verify`.
      changes: how the checkpoint is evaluated, above all `eval_epsilon` and `eval_norm` where they should be checked.
      checkpoint: as for `evaluate`, or the folder of an exported SavedModel, which needs `changes` to say dataset,
        image_size and eval_preprocess where the file's are not to be believed.

    Returns:
      The list of `verify.Finding` and `{"float32": accuracy, "uint8": accuracy}`.
    """
    content, place = file_of.read(file), checkpoint or model_dir
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
        recipe = found.recipe
        data_dir = places.of_checkpoint(found, data_dir)
    recipe = recipe.replace(eval_images=None)  # ids are places in the whole test part
    dataset = assembly.load_data(recipe, data_dir)
    if not exported:
        found = checkpoints.fitted(found, dataset)
        image_size, classes = found.image_size, found.classes
    if classes is not None and list(dataset.classes) != list(classes):
        raise ValueError(
            f"Expected the {len(classes)} classes of the checkpoint. Received: dataset={recipe.dataset} "
            f"with {len(dataset.classes)}."
        )
    clean = images_of(dataset.test, content["ids"], recipe, image_size)
    findings = file_of.check(
        content,
        clean.images,
        clean.labels,
        clean.ids,
        norm=recipe.eval_norm if "eval_norm" in changes else None,
        epsilon=recipe.eval_epsilon,
    )
    model = predictor(place if exported else found.load(dataset.classes))
    size = min(recipe.eval_batch_size, len(content["ids"]))
    counts = file_of.rescore(content, model, size)
    return findings, {name: count / len(content["ids"]) for name, count in counts.items()}


def is_saved_model(place: str | pathlib.Path | None) -> bool:
    """Say whether a place is the folder of a SavedModel."""
    return place is not None and (pathlib.Path(place).expanduser() / "saved_model.pb").is_file()


def images_of(split: data.Split, ids: Iterable[int], recipe: hparams.Recipe, image_size: int) -> Examples:
    """Return the `Examples` of the data set that a file's ids name, in increasing order; unknown ids are left out."""
    known = sorted({int(place) for place in ids if 0 <= place < split.size})
    chosen = data.selected(split, known)
    batches = data.evaluation_batches(
        chosen,
        batch_size=min(recipe.eval_batch_size, max(len(known), 1)),
        image_size=image_size,
        preprocess=assembly.preprocess(recipe),
    )
    return read_examples(batches, chosen.size, chosen.places)
