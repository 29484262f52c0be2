"""A recipe's training: method with its attack, optimizer, what a method keeps."""

import keras
import tensorflow as tf

from sat_tf import activations, attacks, data, heads, hparams, losses, methods, optim, passes, schedules, train
from sat_tf.assembly.models import OWN
from sat_tf.distribute import precision


def check_names(recipe: hparams.Recipe) -> None:
    """Refuse an activation or a method that can't be made, before anything is read or written."""
    for act in (recipe.act, recipe.attack_backward, recipe.update_backward, recipe.eval_backward):
        if act not in (None, OWN):
            activations.factory(act)
    make_method(recipe)


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
    backward = passes.Backward(
        attack=recipe.attack_backward, update=recipe.update_backward, attack_precision=_policy(recipe.attack_precision)
    )
    given = hparams.settings("method")[recipe.method]
    timed = {"length": methods.Length(epochs=recipe.epochs, epoch_steps=epoch_steps)} if "length" in given else {}
    loss_fn = losses.smoothed_cross_entropy(recipe.label_smoothing)
    method = methods.METHODS[recipe.method](attack, loss_fn, backward, **timed, **recipe.method_settings)
    if method.attack not in (None, attack):
        raise ValueError(
            f"Expected the attack that the method {recipe.method} itself has, {_in_words(method.attack)}. "
            f"Received: attack={recipe.attack}, {_in_words(attack)}. Leave these out."
        )
    if method.one_step and attack.steps != 1:
        raise ValueError(
            f"Expected an attack of one step with the method {recipe.method}, which makes one step an update. "
            f"Received: attack={recipe.attack}. Leave the attack out."
        )
    if method.wants_ids and recipe.extra_share:
        raise ValueError(
            f"Expected extra_share=0 with the method {recipe.method}, which has to know which images it sees. "
            f"Received: extra_share={recipe.extra_share:g}."
        )
    if recipe.accumulate_steps > 1 and method.updates > 1:
        raise ValueError(
            f"Expected accumulate_steps=1 with the method {recipe.method}, which makes {method.updates} updates of a "
            f"batch. Received: accumulate_steps={recipe.accumulate_steps}."
        )
    if (recipe.mixup or recipe.cutmix) and not method.takes_mixed:
        mixing = f"mixup={recipe.mixup:g}, cutmix={recipe.cutmix:g}"
        raise ValueError(
            f"Expected mixup=0 and cutmix=0 with the method {recipe.method}, which needs one class an image. "
            f"Received: {mixing}."
        )
    return method


def _policy(name):
    """Return the layers' policy for a precision of an attack; `auto` is not known before a run begins."""
    if name in (None, "auto"):
        return None
    return name if name == "float32" else f"mixed_{name}"


def _in_words(attack):
    """Return steps and radii of an attack for an error."""
    size = getattr(attack, "step_size", None)
    step = f", step_size={hparams.format_radius(size)}" if size is not None else ""
    names = [name for name in ("random_start", "clean_start") if hasattr(attack, name)]
    start = "".join(f", {name}={getattr(attack, name)!s}".lower() for name in names)
    return f"steps={attack.steps}{step}, epsilon={hparams.format_radius(attack.epsilon)}{start}"


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
