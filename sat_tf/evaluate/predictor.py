"""Any model as a function from images to logits."""

import collections.abc
import inspect
import os
import pathlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from sat_tf import inputs, models
from sat_tf.half import in_half_precision, keeping_gradients

READ = "a Keras model, a function images -> logits, a .keras file, or the folder of a SavedModel"


class Predictor:
    """A model as it is attacked: `[batch, h, w, c]` in [0, 1] -> float32 logits `[batch, classes]`.

    Args:
      call: `images -> outputs`.
      shape: of the images that it takes, `[batch, h, w, c]` with None for what may vary; None where that is unknown.
      value_range: of the values that it wants.
      dtype: of the images that it takes.
      written_for_graphs: `call` has no Python control flow on tensors for AutoGraph, or is not reached by it: a Keras
        model, whose layers it leaves alone, or a graph already.
    """

    def __init__(
        self,
        call: Callable[[tf.Tensor], Any],
        shape: tuple[int | None, ...] | None = None,
        value_range: tuple[float, float] | None = None,
        dtype: tf.DType = tf.float32,
        written_for_graphs: bool = False,
    ) -> None:
        self.call, self.shape, self.dtype, self.written_for_graphs = call, shape, dtype, written_for_graphs
        self.low, self.high = inputs.span(value_range)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Return logits, float32 `[batch, classes]`."""
        if (self.low, self.high) != inputs.UNIT:
            images = self.low + (self.high - self.low) * images
        images = tf.cast(images, self.dtype)
        if self.shape is not None and self.shape[0] is not None:
            return self._in_parts(images, self.shape[0])
        return logits_of(self.call(images), images.shape[0])

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse images `[n, h, w, c]` of another size than the model's."""
        wanted = [None] * 4 if self.shape is None else self.shape
        if any(w is not None and w != side for w, side in zip(wanted[1:], shape[1:], strict=True)):
            sides = ", ".join("any" if side is None else str(side) for side in wanted[1:])
            raise ValueError(f"Expected images [n, {sides}], as the model takes them. Received: {list(shape)}.")

    def _in_parts(self, images, size):
        """Return the logits of a model whose batch is fixed; its last batch is filled up with zeros."""
        count = tf.shape(images)[0]
        padded = tf.pad(images, [[0, -count % size], [0, 0], [0, 0], [0, 0]])
        parts = tf.reshape(padded, [-1, size, *images.shape[1:]])
        logits = tf.map_fn(lambda part: logits_of(self.call(part), size), parts, fn_output_signature=tf.float32)
        return tf.reshape(logits, [-1, logits.shape[-1]])[:count]


def predictor(model: Any, value_range: tuple[float, float] | None = None) -> Predictor:
    """Return a Keras model, a SavedModel (loaded, or its folder), a .keras file or a function as a `Predictor`.

    Raises:
      ValueError, OSError: it is something else, or cannot be read.
    """
    import keras

    if isinstance(model, (str, bytes)) or hasattr(model, "__fspath__"):
        model = _read(pathlib.Path(os.fsdecode(model)).expanduser())
    if isinstance(model, Predictor):
        return model
    if isinstance(model, keras.Model):
        return Predictor(keras_call(model), _shape_of(model), value_range, written_for_graphs=True)
    if getattr(model, "signatures", None):
        return _signature(model, value_range)
    if hasattr(getattr(model, "__call__", None), "concrete_functions"):  # noqa: B004 - which function, not whether
        return _endpoint(model, value_range)
    if hasattr(model, "signatures"):
        raise ValueError(
            "Expected a SavedModel with the signature serving_default, or one that can be called. Received: no "
            "signatures. Save it with signatures=model.serve, or by model.export(folder)."
        )
    if not callable(model):
        raise ValueError(f"Expected {READ}. Received: a {type(model).__name__}.")
    return Predictor(_inference(model), value_range=value_range)


def logits_of(outputs: Any, count: int | None = None) -> tf.Tensor:
    """Return what a model computes as float32 logits `[batch, classes]`.

    Args:
      outputs: a tensor; or a dictionary or list of one, a dictionary also where it is called logits.
      count: of images, where it is known.

    Raises:
      ValueError: there are several outputs, or they cannot be logits of two classes or more.
    """
    if isinstance(outputs, collections.abc.Mapping):
        names = ", ".join(map(str, outputs))
        if len(outputs) != 1 and "logits" not in outputs:
            raise ValueError(f"Expected one output of the model, or one called logits. Received: outputs {names}.")
        outputs = outputs["logits"] if "logits" in outputs else next(iter(outputs.values()))
    elif isinstance(outputs, (list, tuple)):
        if len(outputs) != 1:
            raise ValueError(f"Expected one output of the model, its logits. Received: {len(outputs)} outputs.")
        outputs = outputs[0]
    try:
        logits = tf.convert_to_tensor(outputs)
    except (TypeError, ValueError):
        raise ValueError(f"Expected a tensor of logits. Received: a {type(outputs).__name__}.") from None
    shape = logits.shape
    if shape.rank not in (None, 2) or (shape.rank == 2 and shape[1] is not None and shape[1] < 2):
        hint = " Two classes with one logit z have the logits [0, z]." if shape.rank == 2 else ""
        raise ValueError(
            f"Expected logits [batch, classes] of two classes or more. Received: {shape.as_list()} "
            f"for the images of the data.{hint}"
        )
    if not logits.dtype.is_floating:
        raise ValueError(f"Expected logits in floating point. Received: {logits.dtype.name}; are they classes?")
    if count is not None and shape.rank and shape[0] not in (None, count):
        raise ValueError(f"Expected logits of each of {count} images. Received: {shape.as_list()}.")
    return tf.cast(logits, tf.float32)


def _read(path):
    """Return the model that a path names."""
    if not path.exists():
        raise FileNotFoundError(f"Expected {READ}. Received: {path}, which does not exist.")
    if path.suffix == ".keras":
        return models.load(path)
    if not any((path / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
        hint = (
            "Read it by keras.saving.load_model and hand the model in."
            if path.suffix in (".h5", ".hdf5")
            else "A run's checkpoint becomes one by --mode=convert or --mode=export."
        )
        raise ValueError(f"Expected {READ}. Received: {path}, which is none of them. {hint}")
    try:
        return tf.saved_model.load(str(path))
    except (tf.errors.OpError, OSError, ValueError) as error:
        raise OSError(f"The SavedModel {path} cannot be read: {str(error).splitlines()[0]}") from error


def keras_call(model: Any, logits: Callable[[Any], tf.Tensor] | None = None) -> Callable[[tf.Tensor], Any]:
    """Return a Keras model in inference mode, `images -> outputs`; in half precision its attacks keep their gradients.

    Args:
      model: a `keras.Model`.
      logits: `outputs -> logits`, where they are not the outputs.
    """

    def call(images):
        outputs = model(images, training=False)
        return outputs if logits is None else logits(outputs)

    return keeping_gradients(lambda images: logits_of(call(images))) if in_half_precision(model) else call


def _inference(function):
    """Return a function with `training=False` where it takes that."""
    try:
        takes_training = "training" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # what is written in C has none
        takes_training = False
    return (lambda images: function(images, training=False)) if takes_training else function


def _shape_of(model):
    """Return the images' shape of a Keras model, None where it has not been built."""
    shape = getattr(model, "input_shape", None) if model.built else None
    if isinstance(shape, (dict, list)):
        raise ValueError(f"Expected a model with one input, images. Received: {len(shape)} inputs of {model.name}.")
    return shape if shape is not None and len(shape) == 4 else None


def _signature(loaded, value_range):
    """Return the function behind the serving signature of a SavedModel; it keeps the model alive."""
    if "serving_default" not in loaded.signatures:
        raise ValueError(
            f"Expected a SavedModel with the signature serving_default. Received: signatures of "
            f"{', '.join(loaded.signatures)}."
        )
    function = loaded.signatures["serving_default"]
    specs, outputs = function.structured_input_signature[1], sorted(function.structured_outputs)
    if len(specs) != 1 or (len(outputs) > 1 and "logits" not in outputs):
        raise ValueError(
            "Expected a signature serving_default with one input and one output, or one called logits. "
            f"Received: inputs {', '.join(sorted(specs))}, outputs {', '.join(outputs)}."
        )
    ((name, spec),) = specs.items()
    return _of_spec(lambda images, kept=loaded: function(**{name: images}), spec, value_range)


def _endpoint(loaded, value_range):
    """Return the function of a SavedModel that was saved without signatures, as it is called in Python."""
    function = loaded.__call__
    specs = [known.structured_input_signature[0][0] for known in function.concrete_functions]
    takes_training = "training" in function.function_type.parameters
    call = (lambda images: loaded(images, training=False)) if takes_training else loaded
    return _of_spec(call, specs[0], value_range)


def _of_spec(call, spec, value_range):
    """Return the `Predictor` of a function whose input is described by a `tf.TensorSpec`."""
    if not spec.dtype.is_floating or spec.shape.rank not in (None, 4):
        raise ValueError(
            f"Expected a model that takes images [n, h, w, c] of floats, whose gradient attacks follow. Received: one "
            f"that takes {spec.dtype.name} {spec.shape if spec.shape.rank is None else spec.shape.as_list()}."
        )
    shape = None if spec.shape.rank is None else tuple(spec.shape.as_list())
    return Predictor(call, shape, value_range, spec.dtype, True)
