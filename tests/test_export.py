"""A SavedModel: the same logits in another process without this project, any batch, differentiable."""

import subprocess
import sys

import numpy as np
import pytest

from sat_tf import export, models

IMAGES = np.random.default_rng(0).random((5, 32, 32, 3), np.float32)

CONSUMER = """
import sys, numpy as np, tensorflow as tf
assert "sat_tf" not in sys.modules
model = tf.saved_model.load(sys.argv[1])
images = tf.constant(np.load(sys.argv[2]))
with tf.GradientTape() as tape:
    tape.watch(images)
    logits = model.signatures["serving_default"](images=images)["logits"]
    top = tf.reduce_sum(tf.reduce_max(logits, -1))
np.savez(sys.argv[3], logits=logits, gradient=tape.gradient(top, images))
"""


@pytest.mark.parametrize("act", ["swish", "smoothrelu", "mish"])
def test_another_process_gives_the_same_logits_and_gradients(tmp_path, act):
    import tensorflow as tf

    model = models.build("resnet20", act, 10)
    difference = export.saved_model(model, tmp_path / "export", 32, IMAGES)
    assert difference < 1e-5
    np.save(tmp_path / "images.npy", IMAGES)
    subprocess.run([sys.executable, "-c", CONSUMER, tmp_path / "export", tmp_path / "images.npy", tmp_path / "out.npz"],
                   check=True, cwd=tmp_path, capture_output=True)
    out = np.load(tmp_path / "out.npz")
    images = tf.constant(IMAGES)
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = model(images, training=False)
        top = tf.reduce_sum(tf.reduce_max(logits, -1))
    np.testing.assert_allclose(out["logits"], logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out["gradient"], tape.gradient(top, images), rtol=1e-3, atol=1e-5)


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "export").mkdir()
    with pytest.raises(FileExistsError, match="exists"):
        export.saved_model(models.build("resnet20", "relu", 10), tmp_path / "export", 32, IMAGES)
    assert list((tmp_path / "export").iterdir()) == []
