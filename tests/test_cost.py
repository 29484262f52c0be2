"""Operations and memory, counted by pencil and without allocating weights."""

import keras
import numpy as np

from sat_tf import cost, models
from sat_tf.layers import ConvNorm, DepthwiseConvNorm


def tiny():
    inputs = keras.Input((None, None, 3))
    x = ConvNorm(8, 3, strides=2, name="a")(inputs)
    x = DepthwiseConvNorm(5, name="b")(x)
    x = ConvNorm(4, 1, groups=2, name="c")(x)
    return keras.Model(inputs, keras.layers.Dense(7, name="d")(keras.layers.GlobalAveragePooling2D(name="p")(x)))


def test_operations_by_pencil():
    by_pencil = 2 * (27 * 8 * 16 + 25 * 8 * 16 + 4 * 4 * 16 + 4 * 7)
    assert cost.forward_flops(tiny(), 8) == by_pencil
    with cost.weightless():
        assert cost.forward_flops(tiny(), 8) == by_pencil


def test_memory_by_pencil():
    assert cost.kept_bytes(tiny(), 8) == 4 * (2 * 8 * 16 + 2 * 8 * 16 + 2 * 4 * 16 + 4 + 7)


def test_a_weightless_model_has_shapes_only():
    with cost.weightless():
        model = models.build("efficientnet-lite0", "swish", 10)
    assert cost.parameters(model) == sum(np.prod(v.shape) for v in model.trainable_variables)
    assert all(variable._value is None for variable in model.variables)
