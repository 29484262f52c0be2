"""Values and derivatives against NumPy, finite differences, smoothness at 0, extremes, serialization."""

import contextlib
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from sat_tf import activations


def sigmoid(x):
    return 0.5 * (1 + np.tanh(x / 2))


def softplus(x):
    return np.logaddexp(0, x)


def phi(x):
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def normal(x):
    return 0.5 * np.vectorize(math.erfc)(-x / math.sqrt(2))


def tanh_gelu(x):
    t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return 0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner


def elu(a):
    return lambda x: np.where(x >= 0, x, a * np.expm1(np.minimum(x, 0))), lambda x: np.where(
        x >= 0, 1.0, a * np.exp(np.minimum(x, 0))
    )


def celu(a):
    return lambda x: np.where(x >= 0, x, a * np.expm1(np.minimum(x, 0) / a)), lambda x: np.where(
        x >= 0, 1.0, np.exp(np.minimum(x, 0) / a)
    )


def smoothrelu(a):
    return lambda x: np.where(x >= 0, x - np.log1p(a * np.maximum(x, 0)) / a, 0), lambda x: np.where(
        x >= 0, a * np.maximum(x, 0) / (1 + a * np.maximum(x, 0)), 0
    )


def mish_derivative(x):
    t = np.tanh(softplus(x))
    return t + x * (1 - t * t) * sigmoid(x)


REFERENCES = {  # spec: (value, first derivative, C1 at 0)
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0).astype(float), False),
    "relu6": (lambda x: np.clip(x, 0, 6), lambda x: ((x > 0) & (x < 6)).astype(float), False),
    "swish": (lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))), True),
    "silu": (lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))), True),
    "softplus": (softplus, sigmoid, True),
    "parametric_softplus": (lambda x: softplus(10 * x) / 10, lambda x: sigmoid(10 * x), True),
    "parametric_softplus:2.5": (lambda x: softplus(2.5 * x) / 2.5, lambda x: sigmoid(2.5 * x), True),
    "gelu": (lambda x: x * normal(x), lambda x: normal(x) + x * phi(x), True),
    "gelu_tanh": (lambda x: tanh_gelu(x)[0], lambda x: tanh_gelu(x)[1], True),
    "elu": (*elu(1.0), True),
    "elu:2": (*elu(2.0), False),
    "elu:1.4": (*elu(1.4), False),
    "celu": (*celu(1.0), True),
    "celu:2": (*celu(2.0), True),
    "celu:0.5": (*celu(0.5), True),
    "smoothrelu": (*smoothrelu(400.0), True),
    "smoothrelu:4": (*smoothrelu(4.0), True),
    "mish": (lambda x: x * np.tanh(softplus(x)), mish_derivative, True),
}


def layer_and_gradient(spec, x, dtype):
    layer = activations.factory(spec)("act")
    x = tf.constant(x, dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    return y, tape.gradient(y, x)


def test_every_activation_has_a_reference():
    assert set(activations.ACTIVATIONS) <= {spec.partition(":")[0] for spec in REFERENCES}


@pytest.mark.parametrize("spec", REFERENCES)
def test_value_and_derivative_match_numpy(spec):
    x = np.concatenate([np.linspace(-50, 50, 20001), [0.0, -0.0, 1e-8, -1e-8]]).astype(np.float32)
    value, derivative, _ = REFERENCES[spec]
    y, gradient = layer_and_gradient(spec, x, tf.float32)
    np.testing.assert_allclose(y, value(x.astype(np.float64)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gradient, derivative(x.astype(np.float64)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("spec", REFERENCES)
def test_derivative_matches_finite_differences(spec):
    x = np.random.default_rng(0).uniform(-6, 6, 200)
    x = x[np.abs(x) > 1e-3]  # where a kink would spoil a central difference
    h = 1e-5
    layer = activations.factory(spec)("act")
    function = lambda z: layer.function(tf.constant(z, tf.float64)).numpy()  # noqa: E731
    layer.build((None,))
    _, gradient = value_and_gradient_float64(layer, x)
    np.testing.assert_allclose(gradient, (function(x + h) - function(x - h)) / (2 * h), rtol=1e-5, atol=1e-7)


def value_and_gradient_float64(layer, x):
    x = tf.constant(x, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer.function(x)
    return y, tape.gradient(y, x)


@pytest.mark.parametrize("spec", REFERENCES)
def test_which_are_smooth_at_zero(spec):
    _, gradient = layer_and_gradient(spec, [-1e-6, 1e-6], tf.float32)
    jump = abs(float(gradient[1] - gradient[0]))
    assert (jump < 1e-2) == REFERENCES[spec][2]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("spec", REFERENCES)
def test_extremes_stay_finite(spec, dtype):
    x = [-1e4, -100.0, -1.0, 0.0, 1.0, 100.0, 1e4]
    layer = activations.factory(spec)("act")
    layer.dtype_policy = keras.DTypePolicy("mixed_" + dtype if dtype != "float32" else dtype)
    x = tf.constant(x, dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    gradient = tape.gradient(y, x)
    assert y.dtype == gradient.dtype == tf.as_dtype(dtype)
    assert np.isfinite(tf.cast(y, tf.float32)).all()
    assert np.isfinite(tf.cast(gradient, tf.float32)).all()
    reference = REFERENCES[spec][0](tf.cast(x, tf.float64).numpy())
    np.testing.assert_allclose(tf.cast(y, tf.float32), reference, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("spec", "other"), [*((spec, None) for spec in REFERENCES), ("relu", "swish")])
def test_bfloat16_in_one_pass_equals_op_by_op(spec, other):
    layer = activations.factory(spec)("act")
    layer.dtype_policy = "mixed_bfloat16"
    x, upstream = (tf.random.stateless_normal((4, 33), (0, k), 0, 3.0, tf.bfloat16) for k in range(2))
    layer.build(x.shape)

    def gradients():
        context = activations.gradient_of(other) if other else contextlib.nullcontext()
        with context, tf.GradientTape() as tape:
            tape.watch(x)
            values = layer(x)
        return values, *tape.gradient(values, [x, *(v.value for v in layer.trainable_variables)], upstream)

    for found, expected in zip(tf.function(gradients, autograph=False)(), gradients(), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(tf.cast(found, tf.float32), tf.cast(expected, tf.float32), rtol=2**-7, atol=1e-6)


def test_smoothrelu_learns_one_positive_number():
    layer = activations.factory("smoothrelu:400")("act")
    layer.build((None, 8))
    assert [tuple(v.shape) for v in layer.trainable_variables] == [(1,)]
    np.testing.assert_allclose(layer.raw, 20.0)
    x = tf.linspace(-1.0, 1.0, 11)
    for raw in (-3.0, 0.0, 1e-6):
        layer.raw.assign([raw])
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = tf.reduce_sum(layer(x))
        assert np.isfinite(y)
        assert np.isfinite(tape.gradient(y, layer.raw.value)).all() and np.isfinite(tape.gradient(y, x)).all()
    layer.raw.assign([-3.0])
    np.testing.assert_allclose(layer(x), smoothrelu(9.0)[0](x.numpy()), atol=1e-6)


def test_factory_makes_a_new_layer_at_each_site():
    make = activations.factory("smoothrelu")
    first, second = make("one"), make("two")
    assert first is not second and (first.name, second.name) == ("one", "two")


@pytest.mark.parametrize("spec", REFERENCES)
def test_layers_serialize(spec):
    model = keras.Sequential([keras.Input((5,)), activations.factory(spec)("act")])
    copy = keras.Sequential.from_config(model.get_config())
    x = np.linspace(-2, 2, 5, dtype=np.float32)[None]
    np.testing.assert_array_equal(model(x), copy(x))


@pytest.mark.parametrize(
    "spec",
    ["swich", "", "relu:1", "swish:2", "elu:0", "elu:-1", "celu:x", "elu:nan", "elu:inf", "celu:", "smoothrelu:-4"],
)
def test_bad_specs_are_refused(spec):
    with pytest.raises(ValueError, match=r"Expected .* Received: act="):
        activations.factory(spec)


def test_the_nearest_name_is_offered():
    with pytest.raises(ValueError, match="Did you mean swish"):
        activations.factory("swich")
