"""Open what this project writes: a run, a checkpoint, published weights, a .keras file, a SavedModel."""

import os
import pathlib
from collections.abc import Sequence

import keras
import tensorflow as tf

import sat_tf.export
from sat_tf import models, released
from sat_tf.inputs import whole
from sat_tf.layers import pinned
from sat_tf.runs import checkpoints

READ = (
    "a run's folder, one of its checkpoints, released:NAME, a .keras file, or the folder of a SavedModel or an export"
)
ELSEWHERE = {".tflite": "LiteRT", ".onnx": "ONNX", ".h5": "HDF5", ".hdf5": "HDF5"}  # which is not read


def load(
    x: str | os.PathLike | keras.Model,
    classes: int | Sequence[str] | None = None,
    *,
    checkpoint_dir: str | os.PathLike = "released",
) -> keras.Model:
    """Return a model that takes RGB images in [0, 1], whatever this project wrote it as.

    Of a run it is the best checkpoint, with the weights that its recipe evaluates. A .keras file of others is what it
    is; its range is not known.

    Args:
      x: a run's folder; one of its checkpoints, or `checkpoints/latest`; "released:NAME", or published files; a .keras
        file; the folder of a SavedModel or of an export, whose .keras file is taken where there is one. A
        Keras model is taken for itself.
      classes: of a new head with fresh weights, a number or names; None keeps the head.
      checkpoint_dir: where the files of released checkpoints lie.

    Returns:
      A `keras.Model`, images `[batch, h, w, 3]` -> logits; its `classes` are the names of its classes.

    Raises:
      ValueError, OSError: it is nothing of these, or damaged, or it has no head to exchange.
    """
    names = _names_of(classes)
    model, known = _opened(x, checkpoint_dir)
    if names is not None:
        model, known = models.with_head(model, len(names)), names
    count = model.output_shape[-1]
    if len(known or ()) != count:
        known = [str(number) for number in range(count)]
    model.classes = list(known)
    return model


def _names_of(classes):
    """Return the names of a new head's classes."""
    if classes is None:
        return None
    names = list(classes) if isinstance(classes, (list, tuple)) else list(map(str, range(whole("classes", classes, 2))))
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"Expected two classes or more, each once. Received: classes={classes!r}.")
    return names


def _opened(x, checkpoint_dir):
    """Return a model and the names of its classes, None where they are not known."""
    if isinstance(x, keras.Model):
        return x, getattr(x, "classes", None)
    place = os.fsdecode(x) if isinstance(x, (str, bytes, os.PathLike)) else None
    if place is None:
        raise ValueError(f"Expected {READ}. Received: a {type(x).__name__}.")
    if place.startswith(checkpoints.RELEASED):
        return _checkpoint(place, checkpoint_dir)
    path = pathlib.Path(place).expanduser()
    if path.suffix == ".keras":
        return _keras_file(path)
    if path.suffix in ELSEWHERE:
        raise ValueError(
            f"Expected {READ}. Received: {path}, a file of {ELSEWHERE[path.suffix]}, which is not read back. Load the "
            "run that it was exported from, or its .keras file."
        )
    if released.is_torch(place) or released.is_released(place):
        return _checkpoint(place, checkpoint_dir)
    if not path.exists():
        hint = f" models.build({place!r}) makes one with fresh weights." if place in models.MODELS else ""
        raise FileNotFoundError(f"Expected {READ}. Received: {path}, which does not exist.{hint}")
    return _folder(path, checkpoint_dir)


def _folder(path, checkpoint_dir):
    """Return the model of an export, a SavedModel, a run or a checkpoint."""
    for file in (path / sat_tf.export.FILES["keras"], path / sat_tf.export.FILES["saved_model"], path / "1", path):
        if file.suffix == ".keras" and file.is_file():
            return _keras_file(file)
        if (file / "saved_model.pb").is_file():
            return _saved_model(file)
    try:
        return _checkpoint(path, checkpoint_dir)
    except FileNotFoundError as error:
        hint = "It holds a run that has no checkpoint yet." if (path / "recipe.json").is_file() else ""
        raise FileNotFoundError(f"Expected {READ}. Received: {path}, which is none of them. {hint}".strip()) from error


def _checkpoint(place, checkpoint_dir):
    found = checkpoints.open_checkpoint(place, {}, checkpoint_dir)
    return found.load(), found.classes


def _keras_file(path):
    """Return a .keras file's model, with the names that lie beside it where this project wrote it."""
    if path.with_suffix(".json").is_file():
        return _checkpoint(path, None)
    return models.load(path), _lines(path.parent / "classes.txt")


def _saved_model(path):
    """Return a SavedModel as a Keras model."""
    try:
        signature = tf.saved_model.load(str(path)).signatures["serving_default"]
        ((_, spec),) = signature.structured_input_signature[1].items()
        outputs = sorted(signature.structured_outputs)
    except (KeyError, ValueError, tf.errors.OpError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise OSError(
            f"Expected a SavedModel with the signature serving_default. Received: {path}, {reason}."
        ) from error
    name = "logits" if "logits" in outputs else outputs[0]
    with pinned():
        images = keras.Input(spec.shape[1:], name="images")
        layer = keras.layers.TFSMLayer(str(path), call_endpoint="serving_default", name="saved_model")
        model = keras.Model(images, layer(images)[name], name=path.parent.name or "saved_model")
    return model, _lines(path / "assets" / "classes.txt")


def _lines(file: pathlib.Path) -> list[str] | None:
    """Return the lines of a file; None where there is none."""
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else None
