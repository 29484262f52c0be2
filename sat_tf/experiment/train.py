"""--mode=train: a run by a recipe, from its first step to its report."""

import contextlib
import pathlib
from collections.abc import Callable

from sat_tf import assembly, console, files, graphs, half, hparams, pointers
from sat_tf.assembly import devices
from sat_tf.distribute import strategies
from sat_tf.experiment import record, summary
from sat_tf.experiment.evaluate import Asked, report_on
from sat_tf.experiment.run import Run
from sat_tf.experiment.subject import Subject
from sat_tf.runs import checkpoints, folders, overlap, places
from sat_tf.runs.journal import Journal


@graphs.job
def train(
    recipe: hparams.Recipe,
    model_dir: str | pathlib.Path,
    *,
    data_dir: str | pathlib.Path | None = None,
    extra_data: str | pathlib.Path | None = None,
    checkpoint_dir: str | pathlib.Path | None = "released",
    command: str = "",
    on_progress: Callable | None = None,
    profile: range = range(0),
) -> dict:
    """Train by a recipe, or go on where the run in `model_dir` stopped; then evaluate the best checkpoint and report.

    PGD counts by its final iterate, as in the paper, unless the recipe asks for an active set.

    Args:
      recipe: what is trained, on what, and how it is evaluated.
      model_dir: folder of the run; nothing in it is ever wiped.
      data_dir: where the data set lies; None for where the run in `model_dir` remembers it.
      extra_data: an .npz of images to train on besides, `extra_share` of each batch.
      checkpoint_dir: where the files of released checkpoints lie, for a run that starts from one.
      command: what the user typed, for the report.
      on_progress: is called with the share of the training that is done, in [0, 1].
      profile: steps that TensorFlow's profiler records, into `tensorboard/` of the run.

    Returns:
      The report, a dict as `report.json` holds it.

    Raises:
      ValueError: another recipe was begun in `model_dir`; the batch does not fit the data or the replicas.
      OSError: data, folder or checkpoint can't be read or written.
      FloatingPointError: the loss is not finite; checkpoints are those from before.
      KeyboardInterrupt: stopped on demand; a checkpoint holds the state.
    """
    assembly.check_names(recipe.sized())
    assembly.check_extra(recipe, extra_data)
    team = strategies.team()
    with contextlib.ExitStack() as stack, console.naming_failures() as failing:
        model_dir = stack.enter_context(team.writing(model_dir))
        recipe = asked = devices.settled(recipe, lambda: folders.recipe_of(model_dir))
        model_dir = folders.check_folder(model_dir, recipe)
        assembly.make_deterministic(recipe.seed)
        stack.enter_context(files.locked(model_dir))
        if data_dir is None:
            data_dir = team.from_chief(lambda: places.of_run(model_dir, recipe, None))
        failing.dataset = dataset = assembly.load_data(recipe, data_dir, extra_data)
        recipe = asked.sized(dataset.train.size)
        strategy = devices.make_strategy(recipe)
        run = Run(recipe, dataset, strategy, model_dir, places.whole(data_dir), checkpoint_dir)
        run.restore()
        overlap.remember(model_dir, dataset, overlap.whole(recipe, data_dir))
        stack.enter_context(console.logged(model_dir / "log.txt", command))
        folders.write_recipe(model_dir, asked)
        places.remember(model_dir, recipe, data_dir)
        summary.announce(run)
        journal = Journal(model_dir, command, recipe, strategy, run.state.step, run.method)
        stack.enter_context(journal.open())
        run.train(on_progress, journal, profile)
        about = _with_best_weights(run, recipe, command)
        subject = Subject.of(recipe, run.state.model, dataset, run.image_size, strategy)
        facts = {**about, "training": summary.summary(run), "published": None}
        folder = folders.report_folder(model_dir, recipe)
        with journal.phase("evaluation"):
            return report_on(subject, folder, Asked(), facts=facts, history=run.history, home=model_dir)


def _with_best_weights(run, recipe, command):
    """Give a run's model the weights that are judged; return the report's facts of them. The chief reads for all."""

    def read():
        best = pointers.find(run.model_dir, "best")
        checkpoints.restore_weights(best, run.state.model, recipe)
        found = checkpoints.open_checkpoint(best, {"eval_weights": recipe.eval_weights})
        return record.facts_of(found, "train", command, recipe.to_dict())

    facts = run.team.from_chief(read)
    run.team.share(variable.value for variable in run.state.model.variables)
    half.compute_in(run.state.model, recipe.eval_precision)
    return facts
