"""`load` opens everything that the project writes, with the names of the classes, and nothing else."""

import data_files
import keras
import numpy as np
import pytest
import tensorflow as tf

import sat_tf
from sat_tf import attacks, models
from sat_tf.export import formats

EAGER = True

IMAGES = np.random.default_rng(0).random([2, 32, 32, 3]).astype(np.float32)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return the folder of a run and the model whose weights it keeps."""
    folder = tmp_path_factory.mktemp("run") / "run"
    return folder, data_files.write_run(folder)


@pytest.fixture(scope="module")
def run(written):
    return written[0]


def logits(model):
    return model(IMAGES, training=False).numpy()


def test_a_run_its_checkpoints_and_its_exports_are_one_model(written, tmp_path):
    run, kept = written
    model = sat_tf.load(run)
    np.testing.assert_array_equal(logits(model), logits(kept))
    assert model.output_shape == (None, 10) and len(model.classes) == 10 and not model.classes[0].isdecimal()
    (checkpoint,) = set((run / "checkpoints").glob("step-*"))
    for place in (str(run), run / "checkpoints" / "best", run / "checkpoints" / "latest", checkpoint):
        found = sat_tf.load(place)
        np.testing.assert_array_equal(logits(found), logits(model))
        assert found.classes == model.classes
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in model.classes))
    formats.saved_model(model, 32, folder / "saved_model" / "1", lambda content, size: tf.zeros([size, size, 3]),
                        [folder / "classes.txt"])  # fmt: skip
    served = [sat_tf.load(place) for place in (folder, folder / "saved_model", folder / "saved_model" / "1")]
    formats.keras_file(model, 32, folder / "model.keras", None, ())
    for found in (*served, sat_tf.load(folder / "model.keras"), sat_tf.load(folder)):
        np.testing.assert_allclose(logits(found), logits(model), atol=1e-4)
        assert found.classes == model.classes
    gradient = attacks.input_gradient(lambda x: served[0](x, training=False)[:, 0], tf.constant(IMAGES))
    assert np.abs(gradient).max() > 0


def test_a_new_head(run):
    model = sat_tf.load(run)
    other, named = sat_tf.load(run, classes=3), sat_tf.load(run, classes=["ant", "bee"])
    assert other.output_shape == (None, 3) and other.classes == ["0", "1", "2"]
    assert named.output_shape == (None, 2) and named.classes == ["ant", "bee"]
    for mine, theirs in zip(other.variables[:-2], model.variables[:-2], strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.path == theirs.path
    assert [v.path for v in other.variables] == [v.path for v in model.variables]


def test_files_of_others(tmp_path):
    inner = keras.Sequential([keras.Input([32, 32, 3]), keras.layers.Flatten(), keras.layers.Dense(4, "softmax")])
    nested = keras.Sequential([keras.Input([32, 32, 3]), keras.layers.Rescaling(2.0), inner])
    for model in (inner, nested):
        model.save(tmp_path / "own.keras")
        found = sat_tf.load(tmp_path / "own.keras")
        assert found.classes == ["0", "1", "2", "3"]
        np.testing.assert_allclose(logits(found), logits(model), rtol=1e-6)
        new = sat_tf.load(tmp_path / "own.keras", classes=2)
        np.testing.assert_allclose(logits(new).sum(-1), 1, rtol=1e-5)
        assert new.output_shape == (None, 2)
    model.export(tmp_path / "saved", verbose=False)
    np.testing.assert_allclose(logits(sat_tf.load(tmp_path / "saved")), logits(model), rtol=1e-5)
    assert sat_tf.load(inner, classes=5).output_shape == (None, 5)


def test_what_is_nothing_of_these(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "recipe.json").write_text("{}")
    (tmp_path / "m.keras").write_bytes(b"?")
    for place, error, words in (
        (3, ValueError, "a run's folder, .* Received: a int"),
        (tmp_path / "absent", FileNotFoundError, "which does not exist"),
        ("resnet50", FileNotFoundError, "models.build"),
        (tmp_path / "empty", FileNotFoundError, "which is none of them"),
        (tmp_path / "begun", FileNotFoundError, "no checkpoint yet"),
        (tmp_path / "m.tflite", ValueError, "a file of LiteRT"),
        (tmp_path / "m.keras", OSError, "cannot be read"),
        (tmp_path / "n.keras", FileNotFoundError, "There is no file"),
        ("released:resnet", ValueError, "Received"),
        ("released:Res50-silu", FileNotFoundError, "Get the files"),
    ):
        with pytest.raises(error, match=words):
            sat_tf.load(place)
    flat = keras.Sequential([keras.Input([8, 8, 3]), keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(ValueError, match="ends in a Dense layer"):
        sat_tf.load(flat, classes=3)
    for classes in (1, 0, 2.5, ["a", "a"]):
        with pytest.raises(ValueError, match="classes"):
            sat_tf.load(models.build("resnet8-w8", "swish", 3), classes=classes)
