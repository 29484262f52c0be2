"""Whole runs on tiny synthetic data: train, resume to the same bits, evaluate, export, refuse."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal

import numpy as np
import pytest
import released_vectors
import tensorflow as tf
from conftest import narrowed

from sat_tf import data, experiment, files, hparams, pointers, released, resnet, saving
from sat_tf import report as report_of
from sat_tf.assembly import devices
from sat_tf.experiment import run as run_of
from sat_tf.released import fetch
from sat_tf.report import figures
from sat_tf.runs import folders

EAGER = True

TINY = {
    "model": "resnet2-w8",
    "dataset": "synthetic",
    "epochs": 2,
    "batch_size": 64,
    "validation": 40,
    "eval_attacks": "clean,pgd-1,pgd-3",
    "validation_attack": "pgd-1",
    "eval_batch_size": 50,
    "steps_per_call": 2,
    "eval_checks": 0,
}


def tiny(**changes):
    return hparams.choose({**TINY, **changes})


def weights(model_dir, kind="latest"):
    reader = tf.train.load_checkpoint(str(pointers.find(model_dir, kind) / "variables"))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.startswith(("model", "optimizer"))
    }


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name], err_msg=name)


@contextlib.contextmanager
def figures_drawn():
    """Draw figures, which are blank in other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_of, "png", figures.png)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder and the report of a finished run."""
    model_dir = tmp_path_factory.mktemp("run") / "a"
    with figures_drawn():
        return model_dir, experiment.train(tiny(), model_dir, command="python main.py")


@pytest.mark.graphs
def test_a_run_leaves_everything_behind(finished, capsys):
    model_dir, report = finished
    names = {str(path.relative_to(model_dir)) for path in model_dir.rglob("*")}
    assert {
        "recipe.json",
        "report.json",
        "report.md",
        "checkpoints/latest",
        "checkpoints/best",
        "figures/training_curves.png",
        "figures/accuracy_vs_steps.png",
        "figures/panel.png",
    } <= names
    assert any(name.startswith("tensorboard/events") for name in names)
    assert not [name for name in names if "partial" in name or "tmp" in name]
    assert all((model_dir / name).stat().st_size > 5_000 for name in names if name.endswith(".png"))
    assert json.loads((model_dir / "report.json").read_text())["evaluations"] == report["evaluations"]
    rows = {row["attack"]: row for row in report["evaluations"]}
    assert list(rows) == ["clean", "pgd-1", "pgd-3"]
    assert all(row["count"] == report["dataset"]["test"] and 0 <= row["accuracy"] <= 1 for row in rows.values())
    assert rows["pgd-1"]["step_size"] == 8 / 255 and rows["pgd-3"]["step_size"] == pytest.approx(8 / 255 / 3)
    assert report["curve"]["steps"] == [0, 1, 2, 3]
    assert report["parameters"]["trainable"] == 322
    assert report["recipe"]["seed"] == 0 and report["versions"]["tensorflow"] == tf.__version__


def test_same_seed_same_bits(finished, tmp_path):
    experiment.train(tiny(eval_attacks="clean"), tmp_path / "again")
    assert_same(weights(finished[0]), weights(tmp_path / "again"))


def test_a_stopped_run_goes_on_to_the_same_bits(finished, tmp_path, monkeypatch):
    """Ctrl-C in the middle of the first epoch, then the same command."""
    model_dir = tmp_path / "stopped"
    take = run_of.Run._take

    def interrupt(self, step, metrics, progress):
        take(self, step, metrics, progress)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(run_of.Run, "_take", interrupt)
    with pytest.raises(KeyboardInterrupt, match="Stopped at step 2 of .* the same command goes on from there"):
        experiment.train(tiny(), model_dir)
    monkeypatch.undo()
    assert pointers.find(model_dir).name == "step-00000002"
    report = experiment.train(tiny(), model_dir)
    assert_same(weights(finished[0]), weights(model_dir))
    histories = [saving.read_state(pointers.find(d))["history"] for d in (finished[0], model_dir)]
    for row, twin in zip(*histories, strict=True):
        assert {k: v for k, v in row.items() if k != "seconds"} == pytest.approx(
            {k: v for k, v in twin.items() if k != "seconds"}
        )
    assert [r["correct"] for r in report["evaluations"]] == [r["correct"] for r in finished[1]["evaluations"]]


def test_a_finished_run_is_evaluated_again_and_not_trained(finished, monkeypatch):
    monkeypatch.setattr(run_of.Run, "_take", lambda *_: pytest.fail("trained again"))
    before = (finished[0] / "report.json").read_bytes()
    report = experiment.train(tiny(eval_attacks="clean"), finished[0])
    assert [row["attack"] for row in report["evaluations"]] == ["clean"]
    assert (finished[0] / "report.json").read_bytes() == before  # another evaluation has a folder of its own
    assert (finished[0] / "evaluations" / "001" / "report.json").is_file()


def test_another_recipe_in_the_same_folder_is_refused(finished):
    before = {path: path.read_bytes() for path in finished[0].rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="act: swish there, relu here; epochs: 2 there, 3 here"):
        experiment.train(tiny(act="relu", epochs=3), finished[0])
    assert before == {path: path.read_bytes() for path in finished[0].rglob("*") if path.is_file()}


def test_evaluation_has_a_folder_of_its_own(finished):
    model_dir, first = finished
    before = (model_dir / "report.json").read_bytes()
    taken = len(list((model_dir / "evaluations").glob("*")))
    for number in (1, 2):
        report = experiment.evaluate(
            {"eval_attacks": "clean,fgsm,pgd-2", "eval_epsilon": "4/255", "eval_step_size": "1/255"},
            model_dir=model_dir,
        )
        assert (model_dir / "evaluations" / f"{taken + number:03d}" / "report.md").is_file()
    rows = {row["attack"]: row for row in report["evaluations"]}
    assert (rows["pgd-2"]["epsilon"], rows["pgd-2"]["step_size"], rows["pgd-2"]["steps"]) == (4 / 255, 1 / 255, 2)
    assert rows["clean"]["correct"] == first["evaluations"][0]["correct"]
    assert report["checkpoint"]["kind"] == "best" and report["training"] is None
    assert (model_dir / "report.json").read_bytes() == before


def test_evaluation_does_not_depend_on_its_batch(finished):
    changes = {"eval_attacks": "pgd-3"}
    reports = [experiment.evaluate({**changes, "eval_batch_size": size}, model_dir=finished[0]) for size in (7, 90)]
    assert reports[0]["evaluations"][0]["correct"] == reports[1]["evaluations"][0]["correct"]


def test_another_model_than_the_checkpoints_is_refused(finished):
    with pytest.raises(ValueError, match="act: swish there, relu here"):
        experiment.evaluate({"act": "relu"}, model_dir=finished[0])


def test_other_classes_than_the_checkpoints_are_refused(finished):
    with pytest.raises(ValueError, match="Expected the 10 classes .* dataset=fashion_mnist_12k"):
        experiment.evaluate({"dataset": "fashion_mnist_12k"}, model_dir=finished[0])


@pytest.mark.graphs
def test_export(finished):
    """The card says what the reports found of these very weights, and what they were compared on."""
    model_dir, report = finished
    result = experiment.export({}, model_dir=model_dir)
    assert result["formats"]["saved_model"]["difference"] < 1e-5
    folder = model_dir / "export" / pointers.find(model_dir, "best").name
    reloaded = tf.saved_model.load(folder / "saved_model" / "1")
    assert reloaded.signatures["serving_default"](images=tf.zeros([3, 32, 32, 3]))["logits"].shape == (3, 10)
    card = (folder / "README.md").read_text()
    for row in report["evaluations"]:
        assert f"({row['correct']} / {row['count']})" in card, row
    assert "test images of synthetic" in card and "| weights | raw (the run keeps no average) |" in card
    with pytest.raises(FileExistsError):
        experiment.export({}, model_dir=model_dir)


def test_a_run_becomes_a_keras_file_that_is_evaluated_alike(finished, tmp_path, capsys):
    model_dir, report = finished
    path = experiment.convert({}, model_dir=tmp_path, checkpoint=model_dir)
    assert f"evaluate it: python main.py --mode=eval --checkpoint={path}" in capsys.readouterr().out
    again = experiment.evaluate({}, model_dir=tmp_path, checkpoint=path)
    assert [row["correct"] for row in again["evaluations"]] == [row["correct"] for row in report["evaluations"]]
    assert again["recipe"] == report["recipe"] and again["checkpoint"]["kind"] == "keras"
    with pytest.raises(FileExistsError, match="Remove it, or name another --model_dir"):
        experiment.convert({}, model_dir=tmp_path, checkpoint=model_dir)
    with pytest.raises(ValueError, match="holds no averages"):
        experiment.evaluate({"eval_weights": "averaged"}, checkpoint=path)
    path.with_suffix(".json").write_text("{}")
    with pytest.raises(OSError, match="lacks format, recipe"):
        experiment.evaluate({}, checkpoint=path)
    path.with_suffix(".json").unlink()  # a file of Keras like any other from now on
    alone = experiment.evaluate({"dataset": "synthetic", "eval_attacks": "clean"}, checkpoint=path)
    assert alone["evaluations"][0]["correct"] == report["evaluations"][0]["correct"]


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Return a folder with a checkpoint named as a release, raw and averaged, for the synthetic set's ten classes."""
    folder = tmp_path_factory.mktemp("released")
    with narrowed():
        shapes = released.variables("efficientnet-b0")
    head, _ = shapes["efficientnet-b0/head/dense/kernel"]
    shapes |= {"efficientnet-b0/head/dense/kernel": (head, 10), "efficientnet-b0/head/dense/bias": (10,)}
    shapes |= {f"{name}/ExponentialMovingAverage": shape for name, shape in shapes.items()}
    released_vectors.write(folder / "efficientnet-b0", shapes)
    return folder


@pytest.mark.graphs
def test_a_release_is_evaluated_beside_its_published_numbers(release, narrow_b0, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "imagenet_classes", lambda: data.load("synthetic").classes)
    changes = hparams.read({"dataset": "synthetic", "image_size": 32, "eval_attacks": "clean"})
    named = {"checkpoint": "released:efficientnet-b0", "checkpoint_dir": release}
    report = experiment.evaluate({**changes, "act": "silu"}, **named)
    assert report["published"]["accuracies"] == {"clean": 0.652} and report["checkpoint"]["step"] is None
    known = {"model": "efficientnet-b0", "act": "swish", "norm_epsilon": 1e-5, "method": "sat", "epsilon": 4 / 255}
    assert known.items() <= report["recipe"].items() and "seed" not in report["recipe"]
    assert report["dataset"]["preprocess"] == "crop_resize" and report["checkpoint"]["weights"] == "as published, raw"
    assert "published for the ImageNet validation set: 65.2 %" in capsys.readouterr().out
    text = (tmp_path / "runs/efficientnet-b0-released/evaluations/001/report.md").read_text()
    assert "| clean | 65.2 % | " in text and "The numbers of efficientnet-b0 were published" in text
    path = release / "efficientnet-b0.index"
    averaged = experiment.evaluate({**changes, "eval_weights": "averaged"}, checkpoint=path)
    assert averaged["checkpoint"]["weights"] == "as published, averaged"
    path = experiment.convert({"eval_weights": "averaged"}, **named)
    again = experiment.evaluate({"dataset": "synthetic", **changes}, checkpoint=path)
    assert [row["correct"] for row in again["evaluations"]] == [row["correct"] for row in averaged["evaluations"]]
    assert again["checkpoint"]["weights"] == "as published, averaged" and again["published"] == report["published"]


def test_other_words_for_a_release_are_refused(release, narrow_b0, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = {"checkpoint": "released:efficientnet-b0", "checkpoint_dir": release}
    for changes, says in [
        ({"act": "relu"}, "act: swish there, relu here"),
        ({"model": "efficientnet-b1"}, "model: efficientnet-b0 there, efficientnet-b1 here"),
    ]:
        with pytest.raises(ValueError, match=says):
            experiment.evaluate(changes, **named)
    with pytest.raises(ValueError, match="Did you mean released:efficientnet-b0"):
        experiment.evaluate({}, checkpoint="released:efficientnet-c0", checkpoint_dir=release)
    with pytest.raises(FileNotFoundError, match="--mode=download --checkpoint=released:Res50-silu --checkpoint_dir="):
        experiment.evaluate({}, checkpoint="released:Res50-silu", checkpoint_dir=release)
    with pytest.raises(ValueError, match="1000 classes|10 classes|Expected the 1000 classes of ImageNet"):
        experiment.export({}, **named)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_changed_since_its_download_is_refused(release, tmp_path):
    for suffix in fetch.SUFFIXES[:1] + fetch.SUFFIXES[2:]:
        name = f"efficientnet-b0.{suffix}"
        (tmp_path / name).write_bytes((release / name).read_bytes())
    meta = tf.compat.v1.MetaGraphDef(graph_def=tf.Graph().as_graph_def())
    (tmp_path / "efficientnet-b0.meta").write_bytes(meta.SerializeToString())
    experiment.download("efficientnet-b0", tmp_path)  # all three are there: nothing is fetched
    data_file = tmp_path / "efficientnet-b0.data-00000-of-00001"
    data_file.write_bytes(data_file.read_bytes()[:-1] + b"x")
    with pytest.raises(OSError, match="SHA-256 .*where released.lock.json records"):
        experiment.evaluate({}, checkpoint="released:efficientnet-b0", checkpoint_dir=tmp_path)


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Received: batch_size=5000"):
        experiment.train(tiny(batch_size=5000), tmp_path / "run")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Expected a --model_dir that can be written"):
        experiment.train(tiny(), tmp_path / "file" / "run")


def test_a_diverging_run_stops_and_keeps_the_last_checkpoint(tmp_path):
    with pytest.raises(FloatingPointError, match="not finite"):
        experiment.train(
            tiny(learning_rate=1e3, warmup_epochs=0, schedule="constant", epochs=30, weight_decay=0.9), tmp_path / "run"
        )


def test_mirrored_training_and_evaluation(tmp_path):
    report = experiment.train(tiny(strategy="mirrored", epochs=1, eval_attacks="clean,pgd-2"), tmp_path / "run")
    assert report["machine"]["replicas"] == "2"
    one = experiment.evaluate({"strategy": "one", "eval_attacks": "clean,pgd-2"}, model_dir=tmp_path / "run")
    assert [r["correct"] for r in one["evaluations"]] == [r["correct"] for r in report["evaluations"]]


def test_replicas_must_divide_the_batch(two_replicas):
    with pytest.raises(ValueError, match="multiple of the 2 replicas"):
        devices.make_strategy(tiny(strategy="mirrored", batch_size=63))


def test_next_folder(tmp_path):
    assert folders.next_folder(tmp_path / "none").name == "001"
    for name in ("001", "007", "notes"):
        (tmp_path / name).mkdir()
    assert folders.next_folder(tmp_path) == pathlib.Path(tmp_path / "008")


def write_images(root, seed, count=4, names=("$1_$2", "b")):
    """Write a folder of small images: as few as can be, one class with an odd name."""
    rng = np.random.default_rng(seed)
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(count):
            image = tf.constant(rng.integers(0, 256, [32, 32, 3]), tf.uint8)
            (root / name / f"{i}.png").write_bytes(tf.io.encode_png(image).numpy())
    return root


def test_a_folder_of_eight_images_trains(tmp_path):
    few = {"dataset": "folder", "batch_size": 2, "validation": None, "epochs": 1, "eval_attacks": "clean,pgd-1"}
    with figures_drawn():
        report = experiment.train(tiny(**few), tmp_path / "run", data_dir=write_images(tmp_path / "a", 0))
    assert report["dataset"]["validation"] >= 1 and report["evaluations"][0]["count"] == report["dataset"]["test"]
    with pytest.raises(ValueError, match="source: .*a there, .*b here|source: .* there, .* here"):
        experiment.train(tiny(**few), tmp_path / "run", data_dir=write_images(tmp_path / "b", 1))


def test_one_process_a_folder(tmp_path):
    with files.locked(tmp_path), pytest.raises(OSError, match="Another process .* is training"), files.locked(tmp_path):
        pass
    with files.locked(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "[]", '{"act": 3}', '{"recipe": 1}'])
def test_a_damaged_recipe_file_is_named(tmp_path, content):
    (tmp_path / "recipe.json").write_text(content)
    with pytest.raises((OSError, ValueError)) as error:
        experiment.train(tiny(), tmp_path)
    assert "recipe.json is damaged" in str(error.value) and "\n" not in str(error.value)


def test_an_evaluation_batch_larger_than_the_data_is_refused(finished):
    with pytest.raises(ValueError, match="Received: batch_size=5000"):
        experiment.evaluate({"eval_batch_size": 5000}, model_dir=finished[0])


def test_an_evaluation_reports_the_recipe_of_the_training(finished):
    report = experiment.evaluate({"seed": 5, "eval_attacks": "pgd-1"}, model_dir=finished[0])
    assert report["recipe"]["seed"] == 0 and report["evaluations"][0]["seed"] == 5


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    run = run_of.Run(tiny(epochs=1), data.load("synthetic", validation=40), tf.distribute.get_strategy(), tmp_path)
    bias = run.state.model.get_layer("linear").bias
    with pytest.raises(FloatingPointError, match="linear/bias is not finite"):
        run.train(lambda done: bias.assign(np.full(10, np.nan)) if done == 1 else None)
    assert not (tmp_path / "checkpoints").exists()


def test_an_activation_that_takes_no_number_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="without a number"):
        experiment.train(tiny(act="swish:3"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_replicas_see_the_images_of_one_device(two_replicas, tmp_path):
    """Epochs begin at the same steps and hold the same images, whatever the number of replicas."""
    seen = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        run = run_of.Run(tiny(batch_size=48), data.load("synthetic", validation=40), strategy, tmp_path)
        iterator = iter(run._batches(3))
        steps = []
        for _ in range(2 * run.epoch_steps):
            images, _ = next(iterator)
            steps.append(np.concatenate([part.numpy() for part in strategy.experimental_local_results(images)]))
        seen.append(steps)
    np.testing.assert_array_equal(*seen)


def test_a_checkpoint_by_its_path_reports_into_its_run(finished):
    path = pointers.find(finished[0], "latest")
    before = len(list((finished[0] / "evaluations").glob("*")))
    report = experiment.evaluate({"eval_attacks": "clean"}, checkpoint=path)
    assert report["checkpoint"]["path"] == str(path)
    assert len(list((finished[0] / "evaluations").glob("*"))) == before + 1


def test_a_folder_is_not_claimed_before_there_is_data(tmp_path):
    with pytest.raises(OSError):
        experiment.train(tiny(dataset="folder"), tmp_path / "run", data_dir=tmp_path / "none")
    assert not (tmp_path / "run" / "recipe.json").exists()


def test_the_papers_recipe_takes_a_step(tmp_path, monkeypatch):
    """The ImageNet recipe of ResNet-50, on synthetic images instead: one update, a probe, an evaluation.

    Of the network one block a stage: test_promises has all.
    """
    full = resnet.BOTTLENECK_VARIANTS["resnet50"]
    monkeypatch.setitem(resnet.BOTTLENECK_VARIANTS, "resnet50", dataclasses.replace(full, blocks=(1, 1, 1, 1)))
    recipe = hparams.get("resnet50").replace(
        dataset="synthetic",
        image_size=32,
        validation=40,
        epochs=1,
        batch_size=320,
        validation_attack="pgd-1",
        eval_attacks="clean,pgd-1",
    )
    report = experiment.train(recipe, tmp_path / "run")
    assert report["training"]["steps"] == 1 and report["recipe"]["model"] == "resnet50"
    assert report["evaluations"][1]["epsilon"] == 4 / 255
