"""The kinds of value that a recipe's fields take: each reads what a user typed and says what it expected."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from sat_tf.hparams import networks
from sat_tf.hparams.catalogue import names
from sat_tf.names import expected, nearest, unknown

Reader = Callable[[str, Any], Any]  # (name, value that a user typed) -> value of the field


def field(default: Any, read: Reader, text: str, *, evaluation: bool = False, method: bool = False) -> Any:
    """Declare a field of a recipe: its default, its reader `(name, value) -> value`, and what it means.

    evaluation: it says how a run is evaluated, not what it trains. method: it is a setting of some methods alone.
    """
    metadata = {"read": read, "help": text, "evaluation": evaluation, "method": method}
    return dataclasses.field(default=default, metadata=metadata)


def number(low: float, high: float, *, whole: bool = False, above: bool = False) -> Reader:
    """Return a reader of numbers from `low` to `high`; `above`: `low` itself is too low; `whole`: integers only."""
    what = f"{'a whole number' if whole else 'a number'} {'above' if above else 'of at least'} {low:g}"
    what += f" and at most {high:g}" if math.isfinite(high) else ""

    def read(name, value):
        try:
            result = int(str(value)) if whole else float(value)
        except (TypeError, ValueError):
            raise expected(what, name, value) from None
        if not (low <= result <= high) or (above and result == low) or not math.isfinite(result):
            raise expected(what, name, value)
        return result

    return read


def radius(name: str, value: Any) -> float:
    """Read a radius or step size as a fraction of the pixel range: 8/255, 0.03."""
    what = "a fraction of the pixel range from 0 to 1, written 8/255"
    result = _quotient(what, name, value)
    if result > 1:
        remedy = f"If you count in grey levels write {result:g}/255." if result <= 255 else ""
        raise expected(what, name, value, remedy)
    if not result >= 0:
        raise expected(what, name, value)
    return result


def _quotient(what, name, value):
    """Return the number that "8/255" or "0.03" means; `what` was expected where it means none."""
    try:
        above, _, below = str(value).partition("/")
        return float(above) / float(below or 1)
    except (TypeError, ValueError, ZeroDivisionError):
        raise expected(what, name, value) from None


def length(name: str, value: Any) -> float:
    """Read a radius in any norm: 8/255, 0.5, 3."""
    result = _quotient("a length, written 8/255 or 0.5", name, value)
    if not 0 <= result < math.inf:
        raise expected("a length of at least 0", name, value)
    return result


def flag(name: str, value: Any) -> bool:
    """Read true or false."""
    known = {"true": True, "1": True, "false": False, "0": False}
    if str(value).lower() not in known:
        raise expected("true or false", name, value)
    return known[str(value).lower()]


def text(name: str, value: Any) -> str:
    """Read any text."""
    return str(value)


def one_of(*choices: str) -> Reader:
    """Return a reader of one of a few words."""

    def read(name, value):
        if value not in choices:
            near = nearest(str(value), choices)
            raise expected(f"one of {', '.join(choices)}", name, value, f"Did you mean {near}?" if near else "")
        return value

    return read


strategy = one_of("auto", "one", "mirrored", "multiworker", "tpu")
precision = one_of("float32", "mixed_bfloat16", "mixed_float16")


def attack_precision(name: str, value: Any) -> str:
    """Return what an attack computes in; `mixed_bfloat16`, as it is called elsewhere, is `bfloat16` here."""
    return one_of("auto", "float32", "bfloat16", "float16")(name, str(value).removeprefix("mixed_"))


def named(kind: str, separator: str | None = None) -> Reader:
    """Return a reader of a name of the table `kind`, up to `separator` where a parameter may follow it."""

    def read(name, value):
        key = str(value).partition(separator)[0] if separator else str(value)
        if key not in names(kind):
            raise unknown(f"a known {kind}", name, value, names(kind), key)
        if separator == ":" and separator in str(value):
            number(0, math.inf, above=True)(name, str(value).partition(":")[2])
        return str(value)

    return read


def network(name: str, value: Any) -> str:
    """Read a network: a name of the table, FILE.keras, FILE.py:FUNCTION, keras:NAME."""
    return networks.read(name, value, names("model"))


def act(name: str, value: Any) -> str:
    """Read an activation, its number after a colon; own: that of a network that brings its own."""
    return networks.OWN if value == networks.OWN else named("activation", ":")(name, value)


def value_range(name: str, value: Any) -> tuple[float, float]:
    """Read a range of values, 0,255, lowest first."""
    found = several(number(-1e6, 1e6))(name, value)
    if len(found) != 2 or not found[0] < found[1]:
        raise expected("two numbers, the lowest first, such as 0,255 or -1,1", name, value)
    return found


def several(read_one: Reader) -> Reader:
    """Return a reader of a comma-separated list, or of a tuple: a tuple of what `read_one` reads."""

    def read(name, value):
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(read_one(name, part.strip() if isinstance(part, str) else part) for part in parts if part != "")

    return read


def optional(read_one: Reader, nothing: tuple = (None, "", "none", "None")) -> Reader:
    """Return a reader that also takes nothing: None, "" or "none"."""
    return lambda name, value: None if value in nothing else read_one(name, value)


def attack(name: str, value: Any) -> str:
    """Read an attack of training or validation with its number of steps: fgsm, pgd-1, apgd-2."""
    return _attack("attack for training", names("attack", having="training"), name, value)


def evaluation_attack(name: str, value: Any) -> str:
    """Read an attack of an evaluation: clean, fgsm, pgd-20, apgd-t, autoattack."""
    return _attack("attack", names("attack"), name, value)


def _attack(what, known, name, value):
    key, steps = split_attack(str(value))
    if key not in known and key in names("attack"):
        raise expected(f"an attack for training, of {', '.join(known)}", name, value, f"{value} only evaluates.")
    if key not in known:
        raise unknown(f"a known {what}", name, value, known, key)
    if key == str(value) and key.endswith("-k"):
        raise expected(f"a number of steps for k in {key}", name, value)
    if steps is not None:
        number(1, 100_000, whole=True)(name, steps)
    return str(value)


def policy(name: str, value: Any) -> str:
    """Read an augmentation policy, randaugment with its magnitude after a colon: none, randaugment:15."""
    key, colon, magnitude = str(value).partition(":")
    named("policy", ":")(name, key)
    if colon and key != "randaugment":
        raise expected(f"{key} without a number", name, value)
    if colon:
        try:
            number(0, 30)(name, magnitude)
        except ValueError:
            raise expected("randaugment with a magnitude from 0 to 30, such as randaugment:15", name, value) from None
    return str(value)


def split_attack(text: str) -> tuple[str, int | None]:
    """Return the row of `ATTACKS` that an attack's name means and its steps: pgd-20 -> ("pgd-k", 20)."""
    base, dash, steps = text.rpartition("-")
    return (f"{base}-k", int(steps)) if dash and steps.isdecimal() else (text, None)


def own(read_one: Reader, text: str) -> Any:
    """Declare a setting of some methods, None for what the method has by itself."""
    return field(None, optional(read_one), text, method=True)
