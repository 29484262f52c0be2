"""Whether a file of a compiled model can be read where nothing but Keras is installed."""

from typing import Any

import keras


def is_of_keras(parts: Any) -> bool:
    """Say whether everything that `compile` was given is Keras' own, and not the user's or this project's."""
    if isinstance(parts, dict):
        return all(map(is_of_keras, parts.values()))
    if isinstance(parts, (list, tuple)):
        return all(map(is_of_keras, parts))
    if parts is None or isinstance(parts, (str, int, float, bool)):
        return True
    if not _from_keras(parts):
        return False
    try:
        return _is_config_of_keras(keras.saving.serialize_keras_object(parts))
    except (TypeError, ValueError, NotImplementedError):
        return False


def _from_keras(part):
    module = getattr(part, "__module__", None) or type(part).__module__
    return module.split(".")[0] == "keras"


def _is_config_of_keras(config):
    """Say whether a configuration names classes and functions of Keras alone."""
    if isinstance(config, dict):
        module = config.get("module") if "class_name" in config else None
        return (module or "keras").split(".")[0] in ("keras", "builtins") and all(
            map(_is_config_of_keras, config.values())
        )
    return not isinstance(config, (list, tuple)) or all(map(_is_config_of_keras, config))
