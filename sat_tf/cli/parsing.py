"""Read a command line by the table of flags; what is wrong with it is said in a sentence that names what was meant."""

import difflib
import itertools
from typing import Any

from absl import flags

from sat_tf import hparams
from sat_tf.cli.flags import FLAGS
from sat_tf.hparams.recipe import RENAMED

EVALUATION_NAMES = {
    "epsilon": "eval_epsilon",
    "step_size": "eval_step_size",
    "batch_size": "eval_batch_size",
    "precision": "eval_precision",
}
EVERYTHING = "everything"  # what --list alone lists

# What other programs call a flag; {} is the value. Never the opposite of what was meant, which the nearest name may be.
ALIASES = {
    "lr": "--set learning_rate={}",
    "eta": "--set learning_rate={}",
    "wd": "--set weight_decay={}",
    "val_split": "--set validation={}",
    "ema": "--set average_decay={}",
    "ema_decay": "--set average_decay={}",
    "img_size": "--set image_size={}",
    "resolution": "--set image_size={}",
    "active_set": "--set eval_active_set={}",
    "random_start": "--set random_start={}",
    "distribute": "--strategy={}",
    "dtype": "--precision={}",
    "mixed_precision": "--precision=mixed_bfloat16",
    "amp": "--precision=mixed_float16",
    "xla": "--jit_compile=on",
    "jit": "--jit_compile=on",
    "hosts": "--workers={}",
    "rank": "--worker_index={}",
    "task_index": "--worker_index={}",
    "tpu_name": "--tpu={}",
    "eps": "--epsilon={}",
    "radius": "--epsilon={}",
    "alpha": "--step_size={}",
    "steps": "--attack_steps={}",
    "num_steps": "--attack_steps={}",
    "attacks": "--eval_attacks={}",
    "eval_attack": "--eval_attacks={}",
    "arch": "--model={}",
    "architecture": "--model={}",
    "network": "--model={}",
    "net": "--model={}",
    "backbone": "--model={}",
    "activation": "--act={}",
    "data": "--dataset={}",
    "datasets": "--dataset={}",
    "data_path": "--data_dir={}",
    "root": "--data_dir={}",
    "bs": "--batch_size={}",
    "batch": "--batch_size={}",
    "n_epochs": "--epochs={}",
    "num_epochs": "--epochs={}",
    "out": "--model_dir={}",
    "output": "--model_dir={}",
    "output_dir": "--model_dir={}",
    "save_dir": "--model_dir={}",
    "logdir": "--model_dir={}",
    "log_dir": "--model_dir={}",
    "workdir": "--model_dir={}",
    "resume": "--model_dir={}",
    "ckpt": "--checkpoint={}",
    "weights": "--checkpoint={}",
    "load": "--checkpoint={}",
    "pretrained": "--init={}",
    "finetune": "--init={}",
    "freeze_backbone": "--freeze=backbone",
    "random_seed": "--seed={}",
    "config": "--recipe={}",
    "threat_model": "--norm={}",
    "worst_case": "--set eval_active_set=true",
    "final_iterate": "--no_active_set",
    "standard": "--method=standard",
    "adversarial_training": "--method=sat",
    "sat": "--method=sat",
    "train": "--mode=train",
    "eval": "--mode=eval",
    "evaluate": "--mode=eval",
    "evaluation": "--mode=eval",
    "test": "--mode=eval",
    "verify": "--mode=verify",
    "merge": "--mode=merge",
    "compare": "--mode=compare",
    "export": "--mode=export",
    "download": "--mode=download",
    "convert": "--mode=convert",
    "dry_run": "--plan",
    "v": "--version",
    "verbose": "--traceback",
    "debug": "--traceback",
}


def parse(argv: list[str]) -> flags.FlagValues:
    """Return the values of all flags, an `absl.flags.FlagValues` of its own; a mistake is a ValueError in a sentence.

    Args:
      argv: the program's name and what was typed after it.
    """
    given = flags.FlagValues()
    for name, flag in FLAGS.items():
        flag.define(name, flag.default, flag.help, flag_values=given, **flag.options)
    argv = [argv[0], *_spell_list(argv[1:])]
    try:
        rest = given(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        raise unknown(error.flagname, argv) from None
    except flags.IllegalFlagValueError as error:
        typed = str(error).removeprefix("flag ").partition(": ")[0]
        raise ValueError(f"Expected a flag as --name alone or --name=true. Received: {typed}.") from None
    except flags.Error as error:
        raise ValueError(str(error)) from None
    if rest:
        raise ValueError(f"Expected flags only, written --name=value. Received: {' '.join(rest)}.")
    for name, flag in FLAGS.items():
        if flag.read and given[name].value is not None:
            given[name].value = flag.read(f"--{name}", given[name].value)
    return given


def _spell_list(words):
    """Return the words with `--list` alone written as absl wants a flag: with a value."""
    return [
        f"--list={EVERYTHING}" if word in ("--list", "-list") and after.startswith("-") else word
        for word, after in itertools.pairwise([*words, "-"])
    ]


def unknown(name: str, argv: list[str]) -> ValueError:
    """Return the error of a flag that is none: it says what was meant, which may be a field of the recipe."""
    typed, value = _typed(name, argv)
    plain = name.replace("-", "_")
    start = f"Expected a known flag. Received: {typed}"
    if plain in hparams.fields_help() and plain not in FLAGS:
        return ValueError(f"{start}, which is a field of the recipe: --set {plain}={value}.")
    meant = _meant(plain)
    if not meant:
        return ValueError(f"{start}. --help shows all flags, --list fields all fields that --set takes.")
    return ValueError(f"{start}. Did you mean {meant.format(value)}?")


def _typed(name, argv):
    """Return what was typed of an unknown flag, and its value: what follows the = or the flag, else VALUE."""
    for word, after in zip(argv[1:], [*argv[2:], "-"], strict=True):
        if word.startswith("-") and word.lstrip("-").partition("=")[0] == name:
            _, equals, value = word.partition("=")
            return word, value if equals else "VALUE" if after.startswith("-") else after
    return f"--{name}", "VALUE"


def _meant(name):
    """Return what a wrong flag most likely means, {} for its value; None where nothing but its opposite is near."""
    defaults = hparams.choose({})
    fields = {field: f"--set {field}={{}}" for field in hparams.fields_help()}
    renamed = {old: fields[new] for old, new in RENAMED.items()}
    switches = {flag for flag, row in FLAGS.items() if row.define is flags.DEFINE_bool}
    known = fields | renamed | ALIASES
    known |= {flag: f"--{flag}" if flag in switches else f"--{flag}={{}}" for flag in FLAGS}
    if name in known:
        return known[name]
    positive = name.removeprefix("no").removeprefix("_")
    if name.startswith("no") and positive in known:
        field = known[positive].removeprefix("--set ").partition("=")[0]
        is_flag = field in fields and isinstance(getattr(defaults, field), bool)
        return f"--no{positive}" if positive in switches else f"--set {field}=false" if is_flag else None
    swapped = [flag for flag in FLAGS if sorted(flag) == sorted(name)]
    near = swapped or difflib.get_close_matches(name, known, 1, 0.6)
    return known[near[0]] if near else None


def job_of(given: flags.FlagValues) -> str:
    """Return what is to be done, one of `JOBS`."""
    return "experiment" if given.experiment is not None else "plan" if given.plan else given.mode


def changes_of(given: flags.FlagValues) -> dict[str, Any]:
    """Return `{field: value}` of what the user set; but in training radius, step size and batch are evaluation's."""
    rename = {} if given.mode == "train" else EVALUATION_NAMES
    fields = {name: flag.field for name, flag in FLAGS.items() if flag.field and given[name].present}
    changes = {rename.get(field, field): given[name].value for name, field in fields.items()}
    if given.no_active_set:
        changes["eval_active_set"] = False
    for setting in given.set:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"Expected --set field=value. Received: --set {setting}.")
        changes[name] = value
    return changes
