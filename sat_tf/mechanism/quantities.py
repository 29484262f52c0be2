"""What gradients are worth: how far one step gets, how much they turn on its way, how noisy those of updates are.

Steps begin at the images themselves: a random start would be noise that has nothing to do with gradients.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from sat_tf import attacks, losses

Attacked = Callable[..., tf.Tensor]  # (images, training) -> logits, as an attack sees a network


def one_step(attacked: Attacked, images: tf.Tensor, labels: tf.Tensor, epsilon: float) -> dict[str, tf.Tensor]:
    """Return of each image what one step of epsilon along the sign of its gradient does, `{quantity: [batch]}`.

    Args:
      attacked: `(images, training) -> logits [batch, classes]`.
      images: `[batch, h, w, 3]` in [0, 1].
      labels: int `[batch]`.
      epsilon: radius of the ball, and length of the step in each value.

    Returns:
      `before` and `after`, the losses at the image and at the end of the step; `promised`, the rise of the loss if it
      were a plane, <step, gradient>; `cosine` between the gradients at both places, 0 where one of them is 0.
    """
    loss_fn = _loss_fn(attacked, labels)
    attack = attacks.PGD(epsilon=epsilon, step_size=epsilon, steps=1, random_start=False)
    before, gradient = _value_and_gradient(loss_fn, images)
    end = attack.moved(images, gradient, attacks.linf_ball(images, epsilon))
    after, turned = _value_and_gradient(loss_fn, end)
    return {
        "before": before,
        "after": after,
        "promised": _dot(end - images, gradient),
        "cosine": _dot(_unit(gradient), _unit(turned)),
    }


def many_steps(attacked: Attacked, images: tf.Tensor, labels: tf.Tensor, epsilon: float, steps: int) -> tf.Tensor:
    """Return the losses `[batch]` where so many steps of PGD from the images end; arguments as of `one_step`."""
    loss_fn = _loss_fn(attacked, labels)
    size = attacks.default_step_size(epsilon, steps, "linf")
    attack = attacks.PGD(epsilon=epsilon, step_size=size, steps=steps, random_start=False)
    return loss_fn(attack(loss_fn, images, 0))


def along(
    attacked: Attacked, images: tf.Tensor, labels: tf.Tensor, lengths: Sequence[float]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the losses of images moved along the signs of their gradients, and what planes would have.

    Args:
      attacked, images, labels: as `one_step` takes them.
      lengths: how far, in each value; values stay in [0, 1].

    Returns:
      Losses, and losses at the image + <way, gradient>, both `[len(lengths), batch]`.
    """
    loss_fn = _loss_fn(attacked, labels)
    before, gradient = _value_and_gradient(loss_fn, images)

    def at(length):
        end = tf.clip_by_value(images + length * tf.sign(gradient), 0.0, 1.0)
        return loss_fn(end), before + _dot(end - images, gradient)

    return tf.map_fn(at, tf.constant(lengths, tf.float32), fn_output_signature=(tf.float32, tf.float32))


def share(before: np.ndarray, one: np.ndarray, many: np.ndarray) -> float:
    """Return which share of the rise of the loss by many steps one step reaches, over all images `[n]`; NaN of none."""
    rise = float(np.mean(many, dtype=np.float64) - np.mean(before, dtype=np.float64))
    return float(np.mean(one, dtype=np.float64) - np.mean(before, dtype=np.float64)) / rise if rise > 0 else math.nan


def noise(gradients: Iterable[Sequence[np.ndarray]]) -> dict[str, float]:
    """Return how much the gradients of batches differ: their variance over the square of their mean's length.

    With g_1 ... g_B the gradients to all weights and m their mean

        noise = sum_b |g_b - m|^2 / (B - 1) / |m|^2

    which is 0 where all batches agree and about B where nothing but chance is in the mean.

    Args:
      gradients: of two batches or more, each a list of arrays, one a variable.

    Returns:
      `noise`, and `length`, |m|.

    Raises:
      ValueError: there are fewer than two.
    """
    total, squares, count = None, 0.0, 0
    for gradient in gradients:
        flat = np.concatenate([np.asarray(each, np.float64).ravel() for each in gradient])
        total = flat if total is None else total + flat
        squares, count = squares + float(flat @ flat), count + 1
    if count < 2:
        raise ValueError(f"Expected the gradients of two batches or more. Received: {count}.")
    mean = total / count
    length = float(mean @ mean)
    variance = max(squares - count * length, 0.0) / (count - 1)
    return {"noise": variance / length if length else math.nan, "length": math.sqrt(length)}


def _loss_fn(attacked, labels):
    return lambda images: losses.cross_entropy(attacked(images, training=False), labels)


def _value_and_gradient(loss_fn, images):
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        values = loss_fn(images)
    return values, tape.gradient(values, images, unconnected_gradients="zero")


def _dot(one, other):
    return tf.reduce_sum(one * other, [1, 2, 3])


def _unit(gradient):
    """Return gradients of length 1, or 0; their squares alone could be too small for float32."""
    scaled = tf.math.divide_no_nan(gradient, tf.reduce_max(tf.abs(gradient), [1, 2, 3], keepdims=True))
    return tf.math.divide_no_nan(scaled, tf.sqrt(tf.reduce_sum(scaled * scaled, [1, 2, 3], keepdims=True)))
