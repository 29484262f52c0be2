"""What a radius is called, and what a misspelt name most likely means. Standard library only."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

CUTOFF = 0.55  # likeness from which a name is worth offering

ALIASES = {  # letters and digits of what people write elsewhere: names of ours for it, the first that is known counts
    "lr": ("learning_rate",),
    "wd": ("weight_decay",),
    "bs": ("batch_size",),
    "eps": ("epsilon",),
    "alpha": ("step_size",),
    "steps": ("attack",),
    "warmup": ("warmup_epochs",),
    "ema": ("average_decay", "averaged"),
    "arch": ("model",),
    "architecture": ("model",),
    "network": ("model",),
    "data": ("dataset",),
    "norm": ("eval_norm",),
    "adversarial": ("sat",),
    "adversarialtraining": ("sat",),
    "pgdat": ("sat",),
    "clean": ("standard",),
    "natural": ("standard", "clean"),
    "pgd": ("pgd-k",),
    "bim": ("pgd-k",),
    "cw": ("cw-k",),
    "apgd": ("apgd-ce", "apgd-k"),
    "aa": ("autoattack",),
    "multistep": ("steps",),
    "imagenet": ("imagenet2012",),
    "mnist": ("fashion_mnist",),
    "fmnist": ("fashion_mnist",),
    "tflite": ("litert",),
}


TITLES = {"autoattack": "AutoAttack", "square": "Square", "noise": "random noise"}  # of attacks, others in capitals


def attack_title(name: str) -> str:
    """Return what people call an attack: PGD-20, APGD-CE, AutoAttack."""
    return TITLES.get(name, name.upper())


def format_radius(radius: float, norm: str | None = "linf") -> str:
    """Write a radius or step size: `k/255` for k grey levels, tenths of one where that is shorter, else six digits.

    Args:
      radius: a fraction of the pixel range, in the norm "l2" a length.
      norm: "l2" has no grey levels.
    """
    tenths = round(2550 * float(radius))
    exact = 0 <= tenths <= 2550 and abs(2550 * float(radius) - tenths) <= 1e-7 * tenths  # float32 rounds by 6e-8 of it
    levels, decimal = f"{tenths / 10:g}/255", f"{radius:.6g}"
    return levels if exact and norm != "l2" and (tenths % 10 == 0 or len(levels) < len(decimal)) else decimal


def expected(what: str, name: str, value: Any, remedy: str = "") -> ValueError:
    """Return the error of a value that is not what was expected."""
    return ValueError(f"Expected {what}. Received: {name}={value}.{' ' + remedy if remedy else ''}")


def no_folder(name: str) -> str:
    """Return what to say where there is no folder of a user's images."""
    return f"There is no folder {name}: data_dir must be one that holds a sub-folder for each class."


def unknown(what: str, name: str, value: Any, known: Iterable[str], key: str | None = None) -> ValueError:
    """Return the error of a name that is none of the known ones; it offers the nearest.

    Args:
      what: what was expected, "a known model".
      name, value: what was received.
      known: the names of a table.
      key: the part of `value` that should have been one of them; None for all of it.
    """
    near = nearest(str(value if key is None else key), known)
    return expected(what, name, value, f"{f'Did you mean {near}? ' if near else ''}--list shows all.")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a misspelt or foreign one most likely means; None where none is near.

    In this order: what `ALIASES` says; the same letters and digits; the shortest name that begins with or contains
    it; the most similar.
    """
    known = list(known)
    wanted, letters = _letters(name), {each: _letters(each) for each in known}
    for meant in ALIASES.get(wanted, ()):
        if meant in known:
            return meant
    rules = (
        lambda each: letters[each] == wanted,
        lambda each: letters[each].startswith(wanted),
        lambda each: wanted in letters[each],
    )
    for rule in rules if len(wanted) > 1 else ():
        if found := [each for each in known if rule(each)]:
            return min(found, key=len)
    return next(iter(difflib.get_close_matches(name.lower(), known, 1, CUTOFF)), None)


def _letters(name):
    return re.sub(r"[^a-z0-9]", "", name.lower())
