"""What a model costs: floating-point operations and values kept in memory, without allocating its weights."""

import contextlib
import math

import keras

from layers import ConvNorm, DepthwiseConvNorm

BYTES = 4  # of a float32


@contextlib.contextmanager
def weightless():
    """Let models built inside have variables with shapes and no values: for counting, not for calling."""
    with keras.StatelessScope(initialize_variables=False):
        yield


def parameters(model):
    """Return the number of trained values of a model."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def forward_flops(model, size):
    """Return the operations of one image's forward pass, a multiplication and an addition as two.

    Counted are convolutions and dense layers, as the literature does; all else is a few percent.

    Args:
      model: of this project's layers, called on `[batch, size, size, 3]`.
      size: pixels a side.
    """
    shapes = output_shapes(model, size)
    return sum(_flops(model.get_layer(name), shape) for name, shape in shapes.items())


def step_flops(forward, steps):
    """Return the operations of a training step of one image, with an attack of `steps` steps before the update.

    A backward pass to the images costs one forward pass, an update's, to images and weights, two:
    forward * (2 * steps + 3).
    """
    return forward * (2 * steps + 3)


def kept_bytes(model, size):
    """Return the bytes that an update keeps for one image between its forward and its backward pass.

    Every layer's output, twice where normalisation follows a convolution. An estimate from above: compilers share.
    """
    shapes = output_shapes(model, size)
    copies = {layer.name: 2 if isinstance(layer, ConvNorm) else 1 for layer in model.layers}
    return BYTES * sum(copies[name] * math.prod(shape[1:]) for name, shape in shapes.items())


def output_shapes(model, size):
    """Return `{layer name: output shape}` for one image of a size; layers without an output of their own left out."""
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    function = keras.Function(model.inputs, [layer.output for layer in layers])
    with weightless():
        outputs = function.compute_output_spec([keras.KerasTensor((1, size, size, 3), "float32")])
    return {layer.name: tuple(output.shape) for layer, output in zip(layers, outputs, strict=True)}


def _flops(layer, shape):
    if isinstance(layer, (ConvNorm, keras.layers.Conv2D)):
        taps = math.prod(layer.kernel.shape[: 2 if isinstance(layer, DepthwiseConvNorm) else 3])
        return 2 * taps * math.prod(shape)
    if isinstance(layer, keras.layers.Dense):
        return 2 * layer.kernel.shape[0] * math.prod(shape)
    return 0
