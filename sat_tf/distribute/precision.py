"""What goes with a precision beside the layers: exact products, the scale of a float16 loss, what is faster."""

import contextlib
import time
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

TRIALS = 5  # of a device in each precision


@contextlib.contextmanager
def exactly() -> Iterator[None]:
    """Compute products of float32 in float32 inside, not in the 10 bits of TF32 that GPUs take for it."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def faster_precision() -> tuple[str, float]:
    """Return "bfloat16" or "float32", what this device is faster in, and bfloat16's share of float32's time.

    A convolution and its gradient to the images, as an attack makes them, are timed in turn, in a second or two.
    bfloat16 has to win by a tenth: an attack has more to do than convolutions.
    """
    kernel = tf.random.stateless_normal([3, 3, 64, 64], [0, 1], 0.0, 0.05)

    @tf.function
    def gradient(images, kernel):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(tf.nn.conv2d(images, kernel, 1, "SAME") ** 2)
        return tape.gradient(loss, images)

    def seconds(dtype):
        given = tf.cast(tf.ones([16, 28, 28, 64]), dtype), tf.cast(kernel, dtype)
        begun = time.perf_counter()
        tf.reduce_sum(gradient(*given)).numpy()
        return time.perf_counter() - begun

    dtypes, times = (tf.float32, tf.bfloat16), []
    for _ in range(TRIALS):
        times.append([seconds(dtype) for dtype in dtypes])
    plain, short = np.min(times[1:], 0)  # the first time they are traced
    return "bfloat16" if short < 0.9 * plain else "float32", float(short / plain)


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
