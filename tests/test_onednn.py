"""oneDNN: on unless the environment says otherwise, and never where its gradients write past their memory."""

import importlib
import os
import platform

import keras
import pytest
import tensorflow as tf
from small_methods import loop_of, make

import sat_tf
from sat_tf import AdversarialModel, machine, onednn


def strided(channels, strides=2, conv=keras.layers.Conv2D):
    images = keras.Input([8, 8, channels])
    x = conv(8, 1, strides=strides, name="shortcut")(images)
    return keras.Model(images, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x)), name="own")


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="x86 builds of TensorFlow have it")
@pytest.mark.parametrize("asked,found", [(None, "1"), ("0", "0")])
def test_it_is_asked_for_unless_the_environment_says_otherwise(asked, found, monkeypatch):
    if asked is None:
        monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    else:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", asked)
    importlib.reload(sat_tf)
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == found


def test_reports_say_whether_it_is_on():
    assert machine.devices(tf.distribute.get_strategy())["oneDNN"] == ("on" if onednn.is_on() else "off")


def test_a_gradient_that_it_would_write_past_its_memory_is_refused(monkeypatch):
    monkeypatch.setattr(onednn, "is_on", lambda: True)
    says = "Received: shortcut of own. Set TF_ENABLE_ONEDNN_OPTS=0"
    with pytest.raises(ValueError, match=says):
        loop_of(make("standard"), strided(3)).compile()
    robust = AdversarialModel(strided(3), epsilon=0.1, attack="pgd-1")
    robust.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match=says):
        robust.fit(tf.random.stateless_uniform([8, 8, 8, 3], [0, 1]), tf.zeros([8], tf.int32), batch_size=4, verbose=0)


def test_what_it_computes_well_is_not(monkeypatch):
    monkeypatch.setattr(onednn, "is_on", lambda: True)
    from sat_tf.layers import Conv

    for model in (strided(3, strides=1), strided(16), strided(3, conv=Conv)):
        onednn.check(model)
    frozen = strided(3)
    frozen.get_layer("shortcut").trainable = False
    onednn.check(frozen)
    monkeypatch.setattr(onednn, "is_on", lambda: False)
    onednn.check(strided(3))
