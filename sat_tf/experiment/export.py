"""--mode=export: a checkpoint on its way out: the images it is compared on, what reports say of it, where it goes."""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

import sat_tf.export
from sat_tf import assembly, attacks, console, cost, data, graphs, hparams, machine, preprocess
from sat_tf.runs import checkpoints, evaluations, overlap, places

IMAGES = 200  # on which every format is compared with the model
ATTACK_FLOPS = 4e12  # spent on PGD in the comparison, by model and export each
LEAST_ATTACKED = 10  # images, whatever they cost
EMBEDDED = "fashion_mnist_12k"


@graphs.job
def export(
    changes: dict,
    *,
    model_dir: str | pathlib.Path | None = None,
    checkpoint: str | pathlib.Path | None = None,
    checkpoint_dir: str | pathlib.Path | None = None,
    data_dir: str | pathlib.Path | None = None,
    formats: Sequence[str] = ("saved_model",),
    command: str = "",
) -> dict:
    """Write a checkpoint in some formats into `export/` of its run's folder, compared with the model by consumers.

    Args:
      changes: as `evaluate` takes them.
      model_dir, checkpoint, checkpoint_dir: as `evaluate` takes them.
      data_dir: where the data set lies whose test images are used for the comparison; None for where it lay in
        training.
      formats: keys of `sat_tf.export.FORMATS`.
      command: what the user typed, for the card.

    Returns:
      The parity, a dict as `parity.json` holds it.
    """
    formats = list(dict.fromkeys(formats))
    sat_tf.export.check(formats)
    found = checkpoints.open_checkpoint(checkpoint or model_dir, changes, checkpoint_dir)
    recipe = found.recipe
    folder = pathlib.Path(model_dir or found.folder) / "export" / found.name
    formats = sat_tf.export.with_present(folder, formats, found.weights)
    assembly.make_deterministic(recipe.seed)
    if found.source == "own":
        found = checkpoints.fitted(found, assembly.load_data(recipe, data_dir))
    model = found.load()
    prepare = preprocess.EVALUATIONS[assembly.preprocess(recipe)]
    images = sample(found, prepare, data_dir, required="dataset" in changes or data_dir is not None)
    pgd = attacks.for_training("pgd-10", epsilon=recipe.evaluated_epsilon, step_size=recipe.eval_step_size)
    with_cost = ATTACK_FLOPS / (pgd.forward_equivalents * cost.forward_flops(model, found.image_size))
    attack = {
        "epsilon": pgd.epsilon,
        "step_size": pgd.step_size,
        "steps": pgd.steps,
        "count": min(len(images[0]), max(LEAST_ATTACKED, int(with_cost))) if (images[1] >= 0).all() else 0,
    }
    result = sat_tf.export.write(
        model,
        folder,
        facts=facts_of(found, formats, command),
        recipe=found.known,
        examples=images,
        attack=attack,
        evaluations=evaluations.rows_of(found, model_dir),
        preprocess=prepare,
        attacked=assembly.attacked_view(recipe, model) if recipe.eval_backward else None,
        progress=lambda what, total: console.make_progress(total, what, "image" if "answers" in what else "format"),
    )
    for name, row in result["formats"].items():
        attacked = f", {row['robust_export']} of {row['attacked']} right after PGD-10" if "attacked" in row else ""
        print(
            f"{name}: {folder / sat_tf.export.FILES[name]} (logits within {row['difference']:.1e} of the model's, "
            f"{row['same_classes']} of {row['images']} classes the same{attacked})"
        )
    print(f"weights: {found.weights}\nmodel card: {folder / 'README.md'}\nparity: {folder / 'parity.json'}", flush=True)
    return result


def facts_of(found: checkpoints.Checkpoint, formats: Sequence[str], command: str) -> dict:
    """Return what the model card says of a checkpoint."""
    recipe = found.recipe
    return {
        "model": recipe.model,
        "act": recipe.act,
        "method": recipe.method,
        "weights": found.weights,
        "backward": recipe.eval_backward,
        "checkpoint": str(found.path),
        "step": found.state["step"],
        "image_size": found.image_size,
        "classes": list(found.classes),
        "preprocess": assembly.preprocess(recipe),
        "formats": list(formats),
        "trained": "elsewhere" if found.source == "own" else assembly.make_method(recipe).words,
        "trained_on": found.state["recipe"]["dataset"],
        "recipe": {name: hparams.show(name, value, found.recipe.eval_norm) for name, value in found.known.items()},
        "published": found.published_facts,
        "versions": machine.versions(),
        "created": machine.now(),
        "command": command,
    }


def sample(
    found: checkpoints.Checkpoint, prepare: Callable, data_dir: str | pathlib.Path | None, required: bool
) -> tuple[np.ndarray, np.ndarray, list[bytes], str]:
    """Return images for the comparison: images, labels, the same encoded, and where they are from.

    They are a fixed draw from the test part of the recipe's data set; where that is not at hand and nobody asked for
    it (`required`), from the embedded one, whatever the model was trained on. Where the images are of other classes
    than the model's their labels are -1: logits can be compared, but no accuracy says anything of the model.
    """
    try:
        recipe = found.recipe.replace(eval_images=None)
        dataset = assembly.load_data(recipe, places.of_checkpoint(found, data_dir))
    except (OSError, ValueError) as error:
        if required or found.recipe.dataset == EMBEDDED:
            raise
        logging.warning("%s Meanwhile the comparison takes images of %s.", error, EMBEDDED)
        dataset = data.load(EMBEDDED)
    overlap.refuse(found, dataset)
    split = dataset.test
    if not split.size:
        raise ValueError(f"Expected images in the test part of {dataset.source}. Received: none.")
    images, labels, encoded = sat_tf.export.drawn(split, prepare, found.image_size, IMAGES)
    description = f"{len(images)} of the {split.size} test images of {dataset.name}"
    if list(dataset.classes) != list(found.classes):
        description += ", which have other classes: only answers are compared, not accuracies"
        labels = np.full_like(labels, -1)
    return images, labels, encoded, description
