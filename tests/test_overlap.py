"""A run and the images that it was trained on: they are never evaluated, wherever they come from."""

import shutil
import sys
import types

import numpy as np
import PIL.Image
import pytest
from data_files import noise, write_folder

from sat_tf import data, experiment, hparams
from sat_tf.data import make_shards
from sat_tf.runs import overlap

CLASSES = ("ant", "bee")
TINY = {
    "model": "resnet8-w8",
    "method": "standard",
    "dataset": "folder",
    "epochs": 1,
    "batch_size": 16,
    "validation": 4,
    "eval_attacks": "clean",
    "validation_attack": "pgd-1",
    "eval_checks": 0,
}
CHANGES = {"eval_checks": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a folder with a finished run, `run`, and its images, `images`."""
    root = tmp_path_factory.mktemp("overlap")
    write_folder(root / "images", 30, classes=CLASSES)
    experiment.train(hparams.choose(TINY), root / "run", data_dir=root / "images")
    return root


@pytest.fixture
def said(monkeypatch):
    """Return a list of the lines that are logged."""
    lines = []
    log = types.SimpleNamespace(info=lambda text, *values: lines.append(text % values))
    log.warning = log.info
    monkeypatch.setattr(overlap, "logging", log)
    return lines


def evaluate(run, data_dir, **changes):
    return experiment.evaluate({**CHANGES, **changes}, model_dir=run / "run", data_dir=data_dir)


def test_a_run_is_evaluated_on_its_own_test_part_also_after_additions(run, said, tmp_path):
    images = shutil.copytree(run / "images", tmp_path / "images")
    for place, image in enumerate(noise(3, 32, 32, seed=9)):
        PIL.Image.fromarray(image).save(images / "ant" / f"new {place}.png")
    dataset = data.load("folder", data_dir=images, validation=4)
    report = evaluate(run, images)
    assert report["evaluations"][0]["count"] == dataset.test.size
    words = f"Evaluating {dataset.test.size} of 63 images of {images}, a tenth of each class"
    assert any(words in line for line in said)


def test_images_that_it_was_trained_on_are_refused_wherever_they_lie(run, tmp_path):
    trained = data.load("folder", data_dir=run / "images", validation=4).train
    name = trained.names()[0]
    write_folder(tmp_path / "new" / "test", 9, classes=CLASSES, seed=5)
    PIL.Image.open(run / "images" / name).save(tmp_path / "new" / "test" / "bee" / "other.bmp")
    expected = "has not seen in training. Received: 1 of the 19 test images of .* that it has"
    with pytest.raises(ValueError, match=f"{expected}, the first bee/other.bmp. Evaluate on others"):
        evaluate(run, tmp_path / "new")
    make_shards.make(tmp_path / "new", tmp_path / "shards", {"train": None, "validation": None})
    with pytest.raises(ValueError, match=expected):
        evaluate(run, tmp_path / "shards", dataset="shards")
    with pytest.raises(ValueError, match=expected):
        experiment.export({}, model_dir=run / "run", data_dir=tmp_path / "new")
    (tmp_path / "ids").write_text("ant/000.png\nbee/000.png\n")
    found = experiment.evaluate(CHANGES, model_dir=run / "run", data_dir=tmp_path / "new", subset=tmp_path / "ids")
    assert found["evaluations"][0]["count"] == 2  # these two it has not seen


def test_a_run_of_old_is_not_evaluated_on_another_draw(run, said, tmp_path):
    """Its record is taken away: without one nobody knows what was drawn then."""
    shutil.copytree(run / "run", tmp_path / "run")
    (tmp_path / "run" / overlap.FILE).unlink()
    with pytest.raises(ValueError, match="Expected a folder test/ in .*images. Received: .* it is not known what"):
        evaluate(tmp_path, run / "images")
    write_folder(tmp_path / "new" / "test", 2, classes=CLASSES, seed=5)
    assert evaluate(tmp_path, tmp_path / "new")["evaluations"][0]["count"] == 4
    assert any("It is not known what images" in line for line in said)


def test_training_goes_on_with_its_own_images_only(run, tmp_path):
    dataset = data.load("folder", data_dir=run / "images", validation=4)
    overlap.remember(run / "run", dataset)
    images = shutil.copytree(run / "images", tmp_path / "images")
    PIL.Image.fromarray(noise(1, 32, 32, seed=8)[0]).save(images / dataset.train.names()[0])
    with pytest.raises(ValueError, match="images that the run in .* was begun with. Received: [12] other training"):
        overlap.remember(run / "run", data.load("folder", data_dir=images, validation=4))


def test_training_refuses_copies_among_its_test_images(said, tmp_path):
    write_folder(tmp_path / "in" / "train", 30, classes=CLASSES)
    write_folder(tmp_path / "in" / "test", 2, classes=CLASSES, seed=1)
    shutil.copy(tmp_path / "in" / "train" / "ant" / "003.png", tmp_path / "in" / "test" / "bee" / "copy.png")
    dataset = data.load("folder", data_dir=tmp_path / "in")
    with pytest.raises(ValueError, match="Received: 1 of the 5 test images .* are copies .*, the first bee/copy.png"):
        overlap.remember(tmp_path, dataset)
    assert not (tmp_path / overlap.FILE).exists()
    write_folder(tmp_path / "more", 60, classes=CLASSES, seed=2)
    for name in CLASSES:
        for file in (tmp_path / "more" / name).iterdir():
            file.rename(tmp_path / "in" / "test" / name / f"more {file.name}")
    overlap.remember(tmp_path, data.load("folder", data_dir=tmp_path / "in"))
    assert said[-1:] == ["1 of the 125 test images are copies of training images, the first bee/copy.png."]
    assert data.read_seen(tmp_path / overlap.FILE).doubles.shape == (1,)


def test_a_converted_model_remembers(run, tmp_path):
    path = experiment.convert({}, model_dir=tmp_path, checkpoint=run / "run")
    beside = data.read_seen(path.with_suffix(f".{overlap.FILE}"))
    np.testing.assert_array_equal(beside.train, data.read_seen(run / "run" / overlap.FILE).train)
    shutil.copytree(run / "images", tmp_path / "other" / "test")
    with pytest.raises(ValueError, match="has not seen in training"):
        experiment.evaluate(CHANGES, checkpoint=path, data_dir=tmp_path / "other", model_dir=tmp_path)


def test_export_without_its_data_states_no_accuracy(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["sat_tf.experiment.export"], "IMAGES", 8)
    (run / "images").rename(run / "elsewhere")
    try:
        result = experiment.export({}, model_dir=tmp_path, checkpoint=run / "run")
    finally:
        (run / "elsewhere").rename(run / "images")
    assert "which have other classes: only answers are compared" in result["images"]
    (row,) = result["formats"].values()
    assert row["passed"] and row["images"] == 8 and "attacked" not in row
    assert "right after" not in capsys.readouterr().out
    assert "PGD" not in (next((tmp_path / "export").iterdir()) / "README.md").read_text().split("| format")[1]
