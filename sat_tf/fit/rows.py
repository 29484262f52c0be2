"""Methods and attacks of their tables, by the words of somebody who calls `fit`."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from sat_tf import losses, methods, passes, train
from sat_tf.attacks import for_training
from sat_tf.names import unknown

REMEMBERED = 2**20  # places for images of which a method keeps something


def attack_of(
    attack: Any, *, epsilon: float, step_size: float | None = None, random_start: bool = True, clean_start: float = 0.0
) -> Callable:
    """Return the attack that a name means; another is what it is."""
    if callable(attack):
        return attack
    return for_training(
        attack, epsilon=epsilon, step_size=step_size, random_start=random_start, clean_start=clean_start
    )


def maker(method: Any, attack: Callable, backward: passes.Backward, settings: dict[str, Any]) -> Callable:
    """Return `(loss_fn, **length) -> method`."""
    if not isinstance(method, str):
        if settings:
            raise ValueError(f"Expected no settings beside a method that is made. Received: {', '.join(settings)}.")
        inner = getattr(method, "method", None)  # of one that wraps another
        if inner is not None:
            return lambda loss_fn: dataclasses.replace(method, method=dataclasses.replace(inner, loss_fn=loss_fn))
        return lambda loss_fn: dataclasses.replace(method, loss_fn=loss_fn)
    row, known = _row_of(method), settings_of(method)
    for name in settings:
        if name not in known:
            raise ValueError(
                f"Expected settings of the method {method}: {', '.join(known) or 'it has none'}. "
                f"Received: {name}={settings[name]!r}."
            )
    row(attack, losses.cross_entropy, backward, **settings)  # a bad setting fails here
    return lambda loss_fn, **length: row(attack, loss_fn, backward, **settings, **length)


def _row_of(method):
    """Return the row of a name, None for a method that is made; an unknown name is an error that offers the nearest."""
    if not isinstance(method, str):
        return None
    if method not in methods.METHODS:
        raise unknown("a known method", "method", method, methods.METHODS)
    return methods.METHODS[method]


def settings_of(method: Any) -> list[str]:
    """Return the names of a row's settings; of a method that is made there are none."""
    row = _row_of(method)
    if row is None:
        return []
    parameters = inspect.signature(getattr(row, "make", row)).parameters
    return [name for name in parameters if name not in ("attack", "loss_fn", "backward")]


def own_attack(method: Any, attack: Any, epsilon: float, step_size: float | None) -> tuple[Any, float | None]:
    """Return the attack and step size that a row trains with where none is named."""
    row = _row_of(method)
    wanted = getattr(row, "attack", None) or "pgd-1"
    if attack not in (None, wanted):
        return attack, step_size
    step = getattr(row, "step", None)
    return wanted, min(step * epsilon, 1.0) if step_size is None and step else step_size


def memory(method: methods.Standard) -> dict[str, tf.Variable]:
    """Return the variables that a method keeps from step to step; of those that go with one batch size there are none.

    Images are not numbered here: a method that keeps something of each knows it by its pixels.
    """
    made = train.make_memory(method, batch_size=0, image_shape=(1, 1, 1), images=REMEMBERED)
    return {name: variable for name, variable in made.items() if variable.shape.num_elements()}
