"""Convolution, alone or with the batch normalisation behind it as one layer."""

import math
from typing import Any

import keras
import tensorflow as tf

from sat_tf.layers.normalisation import Norm, Shape


@keras.saving.register_keras_serializable("layers")
class ConvNorm(Norm):
    """Convolve, then normalise by batch, as `Norm` does: `[b, h, w, c] -> [b, h', w', filters]`.

    In inference mode the moving statistics are a scale and an offset, which are folded into kernel and bias, so that
    an attack's or an evaluation's forward and backward passes pay for a convolution and nothing else; where the kernel
    is larger than the image (the last stages at small sizes) the outputs are scaled instead.

    Args:
      filters: output channels.
      kernel_size: height and width of the kernel, odd.
      strides: of both directions.
      groups: channels are convolved in this many independent groups; the kernel is `[k, k, c / groups, filters]`.
      padding: "same" as TensorFlow pads (with stride 2 an even image gets its padding right and below only), or
        "symmetric": `kernel_size // 2` pixels of zeros on every side.
      momentum, epsilon: of the batch normalisation.
      zero_gamma: start gamma at zero instead of one (the last normalisation of a residual branch).
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        groups: int = 1,
        padding: str = "same",
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        zero_gamma: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(momentum, epsilon, **kwargs)
        if padding not in ("same", "symmetric"):
            raise ValueError(f"Expected padding 'same' or 'symmetric'. Received: padding={padding!r}.")
        if filters % groups:
            raise ValueError(f"Expected filters that groups divides. Received: filters={filters}, groups={groups}.")
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.groups = groups
        self.padding = padding
        self.zero_gamma = zero_gamma

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        if channels % self.groups:
            raise ValueError(
                f"Expected channels that groups divides. Received: channels={channels}, groups={self.groups}."
            )
        self._add_variables((self.kernel_size, self.kernel_size, channels // self.groups, self.filters), self.filters)

    def _add_variables(self, kernel_shape, outputs):
        initializer = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
        self.kernel = self.add_weight(name="kernel", shape=kernel_shape, initializer=initializer, autocast=False)
        self.add_norm(outputs, "zeros" if self.zero_gamma else "ones")

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return `[b, h', w', filters]`; `training` says whose statistics normalise."""
        kernel = tf.convert_to_tensor(self.kernel)
        if training and self.trainable:  # frozen, it keeps its statistics, as Keras' own
            return self.by_batch(self._convolve(inputs, kernel))
        scale, offset = self.scale_and_offset()
        if self._fold_pays(inputs.shape):
            outputs = self._convolve(inputs, self._scaled(kernel, scale))
            return tf.nn.bias_add(outputs, tf.cast(offset, outputs.dtype))
        outputs = self._convolve(inputs, kernel)
        return outputs * tf.cast(scale, outputs.dtype) + tf.cast(offset, outputs.dtype)

    def _scaled(self, kernel, scale):
        return kernel * scale

    def _fold_pays(self, shape):
        """Say whether scaling the kernel moves less memory than scaling the outputs forward and backward."""
        if None in shape:
            return True
        positions = math.prod(shape[:3]) // self.strides**2
        return self.kernel_size**2 * self.kernel.shape[2] <= 2 * positions

    def _convolve(self, inputs, kernel):
        padding = "SAME"
        if self.padding == "symmetric" and self.strides > 1:  # with stride 1 the two paddings are the same
            side = self.kernel_size // 2
            inputs = tf.pad(inputs, [[0, 0], [side, side], [side, side], [0, 0]])
            padding = "VALID"
        return self._apply(inputs, tf.cast(kernel, inputs.dtype), padding)

    def _apply(self, inputs, kernel, padding):
        return conv2d(inputs, kernel, self.strides, padding, self.groups)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, _ = input_shape
        return (batch, *(None if n is None else -(-n // self.strides) for n in (height, width)), self.filters)

    def get_config(self) -> dict[str, Any]:
        names = ("filters", "kernel_size", "strides", "groups", "padding", "momentum", "epsilon", "zero_gamma")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable("layers")
class DepthwiseConvNorm(ConvNorm):
    """Convolve each channel by a kernel of its own `[k, k, c, 1]`, then normalise: `[b, h, w, c] -> [b, h', w', c]`.

    Arguments as `ConvNorm`, which takes `filters` and `groups` besides.
    """

    def __init__(
        self,
        kernel_size: int,
        strides: int = 1,
        padding: str = "same",
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        zero_gamma: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(1, kernel_size, strides, 1, padding, momentum, epsilon, zero_gamma, **kwargs)

    def build(self, input_shape: Shape) -> None:
        self.filters = input_shape[-1]
        self._add_variables((self.kernel_size, self.kernel_size, self.filters, 1), self.filters)

    def _scaled(self, kernel, scale):
        return kernel * scale[:, tf.newaxis]

    def _apply(self, inputs, kernel, padding):
        if tuple(inputs.shape[1:3]) == (1, 1) and padding == "SAME":  # only the kernel's centre meets the image
            return inputs * kernel[self.kernel_size // 2, self.kernel_size // 2, :, 0]
        strides = [1, self.strides, self.strides, 1]
        return tf.nn.depthwise_conv2d(inputs, kernel, strides, padding)

    def _fold_pays(self, shape):
        return True  # a kernel has fewer values than any image it is worth sliding over

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*super().compute_output_shape(input_shape)[:3], input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {name: value for name, value in config.items() if name not in ("filters", "groups")}


@keras.saving.register_keras_serializable("layers")
class Conv(keras.layers.Conv2D):
    """Keras' convolution with padding "same", computed as `conv2d` does: `[b, h, w, c] -> [b, h', w', filters]`.

    On a CPU the gradient of a 1x1 kernel to its inputs takes a tenth of the time that Keras' own does.
    """

    def __init__(self, filters: int, kernel_size: int | tuple[int, int], **kwargs: Any) -> None:
        super().__init__(filters, kernel_size, **{"padding": "same", **kwargs})

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Return the convolution without bias and activation."""
        kernel = tf.cast(tf.convert_to_tensor(kernel), inputs.dtype)
        return conv2d(inputs, kernel, self.strides[0], self.padding.upper(), self.groups)


def conv2d(inputs: tf.Tensor, kernel: tf.Tensor, strides: int, padding: str, groups: int = 1) -> tf.Tensor:
    """Convolve, on the CPU by what is fast there: `[b, h, w, c] -> [b, h', w', filters]`.

    There a 1x1 kernel is a matrix product, of every second pixel where it strides: oneDNN's gradient to such a kernel
    writes past its memory (uxlfoundation/oneDNN, issue 6035). A large kernel that strides over images runs on their
    2x2 blocks, which halves the time of an attack's last step back to the image. TensorFlow has no CPU gradient of a
    grouped convolution, and the one that XLA compiles, which Keras falls back to, is some 200 times slower than this
    (keras_conv in benchmarks/train_step.py): four groups at a time, as one dense convolution with a block-diagonal
    kernel. Other devices run the kernel as it is.

    Args:
      inputs: `[b, h, w, c]`.
      kernel: `[k, k, c / groups, filters]`.
      strides: of both directions.
      padding: "SAME" or "VALID".
      groups: how many.
    """
    if not on_cpu():
        return tf.nn.conv2d(inputs, kernel, strides, padding)
    size = kernel.shape[0]
    if size == 1 and strides > 1:
        inputs, strides = subsampled(inputs, strides), 1
    if groups == 1:
        if size == 1:
            return tf.tensordot(inputs, tf.reshape(kernel, kernel.shape[2:]), 1)
        if size > 3 and strides == 2 and padding == "VALID" and _even(inputs.shape[1:3]):
            return tf.nn.conv2d(tf.nn.space_to_depth(inputs, 2), _kernel_on_blocks(kernel), 1, padding)
        return tf.nn.conv2d(inputs, kernel, strides, padding)
    together = 4 if groups % 4 == 0 else 1
    pieces = groups // together
    parts = zip(tf.split(inputs, pieces, -1), tf.split(kernel, pieces, -1), strict=True)
    return tf.concat([tf.nn.conv2d(i, _block_diagonal(k, together), strides, padding) for i, k in parts], -1)


def subsampled(inputs: tf.Tensor, strides: int) -> tf.Tensor:
    """Return every second, third, ... pixel of both directions: `[b, h, w, c] -> [b, ceil(h / strides), ..., c]`.

    It is `inputs[:, ::strides, ::strides]` to the bit, as the mean of one pixel; a slice with strides and its gradient
    take six to eight times as long on a CPU.
    """
    return tf.nn.avg_pool2d(inputs, 1, strides, "VALID")


def on_cpu() -> bool:
    """Say whether it is the processor that convolves: TensorFlow sees neither a GPU nor a TPU."""
    return not (tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))


def _even(sides):
    return None not in sides and not any(side % 2 for side in sides)


def _kernel_on_blocks(kernel):
    """Return the kernel that does on 2x2 blocks at stride 1 what an odd kernel does on pixels at stride 2."""
    size, _, channels, filters = kernel.shape
    half = (size + 1) // 2
    blocks = tf.reshape(tf.pad(kernel, [[0, 1], [0, 1], [0, 0], [0, 0]]), [half, 2, half, 2, channels, filters])
    return tf.reshape(tf.transpose(blocks, [0, 2, 1, 3, 4, 5]), [half, half, 4 * channels, filters])


def _block_diagonal(kernel, groups):
    height, width, channels, filters = kernel.shape
    blocks = tf.reshape(kernel, [height, width, 1, channels, groups, filters // groups])
    blocks *= tf.reshape(tf.eye(groups, dtype=kernel.dtype), [1, 1, groups, 1, groups, 1])
    return tf.reshape(blocks, [height, width, groups * channels, filters])
