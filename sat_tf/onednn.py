"""oneDNN's kernels, by which TensorFlow's x86 builds convolve: whether they are on, and what they fail at."""

import keras
from tensorflow.python.util import _pywrap_util_port

from sat_tf.layers.convolution import Conv, on_cpu

_FEW = 16  # channels of a vector of AVX-512; of AVX2 eight


def is_on() -> bool:
    """Say whether TensorFlow computes by them in this process; it reads TF_ENABLE_ONEDNN_OPTS when it is loaded."""
    return _pywrap_util_port.IsMklEnabled()


def check(model: keras.Model) -> None:
    """Refuse to train a network whose gradients they would write past their memory (oneDNN's issue 6035, as of 3.7).

    These are gradients to a 1x1 kernel that strides over fewer channels than a vector has.

    Raises:
      ValueError: it has such a kernel, and they are on.
    """
    if not is_on() or not on_cpu():
        return
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Conv2D) and layer.built and layer.trainable and _fails(layer):
            raise ValueError(
                f"Expected no 1x1 convolution with strides over fewer than {_FEW} channels, whose gradients oneDNN "
                f"writes past its memory. Received: {layer.name} of {model.name}. Set TF_ENABLE_ONEDNN_OPTS=0 in the "
                "environment."
            )


def _fails(layer):
    if isinstance(layer, Conv):  # which multiplies matrices there
        return False
    return tuple(layer.kernel_size) == (1, 1) and max(layer.strides) > 1 and layer.kernel.shape[-2] < _FEW
