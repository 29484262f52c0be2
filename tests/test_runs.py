"""Runs that remember: where their data lies, what was said, how they went; and go on with more epochs."""

import csv
import json
import logging
import pathlib
import shutil

import pytest
import tensorflow as tf
import test_experiment
from absl import logging as absl_logging

from sat_tf import console, data, experiment, hparams, pointers, progress, saving
from sat_tf.experiment import run as run_of
from sat_tf.runs import checkpoints, folders, journal, overlap, places

SMALL = {
    "model": "resnet8-w8",
    "dataset": "folder",
    "epochs": 1,
    "batch_size": 8,
    "warmup_epochs": 0,
    "schedule": "constant",
    "validation": 4,
    "validation_attack": "pgd-1",
    "validation_every": 1,
    "eval_attacks": "clean,pgd-1",
    "eval_checks": 0,
}


def small(**changes):
    return hparams.choose({**SMALL, **changes})


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a folder with photos/, and grown/, a run of one epoch that went on with a second."""
    home = tmp_path_factory.mktemp("runs")
    test_experiment.write_images(home / "photos", 0, count=20, names=("ant", "bee"))
    first = experiment.train(small(), home / "grown", data_dir=home / "photos", command="the first command")
    assert first["training"]["epochs"] == 1
    experiment.train(small(epochs=2), home / "grown", command="the second command")  # the place is remembered
    return home


def test_more_epochs_go_on_to_the_same_bits(home):
    straight = experiment.train(small(epochs=2), home / "straight", data_dir=home / "photos")
    test_experiment.assert_same(test_experiment.weights(home / "grown"), test_experiment.weights(home / "straight"))
    grown = json.loads((home / "grown/report.json").read_text())
    assert [row["correct"] for row in grown["evaluations"]] == [row["correct"] for row in straight["evaluations"]]
    assert json.loads((home / "grown/recipe.json").read_text())["epochs"] == grown["recipe"]["epochs"] == 2
    assert not (home / "grown/evaluations").exists()  # the report of one epoch is replaced
    found = experiment.compare([home / "grown", home / "straight"], home / "compared")
    pairs = [row for row in found["accuracies"] if row["run"] == "straight"]
    assert [row["common_images"] for row in pairs] == [row["count"] for row in grown["evaluations"]]
    assert all(row["difference"] == 0 and row["mcnemar_p"] == 1 for row in pairs) and not found["differences"]


def test_fewer_epochs_than_a_run_has_are_refused(home):
    before = {path: path.read_bytes() for path in (home / "grown").rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="Expected at least the 2 epochs .* Received: epochs=1"):
        experiment.train(small(epochs=1), home / "grown")
    assert before == {path: path.read_bytes() for path in (home / "grown").rglob("*") if path.is_file()}


def test_why_epochs_do_not_go_on_is_said(tmp_path):
    recipe = small(schedule="cosine")
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    with pytest.raises(ValueError, match="epochs: 1 there, 2 here. With other epochs the schedule cosine makes every"):
        folders.check_folder(tmp_path, recipe.replace(epochs=2))
    with pytest.raises(ValueError, match="epochs: 1 there, 2 here. Name another --model_dir|act: swish there") as error:
        folders.check_folder(tmp_path, recipe.replace(act="relu"))
    assert "schedule cosine" not in str(error.value)


def test_the_log_holds_what_was_said(home):
    text = (home / "grown/log.txt").read_text()
    assert text.index("the first command") < text.index("the second command")
    assert "Training resnet8-w8 with swish by sat, 18," in text and "folder: 2 classes, 31 images for training" in text
    assert "attack: PGD-1 at epsilon 8/255; 1 epoch of 3 steps" in text and "Going on from step 3 of 6" in text
    assert "training: 3 of 6 steps (50 %)" in text and "validation clean" in text and "\nTraceback" not in text
    last = text.strip().splitlines()[-1]
    assert last[:4].isdecimal() and "TensorBoard logs: " in last
    assert not progress.LISTENERS
    assert not [each for each in absl_logging.get_absl_logger().handlers if isinstance(each, console.LogFile)]


def test_the_history_is_a_table(home):
    with open(home / "grown/history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    history = saving.read_state(pointers.find(home / "grown"))["history"]
    assert [int(row["step"]) for row in rows] == [row["step"] for row in history] == [3, 6]
    for name, value in history[1].items():
        assert float(rows[1][name]) == value


def test_an_evaluation_need_not_say_where_the_data_lies(home, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(home / "grown", run, ignore=shutil.ignore_patterns("evaluations", "tensorboard"))
    report = experiment.evaluate({"eval_attacks": "clean"}, model_dir=run, command="evaluate")
    assert report["evaluations"][0]["count"] == 5 == sum(report["by_class"]["count"])
    log = (run / "evaluations/001/log.txt").read_text()
    assert f"The data lies in {home / 'photos'}" not in log  # it was found before there was a folder to write to
    assert "evaluate" in log and "Evaluating resnet8-w8 with swish" in log and "clean accuracy" in log
    content = json.loads((run / "data.json").read_text())
    assert content == {"dataset": "folder", "data_dir": str(home / "photos")}
    (run / "data.json").write_text(json.dumps({**content, "data_dir": str(tmp_path / "gone")}))
    for call in (experiment.evaluate, lambda changes, model_dir: experiment.train(small(epochs=2), model_dir)):
        with pytest.raises(FileNotFoundError, match="Received: .*gone, which is no more. Say where .*--data_dir=DIR"):
            call({}, model_dir=run)
    (run / "data.json").unlink()  # the checkpoint knows it, too
    recipe = hparams.Recipe.from_dict(json.loads((run / "recipe.json").read_text()))
    found = checkpoints.open_checkpoint(run, {})
    assert places.of_checkpoint(found, None) == str(home / "photos") and places.of_checkpoint(found, "x") == "x"
    assert places.of_run(run, recipe, None) is None
    found = checkpoints.open_checkpoint(run, {"dataset": "synthetic"})
    assert places.of_checkpoint(found, None) is None  # of another data set nothing is remembered


def test_data_that_was_moved_is_known_again(home, tmp_path):
    """The images are the same; of another image in it the run would say so."""
    run = tmp_path / "run"
    shutil.copytree(home / "grown", run, ignore=shutil.ignore_patterns("evaluations", "tensorboard"))
    shutil.copytree(home / "photos", tmp_path / "moved")
    dataset = data.load("folder", data_dir=tmp_path / "moved", validation=4)
    assert overlap.same(run, dataset) and overlap.same(run, data.load("folder", data_dir=home / "photos", validation=4))
    one = run_of.Run(small(epochs=2), dataset, tf.distribute.get_strategy(), run)
    one.restore()
    assert one.state.step == 6
    others = test_experiment.write_images(tmp_path / "b", 1, 20, ("ant", "bee"))
    other = data.load("folder", data_dir=others, validation=4)
    assert not overlap.same(run, other)
    with pytest.raises(ValueError, match="source: .*photos.* there, .*b.* here"):
        run_of.Run(small(epochs=2), other, tf.distribute.get_strategy(), run).restore()


def test_places_are_whole(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert places.whole("photos") == places.whole("~/photos") == str(tmp_path / "photos")
    assert places.whole("gs://bucket/photos") == "gs://bucket/photos" and places.whole(None) is None
    for damaged in ("", "[]", "{}"):
        (tmp_path / "data.json").write_text(damaged)
        assert hparams.data_of(tmp_path) == {}
    places.remember(tmp_path, small(), "photos")
    assert hparams.data_of(tmp_path) == {"dataset": "folder", "data_dir": str(tmp_path / "photos")}


def test_a_log_has_what_a_program_that_shows_warnings_alone_does_not(tmp_path, capfd):
    logger = absl_logging.get_absl_logger()
    before = logger.level, list(logger.handlers), logger.propagate
    seen = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    try:
        with pytest.raises(OSError), console.logged(tmp_path / "log.txt", "first"):
            absl_logging.info("known")
            absl_logging.warning("warned")
            console.say("a\nb")
            raise OSError("why it ended")
    finally:
        logger.removeHandler(handler)
        level, logger.level = logger.level, before[0]
    assert seen == ["warned"] and level == logging.WARNING and logger.handlers == before[1]
    assert logger.propagate == before[2]
    lines = [line[20:] for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert [line for line in lines if line != "known"] == ["first", "warned", "a", "b", "why it ended"]
    assert capfd.readouterr().out == "a\nb\n" and pathlib.Path(tmp_path / "log.txt").exists()


def test_every_start_and_every_step_is_on_record(home):
    record = journal.read(home / "grown")
    first, second = record["starts"]
    assert (first["command"], second["command"]) == ("the first command", "the second command")
    assert first["exit"] == second["exit"] == "finished"
    assert first["from_step"] == 0 and first["to_step"] == second["from_step"] == second["to_step"] // 2
    spent = second["wall_seconds"]
    assert set(spent) == {"whole", "attack", "update", *journal.PHASES} - {"training"}
    assert sum(spent.values()) - spent["whole"] <= spent["whole"] + 0.1 and spent["attack"] < spent["update"] < 3600
    rows = journal.read_metrics(home / "grown")
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    assert rows[-1]["step"] == second["to_step"] and "validation/robust_accuracy" in rows[-1]
