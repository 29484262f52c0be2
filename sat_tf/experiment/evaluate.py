"""--mode=eval: a checkpoint on the test images: resumable, checked, image by image."""

import dataclasses
import os
import pathlib
import shutil

from absl import logging

from sat_tf import assembly, console, corruptions, data, files, graphs, half, machine, report
from sat_tf import evaluate as engine
from sat_tf.assembly import devices
from sat_tf.distribute import precision, strategies
from sat_tf.experiment import record
from sat_tf.experiment.measure import Measurement
from sat_tf.experiment.subject import Subject
from sat_tf.runs import checkpoints, evaluations, overlap, places


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What an evaluation is asked for beside its recipe; by default what ends a training: no sanity checks, no files.

    Attributes:
      checks: make the recipe's sanity checks.
      recorded: the clean accuracy on record, for a check, and of how many images; None where none is, or not known.
      sibling: another model of the same data, whose adversarial images must not be stronger.
      subset: facts about the chosen images, for the report.
      shard: (i, n), the part that is evaluated.
      save_adversarial: write the adversarial images.
      force: show accuracies that failed a check, with the warning.
    """

    checks: bool = False
    recorded: tuple[float | None, int | None] = (None, None)
    sibling: object = None
    subset: dict | None = None
    shard: tuple | None = None
    save_adversarial: bool = False
    force: bool = False


@graphs.job
def evaluate(
    changes: dict,
    *,
    model_dir: str | pathlib.Path | None = None,
    checkpoint: str | pathlib.Path | None = None,
    checkpoint_dir: str | pathlib.Path | None = None,
    data_dir: str | pathlib.Path | None = None,
    command: str = "",
    subset: str | pathlib.Path | None = None,
    shard: tuple[int, int] | None = None,
    save_adversarial: bool = False,
    sibling: str | pathlib.Path | None = None,
    force: bool = False,
) -> dict:
    """Evaluate a checkpoint under the attacks of its recipe with `changes`, and report into a folder of its own.

    Stopped or killed, the same call goes on where it was.

    Args:
      changes: `{field: value}` of the recipe, fields of `checkpoints.EVALUATION_FIELDS`: what was trained can't be
        changed. Where they do not say `eval_active_set` it is on, but for released checkpoints with published numbers,
        which are evaluated as those were.
      model_dir: folder of a run, whose best checkpoint is taken; the report goes into `evaluations/` there.
      checkpoint: another checkpoint, as `checkpoints.open_checkpoint` names them; without model_dir its run gets the
        report.
      checkpoint_dir: where the files of released checkpoints lie.
      data_dir: where the data set lies; None for where it lay in training.
      subset: a file of ids: only these test images are evaluated.
      shard: (i, n): only the i-th of n parts of the test images, counted from 1; `merge` puts the parts together.
      save_adversarial: write the adversarial images, which `verify` reads.
      sibling: another checkpoint of the same data, as `checkpoint`: attacks on it must not be stronger.
      force: show accuracies that failed a check, with the warning.

    Returns:
      The report; `trusted` is False where a hard check failed.
    """
    found = checkpoints.open_checkpoint(checkpoint or model_dir, changes, checkpoint_dir)
    if "eval_active_set" not in changes:
        found = dataclasses.replace(found, recipe=found.recipe.replace(eval_active_set=not found.published))
    recipe, home = found.recipe, pathlib.Path(model_dir or found.folder)
    other = sibling and checkpoints.open_checkpoint(sibling, {}, checkpoint_dir)
    if recipe.eval_corruptions:
        corruptions.check()
    assembly.make_deterministic(recipe.seed)
    with console.naming_failures() as failing:
        failing.dataset = dataset = load_test(found, places.of_checkpoint(found, data_dir))
        found = checkpoints.fitted(found, dataset)
        overlap.tell(dataset)
        dataset, facts_of_subset = chosen(dataset, subset, shard)
        overlap.refuse(found, dataset)
        if "eval_batch_size" in changes and recipe.eval_batch_size > dataset.test.size:
            raise ValueError(
                f"Expected a batch of at most the {dataset.test.size} test images. "
                f"Received: batch_size={recipe.eval_batch_size}."
            )
        strategy = devices.evaluating(recipe, changes)
        subject = Subject.of(recipe, None, dataset, found.image_size, strategy)  # before any work
        with strategy.scope():
            subject = dataclasses.replace(subject, model=found.load(dataset.classes))
            other = other and checkpoints.fitted(other, dataset).load(dataset.classes)
        for model in filter(None, (subject.model, other)):
            half.compute_in(model, recipe.eval_precision)
        asked = Asked(
            checks=bool(recipe.eval_checks),
            recorded=found.recorded(dataset.name),
            sibling=other,
            subset=facts_of_subset,
            shard=shard,
            save_adversarial=save_adversarial,
            force=force,
        )
        facts = record.facts_of(found, "eval", command, found.known)
        with (
            strategies.team().writing(home) as home,
            evaluations.work_folder(home / "evaluations", request_of(found, subject, asked)) as folder,
            console.logged(folder / "log.txt", command),
        ):
            announce(found, subject, folder)
            return report_on(subject, folder, asked, facts=facts, history=found.state["history"], home=home)


def announce(found: checkpoints.Checkpoint, subject: Subject, folder: pathlib.Path) -> None:
    """Say what is evaluated, on what, by what, and where it is reported."""
    recipe = subject.recipe
    logging.info(
        "Evaluating %s with %s, %s (%s weights), on %d images of %s of %d classes, %d pixels a side, under %s, "
        "epsilon %s; in %s.",
        recipe.model,
        recipe.act,
        found.path,
        found.recipe.evaluated_weights,
        subject.count,
        subject.dataset.name,
        len(subject.dataset.classes),
        subject.image_size,
        ", ".join(recipe.eval_attacks),
        report.format_radius(recipe.evaluated_epsilon, recipe.eval_norm),
        folder,
    )


def report_on(
    subject: Subject, folder: pathlib.Path, asked: Asked, *, facts: dict, history: list[dict], home: pathlib.Path
) -> dict:
    """Measure a subject, go on where the same measurement was stopped, and report into a folder.

    Args:
      subject: what is evaluated.
      folder: of the report.
      asked: what is wanted beside the accuracies.
      facts: what the report says of checkpoint and command, as `record.facts_of` returns them.
      history: of the training, for the curves.
      home: the folder of the run.

    Returns:
      The report; `trusted` says whether no hard check failed.
    """
    folder = pathlib.Path(folder)
    with precision.exactly():
        return _report_on(subject, folder, asked, facts, history, home)


def _report_on(subject, folder, asked, facts, history, home):
    work = evaluations.fingerprint(subject.model)[:16]  # of other weights nothing is gone on with
    if (shares := strategies.team().size) > 1:
        work = f"{work}-of-{shares}"  # nor of another number of processes, whose parts are others
    work = folder / "work" / work
    found = Measurement(subject, work, keep_all=asked.checks or asked.save_adversarial)
    checks = found.checks_before(asked.recorded) if asked.checks else []
    rows, radii, extras = found.rows(), found.radii(), found.extras()
    checks += found.checks_after(asked.sibling) if asked.checks else []
    full = record.header(subject) | {
        **facts,
        "evaluations": rows,
        "by_class": found.by_class(),
        "curve": found.curve(),
        "radii": radii,
        "extras": extras,
        "checks": [dataclasses.asdict(check) for check in checks],
        "checked": asked.checks,
        "trusted": engine.trusted(checks),
        "forced": asked.force,
        "subset": asked.subset,
        "shard": asked.shard,
    }
    full["robustbench"] = report.robustbench(full, facts["checkpoint"]["name"])
    lines = found.table()
    table = files.write(folder / "images.csv", report.csv_text(lines)) if lines else None
    adversarial = found.write_adversarial(folder, full["dataset"]["preprocess"]) if asked.save_adversarial else []
    full["files"] = {"images": table and os.path.basename(table), "adversarial": adversarial}
    paths = {"per image": table or "", "adversarial images": ", ".join(str(folder / name) for name in adversarial)}
    record.conclude(full, history, found.panel(), folder, home, paths)
    del found  # it may have files of work/ open
    shutil.rmtree(folder / "work", ignore_errors=True)
    return full


def request_of(found: checkpoints.Checkpoint, subject: Subject, asked: Asked) -> dict:
    """Return everything that decides what an evaluation computes, as JSON holds it."""
    dataset = subject.dataset
    return {
        "recipe": {name: found.recipe.to_dict()[name] for name in found.known} | record.evaluated_by(found.recipe),
        "weights": evaluations.fingerprint(subject.model),
        "data": [dataset.source, dataset.test.size, list(dataset.notes)],
        "subset": asked.subset,
        "shard": asked.shard,
        "versions": machine.versions(),
    }


def load_test(found: checkpoints.Checkpoint, data_dir: str | pathlib.Path | None) -> data.Data:
    """Return the data set that a checkpoint is evaluated on, with test images."""
    dataset = assembly.load_data(found.recipe, data_dir)
    if not dataset.test.size:
        raise ValueError(f"Expected images in the test part of {dataset.source}. Received: none.")
    return dataset


def chosen(
    dataset: data.Data, subset: str | pathlib.Path | None, shard: tuple[int, int] | None
) -> tuple[data.Data, dict | None]:
    """Return the data set with the test images that are to be evaluated, and facts about the subset for the report.

    Args:
      dataset: with its whole test part.
      subset: a file of ids, None for all.
      shard: (i, n), the i-th of n parts, from 1; None for the whole.
    """
    facts, test, notes = None, dataset.test, dataset.notes
    if subset:
        where, digest = data.read_subset(subset, test)
        facts = {"file": os.path.basename(subset), "images": len(where), "sha256": digest}
        test = data.selected(test, where)
        notes = (*notes, f"evaluated on the {len(where)} test images of {facts['file']}, SHA-256 {digest}")
    if shard:
        test = data.part(test, shard[0] - 1, shard[1])
        notes = (*notes, f"evaluated on part {shard[0]} of {shard[1]}: {test.size} images")
    return dataclasses.replace(dataset, test=test, notes=notes), facts
