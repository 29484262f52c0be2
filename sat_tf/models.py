"""The table of architectures, and the one way to build a model from its name."""

import difflib
import functools
import os

import keras

import efficientnet
import resnet
from layers import pinned
from sat_tf import activations

MODELS = {
    "resnet14": functools.partial(resnet.build, "resnet14"),
    "resnet20": functools.partial(resnet.build, "resnet20"),
    "resnet32": functools.partial(resnet.build, "resnet32"),
    "resnet20-w8": functools.partial(resnet.build, "resnet20-w8"),
    "resnet32-w8": functools.partial(resnet.build, "resnet32-w8"),
    "resnet20-w32": functools.partial(resnet.build, "resnet20-w32"),
    "resnet50": functools.partial(resnet.build, "resnet50"),
    "resnet101": functools.partial(resnet.build, "resnet101"),
    "resnet152": functools.partial(resnet.build, "resnet152"),
    "resnext50-32x4d": functools.partial(resnet.build, "resnext50-32x4d"),
    "resnext50-32x8d": functools.partial(resnet.build, "resnext50-32x8d"),
    "resnext152-32x8d": functools.partial(resnet.build, "resnext152-32x8d"),
    "efficientnet-b0": functools.partial(efficientnet.build, "efficientnet-b0"),
    "efficientnet-b1": functools.partial(efficientnet.build, "efficientnet-b1"),
    "efficientnet-b2": functools.partial(efficientnet.build, "efficientnet-b2"),
    "efficientnet-b3": functools.partial(efficientnet.build, "efficientnet-b3"),
    "efficientnet-b4": functools.partial(efficientnet.build, "efficientnet-b4"),
    "efficientnet-b5": functools.partial(efficientnet.build, "efficientnet-b5"),
    "efficientnet-b6": functools.partial(efficientnet.build, "efficientnet-b6"),
    "efficientnet-b7": functools.partial(efficientnet.build, "efficientnet-b7"),
    "efficientnet-b8": functools.partial(efficientnet.build, "efficientnet-b8"),
    "efficientnet-l1": functools.partial(efficientnet.build, "efficientnet-l1"),
    "efficientnet-l2": functools.partial(efficientnet.build, "efficientnet-l2"),
    "efficientnet-lite0": functools.partial(efficientnet.build, "efficientnet-lite0"),
    "efficientnet-lite1": functools.partial(efficientnet.build, "efficientnet-lite1"),
    "efficientnet-lite2": functools.partial(efficientnet.build, "efficientnet-lite2"),
    "efficientnet-lite3": functools.partial(efficientnet.build, "efficientnet-lite3"),
    "efficientnet-lite4": functools.partial(efficientnet.build, "efficientnet-lite4"),
}


def build(name, act="swish", classes=1000, *, momentum=0.9, epsilon=1e-5, dropout=0.0, stochastic_depth=0.0):
    """Build a model by name.

    Args:
      name: a key of `MODELS`.
      act: activation as `activations.factory` reads it, "swish", "celu:1.5"; or a factory `layer_name -> keras.Layer`.
      classes: number of logits.
      momentum, epsilon: of every batch normalisation.
      dropout: rate before the classifier, None for the model's own; only EfficientNets have it.
      stochastic_depth: rate at the last block, falling linearly to 0 at the first; only EfficientNets have it.

    Returns:
      A `keras.Model`: float32 RGB images `[batch, h, w, 3]` in [0, 1] -> float32 logits `[batch, classes]`.

    Raises:
      ValueError: unknown model or activation, or a rate for a model that has no such layer.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, 1, 0.0)[0]
        raise ValueError(f"Expected a model of {', '.join(MODELS)}. Received: model={name!r}; did you mean {near}?")
    act = act if callable(act) else activations.factory(act)
    rates = {"dropout": dropout, "stochastic_depth": stochastic_depth}
    if name not in efficientnet.VARIANTS:
        for rate, value in rates.items():
            if value:
                raise ValueError(f"Expected an EfficientNet, which has {rate}. Received: model={name}, {rate}={value}.")
        rates = {}
    return MODELS[name](act, classes, momentum=momentum, epsilon=epsilon, **rates)


def load(path):
    """Return the model of a .keras file, whatever the user's settings of Keras; every layer of ours is known.

    Raises:
      OSError: there is no such file, it is damaged, or it needs a layer of someone else's.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with pinned():
            return keras.saving.load_model(path)
    except Exception as error:  # Keras has no one error for a damaged file
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise OSError(f"{path} cannot be read: {reason[0]}") from error


def image_size(name):
    """Return the side in pixels that an architecture was made for."""
    if name in efficientnet.VARIANTS:
        return efficientnet.VARIANTS[name].image_size
    return 32 if name in resnet.SMALL_VARIANTS else 224


def evaluation_preprocess(name):
    """Return the key of `preprocess.EVALUATIONS` by which the release evaluates an architecture."""
    return "crop_resize" if name in efficientnet.VARIANTS else "resize_crop"
