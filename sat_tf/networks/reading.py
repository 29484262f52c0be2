"""A network from a .keras file, in which nothing is executed, or from a function that the user names."""

import importlib.util
import inspect
import pathlib
import sys
from collections.abc import Callable

import keras

from sat_tf import models
from sat_tf.names import unknown
from sat_tf.networks.sentences import first_sentence

GIVEN = ("act", "classes", "image_size")  # what a function may ask for


def read(path: str | pathlib.Path) -> keras.Model:
    """Return the model of a .keras file; nothing in the file is executed.

    Raises:
      OSError: there is no such file, it is damaged, or it needs code: the message says what to do.
    """
    path = pathlib.Path(path).expanduser()
    try:
        return models.load(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = str(error)
        if not any(word in reason for word in ("unsafe", "safe_mode", "Lambda", "locate", "custom", "deserializ")):
            raise
        raise OSError(
            f"{path} needs code that is not Keras' own, which is never run from a file: {first_sentence(reason)} "
            "Write a function that builds or loads it, and name that: --model=FILE.py:FUNCTION."
        ) from error


def call(name: str, *, act: Callable, classes: int, image_size: int) -> keras.Model:
    """Return what a user's function builds.

    Args:
      name: FILE.py:FUNCTION. The function may have the parameters `act`, a factory `name -> keras.Layer` of a new
        activation, `classes`, the number of logits, and `image_size`; it gets those that it names.
      act, classes, image_size: their values.

    Raises:
      OSError: there is no such file, or it can't be run. ValueError: it has no such function, the function wants
        something else, or returns no Keras model.
    """
    path, _, function_name = name.rpartition(":")
    function = _function(pathlib.Path(path).expanduser(), function_name)
    given = dict(zip(GIVEN, (lambda layer_name=None: act(layer_name), classes, image_size), strict=True))
    wanted = inspect.signature(function).parameters.values()
    open_ended = any(one.kind is one.VAR_KEYWORD for one in wanted)
    named = [one for one in wanted if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
    strange = [one.name for one in named if one.name not in given and one.default is one.empty]
    if strange or any(one.kind is one.POSITIONAL_ONLY for one in named):
        raise ValueError(
            f"Expected a function with parameters of {', '.join(GIVEN)}. Received: {name} with "
            f"{', '.join(one.name for one in named)}. Give the others defaults."
        )
    taken = given if open_ended else {one.name: given[one.name] for one in named if one.name in given}
    try:
        model = function(**taken)
    except Exception as error:
        raise OSError(f"{name} failed: {type(error).__name__}: {first_sentence(str(error))}") from error
    if not isinstance(model, keras.Model):
        raise ValueError(f"Expected a keras.Model from {name}. Received: a {type(model).__name__}.")
    return model


def takes(name: str, parameter: str) -> bool:
    """Say whether a function FILE.py:FUNCTION has a parameter of a name, or takes any."""
    path, _, function_name = name.rpartition(":")
    wanted = inspect.signature(_function(pathlib.Path(path).expanduser(), function_name)).parameters
    return parameter in wanted or any(one.kind is one.VAR_KEYWORD for one in wanted.values())


def _function(path, name):
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    spec = importlib.util.spec_from_file_location(f"sat_tf_user_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))  # what lies beside the file can be imported, as by python FILE.py
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise OSError(f"{path} can't be run: {type(error).__name__}: {first_sentence(str(error))}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    function = getattr(module, name, None)
    if not callable(function):
        functions = {key: value for key, value in vars(module).items() if inspect.isfunction(value)}
        raise unknown(f"a function of {path}", "model", f"{path}:{name}", functions, name)
    return function
