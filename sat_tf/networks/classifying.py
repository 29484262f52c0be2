"""A user's model as a classifier of images in [0, 1]: what it takes and gives, and what is refused."""

from typing import NamedTuple

import keras

from sat_tf import heads, inputs, models
from sat_tf.networks.graphs import Pair, again, in_order, is_graph, scaled
from sat_tf.networks.sentences import first_sentence

LEVELS = 1 / 100  # a Rescaling by less than this wants grey levels


class Classifier(NamedTuple):
    """A model `images in [0, 1] -> logits`, what was done to a user's own for that, whether its head is new."""

    model: keras.Model
    notes: list[str]
    new_head: bool


def side_of(model: keras.Model) -> int | None:
    """Return the side of the images that a model takes, None for any.

    Raises:
      ValueError: it has several inputs, or they are no square RGB images of floats.
    """
    if not is_graph(model):
        return None
    if len(model.inputs) != 1:
        raise ValueError(
            f"Expected a model with one input, images. Received: {model.name} with {len(model.inputs)} inputs."
        )
    shape, dtype = model.inputs[0].shape, model.inputs[0].dtype
    if len(shape) != 4 or shape[-1] not in (3, None):
        raise ValueError(
            f"Expected a model of RGB images [batch, h, w, 3]. Received: {model.name}, which takes {_written(shape)}."
        )
    if shape[1] != shape[2]:
        raise ValueError(f"Expected a model of square images. Received: {model.name}, which takes {_written(shape)}.")
    if "float" not in dtype:
        raise ValueError(
            f"Expected a model of images of floats, whose gradient attacks follow. Received: {model.name}, which takes "
            f"{dtype}. Let it begin with keras.Input(..., dtype='float32')."
        )
    return shape[1]


def _written(shape):
    return "[" + ", ".join("any" if side is None else str(side) for side in shape) + "]"


def value_range_of(model: keras.Model) -> Pair:
    """Return the values that a model's first layers want: grey levels before a Rescaling by 1/255, else [0, 1]."""
    for layer in in_order(model):
        if isinstance(layer, keras.layers.InputLayer) or type(layer).__name__.startswith(
            ("Random", "Resizing", "Cent")
        ):
            continue
        if isinstance(layer, keras.layers.Rescaling):
            scales = layer.scale if isinstance(layer.scale, (list, tuple)) else [layer.scale]
            return (0.0, 255.0) if max(abs(float(scale)) for scale in scales) <= LEVELS else inputs.UNIT
        if isinstance(layer, keras.layers.Normalization) and layer.mean is not None:
            return (0.0, 255.0) if float(keras.ops.max(layer.mean)) > 2 else inputs.UNIT
        break
    return inputs.UNIT


def classifier(
    model: keras.Model, *, value_range: Pair | None = None, image_size: int | None = None, classes: int | None = None
) -> Classifier:
    """Return a user's model as a functional one: RGB images in [0, 1] -> float32 logits.

    Args:
      model: with one input and one output; its layers are shared, and a softmax at its end is taken away.
      value_range: of the values that it wants; None for what its first layers say.
      image_size: pixels a side, where the model takes any.
      classes: put a new head on it where it has another number of logits; None to leave it.

    Raises:
      ValueError: it is no classifier of images; one sentence says why.
    """
    side, notes, new_head = side_of(model), [], False
    if is_graph(model):
        heads.ends(model)
        model, words = heads.logits_of(model)
        notes += [f"{words} is left out: what counts are logits"] if words else []
        if classes is not None and tuple(model.outputs[0].shape[1:]) != (classes,):
            before = model.outputs[0].shape
            model, new_head = heads.replace(model, classes), True
            made = f"{before[-1]} outputs" if len(before) == 2 else "features"
            notes.append(f"a new head of {classes} classes is in the place of {made}")
    low, high = inputs.span(value_range_of(model) if value_range is None else value_range)
    if (low, high) != inputs.UNIT:
        said = "as stated" if value_range is not None else "as its first layers want"
        notes.append(f"it is given values from {low:g} to {high:g}, {said}")
    with models.pinned():
        images = keras.Input((side or image_size, side or image_size, 3), name="images")
        x = images if (low, high) == inputs.UNIT else scaled(images, (low, high))
        try:
            whole = again(model, x, images)
        except (ValueError, TypeError) as error:
            if is_graph(model):
                raise
            size = side or image_size
            raise ValueError(
                f"Expected a model of images [batch, {size}, {size}, 3]. Received: {model.name}, which fails on them: "
                f"{first_sentence(str(error))}"
            ) from error
        _check_outputs(whole)
        if whole.outputs[0].dtype != "float32":
            logits = keras.layers.Activation("linear", dtype="float32", name="logits")(whole.outputs[0])
            whole = keras.Model(images, logits, name=whole.name)
    return Classifier(whole, notes, new_head)


def _check_outputs(model):
    if len(model.outputs) != 1:
        raise ValueError(
            f"Expected one output of the model, its logits. Received: {model.name} with {len(model.outputs)}."
        )
    shape = model.outputs[0].shape
    if len(shape) != 2 or shape[1] is None or shape[1] < 2:
        hint = (
            "Two classes with one logit z have the logits [0, z]." if len(shape) == 2 else "--init puts a head on it."
        )
        raise ValueError(
            f"Expected logits [batch, classes] of two classes or more. Received: {model.name}, whose output is "
            f"{_written(shape)}. {hint}"
        )
