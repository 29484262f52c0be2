"""What a number depends on: every entry is there, in words that JSON takes."""

import keras
import tensorflow as tf

from sat_tf import machine


def test_versions_and_devices_are_told():
    versions = machine.versions()
    assert versions["keras"] == keras.__version__ and versions["tensorflow"] == tf.__version__
    devices = machine.devices(tf.distribute.get_strategy())
    assert devices["replicas"] == "1" and "CPU" in devices["devices"] and all(map(str, devices.values()))
