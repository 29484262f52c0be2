"""Activation layers: ReLU, its smooth approximations, and the table of their names."""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from sat_tf import formulas
from sat_tf.layers import on_cpu
from sat_tf.names import unknown

register = keras.saving.register_keras_serializable("sat_tf")
_GRADIENT = contextvars.ContextVar("whose gradient", default=None)  # each replica is traced in its own thread


@contextlib.contextmanager
def gradient_of(spec: str) -> Iterator[None]:
    """Let the activations of forward passes inside have the gradient of another one; their values stay as they are.

    It is fixed when a pass is traced: inside a `tf.function` enter it there, around the call of the model. Gradients to
    variables of an activation (SmoothReLU's) stay its own. `passes.Backward` is the tidy way to use it.

    Args:
      spec: as `factory` reads it, "parametric_softplus:10"; SmoothReLU stands for itself with its first alpha.

    Source: Xie et al. 2020, "Smooth Adversarial Training", Section 3.2.
    """
    _function_of(spec)  # a bad one fails here, not where a model is called
    token = _GRADIENT.set(spec)
    try:
        yield
    finally:
        _GRADIENT.reset(token)


class Activation(keras.layers.Layer):
    """An elementwise function as a layer, `[...] -> [...]`; half-precision inputs are computed in float32."""

    exact = False  # in every precision, so that float32 adds nothing

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the values, with the gradient that `gradient_of` says: `[...] -> [...]`."""
        other = _GRADIENT.get()
        if inputs.dtype not in (tf.float16, tf.bfloat16) or (self.exact and other is None):
            return self._differentiable(inputs)
        if inputs.dtype == tf.bfloat16 and on_cpu() and not tf.executing_eagerly() and (spec := self._spec()):
            return _in_one_pass(spec, other, inputs, *self.numbers())
        return tf.cast(self._differentiable(tf.cast(inputs, tf.float32)), inputs.dtype)

    def _differentiable(self, x):
        """Return the function's values, with the gradient to x that `gradient_of` says."""
        return _substituted(self.function, x, _GRADIENT.get())

    def _spec(self):
        """Return what `factory` makes such a layer of; None for a layer that is not in its table."""
        return next((name for name, layer in ACTIVATIONS.items() if layer is type(self)), None)

    def numbers(self) -> tuple[tf.Tensor, ...]:
        """Return the numbers that the function depends on and that are learned, as float32."""
        return ()

    def function(self, x: tf.Tensor) -> tf.Tensor:
        """Return the values at x: `[...] -> [...]`."""
        raise TypeError(f"Expected a subclass that defines function(x). Received: {type(self).__name__}.")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape


class Parametric(Activation):
    """An activation with one fixed positive number alpha."""

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not (math.isfinite(alpha) and alpha > 0):
            raise ValueError(f"Expected a finite alpha > 0 for {type(self).__name__}. Received: alpha={alpha}.")
        self.alpha = float(alpha)

    def _spec(self):
        name = super()._spec()
        return name and f"{name}:{self.alpha!r}"

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha}


@register
class ReLU(Activation):
    """max(x, 0); its derivative jumps at 0 (Nair & Hinton 2010)."""

    exact = True

    def function(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(x)


@register
class ReLU6(Activation):
    """min(max(x, 0), 6), the activation of EfficientNet-Lite (Krizhevsky 2010)."""

    exact = True

    def function(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu6(x)


@register
class Swish(Activation):
    """x sigmoid(x), also called SiLU (Ramachandran et al. 2017; Elfving et al. 2018)."""

    def function(self, x: tf.Tensor) -> tf.Tensor:
        return formulas.swish(x)


@register
class Softplus(Activation):
    """log(1 + exp(x)) (Nair & Hinton 2010)."""

    def function(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.softplus(x)


@register
class ParametricSoftplus(Parametric):
    """log(1 + exp(alpha x)) / alpha, near ReLU for a large alpha (SAT paper, equation 2: alpha = 10)."""

    def __init__(self, alpha: float = 10.0, **kwargs: Any) -> None:
        super().__init__(alpha, **kwargs)

    def function(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.softplus(self.alpha * x) / self.alpha


@register
class GELU(Activation):
    """x Phi(x), Phi the standard normal distribution function, exact (Hendrycks & Gimpel 2016)."""

    def function(self, x: tf.Tensor) -> tf.Tensor:
        # erfc keeps the tail of Phi that 1 + erf loses to cancellation.
        return 0.5 * x * tf.math.erfc(-x * math.sqrt(0.5))


@register
class GELUTanh(Activation):
    """x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2, the GELU of the SAT release (Hendrycks & Gimpel 2016)."""

    def function(self, x: tf.Tensor) -> tf.Tensor:
        return formulas.tanh_gelu(x)


@register
class ELU(Parametric):
    """x for x >= 0, alpha (exp(x) - 1) below; smooth only for alpha = 1 (Clevert et al. 2016)."""

    def function(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.elu(x) if self.alpha == 1.0 else tf.where(x >= 0, x, self.alpha * tf.nn.elu(x))


@register
class CELU(Parametric):
    """x for x >= 0, alpha (exp(x / alpha) - 1) below; smooth for every alpha (Barron 2017)."""

    def function(self, x: tf.Tensor) -> tf.Tensor:
        # min keeps exp from overflowing in the branch that is not taken, whose gradient would be 0 * inf.
        return tf.where(x >= 0, x, self.alpha * tf.math.expm1(tf.minimum(x, 0.0) / self.alpha))


@register
class SmoothReLU(Activation):
    """x - log(alpha x + 1) / alpha for x >= 0, 0 below; alpha is learned at every site.

    One number a site, shared by its channels. It is positive by squaring: alpha = raw^2, and `raw` is the variable.
    Weight decay leaves it alone (see `optim.decays`).
    Source: SAT paper, equations 5 and 6; start at alpha = 400 as in its Section 4.2 and the release (raw = 20).
    """

    def __init__(self, alpha: float = 400.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not (math.isfinite(alpha) and alpha > 0):
            raise ValueError(f"Expected a finite alpha > 0 for SmoothReLU. Received: alpha={alpha}.")
        self.initial_alpha = float(alpha)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        initializer = keras.initializers.Constant(math.sqrt(self.initial_alpha))
        self.raw = self.add_weight(name="raw", shape=(1,), initializer=initializer, autocast=False)

    def function(self, x: tf.Tensor) -> tf.Tensor:
        (alpha,) = self.numbers()
        return formulas.smooth_relu(x, alpha)

    def numbers(self) -> tuple[tf.Tensor, ...]:
        raw = tf.convert_to_tensor(self.raw)
        return (tf.maximum(tf.square(raw), 1e-8),)  # raw that crosses zero must not divide by it

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.initial_alpha}


@register
class Mish(Activation):
    """x tanh(softplus(x)) (Misra 2019)."""

    def function(self, x: tf.Tensor) -> tf.Tensor:
        return formulas.mish(x)


@register
class Substituted(Activation):
    """The values of an activation with the gradient of another one, in every pass (SAT paper, Section 3.2).

    Args:
      activation: whose values, as `keras.activations.get` takes it, or a layer.
      backward: whose gradient, as `factory` reads it: "parametric_softplus:10".
    """

    def __init__(self, activation: Any, backward: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        factory(backward)
        self.activation, self.backward = _activation_of(activation), backward

    def function(self, x: tf.Tensor) -> tf.Tensor:
        return self.activation(x)

    def _differentiable(self, x):
        return _substituted(self.function, x, _GRADIENT.get() or self.backward)

    def get_config(self) -> dict[str, Any]:
        activation = keras.saving.serialize_keras_object(self.activation)
        return {**super().get_config(), "activation": activation, "backward": self.backward}


def _activation_of(given):
    """Return the function or layer that a name, a configuration, or it itself means."""
    if isinstance(given, dict):
        return keras.saving.deserialize_keras_object(given)
    return keras.activations.get(given)


def _substituted(function, x, other):
    """Return the values of a function, with the gradient to x of the activation `other`; None: its own."""
    if other is None:
        return function(x)
    return _with_gradient(function(tf.stop_gradient(x)), x, _function_of(other))


def _with_gradient(values, x, function):
    """Return `values`, whose gradient to x is that of `function`; what flows to themselves flows on."""

    @tf.custom_gradient
    def differentiable(values, x):
        def gradient(upstream):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                others = function(x)
            return upstream, tape.gradient(others, x, output_gradients=upstream, unconnected_gradients="zero")

        return tf.identity(values), gradient

    return differentiable(values, x)


def _in_one_pass(spec, other, x, *numbers):
    """Return an activation of bfloat16 whose gradient, computed in float32, XLA compiles into one pass.

    Operations of their own would pass over memory for each step, and twice more for the casts.
    """

    @tf.custom_gradient
    def compiled(x, *numbers):
        values = tf.cast(_formula_of(spec)(tf.cast(x, tf.float32), *numbers), x.dtype)
        return values, lambda upstream: _gradients(spec, other)(x, upstream, *numbers)

    return compiled(x, *numbers)


@functools.cache
def _gradients(spec, other):
    """Return `(x, upstream, *numbers) -> gradients to x and numbers`, one function for all layers of a kind."""
    function = _formula_of(spec)

    @tf.function(jit_compile=True, autograph=False)
    def gradients(x, upstream, *numbers):
        exact = tf.cast(x, tf.float32)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([exact, *numbers])
            values = _substituted(lambda points: function(points, *numbers), exact, other)
        to_x, *others = tape.gradient(values, [exact, *numbers], output_gradients=tf.cast(upstream, tf.float32))
        return tf.cast(to_x, x.dtype), *others

    return gradients


ACTIVATIONS = {
    "relu": ReLU,
    "relu6": ReLU6,
    "swish": Swish,
    "silu": Swish,
    "softplus": Softplus,
    "parametric_softplus": ParametricSoftplus,
    "gelu": GELU,
    "gelu_tanh": GELUTanh,
    "elu": ELU,
    "celu": CELU,
    "smoothrelu": SmoothReLU,
    "mish": Mish,
}


def factory(spec: str) -> Callable[[str], keras.Layer]:
    """Return the factory of an activation: `layer_name -> keras.Layer`, a new layer at each call.

    Args:
      spec: a name of `ACTIVATIONS`, with its number after a colon where it has one: "swish", "celu:1.5".

    Raises:
      ValueError: unknown name, or a number that the activation does not take.
    """
    name, _, number = spec.partition(":")
    if name not in ACTIVATIONS:
        raise unknown("a known activation", "act", spec, ACTIVATIONS, name)
    layer = ACTIVATIONS[name]
    if ":" not in spec:
        return lambda layer_name: layer(name=layer_name)
    if not issubclass(layer, (Parametric, SmoothReLU)):
        raise ValueError(f"Expected {name} without a number. Received: act={spec!r}.")
    try:
        build = functools.partial(layer, float(number))
        build()  # a bad alpha fails here, not when the model is half built
    except ValueError as error:
        raise ValueError(f"Expected {name}:alpha with a finite alpha > 0. Received: act={spec!r}.") from error
    return lambda layer_name: build(name=layer_name)


@functools.cache
def _function_of(spec):
    """Return the function of an activation without its layer, the same for each of its sites: `x -> values`."""
    layer = factory(spec)("gradient")
    if isinstance(layer, SmoothReLU):
        return lambda x: formulas.smooth_relu(x, layer.initial_alpha)
    return layer.function


def _formula_of(spec):
    """Return the function of an activation and of the numbers that its layer learns: `(x, *numbers) -> values`."""
    return formulas.smooth_relu if ACTIVATIONS[spec.partition(":")[0]] is SmoothReLU else _function_of(spec)
