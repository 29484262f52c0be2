"""A converted model is a pair of files: whatever moment a conversion is killed at, the same one succeeds afterwards."""

import json
import os
import types

import keras
import pytest

from sat_tf import hparams
from sat_tf.runs import checkpoints, converted


class Killed(BaseException):
    """Ends a conversion as a signal would, as far as the files are concerned."""


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((None, None, 3))
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(inputs)))


def found(path):
    state = dict.fromkeys(checkpoints.STATE_KEYS, "as it was")
    return types.SimpleNamespace(
        state=state, recipe=hparams.get("fashion"), name="net", known={}, weights="raw", published=None, path=path
    )


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("place", [".json", ".keras"])
def test_a_killed_conversion_can_be_repeated(tmp_path, monkeypatch, model, call, place):
    path, original = tmp_path / "runs" / "net.keras", getattr(os, call)

    def killed(*arguments):
        name = os.readlink(f"/proc/self/fd/{arguments[0]}") if call == "fsync" else str(arguments[1])
        if name.endswith(place):
            raise Killed
        return original(*arguments)

    monkeypatch.setattr(os, call, killed)
    with pytest.raises(Killed):
        converted.write(found(tmp_path), model, path)
    monkeypatch.undo()
    assert not path.exists() and path.with_suffix(".json").exists() == (place == ".keras")
    (path.parent / ".net.1.partial.keras").write_text("what a killed process leaves")
    assert converted.write(found(tmp_path), model, path) == path
    assert json.loads(path.with_suffix(".json").read_text())["converted_from"] == str(tmp_path)
    keras.saving.load_model(path)


@pytest.mark.parametrize("content", ["{}", "[1]", "text", '{"recipe": {}}'])
def test_a_file_of_another_kind_is_never_written_over(tmp_path, model, content):
    (tmp_path / "net.json").write_text(content)
    with pytest.raises(FileExistsError, match=r"Received: .*net\.json, which exists\. Remove it"):
        converted.write(found(tmp_path), model, tmp_path / "net.keras")
    assert (tmp_path / "net.json").read_text() == content and not (tmp_path / "net.keras").exists()


def test_a_whole_pair_is_never_written_over(tmp_path, model):
    converted.write(found(tmp_path), model, tmp_path / "net.keras")
    with pytest.raises(FileExistsError):
        converted.write(found(tmp_path), model, tmp_path / "net.keras")
