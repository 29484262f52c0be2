"""What a recipe's words mean: its model, optimizer, attack, method, strategy."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable

import keras
import tensorflow as tf

from sat_tf import (
    activations,
    attacks,
    autoaugment,
    cost,
    data,
    heads,
    hparams,
    losses,
    methods,
    mixing,
    models,
    networks,
    optim,
    passes,
    replicas,
    saving,
    schedules,
    train,
)
from sat_tf import machine as machine_of
from sat_tf.distribute import precision
from sat_tf.experiment import extra

PREPROCESS = "resize_crop"  # of networks that are none of the table's
OWN = "own"  # the activation of a network that brings its own


def check_names(recipe: hparams.Recipe) -> None:
    """Refuse an activation or a method that can't be made, before anything is read or written."""
    for act in (recipe.act, recipe.attack_backward, recipe.update_backward, recipe.eval_backward):
        if act not in (None, OWN):
            activations.factory(act)
    make_method(recipe)


def build_model(
    recipe: hparams.Recipe, classes: int, size: int | None = None, architecture: str | None = None
) -> keras.Model:
    """Return the recipe's model: of the table with fresh weights, a user's own as it comes.

    Args:
      recipe: which model.
      classes: number of logits; a user's own model with others is an error.
      size: pixels a side, where a user's own model takes any.
      architecture: of a user's own model as a checkpoint has it, in place of its file.
    """
    if hparams.kind(recipe.model):
        return networks.rebuilt(architecture) if architecture else own_network(recipe, classes, size).model
    return models.build(
        recipe.model,
        recipe.act,
        classes,
        momentum=recipe.norm_momentum,
        epsilon=recipe.norm_epsilon,
        dropout=recipe.dropout,
        stochastic_depth=recipe.stochastic_depth,
        zero_gamma=recipe.zero_gamma,
    )


def own_network(recipe: hparams.Recipe, classes: int, size: int | None, *, renew: bool = False) -> networks.Classifier:
    """Return a user's own network as a classifier of images in [0, 1].

    Args:
      recipe: `model` names it.
      classes: number of logits.
      size: pixels a side, where it takes any.
      renew: put a new head on it where it has another number of logits; else that is an error.
    """
    kind, name = hparams.kind(recipe.model), recipe.model
    if kind == "application":
        name = name.partition(":")[2]
        return networks.Classifier(networks.application(name, classes=classes, image_size=size), [], False)
    if kind == "file":
        model = networks.read(name)
    else:
        if recipe.act != OWN and not networks.takes(name, "act"):
            raise ValueError(
                f"Expected a function with a parameter act. Received: act={recipe.act} with model={name}, which has "
                "none. Leave --act out."
            )
        act = (lambda layer_name=None: None) if recipe.act == OWN else activations.factory(recipe.act)
        model = networks.call(name, act=act, classes=classes, image_size=size or networks.SIDE)
    made = networks.classifier(
        model, value_range=recipe.value_range, image_size=size, classes=classes if renew else None
    )
    side = made.model.input_shape[1]
    if size is not None and side != size:
        remedy = f"--set image_size={side} brings the images to it."
        raise ValueError(f"Expected image_size={side}, which {name} takes. Received: image_size={size}. {remedy}")
    if made.model.output_shape[-1] != classes:
        remedy = f" --init={name} puts a new head on it." if kind == "file" else ""
        raise ValueError(
            f"Expected a model with the {classes} classes of the data. Received: {name} with "
            f"{made.model.output_shape[-1]}.{remedy}"
        )
    return made


def sketch(recipe: hparams.Recipe, classes: int, size: int, *, weights: bool = False) -> keras.Model:
    """Return a network of the recipe's shape, to be counted and timed; weights that it would start from are not read.

    Args:
      recipe: which model, what of it is trained.
      classes, size: as `build_model` takes them.
      weights: give it some, so that it can be called.
    """
    if not hparams.kind(recipe.model):
        with contextlib.nullcontext() if weights else cost.weightless():
            model = build_model(recipe, classes)
    else:
        made = own_network(recipe, classes, size, renew=recipe.init is not None)
        model, text = networks.settled(made.model)
        if text is None:
            raise ValueError(
                f"Expected a network whose layers are Keras' own or this project's, to count its cost. Received: "
                f"model={recipe.model}. Train a few steps instead."
            )
    if recipe.freeze == "backbone":
        heads.freeze(model)
    return model


def variables(recipe: hparams.Recipe, owner: keras.Model | keras.optimizers.Optimizer) -> dict[str, tf.Variable]:
    """Return `{name: tf.Variable}` of a model or its optimizer, as a checkpoint of the recipe names them."""
    return (saving.by_place if hparams.kind(recipe.model) else saving.by_path)(owner)


def load_data(
    recipe: hparams.Recipe, data_dir: str | pathlib.Path | None, extra_data: str | pathlib.Path | None = None
) -> data.Data:
    """Return the recipe's data set, its test part cut to what the recipe evaluates by.

    Args:
      recipe: says which.
      data_dir: where it lies.
      extra_data: an .npz of images to train on besides; None for none.
    """
    dataset = data.load(recipe.dataset, data_dir=data_dir, validation=recipe.validation, cache=recipe.cache)
    if extra_data is not None:
        dataset = extra.added(recipe, dataset, extra_data, dataset.image_size or image_size(recipe, dataset))
    if recipe.eval_images is None or recipe.eval_images >= dataset.test.size:
        return dataset
    note = f"evaluated on {recipe.eval_images} of the {dataset.test.size} test images, the same ones every time"
    return dataclasses.replace(
        dataset, test=data.sampled(dataset.test, recipe.eval_images), notes=(*dataset.notes, note)
    )


def train_batches(recipe: hparams.Recipe, dataset: data.Data, size: int, **places: int) -> tf.data.Dataset:
    """Return the batches that a recipe trains on.

    Args:
      recipe: says how images are drawn, changed and mixed.
      dataset: where they come from.
      size: their side in pixels.
      **places: batch_size, start_step, host, hosts as `data.train_batches` takes them.
    """
    return data.composed_batches(
        dataset.train,
        image_size=size,
        augment=recipe.augment,
        policy=make_policy(recipe),
        seed=recipe.seed,
        extra=dataset.extra,
        extra_share=recipe.extra_share,
        classes=len(dataset.classes),
        alphas=mixed(recipe),
        **places,
    )


def mixed(recipe: hparams.Recipe) -> dict[str, float]:
    """Return `{key of mixing.MIXTURES: number}` of what a recipe mixes."""
    return {name: getattr(recipe, name) for name in mixing.MIXTURES if getattr(recipe, name)}


def image_size(recipe: hparams.Recipe, dataset: data.Data) -> int:
    """Return the side of the images: the recipe's, the data's own, or for photographs the model's.

    A .keras file that takes one size alone gets it, whatever the data's is.
    """
    fixed = fixed_side(recipe)
    if fixed and recipe.image_size not in (None, fixed):
        raise ValueError(
            f"Expected image_size={fixed}, which {recipe.model} takes. Received: image_size={recipe.image_size}."
        )
    return fixed or recipe.image_size or dataset.image_size or model_side(recipe)


def fixed_side(recipe: hparams.Recipe) -> int | None:
    """Return the one side of images that a .keras file takes; None where any will do, or nothing says."""
    return networks.side_of(networks.read(recipe.model)) if hparams.kind(recipe.model) == "file" else None


def model_side(recipe: hparams.Recipe) -> int:
    """Return the side in pixels that the recipe's architecture was made for."""
    return networks.SIDE if hparams.kind(recipe.model) else models.image_size(recipe.model)


def make_deterministic(seed: int) -> None:
    """Fix every source of randomness: the same seed on the same machine gives the same bits."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def evaluation_batches(
    recipe: hparams.Recipe, split: data.Split, image_size: int, strategy: tf.distribute.Strategy
) -> tf.data.Dataset:
    """Return the batches of a split; a batch larger than the split would be padding only, so it is cut to that.

    Of several processes each has a part of the images, or attacks a part: a batch is that of one process.
    """
    here = replicas.here(strategy)
    share = max(recipe.eval_batch_size * here // strategy.num_replicas_in_sync // here, 1) * here
    most = -(-split.size // here) * here
    return data.evaluation_batches(
        split, batch_size=min(share, most), image_size=image_size, preprocess=preprocess(recipe)
    )


def preprocess(recipe: hparams.Recipe) -> str:
    """Return how evaluation brings images to their size, a key of `preprocess.EVALUATIONS`."""
    if recipe.eval_preprocess:
        return recipe.eval_preprocess
    return PREPROCESS if hparams.kind(recipe.model) else models.evaluation_preprocess(recipe.model)


def published_facts(name: str, accuracies: dict[str, float], image_size: int) -> dict | None:
    """Return what the release publishes of a checkpoint, for the report; None where it publishes nothing."""
    return (
        {
            "name": name,
            "dataset": "ImageNet validation set",
            "image_size": image_size,
            "epsilon": 4 / 255,
            "step_size": 1 / 255,
            "accuracies": accuracies,
        }
        if accuracies
        else None
    )


def make_method(recipe: hparams.Recipe, epoch_steps: int = 1000) -> methods.Standard:
    """Return the recipe's training method with its attack.

    Args:
      recipe: says which, and its settings.
      epoch_steps: steps of an epoch, for methods with a schedule.

    Raises:
      ValueError: the method can't be made of this attack, these settings, or so few epochs.
    """
    attack = attacks.for_training(
        recipe.attack,
        epsilon=recipe.epsilon,
        step_size=recipe.step_size,
        random_start=recipe.random_start,
        clean_start=recipe.clean_start,
    )
    backward = passes.Backward(attack=recipe.attack_backward, update=recipe.update_backward)
    given = hparams.settings("method")[recipe.method]
    timed = {"length": methods.Length(epochs=recipe.epochs, epoch_steps=epoch_steps)} if "length" in given else {}
    loss_fn = losses.smoothed_cross_entropy(recipe.label_smoothing)
    method = methods.METHODS[recipe.method](attack, loss_fn, backward, **timed, **recipe.method_settings)
    if method.attack not in (None, attack):
        raise ValueError(
            f"Expected the attack that the method {recipe.method} itself has, {_in_words(method.attack)}. "
            f"Received: attack={recipe.attack}, {_in_words(attack)}. Leave attack and step size out."
        )
    if (recipe.mixup or recipe.cutmix) and not method.takes_mixed:
        mixing = f"mixup={recipe.mixup:g}, cutmix={recipe.cutmix:g}"
        raise ValueError(
            f"Expected mixup=0 and cutmix=0 with the method {recipe.method}, which needs one class an image. "
            f"Received: {mixing}."
        )
    return method


def _in_words(attack):
    """Return steps and radii of an attack for an error."""
    size = getattr(attack, "step_size", None)
    step = f", step_size={hparams.format_radius(size)}" if size is not None else ""
    return f"steps={attack.steps}{step}, epsilon={hparams.format_radius(attack.epsilon)}"


def make_memory(
    recipe: hparams.Recipe, method: methods.Standard, dataset: data.Data, size: int
) -> dict[str, tf.Variable]:
    """Return what a method keeps from step to step; images are numbered over training and validation together."""
    images = dataset.train.size + dataset.validation.size
    return train.make_memory(method, batch_size=recipe.batch_size, image_shape=(size, size, 3), images=images)


def make_optimizer(recipe: hparams.Recipe, epoch_steps: int, total_steps: int) -> keras.optimizers.Optimizer:
    """Return the recipe's optimizer; its rate is quoted for 256 images and scales with the batch."""
    schedule = schedules.SCHEDULES[recipe.schedule](
        peak=recipe.learning_rate * recipe.batch_size / 256,
        total_steps=total_steps,
        decay_steps=[max(1, round(epoch * epoch_steps)) for epoch in recipe.decay_epochs],
        decay_rate=recipe.decay_rate,
    )
    schedule = schedules.warm_up(schedule, round(recipe.warmup_epochs * epoch_steps))
    own = {"weight_decay": recipe.weight_decay} if recipe.optimizer in optim.DECOUPLED else {}
    optimizer = optim.OPTIMIZERS[recipe.optimizer](schedule, momentum=recipe.momentum, nesterov=recipe.nesterov, **own)
    return precision.scaled(optimizer, recipe.precision)


def added_weight_decay(recipe: hparams.Recipe) -> float:
    """Return the weight decay that the training loop adds to gradients: none where the optimizer decays weights."""
    return 0.0 if recipe.optimizer in optim.DECOUPLED else recipe.weight_decay


def rate_of_head(recipe: hparams.Recipe, optimizer: keras.optimizers.Optimizer, model: keras.Model) -> None:
    """Let a built optimizer train the head of a model at the recipe's `head_rate`."""
    if recipe.head_rate is None:
        return
    factor = recipe.head_rate / recipe.learning_rate
    new = {id(variable) for variable in heads.of(model).variables}
    optim.scale_rates(precision.own(optimizer), [factor if id(v) in new else 1.0 for v in model.trainable_variables])


def attacked_view(recipe: hparams.Recipe, model: keras.Model) -> Callable:
    """Return the model as the recipe's evaluation attacks see it."""
    return passes.Backward(attack=recipe.eval_backward).view(model, "attack")


def make_policy(recipe: hparams.Recipe) -> Callable | None:
    """Return the recipe's policy, `(image uint8, seed) -> image uint8`; None where it has none."""
    key, _, magnitude = recipe.policy.partition(":")
    if key == "none":
        return None
    policy = autoaugment.POLICIES[key]
    return functools.partial(policy, magnitude=float(magnitude)) if magnitude else policy


def make_average(recipe: hparams.Recipe, model: keras.Model) -> optim.MovingAverage | None:
    """Return the recipe's moving average of a model, None where it has none."""
    names = list(variables(recipe, model))
    return optim.MovingAverage(model, recipe.average_decay, names) if recipe.average_decay else None


versions = machine_of.versions
machine = machine_of.devices
