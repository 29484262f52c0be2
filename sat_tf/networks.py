"""Networks that are none of the table's, as classifiers of images in [0, 1]: a .keras file, a function, an application.

Nothing in a file is executed: Keras' safe mode is on, and a layer that the file itself would bring is refused.
"""

import contextlib
import importlib.util
import inspect
import pathlib
import socket
import sys
from collections.abc import Callable
from typing import NamedTuple

import keras

from sat_tf import heads, inputs, models
from sat_tf.names import unknown

Pair = tuple[float, float]


class Classifier(NamedTuple):
    """A model `images in [0, 1] -> logits`, what was done to a user's own for that, whether its head is new."""

    model: keras.Model
    notes: list[str]
    new_head: bool


SIDE = 224  # pixels, where neither the network nor the data say
LEVELS = 1 / 100  # a Rescaling by less than this wants grey levels
SECONDS = 20  # that a server of weights may be silent
GIVEN = ("act", "classes", "image_size")  # what a function may ask for
_MEANS, _DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision has them
_BGR = (103.939, 116.779, 123.68)  # means of its blue, green and red grey levels, as Caffe's networks have them
SIGNED, CAFFE, TORCH, LEVEL = "signed", "caffe", "torch", "level"  # what applications want: see `_prepared`
PREPARED = {  # name in keras.applications, or how it begins: what its weights want
    **dict.fromkeys(("MobileNetV3", "EfficientNet", "ConvNeXt"), LEVEL),
    **dict.fromkeys(("MobileNet", "Inception", "Xception", "NASNet"), SIGNED),
    **dict.fromkeys(("ResNet50V2", "ResNet101V2", "ResNet152V2"), SIGNED),
    **dict.fromkeys(("ResNet", "VGG"), CAFFE),
    "DenseNet": TORCH,
}


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
            f"{path} needs code that is not Keras' own, which is never run from a file: {_first_sentence(reason)} "
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
    given = dict(zip(GIVEN, (act, classes, image_size), strict=True))
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
        raise OSError(f"{name} failed: {type(error).__name__}: {_first_sentence(str(error))}") from error
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
        raise OSError(f"{path} can't be run: {type(error).__name__}: {_first_sentence(str(error))}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    function = getattr(module, name, None)
    if not callable(function):
        functions = {key: value for key, value in vars(module).items() if inspect.isfunction(value)}
        raise unknown(f"a function of {path}", "model", f"{path}:{name}", functions, name)
    return function


def application(name: str, *, classes: int | None, image_size: int | None = None, weights: bool = False) -> keras.Model:
    """Return a network of keras.applications, for images in [0, 1].

    Args:
      name: as keras.applications has it, MobileNetV2.
      classes: number of logits; None for the 1,000 of ImageNet, whose classifier then has weights too.
      image_size: pixels a side; None for any.
      weights: start from those trained on ImageNet, of ~/.keras/models, or downloaded by Keras; else from fresh ones.

    Raises:
      ValueError: there is no such network.
      OSError: its weights are neither on disk nor to be had.
    """
    make = _application(name)
    shape = (image_size, image_size, 3)
    with models.pinned():
        if not weights:
            model = make(weights=None, classes=classes or 1000, classifier_activation=None, input_shape=shape)
        elif classes is None:
            model = _with_weights(name, lambda: make(weights="imagenet", classifier_activation=None))
        else:
            try:
                features = _with_weights(
                    name, lambda: make(weights="imagenet", include_top=False, pooling="avg", input_shape=shape)
                )
            except OSError:
                features = _with_weights(name, lambda: make(weights="imagenet", classifier_activation=None))
            model = heads.replace(features, classes)
        return _prepared(model, next(how for start, how in PREPARED.items() if name.startswith(start)), image_size)


def _application(name):
    known = {
        key: value
        for key, value in vars(keras.applications).items()
        if callable(value) and any(key.startswith(start) for start in PREPARED)
    }
    if name not in known:
        raise unknown("a network of keras.applications", "model", f"keras:{name}", known, name)
    return known[name]


def _with_weights(name, make):
    """Return a network with its published weights; a failure is one sentence."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SECONDS)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return make()
    except Exception as error:
        folder = pathlib.Path(keras.config.keras_home()) / "models" if hasattr(keras.config, "keras_home") else None
        raise OSError(
            f"The weights of keras:{name} are not in {folder or '~/.keras/models'}, and could not be downloaded: "
            f"{_first_sentence(str(error))} Put the file there, or name other weights with --init."
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _prepared(model, how, image_size):
    """Return a network with what its weights want done to an image in [0, 1] as its first layers."""
    images = keras.Input((image_size, image_size, 3), name="images")
    if how == CAFFE:
        x = keras.layers.Rescaling(255.0, [-mean for mean in _BGR], dtype="float32", name="to_caffe")(images[..., ::-1])
    elif how == TORCH:
        offsets = [-mean / deviation for mean, deviation in zip(_MEANS, _DEVIATIONS, strict=True)]
        x = keras.layers.Rescaling([1 / one for one in _DEVIATIONS], offsets, dtype="float32", name="to_torch")(images)
    else:
        x = _scaled(images, (-1.0, 1.0) if how == SIGNED else (0.0, 255.0))
    return _again(model, x, images)


def _scaled(images, value_range):
    low, high = value_range
    return keras.layers.Rescaling(high - low, low, dtype="float32", name="to_value_range")(images)


def _again(model, x, images):
    """Return a functional model `images -> model(x)` that shares the layers of a model, without models inside it."""
    if not _is_graph(model):
        return keras.Model(images, model(x), name=model.name)
    try:
        return keras.Model(images, _inlined(model, x), name=model.name)
    except ValueError as error:
        if "unique" not in str(error):
            raise
    return keras.Model(images, model(x), name=model.name)  # layers of one name in models inside it


def _inlined(model, x):
    """Return what a model's layers make of a tensor, those of models inside it one by one."""

    def call_layer(layer, *args, **kwargs):
        if isinstance(layer, keras.Model) and _is_graph(layer) and len(layer.inputs) == len(layer.outputs) == 1:
            return _inlined(layer, args[0])
        return layer(*args, **kwargs)

    functional = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    same = keras.models.clone_model(
        functional, input_tensors=x, clone_function=lambda layer: layer, call_function=call_layer
    )
    return same.outputs[0]


def _is_graph(model):
    return bool(getattr(model, "inputs", None)) and bool(getattr(model, "outputs", None))


def side_of(model: keras.Model) -> int | None:
    """Return the side of the images that a model takes, None for any.

    Raises:
      ValueError: it has several inputs, or they are no square RGB images of floats.
    """
    if not _is_graph(model):
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
    for layer in _in_order(model):
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


def _in_order(model):
    for layer in model.layers:
        if isinstance(layer, keras.Model) and layer.layers:
            yield from _in_order(layer)
        else:
            yield layer


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
    if _is_graph(model):
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
        x = images if (low, high) == inputs.UNIT else _scaled(images, (low, high))
        try:
            whole = _again(model, x, images)
        except (ValueError, TypeError) as error:
            if _is_graph(model):
                raise
            size = side or image_size
            raise ValueError(
                f"Expected a model of images [batch, {size}, {size}, 3]. Received: {model.name}, which fails on them: "
                f"{_first_sentence(str(error))}"
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


def settled(model: keras.Model) -> tuple[keras.Model, str | None]:
    """Return a model and its architecture as text, from which `rebuilt` makes the same with variables in their order.

    Where the architecture can't be written down, because a class is the user's own, it is None.
    """
    try:
        text = model.to_json()
        twin = rebuilt(text)
    except Exception:  # Keras raises whatever a class without a configuration raises
        return model, None
    values = {variable.path: variable for variable in model.variables}
    paths = [variable.path for variable in twin.variables]
    if len(values) == len(model.variables) and sorted(paths) == sorted(values):
        chosen = [values[path] for path in paths]
    else:  # layers of a name, in several networks within one
        chosen = model.variables
    if [variable.shape for variable in twin.variables] != [variable.shape for variable in chosen]:
        return model, None
    for variable, value in zip(twin.variables, chosen, strict=True):
        variable.assign(value)
    return twin, text


def rebuilt(architecture: str) -> keras.Model:
    """Return the model of an architecture, with fresh weights; nothing in it is executed.

    Raises:
      ValueError: it needs a layer of someone else's.
    """
    with models.pinned():
        return keras.models.model_from_json(architecture)


def remember(model: keras.Model, momentum: float) -> None:
    """Let every batch normalisation of Keras' own in a model have a momentum."""
    for layer in _in_order(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum


def _first_sentence(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    first = lines[0] if lines else "no reason is given."
    return first if first.endswith(".") else f"{first}."
