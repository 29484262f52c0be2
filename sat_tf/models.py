"""The table of architectures, and the one way to build a model from its name."""

import os
from collections.abc import Callable

import keras

from sat_tf import activations, efficientnet, resnet
from sat_tf.layers import pinned
from sat_tf.names import unknown

FAMILIES = (resnet, efficientnet)  # packages with a table `VARIANTS` and `build(variant, act, classes, **options)`

# Name -> what it is. about: a line for people. image_size: the side in pixels that it was made for. preprocess: the key
# of `preprocess.EVALUATIONS` by which its release evaluates. rates: which of dropout, stochastic_depth, zero_gamma.
MODELS = {**resnet.VARIANTS, **efficientnet.VARIANTS}


def build(
    name: str,
    act: str | Callable[[str], keras.Layer] = "swish",
    classes: int = 1000,
    *,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    dropout: float | None = 0.0,
    stochastic_depth: float = 0.0,
    zero_gamma: bool = False,
) -> keras.Model:
    """Build a model by name.

    Args:
      name: a key of `MODELS`.
      act: activation as `activations.factory` reads it, "swish", "celu:1.5"; or a factory `layer_name -> keras.Layer`.
      classes: number of logits.
      momentum, epsilon: of every batch normalisation.
      dropout: rate before the classifier, None for the model's own; only EfficientNets have it.
      stochastic_depth: rate at the last block, falling linearly to 0 at the first; only EfficientNets have it.
      zero_gamma: let residual branches start at zero; only for EfficientNets, the other families say it themselves.

    Returns:
      A `keras.Model`: float32 RGB images `[batch, h, w, 3]` in [0, 1] -> float32 logits `[batch, classes]`.

    Raises:
      ValueError: unknown model or activation, or a rate for a model that has no such layer.
    """
    if name not in MODELS:
        raise unknown("a known model", "model", name, MODELS)
    family = next(family for family in FAMILIES if name in family.VARIANTS)
    options = {"momentum": momentum, "epsilon": epsilon}
    own = {"dropout": dropout, "stochastic_depth": stochastic_depth, "zero_gamma": zero_gamma}
    for rate, value in own.items():
        if rate in MODELS[name].rates:
            options[rate] = value
        elif value:
            raise ValueError(f"Expected an EfficientNet, which has {rate}. Received: model={name}, {rate}={value}.")
    return family.build(name, act if callable(act) else activations.factory(act), classes, **options)


def load(path: str | os.PathLike) -> keras.Model:
    """Return the model of a .keras file, whatever the user's settings of Keras; every layer of ours is known.

    Raises:
      OSError: there is no such file, it is damaged, or it needs a layer of someone else's.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with pinned():
            return keras.saving.load_model(path, compile=False, safe_mode=True)  # losses and metrics are not asked for
    except Exception as error:  # Keras has no one error for a damaged file
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise OSError(f"{path} cannot be read: {reason[0]}") from error


def with_head(model: keras.Model, classes: int) -> keras.Model:
    """Return a model with fresh weights in its last dense layer, for another number of classes; the rest is shared.

    Args:
      model: functional or Sequential; its last dense layer may have a softmax behind it.
      classes: how many.

    Raises:
      ValueError: it has no such layer at its end.
    """
    layers = list(model.layers) if getattr(model, "inputs", None) else []
    behind = []
    while layers and (isinstance(layers[-1], (keras.layers.Softmax, keras.layers.Activation))):
        behind.insert(0, layers.pop())
    head = layers[-1] if layers else None
    if isinstance(head, keras.Model):
        new = with_head(head, classes)
    elif isinstance(head, keras.layers.Dense):
        new = keras.layers.Dense.from_config({**head.get_config(), "units": classes, "trainable": True})
    else:
        raise ValueError(
            f"Expected a functional or Sequential model that ends in a Dense layer, for a new head. Received: "
            f"{model.name}, which ends in {type(head).__name__ if head is not None else 'nothing that is known'}. "
            "Build it with the number of classes that you want."
        )
    outputs = new(head.input)
    for layer in behind:
        outputs = layer(outputs)
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    return keras.Model(inputs, outputs, name=model.name)


def image_size(name: str) -> int:
    """Return the side in pixels that an architecture was made for."""
    return MODELS[name].image_size


def evaluation_preprocess(name: str) -> str:
    """Return the key of `preprocess.EVALUATIONS` by which the release evaluates an architecture."""
    return MODELS[name].preprocess
