"""What a run says of itself: before its first step, and at its end."""

import numpy as np
from absl import logging

from sat_tf import names, report, stopping
from sat_tf.assembly.validation import USUAL
from sat_tf.experiment.run import Run


def announce(run: Run) -> None:
    """Say what is trained, on what, and where, and what is worth knowing of it, before the first step."""
    recipe, dataset = run.recipe, run.dataset
    sizes = [f"{getattr(dataset, part).size:,}" for part in ("train", "validation", "test")]
    logging.info(
        "Training %s with %s by %s, %s parameters; %s: %d classes, %s images for training, %s for validation, "
        "%s for testing, %d pixels a side; attack: %s; %d epoch%s of %d steps; in %s.",
        recipe.model,
        recipe.act,
        recipe.method,
        f"{sum(int(np.prod(variable.shape)) for variable in run.state.model.trainable_variables):,}",
        dataset.name,
        len(dataset.classes),
        *sizes,
        run.image_size,
        attack_words(run) or "none",
        recipe.epochs,
        "s" if recipe.epochs > 1 else "",
        run.epoch_steps,
        run.model_dir,
    )
    for line in run.warnings:
        logging.warning(line)
    if run.method.attack is not None and recipe.stop_on_overfitting and not run.validation.compares:
        logging.info(
            "Catastrophic overfitting will not be noticed: %s in validation has no more steps than %s in training.",
            recipe.validation_attack,
            recipe.attack,
        )
    if run.restored:
        logging.info("Going on from step %d of %d, checkpoint %s.", run.state.step, run.total_steps, run.restored)
        run.write_history()


def summary(run: Run) -> dict:
    """Return the report's facts about the training."""
    steps = run.state.step
    return {
        "steps": steps,
        "epochs": run.recipe.epochs,
        "wall_time_seconds": round(run.seconds, 1),
        "images_per_second": round(steps * run.recipe.batch_size / max(run.seconds, 1e-9), 1),
        "train_loss": stopping.last_loss(run.history, run.epoch_steps // 2),
        "attack": attack_words(run),
        **_quantities(run),
        "ended": run.stopped or report.WHOLE,
        "left_out": list(run.dataset.train.unreadable),
        "validation_attack": run.recipe.validation_attack,
        "validation_weights": run.recipe.validation_weights,
        "best_step": run.best["step"],
        f"best_validation_{run.method.best_by}_accuracy": run.best["score"][0],
        "validation_images": run.validation.size,
        "validations": stopping.beside(run.history, run.best, run.method.best_by) if run.history else [],
    }


def _quantities(run):
    """Return the means over the whole training of what this method reports beside loss and accuracy."""
    means = stopping.means(run.history, run.total_steps)
    return {f"mean_{name}": round(value, 5) for name, value in means.items() if f"train/{name}" not in USUAL}


def attack_words(run: Run) -> str | None:
    """Return what the training attack is, None where there is none."""
    if run.method.attack is None:
        return None
    return f"{names.attack_title(run.recipe.attack)} at epsilon {report.format_radius(run.recipe.epsilon)}"
