"""The settings of Keras that layers here are built with, whatever the user's are."""

import contextlib
from collections.abc import Iterator

import keras

if keras.config.backend() != "tensorflow":
    raise ImportError(
        f"Expected Keras on TensorFlow. Received: backend={keras.config.backend()}, with which Keras was imported "
        "before. Set KERAS_BACKEND=tensorflow, or import sat_tf first."
    )


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Build float32 variables and channels last inside, whatever `~/.keras/keras.json` or `keras.config` say.

    Mixed precision, whose variables are float32, stays as it is. Afterwards all settings are the user's again.
    """
    floatx, data_format, policy = keras.config.floatx(), keras.config.image_data_format(), keras.config.dtype_policy()
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    if policy.variable_dtype != "float32":
        keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_image_data_format(data_format)
        keras.config.set_dtype_policy(policy)
