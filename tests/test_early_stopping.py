"""Probes, patience and catastrophic overfitting; moving averages and noise in a run; what a plan says."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf
import test_experiment
from conftest import narrowed

from sat_tf import assembly, data, experiment, hparams, pointers, saving
from sat_tf.experiment import run as run_of
from sat_tf.experiment import summary
from sat_tf.runs import checkpoints

EAGER = True

tiny, weights = test_experiment.tiny, test_experiment.weights


@pytest.mark.graphs
def test_sums_do_not_depend_on_how_many_steps_a_call_holds(tmp_path, monkeypatch):
    sums = []
    for seconds in (1e-9, 1e9):
        monkeypatch.setattr(run_of, "CALL_SECONDS", seconds)
        run = run_of.Run(
            tiny(epochs=1, steps_per_call=5),
            data.load("synthetic", validation=40),
            tf.distribute.get_strategy(),
            tmp_path / str(seconds),
        )
        assembly.make_deterministic(0)
        run.state.model.set_weights(sums[0][1] if sums else run.state.model.get_weights())
        start = run.state.model.get_weights()
        run.train()
        sums.append(({k: v for k, v in run.history[0].items() if k != "seconds"}, start))
    assert sums[0][0] == sums[1][0]


def test_randaugment_with_its_magnitude_reaches_the_images(tmp_path):
    from sat_tf import autoaugment

    dataset = data.load("synthetic", validation=40)
    images = []
    for policy in ("randaugment:7", "randaugment", "none"):
        run = run_of.Run(tiny(policy=policy), dataset, tf.distribute.get_strategy(), tmp_path)
        images.append(next(iter(run._batches(0)))[0].numpy())
    assert not np.array_equal(images[0], images[1]) and not np.array_equal(images[0], images[2])
    wanted = data.train_batches(
        dataset.train,
        batch_size=64,
        image_size=32,
        augment="none",
        seed=0,
        policy=lambda image, seed: autoaugment.randaugment(image, seed, magnitude=7.0),
    )
    np.testing.assert_array_equal(images[0], next(iter(wanted))[0])


def test_provoked_overfitting_is_caught(tmp_path, capfd):
    """One step of 64/255 from the image itself: the network learns to mask its gradient, and the run stops."""
    recipe = tiny(
        model="resnet8-w8",
        epochs=12,
        batch_size=36,
        act="relu",
        epsilon="64/255",
        step_size="64/255",
        random_start=False,
        validation_attack="pgd-10",
        eval_attacks="clean,fgsm,pgd-10",
        eval_images=40,
        image_size=16,
    )
    report = experiment.train(recipe, tmp_path / "run")
    ended = report["training"]["ended"]
    assert ended.startswith("Catastrophic overfitting at step ") and "withstand pgd-10" in ended
    assert report["training"]["steps"] < 120 and report["training"]["best_step"] <= report["training"]["steps"]
    assert "Catastrophic overfitting" in (tmp_path / "run" / "report.md").read_text()
    again = experiment.train(recipe, tmp_path / "run")  # the same command does not train on
    assert again["training"]["steps"] == report["training"]["steps"] and again["training"]["ended"] == ended


def test_training_stops_after_its_patience(tmp_path):
    """A rate too small to change anything: no validation is higher than the first; of equals the last is the best."""
    report = experiment.train(
        tiny(
            epochs=9,
            learning_rate=1e-12,
            warmup_epochs=0,
            patience=2,
            validation_every=0.5,
            weight_decay=0,
            norm_momentum=0.99999,
        ),
        tmp_path,
    )
    assert report["training"]["ended"] == "No better validation in 2 since step 2"
    assert report["training"]["steps"] == 6 and report["training"]["best_step"] == 6


AVERAGED = {
    "average_decay": 0.99,
    "validation_weights": "averaged",
    "stochastic_depth": 0.3,
    "dropout": 0.2,
    "model": "efficientnet-b0",
    "label_smoothing": 0.1,
    "policy": "autoaugment",
    "batch_size": 120,
}


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """Return folder and report of a run with everything that the enhanced recipe adds."""
    model_dir = tmp_path_factory.mktemp("averaged") / "run"
    with narrowed():
        return model_dir, experiment.train(tiny(**AVERAGED), model_dir)


def test_report_and_checkpoint_say_which_weights(averaged):
    model_dir, report = averaged
    assert report["checkpoint"]["weights"] == "averaged (decay 0.99)"
    assert "averaged (decay 0.99)" in (model_dir / "report.md").read_text()
    assert report["training"]["validation_weights"] == "averaged"
    reader = tf.train.load_checkpoint(str(pointers.find(model_dir, "best") / "variables"))
    groups = {name.partition("/")[0] for name in reader.get_variable_to_shape_map()}
    assert {"model", "optimizer", "average"} <= groups


@pytest.mark.graphs
@pytest.mark.parametrize("choice,other", [("raw", "averaged"), ("averaged", "raw")])
def test_raw_and_averaged_weights_are_evaluated_and_exported_as_asked(averaged, narrow_b0, monkeypatch, choice, other):
    model_dir, report = averaged
    monkeypatch.setattr(sys.modules["sat_tf.experiment.export"], "IMAGES", 20)  # test_export compares as many as users
    evaluated = experiment.evaluate({"eval_attacks": "clean", "eval_weights": choice}, model_dir=model_dir)
    assert evaluated["checkpoint"]["weights"].startswith(choice)
    experiment.export({"eval_weights": choice}, model_dir=model_dir)
    best = pointers.find(model_dir, "best")
    folder = model_dir / "export" / (best.name + ("-averaged" if choice == "averaged" else ""))
    assert json.loads((folder / "export.json").read_text())["weights"].startswith(choice)
    reloaded = tf.saved_model.load(folder / "saved_model" / "1")
    images = tf.fill([1, 32, 32, 3], 0.5)
    served = reloaded.signatures["serving_default"](images=images)["logits"].numpy()
    wanted, others = (
        checkpoints.open_checkpoint(best, {"eval_weights": each}).load()(images, training=False).numpy()
        for each in (choice, other)
    )
    np.testing.assert_allclose(served, wanted, rtol=1e-5, atol=1e-5)
    assert not np.allclose(served, others)


def test_averages_of_a_run_without_them_are_refused(tmp_path):
    with pytest.raises(ValueError, match="average_decay above 0"):
        experiment.train(tiny(eval_weights="averaged"), tmp_path / "run")


def test_a_stopped_run_with_averages_and_noise_goes_on_to_the_same_bits(averaged, narrow_b0, tmp_path):
    model_dir = tmp_path / "stopped"
    begin = saving.Writer.begin

    def save_and_stop(*args, **options):
        begin(*args, **options)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(saving.Writer, "begin", save_and_stop)
        experiment.train(tiny(**AVERAGED), model_dir)
    experiment.train(tiny(**AVERAGED), model_dir)
    readers = [tf.train.load_checkpoint(str(pointers.find(d) / "variables")) for d in (averaged[0], model_dir)]
    names = [name for name in readers[0].get_variable_to_shape_map() if name.startswith(("model", "optim", "average"))]
    assert any(name.startswith("average") for name in names)
    for name in names:
        np.testing.assert_array_equal(*(reader.get_tensor(name) for reader in readers), err_msg=name)


def test_averages_are_the_same_on_two_replicas(two_replicas, tmp_path):
    """Mirrored averages follow mirrored weights and aggregated statistics."""
    with two_replicas.scope():
        run = run_of.Run(
            tiny(average_decay=0.9, strategy="mirrored", epochs=1),
            data.load("synthetic", validation=40),
            two_replicas,
            tmp_path,
        )
    run.train()
    for path, average in run.state.average.variables.items():
        one, two = (value.numpy() for value in two_replicas.experimental_local_results(average))
        np.testing.assert_array_equal(one, two, err_msg=path)
    with run.state.average.in_place():
        held = {v.path: v.numpy() for v in run.state.model.variables}
    for path, average in run.state.average.variables.items():
        np.testing.assert_array_equal(held[path], average.numpy())


def test_the_attack_of_a_run_with_noise_and_averages_is_deterministic(narrow_b0, tmp_path):
    """The attack sees inference mode: dropout, stochastic depth and averages do not reach it."""
    recipe = tiny(**AVERAGED)
    run = run_of.Run(recipe, data.load("synthetic", validation=40), tf.distribute.get_strategy(), tmp_path)
    method = assembly.make_method(recipe)
    images = tf.constant(np.random.default_rng(0).random((4, 32, 32, 3), np.float32))
    labels = tf.constant([1, 2, 3, 4])
    perturb = tf.function(lambda: method.perturb(run.state.model, images, labels, 0, tf.constant([1, 2])))
    before = run.state.model.get_weights()
    np.testing.assert_array_equal(perturb(), perturb())
    for mine, old in zip(run.state.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, old)
    graph = perturb.get_concrete_function().graph
    inside = [node.op for function in graph.as_graph_def().library.function for node in function.node_def]
    draws = [op for op in [node.type for node in graph.get_operations()] + inside if "RandomUniform" in op]
    assert len(draws) == 1  # the random start


def test_too_many_unreadable_images_are_refused_and_a_few_reported(tmp_path):
    import dataclasses

    dataset = data.load("synthetic", validation=40)
    names = ("a.jpg: cut", "b.jpg: empty")
    unreadable = dataclasses.replace(dataset, train=dataclasses.replace(dataset.train, unreadable=names))
    with pytest.raises(ValueError, match="unreadable_limit=1 .* Received: 2 in .* the first: a.jpg: cut"):
        run_of.Run(tiny(unreadable_limit=1), unreadable, tf.distribute.get_strategy(), tmp_path)
    run = run_of.Run(tiny(unreadable_limit=2), unreadable, tf.distribute.get_strategy(), tmp_path)
    run.best = {"step": 1, "score": [0, 0]}
    assert summary.summary(run)["left_out"] == list(names)


def test_plan_of_a_known_case():
    recipe = hparams.choose({"model": "efficientnet-b7", "dataset": "imagenet2012"})
    lines = experiment.plan(recipe, images_per_second=100)
    assert lines["parameters"] == "66,347,960" and "600 x 600" in lines["model"]
    assert lines["forward pass"].startswith("75.5 GFLOP") and lines["training step"].startswith("377 GFLOP")
    steps = 100 * (1_271_167 // 256)
    assert lines["steps"].startswith(f"{steps:,} of 256") and lines["images to process"].startswith(f"{steps * 256:,},")
    assert lines["accelerator-hours"].startswith(f"{steps * 256 / 100 / 3600:,.2f} of training")


def test_plan_refuses_what_training_would_refuse():
    recipe = hparams.choose({"dataset": "cifar10", "validation": 60_000})
    with pytest.raises(ValueError, match="validation=60000"):
        experiment.plan(recipe, images_per_second=1)
    with pytest.raises(ValueError, match="batch_size=90000"):
        experiment.plan(recipe.replace(validation=None, batch_size=90_000), images_per_second=1)


def test_plan_measures_where_no_throughput_is_given():
    lines = experiment.plan(tiny())
    assert "measured here" in lines["throughput"] and "of training" in lines["accelerator-minutes"]
    assert lines["training step"].endswith("2 forward-equivalents for the attack, 3 for the update")
    standard = experiment.plan(tiny(method="standard"), images_per_second=1)
    assert standard["training step"].endswith("0 forward-equivalents for the attack, 3 for the update")


def test_plan_of_what_is_too_much_for_this_machine_asks_for_a_throughput():
    lines = experiment.plan(hparams.choose({"model": "efficientnet-l2", "dataset": "imagenet2012"}))
    assert "--images_per_second" in lines["throughput"] and "accelerator-hours" not in lines
