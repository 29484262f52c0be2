"""What strangers bring is data: nothing of it is run, however it is opened; docs/security.md lists what."""

import json
import os
import pathlib
import zipfile

import keras
import numpy as np
import pytest
from keras.src.backend.common import global_state

import sat_tf
from sat_tf import data, hparams, verify
from sat_tf.data import extra
from sat_tf.runs import checkpoints, folders


class Bomb:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def pickled(path, mark, *names):
    """Write an .npz whose arrays of these names are pickles."""
    np.savez(path, **{name: np.array([Bomb(mark)] * 4, dtype=object) for name in names})
    return path


READERS = {
    "extra images": (("image", "label"), lambda path: extra.extra_images(path, classes=10, side=8, of="cifar10")),
    "adversarial images": (("adversarial", "labels", "ids"), verify.read),
    "what was seen": (("train", "doubles"), data.read_seen),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_pickle_in_an_npz_is_never_read(tmp_path, kind):
    names, read = READERS[kind]
    path = pickled(tmp_path / "a.npz", tmp_path / "mark", *names)
    with pytest.raises((OSError, ValueError)):
        read(path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("unsafe", (False, True))
def test_code_in_a_keras_file_is_refused_whatever_keras_is_set_to(tmp_path, unsafe):
    mark = tmp_path / "mark"
    inputs = keras.Input([4, 4, 3])
    flat = keras.layers.Flatten()(keras.layers.Lambda(lambda x, mark=str(mark): x)(inputs))
    keras.Model(inputs, keras.layers.Dense(2)(flat)).save(tmp_path / "a.keras")
    if unsafe:
        keras.config.enable_unsafe_deserialization()
    try:
        with pytest.raises((OSError, ValueError)):
            sat_tf.load(tmp_path / "a.keras")
    finally:
        global_state.set_global_attribute("safe_mode_saving", None)
    assert not mark.exists()


def test_hdf5_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ValueError, match="HDF5, which is not read back"):
        sat_tf.load(tmp_path / "a.h5")


@pytest.mark.parametrize("value", ("__import__('os').mkdir('mark')", {"__class__": "os"}, ["!!python/object"]))
def test_values_of_a_recipe_are_not_evaluated(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    values = hparams.choose({}).to_dict() | {"learning_rate": value}
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    with pytest.raises((OSError, ValueError)):
        folders.read_recipe(tmp_path / "recipe.json")
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"]


@pytest.mark.parametrize("name", ("../../etc/passwd", "..", "efficientnet-b0/../../x", "a\0b"))
def test_a_release_is_a_name_of_the_table(tmp_path, name):
    with pytest.raises(ValueError, match="Expected a (known )?(name of a )?release"):
        checkpoints.open_checkpoint(f"released:{name}", {}, tmp_path / "in")


def test_names_inside_an_npz_are_never_paths(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("../../outside.npy", b"x")
    with pytest.raises((OSError, ValueError)):
        verify.read(tmp_path / "a.npz")
    assert not (tmp_path.parent / "outside.npy").exists() and not pathlib.Path("outside.npy").exists()
