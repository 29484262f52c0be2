"""Attacks: they climb a per-image loss inside a ball around the image, and know neither model nor label.

`pgd` has those that training uses, `(loss_fn, images, seed) -> images`; the others are states, see `states`.
"""

from sat_tf.attacks.apgd import APGD
from sat_tf.attacks.balls import BALLS, L2, Linf
from sat_tf.attacks.draws import hashed
from sat_tf.attacks.fab import FAB
from sat_tf.attacks.pgd import (
    ATTACKS,
    PGD,
    clean,
    fgsm,
    input_gradient,
    linf_ball,
    marks,
    pgd,
    rounded_down,
    uniform_noise,
)
from sat_tf.attacks.square import Square, SquareL2
from sat_tf.attacks.states import Ascent, Noise, pick, whole

__all__ = [
    "APGD",
    "ATTACKS",
    "BALLS",
    "FAB",
    "L2",
    "PGD",
    "Ascent",
    "Linf",
    "Noise",
    "Square",
    "SquareL2",
    "clean",
    "fgsm",
    "hashed",
    "input_gradient",
    "linf_ball",
    "marks",
    "pgd",
    "pick",
    "rounded_down",
    "uniform_noise",
    "whole",
]
