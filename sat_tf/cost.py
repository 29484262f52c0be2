"""What a model costs: floating-point operations and values kept in memory, without allocating its weights."""

import contextlib
import math
from collections.abc import Iterator

import keras

from sat_tf.layers import ConvNorm, DepthwiseConvNorm

BYTES = 4  # of a float32
WORKSPACE = 0.3 * 2**30  # bytes of graphs and buffers, measured on a CPU


@contextlib.contextmanager
def weightless() -> Iterator[None]:
    """Let models built inside have variables with shapes and no values: for counting, not for calling."""
    with keras.StatelessScope(initialize_variables=False):
        yield


def parameters(model: keras.Model) -> int:
    """Return the number of trained values of a model."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def forward_flops(model: keras.Model, size: int) -> int:
    """Return the operations of one image's forward pass, a multiplication and an addition as two.

    Counted are convolutions and dense layers, as the literature does; all else is a few percent.

    Args:
      model: of this project's layers, called on `[batch, size, size, 3]`.
      size: pixels a side.
    """
    shapes = output_shapes(model, size)
    return sum(_flops(model.get_layer(name), shape) for name, shape in shapes.items())


def in_words(number: float) -> str:
    """Write a number of operations with its prefix: 3.9 GFLOP."""
    for prefix, factor in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if number >= factor:
            return f"{number / factor:.3g} {prefix}FLOP"
    return f"{number / 1e6:.3g} MFLOP"


def memory(model: keras.Model, size: int, batch_size: int, copies: float) -> str:
    """Return the expected peak memory of a training step, in words: weights and what goes with them, and a batch.

    On two CPU cores, beyond the imports: efficientnet-b0 with 128 images of 32 px 0.6 GiB expected, 0.6 measured;
    with 16 of 128 px 0.8 and 0.9; resnet50 with 32 of 64 px 0.9 and 0.9; efficientnet-b7 with 128 of 32 px 2.5 and 3.2.

    Args:
      model: as `forward_flops` takes it.
      size: pixels a side.
      batch_size: images an update.
      copies: values that are kept for each weight, itself among them: gradient, optimizer's slots, average.
    """
    weights = BYTES * copies * sum(math.prod(variable.shape) for variable in model.variables)
    batch = batch_size * (kept_bytes(model, size) + 5 * BYTES * size * size * 3)
    return (
        f"about {(weights + batch + WORKSPACE) / 2**30:,.1f} GiB over all accelerators: {weights / 2**30:.2f} for "
        f"weights and what goes with them, {batch / 2**30:,.1f} for {batch_size} images, the rest buffers"
    )


def kept_bytes(model: keras.Model, size: int) -> int:
    """Return the bytes that an update keeps for one image between its forward and its backward pass.

    Every layer's output, twice where normalisation follows a convolution. An estimate from above: compilers share.
    """
    shapes = output_shapes(model, size)
    copies = {layer.name: 2 if isinstance(layer, ConvNorm) else 1 for layer in model.layers}
    return BYTES * sum(copies[name] * math.prod(shape[1:]) for name, shape in shapes.items())


def output_shapes(model: keras.Model, size: int) -> dict[str, tuple[int, ...]]:
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
