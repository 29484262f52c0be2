"""Evaluations of a checkpoint: image by image, stopped and gone on with, in parts, withheld, verified."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest

from sat_tf import attacks, cli, corruptions, evaluate, experiment, hparams, verify
from sat_tf.evaluate import attacker, sanity, store
from sat_tf.experiment import measure
from sat_tf.report.joined import _curve, _extras

EAGER = True

ROOT = pathlib.Path(__file__).parents[1]
TINY = {
    "model": "resnet2-w8",
    "dataset": "synthetic",
    "epochs": 5,
    "learning_rate": 0.5,
    "norm_momentum": 0.5,
    "batch_size": 64,
    "validation": 40,
    "eval_attacks": "clean,pgd-1",
    "validation_attack": "pgd-1",
    "eval_batch_size": 50,
    "steps_per_call": 2,
    "eval_checks": 0,
    "eval_images": 90,
}
EVALUATED = {"eval_attacks": "clean,pgd-5,apgd-ce", "eval_batch_size": 16}  # and 4: a trace each
ONE_SIZE = {**EVALUATED, "eval_batch_size": 15}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a trained run."""
    model_dir = tmp_path_factory.mktemp("run") / "run"
    experiment.train(hparams.choose(TINY), model_dir)
    return model_dir


@pytest.fixture(scope="module")
def whole(trained):
    """Return the report of an evaluation, and its folder."""
    report = experiment.evaluate(EVALUATED, model_dir=trained, save_adversarial=True)
    return report, max((trained / "evaluations").iterdir())


def table(folder):
    with open(folder / "images.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_is_accounted_for(whole):
    report, folder = whole
    rows = {row["attack"]: row for row in report["evaluations"]}
    assert list(rows) == ["clean", "pgd-5", "apgd-ce"] and all(row["count"] == 90 for row in rows.values())
    assert (rows["pgd-5"]["iterates"], rows["pgd-5"]["norm"], rows["apgd-ce"]["steps"]) == ("worst", "linf", 100)
    examples = table(folder)
    assert len(examples) == 180
    for name in ("pgd-5", "apgd-ce"):
        mine = [row for row in examples if row["attack"] == name]
        assert sum(row["fooled_by"] == "" for row in mine) == rows[name]["correct"]
        assert sum(row["fooled_by"] != "clean" for row in mine) == rows["clean"]["correct"]
        for row in mine:
            assert (row["fooled_by"] == "clean") == (row["label"] != row["clean_prediction"])
            assert (float(row["margin"]) <= 0) == (row["fooled_by"] != "")
            assert float(row["distance"]) <= 8 / 255 and (row["fooled_by"] == name) == (float(row["distance"]) > 0)
    assert report["curve"]["steps"] == [0, 1, 2, 5] and report["curve"]["accuracy"][-1] == rows["pgd-5"]["accuracy"]
    assert not (folder / "work").exists() and report["checked"] is False and report["trusted"] is True
    assert {"name", "dataset", "architecture", "eps", "clean_acc", "autoattack_acc"} <= report["robustbench"].keys()
    assert report["robustbench"]["eps"] == "8/255" and report["robustbench"]["autoattack_acc"] is None
    assert "Not checked" in (folder / "report.md").read_text()


def test_final_iterates_are_the_papers_and_no_fewer_survive_them(trained, whole, capsys):
    final = experiment.evaluate(
        {**ONE_SIZE, "eval_attacks": "clean,pgd-5", "eval_active_set": False}, model_dir=trained
    )
    assert final["evaluations"][1]["iterates"] == "final"
    assert final["evaluations"][1]["correct"] >= whole[0]["evaluations"][1]["correct"]
    assert "worst iterate" not in capsys.readouterr().out
    assert final["curve"]["steps"] == [0, 1, 2, 5]


def test_the_file_of_adversarial_images_is_read_by_another_reader(trained, whole):
    report, folder = whole
    assert report["files"]["adversarial"] == ["adversarial-pgd-5.npz", "adversarial-apgd-ce.npz"]
    file = folder / "adversarial-apgd-ce.npz"
    changes = hparams.read({"eval_epsilon": "8/255"})
    findings, accuracies = experiment.verify(file, changes, model_dir=trained)
    assert all(finding.passed for finding in findings) and {"ball", "clean sha256"} <= {f.name for f in findings}
    assert accuracies["float32"] == report["evaluations"][2]["accuracy"]
    tampered = {name: np.array(value) for name, value in verify.read(file).items()}
    tampered["float32"][3, 0, 0, 0] = 0.5 + 0.5 * (tampered["float32"][3, 0, 0, 0] < 0.5)
    np.savez(folder / "tampered.npz", **tampered)
    findings, _ = experiment.verify(folder / "tampered.npz", changes, model_dir=trained)
    assert {f.name for f in findings if not f.passed} >= {"float32 sha256", "float32 radius"}
    findings, _ = experiment.verify(file, hparams.read({"eval_epsilon": "4/255"}), model_dir=trained)
    assert [f.name for f in findings if not f.passed] == ["ball"]


def test_a_stopped_evaluation_goes_on_and_ends_alike(trained, whole, monkeypatch):
    monkeypatch.setattr(attacker, "EVERY", 0.0)
    monkeypatch.setattr(attacker, "SHARE", 1e9)
    save, taken, stops = store.Store.save, set((trained / "evaluations").iterdir()), [1, 3, 4]

    def saving(self, arrays, work):
        save(self, arrays, work)
        if stops:
            stops[0] -= 1
            if not stops[0]:
                stops.pop(0)
                raise KeyboardInterrupt

    monkeypatch.setattr(store.Store, "save", saving)
    for _ in (1, 2, 3):  # in the first attack, and wherever else the same command was stopped again
        with pytest.raises(KeyboardInterrupt):
            experiment.evaluate(EVALUATED, model_dir=trained)
    report = experiment.evaluate(EVALUATED, model_dir=trained)
    (folder,) = set((trained / "evaluations").iterdir()) - taken
    assert table(folder) == table(whole[1])
    assert [row["correct"] for row in report["evaluations"]] == [r["correct"] for r in whole[0]["evaluations"]]


KILLED = """
from sat_tf.evaluate import attacker
import tensorflow as tf
tf.config.run_functions_eagerly(True)  # as here: a graph rounds otherwise
attacker.EVERY, attacker.SHARE = 0.0, 1e9
from sat_tf import experiment
experiment.evaluate({changes!r}, model_dir={model_dir!r})
"""


def test_a_killed_evaluation_goes_on_and_ends_alike(trained, whole):
    taken = set((trained / "evaluations").iterdir())
    code = KILLED.format(changes=EVALUATED, model_dir=str(trained))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment
    )
    while not list((trained / "evaluations").glob("*/work/*/*/state.npz")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    experiment.evaluate(EVALUATED, model_dir=trained)
    (folder,) = set((trained / "evaluations").iterdir()) - taken
    assert table(folder) == table(whole[1])


def test_another_request_has_a_folder_of_its_own(trained, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    taken = set((trained / "evaluations").iterdir())
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(measure.Measurement, "rows", stopped)
        experiment.evaluate({**EVALUATED, "seed": 3}, model_dir=trained)
    experiment.evaluate({**ONE_SIZE, "eval_attacks": "clean"}, model_dir=trained)
    first, second = sorted(set((trained / "evaluations").iterdir()) - taken)
    assert not (first / "report.json").exists() and (second / "report.json").exists()


def test_parts_are_the_whole(trained, whole, tmp_path):
    folders = []
    for number in (1, 2, 3):
        report = experiment.evaluate(ONE_SIZE, model_dir=trained, shard=(number, 3), save_adversarial=True)
        folders.append(max((trained / "evaluations").iterdir()))
        assert report["dataset"]["test"] == 30 and report["shard"] == (number, 3)
    merged = experiment.merge([folders[2], folders[0], folders[1]])
    folder = max((trained / "evaluations").iterdir())
    expected, found = (
        {(row["attack"], row["id"]): row["fooled_by"] for row in table(place)} for place in (whole[1], folder)
    )
    order = EVALUATED["eval_attacks"].split(",")
    assert list(found) == sorted(found, key=lambda key: (order.index(key[0]), int(key[1])))
    assert found.keys() == expected.keys() and sum(found[key] != expected[key] for key in found) <= 1
    for row in merged["evaluations"]:
        assert row["count"] == 90 and row["accuracy"] == row["correct"] / 90
    assert merged["shard"] is None and merged["dataset"]["test"] == 90
    rows = {row["attack"]: row for row in merged["evaluations"]}
    assert merged["curve"]["count"] == 90
    assert merged["curve"]["accuracy"][-1] == pytest.approx(rows["pgd-5"]["accuracy"])
    for name in merged["files"]["adversarial"]:
        with np.load(folder / name) as joined, np.load(whole[1] / name) as one:
            assert joined.files == one.files
            for array in ("ids", "labels", "clean_sha256", "epsilon", "norm"):
                np.testing.assert_array_equal(joined[array], one[array])
            assert (joined["float32_sha256"] == one["float32_sha256"]).mean() > 0.9
        findings, _ = experiment.verify(folder / name, {}, model_dir=trained)
        assert all(finding.passed for finding in findings)
    assert len(merged["files"]["adversarial"]) == 2
    for parts, says in (((0, 1), "each of the 3 parts once"), ((0, 1, 1), "each of the 3 parts once")):
        with pytest.raises(ValueError, match=says):
            experiment.merge([folders[part] for part in parts])
    for seed in (0, 1):
        other = experiment.evaluate({"eval_attacks": "clean", "seed": seed}, model_dir=trained, shard=(seed + 1, 2))
        folders.append(max((trained / "evaluations").iterdir()))
        assert other["seed"] == seed
    with pytest.raises(ValueError, match="differ in recipe"):
        experiment.merge(folders[3:])
    with pytest.raises(ValueError, match="a whole evaluation"):
        experiment.merge([whole[1]])
    with pytest.raises(FileNotFoundError, match="no report.json"):
        experiment.merge([tmp_path])


def test_what_parts_found_beside_attacks_is_weighed_by_their_images():
    parts = [
        {
            "extras": {
                "count": count,
                "clean": share,
                "corruptions": {"fog": [share, 0.0]},
                "noise": {"0.1": share},
                "library": "1.0",
            },
            "curve": None,
        }
        for count, share in ((30, 0.5), (10, 0.9))
    ]
    assert _extras(parts) == {
        "count": 40,
        "clean": pytest.approx(0.6),
        "noise": {"0.1": pytest.approx(0.6)},
        "corruptions": {"fog": [pytest.approx(0.6), 0.0]},
        "library": "1.0",
    }
    assert _curve(parts) is None and _extras([parts[0], {"extras": None}]) is None


def test_a_subset_is_evaluated_and_named(trained, whole, tmp_path):
    file = tmp_path / "ids.txt"
    ids = [int(row["id"]) for row in table(whole[1])[:40:2]]
    file.write_text("# chosen\n" + "\n".join(map(str, reversed(ids))))
    report = experiment.evaluate({**ONE_SIZE, "eval_attacks": "clean,pgd-5"}, model_dir=trained, subset=str(file))
    assert report["subset"]["images"] == 20 and len(report["subset"]["sha256"]) == 64
    assert report["evaluations"][0]["count"] == 20
    assert report["subset"]["sha256"] in " ".join(report["dataset"]["notes"])
    file.write_text(f"{ids[0]}\n{ids[0]}\n")
    with pytest.raises(ValueError, match="twice|once|repeat"):
        experiment.evaluate(EVALUATED, model_dir=trained, subset=str(file))


def test_radii_make_a_falling_curve_with_a_image(trained):
    report = experiment.evaluate(
        {**ONE_SIZE, "eval_attacks": "clean,pgd-5", "eval_radii": "16/255,0,4/255", "eval_noise": "0.1"},
        model_dir=trained,
    )
    radii = report["radii"]
    assert radii["radii"] == [0, 4 / 255, 16 / 255] and radii["correct"] == sorted(radii["correct"], reverse=True)
    assert radii["correct"][0] == report["evaluations"][0]["correct"]
    assert list(report["extras"]["noise"]) == ["0.1"]
    assert (max((trained / "evaluations").iterdir()) / "figures" / "accuracy_vs_radius.png").is_file()


def test_the_l2_ball(trained):
    changes = {**ONE_SIZE, "eval_norm": "l2", "eval_epsilon": "0.5"}
    report = experiment.evaluate(changes, model_dir=trained)
    folder = max((trained / "evaluations").iterdir())
    assert max(float(row["distance"]) for row in table(folder)) <= 0.5 * (1 + 1e-6)
    assert report["robustbench"]["eps"] == "0.5" and report["robustbench"]["threat_model"] == "L2"
    assert "epsilon 0.5" in (folder / "report.md").read_text()
    with pytest.raises(ValueError, match="--epsilon=0.5"):
        experiment.evaluate({**ONE_SIZE, "eval_norm": "l2"}, model_dir=trained)


@pytest.mark.graphs
def test_autoattack_is_no_weaker_than_its_parts(trained, monkeypatch):
    monkeypatch.setattr(attacks.Square, "steps", 200)  # instead of 5,000 queries, of the one image that comes so far
    report = experiment.evaluate(
        {"eval_attacks": "clean,apgd-ce,autoattack", "eval_epsilon": "2/255", "eval_images": 12, "eval_batch_size": 4},
        model_dir=trained,
    )
    _, alone, ensemble = report["evaluations"]
    assert [stage["attack"] for stage in ensemble["stages"]] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    left = [stage["correct"] for stage in ensemble["stages"]]
    assert (
        left == sorted(left, reverse=True)
        and left[-2] > 0
        and left[-1] == ensemble["correct"]
        and left[0] == alone["correct"]
    )
    assert report["robustbench"]["autoattack_acc"] == f"{100 * ensemble['accuracy']:.2f}"


def failing(hard):
    return lambda *_, **__: [sanity.Check(name="finite", hard=hard, passed=False, figure="3 of 5", numbers={})]


@pytest.mark.parametrize("hard,force", [(True, False), (True, True), (False, False)])
def test_a_number_that_failed_a_check_is_withheld(trained, monkeypatch, capsys, hard, force):
    monkeypatch.setattr(evaluate, "before", failing(hard))
    monkeypatch.setattr(evaluate, "after", lambda *_, **__: [])
    report = experiment.evaluate(
        {**ONE_SIZE, "eval_attacks": "clean,pgd-5", "eval_checks": 5}, model_dir=trained, force=force
    )
    text = (max((trained / "evaluations").iterdir()) / "report.md").read_text()
    out = capsys.readouterr().out
    shown = not hard or force
    assert report["trusted"] is not hard and report["robustbench"]["unreliable"] is hard
    assert ("PGD-5 accuracy (epsilon 8/255, step size 1.6/255, worst iterate): withheld" in out) is not shown
    assert ("is withheld" in text) is not shown and ("Not to be trusted" in text) is (hard and force)
    assert "finite: 3 of 5" in out and "clean accuracy: " in out
    stand_in = types.SimpleNamespace(evaluate=lambda *_, **__: report)
    given = cli.parsing.parse(["sat-tf", "--mode=eval"])
    assert cli.jobs.evaluate(given, stand_in, changes={}, model_dir=None, command="") == (0 if shown else 3)


def test_an_honest_run_passes_its_checks(trained):
    report = experiment.evaluate({**ONE_SIZE, "eval_checks": 20}, model_dir=trained, sibling=str(trained))
    assert report["checked"] and len(report["checks"]) == len(sanity.BEFORE) + len(sanity.AFTER)
    assert report["trusted"], [check for check in report["checks"] if check["passed"] is False]
    json.dumps(report["checks"], allow_nan=False)


@pytest.mark.graphs
def test_corruptions(trained):
    try:
        corruptions.check()
    except OSError as error:
        pytest.skip(str(error))
    report = experiment.evaluate(
        {"eval_attacks": "clean", "eval_corruptions": True, "eval_images": 6, "eval_batch_size": 6}, model_dir=trained
    )
    assert list(report["extras"]["corruptions"]) == list(corruptions.KINDS)
    assert (max((trained / "evaluations").iterdir()) / "figures" / "corruptions.png").is_file()
