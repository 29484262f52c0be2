"""A recipe: everything that decides what a run computes, as one frozen, validated dataclass."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from sat_tf.hparams import consistency
from sat_tf.hparams import fields as f
from sat_tf.hparams.catalogue import names
from sat_tf.names import format_radius, unknown

OPEN_ENDED = ("constant", "steps", "exponential")  # schedules that do not look at the number of epochs
SEEN, EPOCHS = 80_000, (10, 100)  # images that a training of epochs=none sees in all, and its least and most epochs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every field can be set from the command line with `--set name=value`.

    Values are read and checked when a recipe is made, so a recipe that exists is valid in itself.
    """

    name: str = f.field("", f.text, "the recipe that the run started from")
    model: str = f.field("resnet20", f.network, "architecture, or FILE.keras, FILE.py:FUNCTION, keras:NAME")
    act: str = f.field("swish", f.act, "activation at every site, its number after a colon; own: the network's own")
    init: str | None = f.field(
        None, f.optional(f.text), "weights to start from: a run's folder, released:NAME, FILE.keras, keras:NAME"
    )
    freeze: str = f.field("none", f.one_of("none", "backbone"), "backbone: only the classifier at its end is trained")
    value_range: tuple[float, float] | None = f.field(
        None,
        f.optional(f.value_range),
        "values that a network of Keras' own wants of an image, 0,255 or -1,1; none: what its first layers say, or 0,1",
    )
    method: str = f.field("sat", f.named("method"), "what training does: sat, standard, trades, p-sat, ...")
    seed: int = f.field(0, f.number(0, 2**31 - 1, whole=True), "of weights, data order, augmentation and attacks")
    strategy: str = f.field("auto", f.strategy, "one device, mirrored, multiworker, tpu, or auto: what there is")
    precision: str = f.field("float32", f.precision, "of training; weights are float32, float16 has a loss scale")
    jit_compile: str = f.field("auto", f.one_of("auto", "on", "off"), "XLA: on, off, or auto: where nothing else works")

    dataset: str = f.field("fashion_mnist_12k", f.named("data set"), "images and labels")
    image_size: int | None = f.field(
        None,
        f.optional(f.number(8, 2048, whole=True)),
        "pixels a side; none: the data set's own, for photographs the model's own",
    )
    validation: int | None = f.field(
        None,
        f.optional(f.number(1, 10**6, whole=True)),
        "training images set aside for choosing checkpoints; none: the data set's own",
    )
    augment: str = f.field("none", f.named("augmentation"), "crop and flip of training images")
    policy: str = f.field("none", f.policy, "operations after it: autoaugment, randaugment:15 (its magnitude)")
    mixup: float = f.field(0.0, f.number(0, 100), "MixUp of pairs: number of its Beta distribution, 0.8; 0: none")
    cutmix: float = f.field(0.0, f.number(0, 100), "CutMix of pairs: number of its Beta distribution, 1; 0: none")
    extra_share: float = f.field(0.0, f.number(0, 1), "of each batch, from the images of --extra_data")
    cache: str = f.field("none", f.one_of("none", "memory"), "memory: keep the files of images there")
    unreadable_limit: int = f.field(
        100, f.number(0, 10**7, whole=True), "training images that may be left out because they can't be read"
    )
    accumulate_steps: int = f.field(
        1, f.number(1, 4096, whole=True), "parts that an update takes its images in, one after the other: less memory"
    )
    remat: bool = f.field(
        False, f.flag, "compute activations again on the way back instead of keeping them: less memory"
    )
    batch_size: int = f.field(128, f.number(1, 2**20, whole=True), "images an update, over all replicas")
    epochs: int | None = f.field(
        10,
        f.optional(f.number(1, 10**5, whole=True), (None, "none", "None")),
        "passes over the training images; none: by their number, 10 to 100",
    )

    epsilon: float = f.field(8 / 255, f.radius, "training attack: radius of the L-infinity ball")
    attack: str = f.field("pgd-1", f.attack, "training attack with its steps: pgd-1, fgsm, apgd-2")
    step_size: float | None = f.field(
        8 / 255,
        f.optional(f.radius),
        "training attack: step size; none: epsilon / steps, or 1/255 where that is larger",
    )
    attack_backward: str | None = f.field(
        None,
        f.optional(f.named("activation", ":")),
        "training attack: activation whose gradient is used; none: act's own",
    )
    update_backward: str | None = f.field(
        None, f.optional(f.named("activation", ":")), "updates: activation whose gradient is used; none: act's own"
    )
    attack_precision: str | None = f.field(
        None,
        f.optional(f.attack_precision),
        "training attack: what it computes in, float32, bfloat16, float16, or auto: the faster one; none: precision",
    )
    random_start: bool = f.field(True, f.flag, "training attack: start at a random point of the ball")
    clean_start: float = f.field(0.0, f.number(0, 1), "training attack: share of batches that start clean")

    beta: float | None = f.own(f.number(0, 1e4), "trades, mart: weight of the divergence of clean and attacked answers")
    lambda_schedule: str | None = f.own(f.one_of("linear", "steps"), "p-sat, h-sat: how the bound on difficulty rises")
    lambda_start: float | None = f.own(f.number(-1, 1), "p-sat, h-sat: bound at first")
    lambda_end: float | None = f.own(f.number(-1, 1), "p-sat, h-sat: bound at last; 1 is no bound")
    lambda_epochs: tuple[float, ...] | None = f.own(
        f.several(f.number(0, math.inf)), "p-sat, h-sat: linear: first and last epoch of the rise; steps: of each rise"
    )
    lambda_every: float | None = f.own(
        f.number(0, 1000, above=True), "p-sat, h-sat: epochs between two rises; none: 1, or a hundredth of the training"
    )
    lambda_partial: bool | None = f.own(f.flag, "p-sat, h-sat: let the bound end below 1")
    fosc_max: float | None = f.own(f.number(0, 1e6, above=True), "dynamic: convergence criterion at first")
    fosc_epochs: float | None = f.own(f.number(0, math.inf, above=True), "dynamic: epochs after which it is 0")
    radius_increment: float | None = f.own(f.radius, "cat: what an image's radius grows by")
    label_share: float | None = f.own(f.number(0, 1e3), "cat: smoothing of a label, in radii of its image")
    replays: int | None = f.own(f.number(1, 100, whole=True), "free: updates a batch")
    growth: str | None = f.own(f.one_of("linear", "cosine"), "epsilon-warmup: course of the radius")
    growth_epochs: float | None = f.own(
        f.number(0, math.inf, above=True), "epsilon-warmup: epochs until the radius is epsilon; none: half of them"
    )
    awp_gamma: float | None = f.own(f.number(0, 1), "...-awp: weight perturbation, relative to each layer")
    awp_begin: float | None = f.own(f.number(0, math.inf), "...-awp: epochs without it")

    optimizer: str = f.field("sgd", f.named("optimizer"), "optimizer")
    learning_rate: float = f.field(
        0.1, f.number(0, 1e3, above=True), "peak rate for a batch of 256; scales with batch_size"
    )
    head_rate: float | None = f.field(
        None, f.optional(f.number(0, 1e3, above=True)), "with init: the same for a new classifier; none: learning_rate"
    )
    schedule: str = f.field("cosine", f.named("schedule"), "course of the learning rate after warm-up")
    decay_epochs: tuple[float, ...] = f.field(
        (),
        f.several(f.number(0, math.inf, above=True)),
        "schedule steps: epochs at which the rate falls; exponential: between",
    )
    decay_rate: float = f.field(0.1, f.number(0, 1, above=True), "what the rate is multiplied with when it falls")
    warmup_epochs: float = f.field(0.0, f.number(0, 1000), "linear rise of the rate over the first epochs")
    momentum: float = f.field(0.9, f.number(0, 0.9999), "of the optimizer")
    nesterov: bool = f.field(False, f.flag, "look ahead along the momentum")
    weight_decay: float = f.field(1e-4, f.number(0, 1), "L2 on kernels only")
    label_smoothing: float = f.field(0.0, f.number(0, 0.99), "of the loss that updates minimise")
    dropout: float | None = f.field(
        0.0, f.optional(f.number(0, 0.99)), "EfficientNet: rate before the classifier; none: the model's own"
    )
    stochastic_depth: float = f.field(0.0, f.number(0, 0.99), "EfficientNet: rate at the last block, linear from 0")
    zero_gamma: bool = f.field(
        False, f.flag, "EfficientNet: residual branches start at zero, as those of the other families do"
    )
    average_decay: float = f.field(0.0, f.number(0, 0.999999), "moving average of weights and statistics; 0: none")
    norm_momentum: float = f.field(0.9, f.number(0, 0.99999), "batch normalisation: memory of the moving statistics")
    norm_epsilon: float = f.field(1e-5, f.number(0, 1, above=True), "batch normalisation: added to the variance")
    synchronized_norm: bool = f.field(False, f.flag, "normalise by the batch of all replicas, not of each")
    steps_per_call: int = f.field(10, f.number(1, 10**5, whole=True), "updates in one call of the compiled loop")

    validation_attack: str = f.field(
        "pgd-5", f.attack, "attack on the validation images that chooses the best checkpoint"
    )
    validation_every: float = f.field(
        1.0, f.number(0, 10**5, above=True), "epochs between two validations; 0.5: two an epoch"
    )
    validation_weights: str = f.field(
        "raw", f.one_of("raw", "averaged"), "weights that validations evaluate, and then the report"
    )
    patience: int | None = f.field(
        None, f.optional(f.number(1, 10**5, whole=True)), "stop after so many validations without a better; none: never"
    )
    stop_on_overfitting: bool = f.field(True, f.flag, "stop when only one-step attacks are still withstood")
    keep_checkpoints: int = f.field(3, f.number(1, 10**6, whole=True), "newest checkpoints that stay, beside the best")

    eval_attacks: tuple[str, ...] = f.field(
        ("clean", "pgd-1", "pgd-20"), f.several(f.evaluation_attack), "attacks on the test images", evaluation=True
    )
    eval_norm: str = f.field("linf", f.one_of("linf", "l2"), "evaluation: norm of the ball", evaluation=True)
    eval_epsilon: float | None = f.field(
        None, f.optional(f.length), "evaluation: radius; none: epsilon", evaluation=True
    )
    eval_step_size: float | None = f.field(
        None,
        f.optional(f.length),
        "evaluation: PGD's step size; none: 1/255, or epsilon / steps where that is larger; l2: 2.5 epsilon / steps",
        evaluation=True,
    )
    eval_restarts: int = f.field(1, f.number(1, 1000, whole=True), "evaluation: PGD's random starts", evaluation=True)
    eval_active_set: bool = f.field(
        False,
        f.flag,
        "evaluation: an image counts as fooled once any iterate of PGD fools the model, instead of only the final one; "
        "--mode=eval has it on, unless --no_active_set",
        evaluation=True,
    )
    eval_side_by_side: bool = f.field(
        True,
        f.flag,
        "evaluation: free places of a batch take further targets and restarts of its images; the result is the same",
        evaluation=True,
    )
    eval_radii: tuple[float, ...] = f.field(
        (),
        f.several(f.length),
        "evaluation: radii of a curve of accuracy, under the last of eval_attacks",
        evaluation=True,
    )
    eval_corruptions: bool = f.field(
        False, f.flag, "evaluation: also under the 15 corruptions of ImageNet-C", evaluation=True
    )
    eval_noise: tuple[float, ...] = f.field(
        (),
        f.several(f.number(0, 10, above=True)),
        "evaluation: also under Gaussian noise of these standard deviations",
        evaluation=True,
    )
    eval_backward: str | None = f.field(
        None,
        f.optional(f.named("activation", ":")),
        "evaluation attacks, export: activation whose gradient is used; none: act's own",
        evaluation=True,
    )
    eval_checks: int = f.field(
        100,
        f.number(0, 10**6, whole=True),
        "--mode=eval: images that the checks of the number look at; 0: no checks",
        evaluation=True,
    )
    eval_weights: str | None = f.field(
        None,
        f.optional(f.one_of("raw", "averaged")),
        "evaluation, export: raw or averaged; none: validation_weights",
        evaluation=True,
    )
    eval_preprocess: str | None = f.field(
        None,
        f.optional(f.named("evaluation preprocessing")),
        "evaluation: how images get their size; none: as the model's release",
        evaluation=True,
    )
    eval_images: int | None = f.field(
        None,
        f.optional(f.number(1, 10**8, whole=True)),
        "evaluation: at most so many test images, always the same; none: all",
        evaluation=True,
    )
    eval_precision: str = f.field(
        "float32", f.precision, "validation, evaluation: what accuracies are computed in", evaluation=True
    )
    eval_batch_size: int = f.field(200, f.number(1, 2**20, whole=True), "evaluation: images at a time", evaluation=True)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = field.metadata["read"](field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        consistency.check(self)

    @property
    def method_settings(self) -> dict[str, Any]:
        """The settings of its method that differ from the method's own: `{name: value}`."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if name in METHOD_FIELDS and value is not None}

    @property
    def evaluated_weights(self) -> str:
        """The weights that evaluation and export take: "raw" or "averaged"."""
        return self.eval_weights or self.validation_weights

    @property
    def evaluated_epsilon(self) -> float:
        """The radius that evaluations take: their own, or the training attack's."""
        return self.epsilon if self.eval_epsilon is None else self.eval_epsilon

    @property
    def tied_to_epochs(self) -> str | None:
        """What depends on how many epochs there are, so that more of them are another training; None: they go on."""
        if self.schedule not in OPEN_ENDED:
            return f"the schedule {self.schedule}"
        return f"the method {self.method}" if self.method in names("method", having="length") else None

    def sized(self, images: int = SEEN) -> "Recipe":
        """Return the recipe with its number of epochs: for so many training images, where it does not say one."""
        few, most = EPOCHS
        return self if self.epochs else self.replace(epochs=min(most, max(few, round(SEEN / max(images, 1)))))

    def replace(self, /, **changes: Any) -> "Recipe":
        """Return a copy with other values; an unknown field is an error that names the nearest one."""
        return dataclasses.replace(self, **read(changes))

    def to_dict(self) -> dict[str, Any]:
        """Return `{field: value}` as JSON holds it: tuples become lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """Return the recipe of `to_dict`, as a file holds it."""
        return cls(name=values.get("name", "")).replace(**{k: v for k, v in values.items() if k != "name"})

    def differences(self, other: "Recipe", *, fields: Iterable[str] | None = None) -> list[str]:
        """Return "field: mine, theirs" for each of `fields` (default: those of training) where two recipes differ."""
        fields = fields or [
            field.name
            for field in dataclasses.fields(self)
            if not field.metadata["evaluation"] and field.name not in OF_NO_EFFECT
        ]
        mine, theirs = self.to_dict(), other.to_dict()
        unequal = [name for name in fields if name != "name" and mine[name] != theirs[name]]
        return [
            f"{name}: {show(name, mine[name], self.eval_norm)} there, {show(name, theirs[name], other.eval_norm)} here"
            for name in unequal
        ]


OF_NO_EFFECT = ("keep_checkpoints", "strategy", "jit_compile", "remat")  # on training: a run may go on with others
RENAMED = {  # fields that files and commands of before version 0.2 name otherwise
    "eval_pictures": "eval_images",
    "held_out": "validation",
    "probe_attack": "validation_attack",
    "probe_every": "validation_every",
    "probe_weights": "validation_weights",
    "broken_limit": "unreadable_limit",
}


def read(changes: dict[str, Any]) -> dict[str, Any]:
    """Return `{field: value}` with each value read; an unknown field or a bad value is an error."""
    changes = {RENAMED.get(name, name): value for name, value in changes.items()}
    if "attack_steps" in changes:  # as before version 0.2: the steps of PGD
        steps = f.number(1, 100_000, whole=True)("attack_steps", changes.pop("attack_steps"))
        if changes.setdefault("attack", f"pgd-{steps}") != f"pgd-{steps}":
            raise f.expected("the steps of the attack in its name", "attack_steps", steps, f"Such as apgd-{steps}.")
    known = {field.name: field for field in dataclasses.fields(Recipe) if field.name != "name"}
    for name, value in changes.items():
        if name not in known:
            raise unknown("a field of the recipe", name, value, known, key=name)
    return {name: known[name].metadata["read"](name, value) for name, value in changes.items()}


EVALUATION_FIELDS = tuple(field.name for field in dataclasses.fields(Recipe) if field.metadata["evaluation"])
METHOD_FIELDS = tuple(field.name for field in dataclasses.fields(Recipe) if field.metadata["method"])
RADII = tuple(  # fields that hold a radius or a step size, or several
    field.name
    for field in dataclasses.fields(Recipe)
    if any(word in field.name for word in ("epsilon", "step_size", "radii", "radius")) and field.name != "norm_epsilon"
)


def show(name: str, value: Any, norm: str = "linf") -> str:
    """Return a field's value as a user would write it: 8/255, 30,60,90; `norm`: that of evaluations."""
    if isinstance(value, (list, tuple)):
        return ",".join(show(name, one, norm) for one in value)
    if isinstance(value, float) and name == "value_range":
        return f"{value:g}"
    if name in RADII and value is not None:
        return format_radius(value, norm if name in EVALUATION_FIELDS else "linf")
    return str(value)


def fields_help() -> dict[str, str]:
    """Return `{field: meaning}` of every field that `--set` takes."""
    return {field.name: field.metadata["help"] for field in dataclasses.fields(Recipe) if field.name != "name"}
