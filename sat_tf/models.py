"""The table of architectures, and the one way to build a model from its name."""

import difflib
import functools

import resnet
from sat_tf import activations

MODELS = {
    "resnet20": functools.partial(resnet.build, "resnet20"),
    "resnet50": functools.partial(resnet.build, "resnet50"),
    "resnet101": functools.partial(resnet.build, "resnet101"),
    "resnet152": functools.partial(resnet.build, "resnet152"),
    "resnext50-32x4d": functools.partial(resnet.build, "resnext50-32x4d"),
    "resnext50-32x8d": functools.partial(resnet.build, "resnext50-32x8d"),
    "resnext152-32x8d": functools.partial(resnet.build, "resnext152-32x8d"),
}


def build(name, act="swish", classes=1000, *, momentum=0.9, epsilon=1e-5):
    """Build a model by name.

    Args:
      name: a key of `MODELS`.
      act: activation as `activations.factory` reads it, "swish", "celu:1.5"; or a factory `layer_name -> keras.Layer`.
      classes: number of logits.
      momentum, epsilon: of every batch normalisation.

    Returns:
      A `keras.Model`: float32 RGB pictures `[batch, h, w, 3]` in [0, 1] -> float32 logits `[batch, classes]`.

    Raises:
      ValueError: unknown model or activation.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, 1, 0.0)[0]
        raise ValueError(f"Expected a model of {', '.join(MODELS)}. Received: model={name!r}; did you mean {near}?")
    act = act if callable(act) else activations.factory(act)
    return MODELS[name](act, classes, momentum=momentum, epsilon=epsilon)
