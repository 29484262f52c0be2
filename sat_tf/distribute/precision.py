"""Which numbers a network computes in: float32, or half precision with float32 weights."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
SCALING = (keras.layers.Rescaling, keras.layers.Normalization)


def compute_in(model: keras.Model, precision: str) -> None:
    """Have the layers of a model compute in a precision from now on; weights are float32 in each.

    The last layer, whose outputs are logits, and what scales images at the beginning compute in float32 always. What
    was traced before stays as it was; layers of neither float32 nor half precision are left alone.

    Args:
      model: built.
      precision: of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"Expected precision of {', '.join(PRECISIONS)}. Received: precision={precision}.")
    known = [keras.DTypePolicy(name) for name in PRECISIONS]
    last = model.layers[-1:] if hasattr(model, "layers") else []
    for layer in model._flatten_layers():
        if layer.dtype_policy in known:
            exact = layer in last or isinstance(layer, SCALING)
            layer.dtype_policy = "float32" if exact else precision


@contextlib.contextmanager
def computing_in(model: keras.Model, precision: str) -> Iterator[None]:
    """Have a model compute in a precision for as long, then as before: for what is traced inside."""
    layers = list(model._flatten_layers())
    before = [layer.dtype_policy for layer in layers]
    compute_in(model, precision)
    try:
        yield
    finally:
        for layer, policy in zip(layers, before, strict=True):
            layer.dtype_policy = policy


@contextlib.contextmanager
def exactly() -> Iterator[None]:
    """Compute products of float32 in float32 inside, not in the 10 bits of TF32 that GPUs take for it."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


class LossScale(keras.optimizers.LossScaleOptimizer):
    """Keras' dynamic loss scale for float16: a step whose gradients overflow changes nothing but the scale.

    Differs from Keras': all replicas skip a step if one of them must, and a step that is skipped counts as one, so that
    schedules, seeds and data go on.
    """

    def check_finite(self, grads: list) -> tf.Tensor:
        """Return whether the gradients of all replicas are finite."""
        finite = super().check_finite(grads)
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return finite
        return context.all_reduce("SUM", tf.cast(finite, tf.float32)) > context.num_replicas_in_sync - 0.5

    def _stateful_handle_non_finite_grads(self):
        super()._stateful_handle_non_finite_grads()
        self.inner_optimizer.iterations.assign_add(1)


def scaled(optimizer: keras.optimizers.Optimizer, precision: str) -> keras.optimizers.Optimizer:
    """Return an optimizer as a precision wants it: float16 is trained with a loss scale."""
    return LossScale(optimizer, name="loss_scale") if precision == "mixed_float16" else optimizer


def own(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Return the optimizer inside a loss scale, or itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)
