"""Writers of the formats in which a model leaves, one function a format.

Each takes the model, the side of its images, where to write, the evaluation's preprocessing, files to carry along,
and the model with other gradients or None; only a SavedModel makes use of the last three.
"""

import contextlib
import functools
import importlib.util
import io
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from sat_tf.export import signatures, stock


def saved_model(
    model: keras.Model,
    image_size: int,
    path: str | pathlib.Path,
    preprocess: Callable,
    assets: Sequence[str | pathlib.Path],
    attacked: Callable | None = None,
) -> None:
    """SavedModel for TensorFlow Serving: images, encoded images, gradients; no project needed to load it."""
    serving = signatures.Serving(model, image_size, preprocess, assets, attacked)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)  # so that it can be differentiated again
    with quiet():
        tf.saved_model.save(serving, str(path), signatures=serving.signatures, options=options)


def keras_file(
    model: keras.Model,
    image_size: int,
    path: str | pathlib.Path,
    preprocess: Callable,
    assets: Sequence[str | pathlib.Path],
    attacked: Callable | None = None,
) -> None:
    """Keras file of Keras' own layers, to fine-tune or to look at; opens without this project."""
    stock.to_stock(model).save(path)


def litert(
    model: keras.Model,
    image_size: int,
    path: str | pathlib.Path,
    preprocess: Callable,
    assets: Sequence[str | pathlib.Path],
    attacked: Callable | None = None,
) -> None:
    """LiteRT (TensorFlow Lite) file for phones and small devices, float32."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        plain = Plain(model, image_size)
        tf.saved_model.save(plain, folder, signatures={"serving_default": plain.classify})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
        pathlib.Path(path).write_bytes(converter.convert())


def onnx(
    model: keras.Model,
    image_size: int,
    path: str | pathlib.Path,
    preprocess: Callable,
    assets: Sequence[str | pathlib.Path],
    attacked: Callable | None = None,
) -> None:
    """ONNX file for ONNX Runtime and what else reads it."""
    import tf2onnx

    with quiet():
        plain = Plain(model, image_size)
        tf2onnx.convert.from_function(
            plain.classify,
            input_signature=plain.classify.input_signature,
            opset=OPSET,
            custom_op_handlers=HANDLERS,
            output_path=str(path),
        )


def _with_one(inner, outer):
    """Return the converter of a function that ONNX lacks, by two that it has, one of them with the constant 1.

    The digits near 0, for which such functions exist, are lost; in an activation they are those of a number near 0.
    """

    def convert(graph, node, name, arguments):
        one = graph.make_const(f"{name}_one", np.float32(1.0)).output[0]
        if outer == "Log":
            part = graph.make_node(inner, [node.input[0], one]).output[0]
            node.type, inputs = outer, [part]
        else:
            part = graph.make_node(inner, [node.input[0]]).output[0]
            node.type, inputs = outer, ([part, one] if inner == "Exp" else [one, part])
        graph.replace_inputs(node, inputs)

    return convert, []


HANDLERS = {"Log1p": _with_one("Add", "Log"), "Expm1": _with_one("Exp", "Sub"), "Erfc": _with_one("Erf", "Sub")}


def _stable_softplus(x):
    """log(1 + exp(x)) so that LiteRT, which computes it as it is written, does not overflow above 88."""
    return tf.nn.relu(x) + tf.math.log1p(tf.exp(-tf.abs(x)))


def _native_convolution(layer, inputs, kernel):
    """Convolve by TensorFlow's own operation also in groups, for which Keras has XLA, which converters can't read."""
    return tf.nn.conv2d(inputs, kernel, list(layer.strides), layer.padding.upper())


OPSET = 17  # of ONNX: what ONNX Runtime has read since 2022
FORMATS = {"saved_model": saved_model, "keras": keras_file, "litert": litert, "onnx": onnx}
FILES = {"saved_model": "saved_model/1", "keras": "model.keras", "litert": "model.tflite", "onnx": "model.onnx"}
PACKAGES = {
    "litert": {"ai_edge_litert": "ai-edge-litert"},
    "onnx": {"tf2onnx": "tf2onnx", "onnx": "onnx", "onnxruntime": "onnxruntime"},
}


def check(names: Sequence[str]) -> None:
    """Refuse, before any work, a format that is unknown or whose packages are not installed.

    Raises:
      ValueError: unknown, or none named.
      OSError: a package is missing; the message says how to get it.
    """
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise ValueError(f"Expected formats of {', '.join(FORMATS)}. Received: format={','.join(names)}.")
    missing = [
        package
        for name in names
        for module, package in PACKAGES.get(name, {}).items()
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise OSError(
            f"Missing for --format={','.join(names)}: {', '.join(missing)}. "
            'pip install "sat-tf[export]" has them; from a clone pip install -e ".[export]".'
        )


class Plain(tf.Module):
    """The network of Keras' own layers behind `serving_default`, without the checks that other runtimes lack."""

    def __init__(self, model: keras.Model, image_size: int) -> None:
        super().__init__()
        self._model = stock.to_stock(model)
        for layer in self._model.layers:
            if isinstance(layer, keras.layers.Conv2D) and layer.groups > 1:
                layer.convolution_op = functools.partial(_native_convolution, layer)
            if getattr(layer, "activation", None) is keras.activations.softplus:
                layer.activation = _stable_softplus
        self.values = [variable.value for variable in self._model.variables]
        spec = tf.TensorSpec([None, image_size, image_size, 3], tf.float32, "images")
        self.classify = tf.function(self._classify, input_signature=[spec])

    def _classify(self, images):
        return signatures.outputs(self._model(images, training=False))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what converters write to stdout and stderr, C++ included; where they fail, the error shows its end."""
    with tempfile.TemporaryFile() as file, contextlib.redirect_stdout(io.StringIO()):
        kept = os.dup(2)
        try:
            os.dup2(file.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
