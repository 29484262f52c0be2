"""The one table of flags: what each means, which jobs take it, which field of the recipe it sets."""

import collections.abc
import dataclasses

from absl import flags

from sat_tf import hparams
from sat_tf.hparams.fields import number
from sat_tf.names import nearest

MODES = ("train", "eval", "verify", "merge", "compare", "export", "download", "convert")
JOBS = (*MODES, "experiment", "plan")
TRAINING = ("train", "plan", "experiment")
OPENING = ("eval", "verify", "export", "convert")  # a checkpoint: its fields may be repeated there, not changed
EVALUATING = (*TRAINING, "eval")
DEVICES = "Devices"  # the group of what a run computes on
MODE_ALIASES = {
    "test": "eval",
    "validate": "eval",
    "attack": "eval",
    "fit": "train",
    "save": "export",
    "check": "verify",
    "diff": "compare",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flag:
    """A flag.

    help: one line. group: where the help of all jobs shows it. jobs: those that take it. field: of the recipe, which it
    sets. default, define, options: what absl is told. read: `(--name, text) -> value`, which says what it expected.
    """

    help: str
    group: str = "Train"
    jobs: tuple[str, ...] = TRAINING
    field: str | None = None
    default: object = None
    define: collections.abc.Callable = flags.DEFINE_string
    options: dict = dataclasses.field(default_factory=dict)
    read: collections.abc.Callable | None = None


def _one_of(known, aliases=None):
    """Return a reader of one of a few words; `aliases` names what other programs call them."""

    def read(name, value):
        if value not in known:
            near = (aliases or {}).get(value) or nearest(value, known)
            hint = f" Did you mean {near}?" if near else ""
            raise ValueError(f"Expected {name} of {'|'.join(known)}. Received: {name}={value}.{hint}")
        return value

    return read


def _recipe(field, help, *jobs, **rest):
    return Flag(help=help, field=field, jobs=(*TRAINING, *jobs), **rest)


def _evaluation(help, *jobs, **rest):
    return Flag(help=help, group="Evaluate", jobs=jobs or ("eval",), **rest)


def _switch(make, *arguments, **rest):
    return make(*arguments, define=flags.DEFINE_bool, default=False, **rest)


FLAGS = {
    "model": _recipe(
        "model", "Architecture, such as resnet20 (the default); or FILE.keras, FILE.py:FUNCTION.", *OPENING
    ),
    "act": _recipe("act", "Activation, its number after a colon: swish (the default), celu:1.5.", *OPENING),
    "init": _recipe("init", "Weights to start from: a run's folder, released:NAME, FILE.keras, keras:NAME.", *OPENING),
    "freeze": _recipe("freeze", "backbone: train only the classifier; none (the default): everything.", *OPENING),
    "method": _recipe(
        "method", "sat (the default): an attack before each update; standard, trades, p-sat, ...", *OPENING
    ),
    "dataset": _recipe("dataset", "Data set; fashion_mnist_12k, the default, comes with the package.", *OPENING),
    "data_dir": Flag(
        help="Where the data set lies; default: where it lay in the run's training.", jobs=(*TRAINING, *OPENING)
    ),
    "extra_data": Flag(
        help="An .npz of more training images (image, label), for --set extra_share=0.7.", jobs=("train", "plan")
    ),
    "profile_steps": Flag(
        help="Steps of which TensorFlow's profiler writes a profile for TensorBoard, FIRST:END such as 100:110.",
        jobs=("train",),
    ),
    "model_dir": Flag(
        help="Folder of the run; default: runs/<model>-<act>-<method>-<dataset>-seed<seed>, and what was changed.",
        jobs=("train", *OPENING),
    ),
    "recipe": Flag(
        help="Recipe to start from, its file, or the folder of a run; default: one that suits the data.",
        jobs=("train", "plan"),
    ),
    "epochs": _recipe("epochs", "Passes over the training images."),
    "batch_size": _recipe("batch_size", "Images an update; with --mode=eval images at a time.", "eval", "verify"),
    "epsilon": _recipe(
        "epsilon",
        "Radius of the attack, 8/255: of training and its evaluation, or of eval, verify, export.",
        "eval",
        "verify",
        "export",
    ),
    "step_size": _recipe(
        "step_size", "Step size of the attack, 8/255: in training, or of eval, export.", "eval", "export"
    ),
    "attack": _recipe("attack", "Training attack with its steps: pgd-1 (the default), fgsm, apgd-2."),
    "attack_steps": _recipe("attack_steps", "Steps of PGD in training: 2 is --attack=pgd-2."),
    "attack_backward": _recipe(
        "attack_backward", "Activation whose gradient the training attack uses; default: --act's."
    ),
    "update_backward": _recipe("update_backward", "Activation whose gradient updates use; default: --act's own."),
    "strategy": _recipe(
        "strategy",
        "one device, mirrored, multiworker, tpu, or auto (the default): what there is.",
        "eval",
        group=DEVICES,
    ),
    "workers": Flag(
        help="host:port,host:port of all processes that train together; the first writes.",
        group=DEVICES,
        jobs=("train", "eval"),
        define=flags.DEFINE_list,
    ),
    "worker_index": Flag(
        help="Which of --workers this process is, from 0.",
        group=DEVICES,
        jobs=("train", "eval"),
        read=number(0, 10**5, whole=True),
    ),
    "tpu": Flag(help="local (on a TPU VM), or a TPU's name.", group=DEVICES, jobs=("train", "eval")),
    "precision": _recipe(
        "precision",
        "float32 (the default), mixed_bfloat16, mixed_float16: of training, or of eval.",
        "eval",
        group=DEVICES,
    ),
    "attack_precision": _recipe(
        "attack_precision",
        "The training attack's own: bfloat16, float16, float32, or auto, the faster one; updates keep --precision.",
        group=DEVICES,
    ),
    "jit_compile": _recipe("jit_compile", "XLA: on, off, or auto (the default).", group=DEVICES),
    "seed": Flag(
        help="Of weights, data order, augmentation and attacks.", field="seed", jobs=("train", "plan", *OPENING)
    ),
    "set": Flag(
        help="Any field of the recipe: --set learning_rate=0.05 (repeatable).",
        jobs=(*TRAINING, *OPENING),
        default=[],
        define=flags.DEFINE_multi_string,
    ),
    "eval_attacks": _recipe(
        "eval_attacks", "Attacks on the test images, such as clean,pgd-1,pgd-20,pgd-200.", "eval", group="Evaluate"
    ),
    "eval_backward": _recipe(
        "eval_backward",
        "Activation whose gradient evaluation attacks use; default: --act's own.",
        "eval",
        "export",
        group="Evaluate",
    ),
    "eval_weights": _recipe(
        "eval_weights",
        "raw or averaged weights, to evaluate or export; default: as the validation's.",
        *OPENING,
        group="Evaluate",
    ),
    "norm": _evaluation("Norm of the ball, linf (the default) or l2.", *EVALUATING, "verify", field="eval_norm"),
    "restarts": _evaluation("Random starts of PGD.", *EVALUATING, field="eval_restarts"),
    "radii": _evaluation(
        "Also a curve over these radii, 0,2/255,4/255, under the last attack.", *EVALUATING, field="eval_radii"
    ),
    "noise": _evaluation(
        "Also Gaussian noise of these standard deviations, 0.05,0.1.", *EVALUATING, field="eval_noise"
    ),
    "corruptions": _switch(
        _evaluation, "Also the 15 corruptions of ImageNet-C in 5 severities.", *EVALUATING, field="eval_corruptions"
    ),
    "no_active_set": _switch(_evaluation, "PGD's final iterate counts, as in the paper, not the worst of all.", "eval"),
    "subset": _evaluation("A file of ids, a line each: only these test images."),
    "shard": _evaluation("i/n, the i-th of n parts of the test images; --mode=merge joins them."),
    "save_adversarial": _switch(_evaluation, "Write the adversarial images, which --mode=verify reads.", "eval"),
    "sibling": _evaluation("Another checkpoint of the same data; attacks on it must not be stronger."),
    "force": _switch(_evaluation, "Show an accuracy that failed a check, with the warning.", "eval"),
    "parts": _evaluation("merge: the folders of all parts' reports.", "merge", define=flags.DEFINE_list),
    "runs": _evaluation(
        "compare: the folders of runs, DIR,DIR or 'runs/*'; the first is the baseline.",
        "compare",
        define=flags.DEFINE_list,
    ),
    "adversarial": Flag(help="A file that --save_adversarial wrote.", group="Verify", jobs=("verify",)),
    "format": Flag(
        help="Formats of saved_model (the default), keras, litert, onnx.",
        group="Export",
        jobs=("export",),
        default=["saved_model"],
        define=flags.DEFINE_list,
    ),
    "checkpoint": Flag(
        help="A checkpoint's folder, released:NAME, TF1's NAME, .keras, .pth; default: best of --model_dir.",
        group="Released checkpoints",
        jobs=(*OPENING, "download"),
    ),
    "checkpoint_dir": Flag(
        help="Where the files of released:NAME lie, or are downloaded to; default: released.",
        group="Released checkpoints",
        jobs=("train", *OPENING, "download"),
        default="released",
    ),
    "experiment": Flag(
        help="A table or figure of the paper, such as table1; --list experiments shows all.",
        group="Experiments",
        jobs=("experiment",),
    ),
    "scale": Flag(
        help="The paper's ImageNet (paper), or what runs on two cores: small (the default), or long.",
        group="Experiments",
        jobs=("experiment",),
        default="small",
        read=_one_of(hparams.SCALES),
    ),
    "seeds": Flag(
        help="Runs of every row, with the seeds 0, 1, ...; default: 3.",
        group="Experiments",
        jobs=("experiment",),
        default="3",
        read=number(1, 10**4, whole=True),
    ),
    "rows": Flag(
        help="Only these rows and the baseline.", group="Experiments", jobs=("experiment",), define=flags.DEFINE_list
    ),
    "jobs": Flag(
        help="Runs at a time; default: one a core (small), one (paper).",
        group="Experiments",
        jobs=("experiment",),
        read=number(1, 10**4, whole=True),
    ),
    "results_dir": Flag(
        help="Folder of its runs and tables; default: runs/experiments; of compare: a new one in runs/comparisons.",
        group="Experiments",
        jobs=("experiment", "compare"),
        default="runs/experiments",
    ),
    "plan": _switch(
        Flag,
        help="Print what training would cost (FLOPs, memory, steps, hours), and do nothing.",
        group="Plan",
        jobs=("plan",),
    ),
    "images_per_second": Flag(
        help="Training images a second on one accelerator; default: measured.",
        group="Plan",
        jobs=("plan",),
        read=number(0, 1e9, above=True),
    ),
    "mode": Flag(
        help=f"What to do: {', '.join(MODES)}; default: train.",
        group="All",
        jobs=MODES,
        default="train",
        read=_one_of(MODES, MODE_ALIASES),
    ),
    "help": _switch(
        Flag, help="Print this; with a --mode what that takes.", group="All", jobs=JOBS, options={"short_name": "h"}
    ),
    "list": Flag(help="Print all names and fields; --list attacks: those of one table.", group="All", jobs=JOBS),
    "version": _switch(Flag, help="Print the version.", group="All", jobs=JOBS),
    "traceback": _switch(Flag, help="On an error print where it happened, for a bug report.", group="All", jobs=JOBS),
}
