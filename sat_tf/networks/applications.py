"""The networks of keras.applications, with what their weights want of an image as first layers."""

import contextlib
import os
import pathlib
import socket
import sys
import warnings

import keras

from sat_tf import heads, models
from sat_tf.names import unknown
from sat_tf.networks.graphs import again, scaled
from sat_tf.networks.sentences import first_sentence

SECONDS = 20  # that a server of weights may be silent
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
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the size that the weights were trained at
            return make()
    except Exception as error:
        folder = pathlib.Path(os.environ.get("KERAS_HOME", "~/.keras")) / "models"
        raise OSError(
            f"The weights of keras:{name} are not in {folder}, and could not be downloaded: "
            f"{first_sentence(str(error))} Put the file there, or name other weights with --init."
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
        x = scaled(images, (-1.0, 1.0) if how == SIGNED else (0.0, 255.0))
    return again(model, x, images)
