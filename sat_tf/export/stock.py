"""The same network of Keras' own layers and operations only: its file opens without this project."""

import math

import keras

from sat_tf import activations, layers
from sat_tf.resnet.small import Subsample


@layers.pinned()
def to_stock(model: keras.Model) -> keras.Model:
    """Rebuild a model of Keras' own layers and operations only, with the same logits in inference mode.

    Its `.keras` file opens with `keras.saving.load_model(path)`, in safe mode and where this project can't be
    imported, by the Keras that wrote it and by newer ones, and what was opened can be trained further. Training differs
    from the model's own in three points: a learned alpha of SmoothReLU is a number that stays, the moving variance goes
    without Bessel's correction, and random numbers come from Keras' generators. A layer `stem` that becomes several
    keeps its name before theirs: `stem_conv`, `stem_norm`.

    Args:
      model: a functional model of Keras' own layers and of those in `STOCK`. It is left as it was, and what it was
        compiled with is not taken over.

    Returns:
      A `keras.Model` with weights of its own; inputs and outputs as the model's.

    Raises:
      ValueError: the model is not functional, or has a layer that is neither in `STOCK` nor Keras' own.
    """
    if not getattr(model, "inputs", None):
        raise ValueError(f"Expected a functional model. Received: model={model!r}. Build it from a keras.Input.")
    copies = []  # (layer of the model, its copy) of what is Keras' own

    def clone(layer):
        if type(layer) in STOCK:
            return layer
        _check_keras_own(layer)
        copies.append((layer, type(layer).from_config(layer.get_config())))
        return copies[-1][1]

    def call(layer, *args, **kwargs):
        return STOCK[type(layer)](layer, *args) if type(layer) in STOCK else layer(*args, **kwargs)

    uncompiled = keras.Model(model.input, model.output, name=model.name)
    stock = keras.models.clone_model(uncompiled, clone_function=clone, call_function=call)
    for layer, copy in copies:
        if isinstance(layer, keras.layers.Layer):  # an operation has no weights
            copy.set_weights(layer.get_weights())
    return stock


def _check_keras_own(layer):
    """Raise ValueError unless a layer, and all that its config holds, is found in Keras."""
    foreign = sorted(set(_foreign(keras.saving.serialize_keras_object(layer))))
    if foreign:
        raise ValueError(
            f"Expected layers of Keras' own or of {', '.join(row.__name__ for row in STOCK)}. Received: "
            f"layer={layer.name!r}, which needs {', '.join(foreign)}. Write its function of Keras' own "
            "layers and add its row to STOCK in sat_tf/export/stock.py."
        )


def _foreign(config):
    """Yield the names of what a serialised object needs from outside Keras."""
    if isinstance(config, dict):
        module, name = config.get("module") or "keras", config.get("class_name")
        if name and (module.partition(".")[0] != "keras" or name == "__lambda__"):
            yield str(config["config"] if name == "function" else name)
        config = list(config.values())
    if isinstance(config, (list, tuple)):
        for part in config:
            yield from _foreign(part)


def _conv_norm(layer, x):
    groups = {"filters": layer.filters, "groups": layer.groups}
    return _convolve_and_normalise(layer, x, keras.layers.Conv2D, groups)


def _depthwise_conv_norm(layer, x):
    return _convolve_and_normalise(layer, x, keras.layers.DepthwiseConv2D, {})


def _convolve_and_normalise(layer, x, convolution, sizes):
    same = {"dtype": layer.dtype_policy, "trainable": layer.trainable}
    side = layer.kernel_size // 2 if layer.padding == "symmetric" and layer.strides > 1 else 0
    if side:
        x = keras.layers.ZeroPadding2D(side, name=f"{layer.name}_pad", dtype=layer.dtype_policy)(x)
    conv = convolution(
        kernel_size=layer.kernel_size,
        strides=layer.strides,
        padding="valid" if side else "same",
        use_bias=False,
        name=f"{layer.name}_conv",
        **sizes,
        **same,
    )
    norm = keras.layers.BatchNormalization(
        momentum=layer.momentum, epsilon=layer.epsilon, name=f"{layer.name}_norm", **same
    )
    x = norm(conv(x))
    conv.set_weights(_numbers(layer.kernel))
    norm.set_weights(_numbers(layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance))
    return x


def _conv(layer, x):
    conv = keras.layers.Conv2D.from_config(layer.get_config())
    x = conv(x)
    conv.set_weights(layer.get_weights())
    return x


def _norm(layer, x):
    same = {"dtype": layer.dtype_policy, "trainable": layer.trainable}
    norm = keras.layers.BatchNormalization(momentum=layer.momentum, epsilon=layer.epsilon, name=layer.name, **same)
    x = norm(x)
    norm.set_weights(_numbers(layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance))
    return x


def _numbers(*variables):
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def _dropout(layer, x):
    return keras.layers.Dropout(layer.rate, name=layer.name, dtype=layer.dtype_policy)(x) if layer.rate else x


def _stochastic_depth(layer, x):
    if not layer.rate:
        return x
    shape = (None, 1, 1, 1)  # one draw an example
    return keras.layers.Dropout(layer.rate, noise_shape=shape, name=layer.name, dtype=layer.dtype_policy)(x)


def _subsample(layer, x):
    missing = layer.filters - x.shape[-1]
    x = keras.layers.AveragePooling2D(1, 2, name=f"{layer.name}_pool", dtype=layer.dtype_policy)(x)
    side = ((0, 0), (missing // 2, missing - missing // 2))  # of the last two axes, which "channels_first" pads
    return keras.layers.ZeroPadding2D(side, "channels_first", name=layer.name, dtype=layer.dtype_policy)(x)


# Activations compute in `variable_dtype`, float32 under a mixed policy, as the layers that they stand for.


def _widened(layer, x):
    return x if x.dtype == layer.variable_dtype else keras.ops.cast(x, layer.variable_dtype)


def _function(name):
    """Return the row of an activation that Keras has by name."""
    return lambda layer, x: keras.layers.Activation(name, name=layer.name, dtype=layer.variable_dtype)(x)


def _parametric_softplus(layer, x):
    dtype = layer.variable_dtype
    x = keras.layers.Rescaling(layer.alpha, name=f"{layer.name}_scale", dtype=dtype)(x)
    x = keras.layers.Activation("softplus", name=f"{layer.name}_softplus", dtype=dtype)(x)
    return keras.layers.Rescaling(1 / layer.alpha, name=layer.name, dtype=dtype)(x)


def _gelu_tanh(layer, x):
    x = _widened(layer, x)
    gate = keras.ops.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))  # Keras' own loses the tail's digits
    return keras.layers.Multiply(name=layer.name, dtype=layer.variable_dtype)([x, gate])


def _elu(layer, x):
    return keras.layers.ELU(layer.alpha, name=layer.name, dtype=layer.variable_dtype)(x)


def _celu(layer, x):
    x = _widened(layer, x)
    below = layer.alpha * keras.ops.expm1(keras.ops.minimum(x, 0.0) / layer.alpha)
    return keras.layers.Add(name=layer.name, dtype=layer.variable_dtype)([keras.ops.relu(x), below])


def _log1p(z):
    """log(1 + z) of numbers from 0, by a series below 0.5: some runtimes know log alone, and the digits are needed."""
    s = z / (2 + z)
    q = s * s
    series = 2 * s * (1 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q / 11)))))
    return keras.ops.where(z < 0.5, series, keras.ops.log(1 + z))


def _smooth_relu(layer, x):
    x = keras.ops.relu(_widened(layer, x))
    alpha = max(_numbers(layer.raw)[0].item() ** 2, 1e-8)  # as the layer itself bounds it
    logarithm = _log1p(alpha * x) / alpha
    return keras.layers.Subtract(name=layer.name, dtype=layer.variable_dtype)([x, logarithm])


STOCK = {  # layer class: function (layer, its input) -> its output, of Keras' own layers and operations
    layers.ConvNorm: _conv_norm,
    layers.DepthwiseConvNorm: _depthwise_conv_norm,
    layers.Conv: _conv,
    layers.Norm: _norm,
    layers.Dropout: _dropout,
    layers.StochasticDepth: _stochastic_depth,
    Subsample: _subsample,
    activations.ReLU: _function("relu"),
    activations.ReLU6: _function("relu6"),
    activations.Swish: _function("silu"),
    activations.Softplus: _function("softplus"),
    activations.ParametricSoftplus: _parametric_softplus,
    activations.GELU: _function("gelu"),
    activations.GELUTanh: _gelu_tanh,
    activations.ELU: _elu,
    activations.CELU: _celu,
    activations.SmoothReLU: _smooth_relu,
    activations.Mish: _function("mish"),
}
