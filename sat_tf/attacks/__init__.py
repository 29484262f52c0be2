"""Attacks: they climb a per-image loss inside a ball around the image, and know neither model nor label.

`ATTACKS` is the one table of their names. `PGD` is a function of a whole batch, `(loss_fn, images, seed) -> images`;
the others are states, see `states`.
"""

from sat_tf.attacks.apgd import APGD
from sat_tf.attacks.balls import BALLS, L2, Linf
from sat_tf.attacks.draws import hashed
from sat_tf.attacks.fab import FAB
from sat_tf.attacks.pgd import PGD, input_gradient, linf_ball, marks, rounded_down, uniform_noise
from sat_tf.attacks.square import Square, SquareL2
from sat_tf.attacks.states import Ascent, Noise, Objective, Once, State, Whole, pick, whole
from sat_tf.attacks.table import (
    ATTACKS,
    Attack,
    Stage,
    Terms,
    default_step_size,
    for_training,
    forward_equivalents,
    once,
    plan_of,
    row_of,
    untargeted,
)

__all__ = [
    "APGD", "ATTACKS", "Ascent", "Attack", "BALLS", "FAB", "L2", "Linf", "Noise", "Objective", "Once", "PGD",
    "Square", "SquareL2", "Stage", "State", "Terms", "Whole", "default_step_size", "for_training",
    "forward_equivalents", "hashed", "input_gradient", "linf_ball", "marks", "once", "pick", "plan_of",
    "rounded_down", "row_of", "uniform_noise", "untargeted", "whole",
]  # fmt: skip
