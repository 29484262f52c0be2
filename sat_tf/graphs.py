"""Graphs without AutoGraph, which rewrites Python's control flow on tensors, where there is none to rewrite.

What this project has is written with TensorFlow's own control flow, and the layers of Keras models AutoGraph leaves
alone. To rewrite it all the same takes half of a process' first trace and a tenth of every later one.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

PACKAGES = ("sat_tf", "tensorflow", "keras", "numpy", "builtins")  # what is defined in them is written for graphs


def compiled(function: Callable, *parts: Any, **options: Any) -> Callable:
    """Return a `tf.function`, with AutoGraph if one of the parts that it calls may need it.

    Args:
      function: of the project.
      parts: what others may have written of it: a model, an attack, a method, a loss.
      options: of `tf.function`.
    """
    return tf.function(function, autograph=not all(map(written, parts)), **options)


def written(part: Any) -> bool:
    """Say whether nothing of a part needs AutoGraph: by its own `written_for_graphs`, or by where it is from.

    A part that holds others, as a method holds its attack, is as they are.
    """
    said = getattr(part, "written_for_graphs", None)
    if said is not None:
        return said
    if isinstance(part, functools.partial):
        return all(map(written, (part.func, *part.args, *part.keywords.values())))
    if isinstance(part, keras.Model):
        return True
    held = [getattr(part, field.name) for field in dataclasses.fields(part)] if dataclasses.is_dataclass(part) else []
    package = (getattr(part, "__module__", None) or "builtins").split(".")[0]
    return package in PACKAGES and all(map(written, held))


def job(function: Callable) -> Callable:
    """Return a function, all whose graphs are traced without AutoGraph: those of its data sets, too."""
    return tf.autograph.experimental.do_not_convert(function)
