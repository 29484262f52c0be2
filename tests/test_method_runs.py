"""Whole runs by methods that keep something from step to step, and what is refused before there is a run."""

import dataclasses
import os
import signal

import numpy as np
import pytest
import tensorflow as tf

from sat_tf import assembly, experiment, hparams, pointers
from sat_tf.experiment import run as run_of

EAGER = True

TINY = {
    "model": "resnet2-w8",
    "act": "swish",
    "dataset": "synthetic",
    "image_size": 8,
    "epochs": 1,
    "batch_size": 64,
    "validation": 40,
    "eval_attacks": "clean,pgd-1",
    "validation_attack": "pgd-1",
    "eval_images": 20,
    "eval_batch_size": 20,
    "steps_per_call": 1,
    "eval_checks": 0,
}


def tiny(**changes):
    return hparams.choose({**TINY, **changes})


def held(model_dir):
    reader = tf.train.load_checkpoint(str(pointers.find(model_dir, "latest") / "variables"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


@pytest.mark.parametrize(
    "changes",
    [{"method": "p-sat", "attack": "pgd-2"}, {"method": "free", "replays": 2}, {"method": "cat", "attack": "pgd-1"}],
    ids=lambda changes: changes["method"],
)
def test_a_stopped_run_goes_on_to_the_same_bits(changes, tmp_path, monkeypatch):
    recipe = tiny(**changes)
    report = experiment.train(recipe, tmp_path / "whole")
    taken = run_of.Run._take

    def stopping(self, step, *args):
        taken(self, step, *args)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(run_of.Run, "_take", stopping)
        with pytest.raises(KeyboardInterrupt):
            experiment.train(recipe, tmp_path / "parts")
    again = experiment.train(recipe, tmp_path / "parts")
    whole, parts = held(tmp_path / "whole"), held(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(value, parts[name], err_msg=name)
    kept = [name for name in whole if name.startswith("memory")]
    assert bool(kept) == (changes["method"] != "p-sat")
    told = {name: value for name, value in report["training"].items() if name.startswith("mean_")}
    assert told == {name: again["training"][name] for name in told}
    assert {"p-sat": "mean_lambda", "cat": "mean_radius"}.get(changes["method"], "steps") in report["training"]
    assert report["evaluations"][1]["count"] == 20


def test_free_schedules_count_updates():
    recipe = tiny(method="free", replays=4, schedule="steps", decay_epochs="1")
    method = assembly.make_method(recipe, 10)
    optimizer = assembly.make_optimizer(recipe, 10 * method.updates, 20 * method.updates)
    rates = [float(optimizer._learning_rate(step)) for step in (39, 40)]
    assert method.updates == 4 and rates[1] == pytest.approx(0.1 * rates[0])


@pytest.mark.parametrize(
    "changes,says",
    [
        ({"beta": "6"}, "Expected beta with a method that has it, of trades, mart"),
        ({"method": "trades", "lambda_end": "1"}, "of p-sat, h-sat"),
        ({"method": "standard", "replays": "4"}, "of free"),
        ({"method": "p-sat", "lambda_end": "0.4"}, "lambda_end=0.4, at which it ends"),
        ({"method": "p-sat", "lambda_epochs": "1,30"}, "lambda_partial=true"),
        ({"method": "p-sat", "lambda_schedule": "steps", "lambda_epochs": "0,30"}, "ends at 0.5"),
        ({"method": "p-sat", "lambda_epochs": "3"}, "first and last epoch"),
        ({"method": "p-sat", "lambda_schedule": "cosine"}, "one of linear, steps"),
        ({"method": "p-sat", "lambda_end": "2"}, "at most 1"),
        ({"method": "p-sat", "attack": "apgd-2"}, "pgd-k or fgsm"),
        ({"method": "dynamic", "fosc_epochs": "30"}, "Choose fewer fosc_epochs"),
        ({"method": "fast", "attack": "pgd-10"}, "itself has, steps=1, step_size=10/255"),
        ({"method": "fast", "step_size": "8/255"}, "itself has, steps=1, step_size=10/255"),
        ({"method": "free", "attack_backward": "softplus"}, "same gradients for attack and update"),
        ({"method": "free", "replays": "0"}, "at least 1"),
        ({"method": "sat-awp", "awp_begin": "5"}, "begins within the 1 epochs"),
        ({"method": "trades", "beta": "-1"}, "at least 0"),
    ],
)
def test_what_no_training_can_be_made_of_is_one_sentence_before_any_work(changes, says, tmp_path):
    with pytest.raises(ValueError, match=says) as error:
        experiment.train(tiny(**changes), tmp_path / "none")
    assert "Received: " in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "none").exists()


def test_a_named_method_brings_its_attack_and_leaves_the_others_settings():
    trades = tiny(method="trades")
    assert (trades.attack, trades.step_size) == ("pgd-10", 2 / 255)
    assert tiny(method="trades", epsilon="4/255").step_size == 1 / 255
    assert tiny(method="trades", attack="pgd-3").step_size is None
    assert tiny(method="trades", step_size="3/255").step_size == 3 / 255
    assert tiny(method="fast", attack="pgd-1").step_size == 10 / 255
    assert (tiny().attack, tiny().step_size) == ("pgd-1", 8 / 255)
    assert tiny(method="apgd-at").attack == "apgd-2"
    with_beta = dataclasses.replace(hparams.get("fashion"), method="trades", beta=3.0, attack="pgd-7", step_size=None)
    hparams.RECIPES["with-beta"] = lambda: with_beta
    try:
        assert hparams.choose({}, "with-beta").beta == 3.0
        other = hparams.choose({"method": "sat"}, "with-beta")
        assert other.beta is None and other.attack == "pgd-7"
        same = hparams.choose({"method": "trades"}, "with-beta")
        assert same.attack == "pgd-7" and same.beta == 3.0
    finally:
        del hparams.RECIPES["with-beta"]


@pytest.mark.parametrize(
    "changes,says",
    [
        ({"method": "p-sat"}, "at most 20 forward-equivalents for the attack, 3 for the update"),
        ({"method": "h-sat", "attack": "pgd-2"}, "at most 5 forward-equivalents for the attack, 3 for the update"),
        ({"method": "trades"}, "21 forward-equivalents for the attack, 6 for the update"),
        ({"method": "free"}, "0 forward-equivalents for the attack, 24 for the 8 updates"),
        ({"method": "trades-awp"}, "21 forward-equivalents for the attack, 12 for the update"),
    ],
)
def test_the_plan_knows_what_each_costs(changes, says):
    lines = experiment.plan(tiny(**changes), images_per_second=100.0)
    assert lines["training step"].endswith(says)
