"""Settings of the whole suite: two logical CPU devices stand for two accelerators."""

import contextlib
import ctypes
import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402

CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(CPU, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.fixture(scope="session")
def two_replicas():
    """Return the suite's only strategy with two replicas."""
    from sat_tf.experiment import assembly

    return assembly.mirrored_strategy(tuple(device.name for device in tf.config.list_logical_devices("CPU")))


@pytest.fixture(autouse=True, scope="module")
def forgotten_models():
    """Free what can be freed of a file's models when its tests are done; Python does not know their size."""
    yield
    keras.utils.clear_session()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
