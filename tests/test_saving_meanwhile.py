"""Checkpoints that are written while training goes on: their moment, their faults, their bits."""

import threading

import numpy as np
import pytest
import tensorflow as tf

from sat_tf import assembly, data, hparams, pointers, saving
from sat_tf.experiment import run as run_of

NETWORK = """
import keras

def build(classes):
    layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(classes)]
    return keras.Sequential(layers)
"""
PATIENCE = 60  # seconds that a disk is slow here, if nobody goes on meanwhile


@pytest.fixture
def gate(monkeypatch):
    """Have a disk write nothing before the gate is open; `gate.waited` says who came, and `gate.passed` if in time."""
    gate, write = threading.Event(), tf.train.Checkpoint.write
    gate.waited, gate.passed = threading.Event(), []

    def slow(self, prefix):
        gate.waited.set()
        gate.passed.append(gate.wait(PATIENCE))
        return write(self, prefix)

    monkeypatch.setattr(tf.train.Checkpoint, "write", slow)
    yield gate
    gate.set()


def test_a_checkpoint_holds_the_moment_it_was_begun(tmp_path, gate):
    variables = {"model": {"a/kernel": tf.Variable([1.0, 2.0], name="kernel")}}
    state = {"step": 1, "history": [1]}
    with saving.Writer() as writer:
        writer.begin(tmp_path, saving.copied(variables), state)
        assert gate.waited.wait(PATIENCE) and writer.fault() is None  # it is being written
        with pytest.raises(RuntimeError, match="the checkpoint before"):
            writer.begin(tmp_path, saving.copied(variables), state)
        variables["model"]["a/kernel"].assign([3.0, 4.0])
        state["history"].append(2)
        assert not list(tmp_path.glob("step-*")) and not (tmp_path / "latest").exists()
        gate.set()
        assert writer.fault(wait=True) is None and gate.passed == [True]
    path = pointers.find(tmp_path)
    assert saving.read_state(path)["history"] == [1]
    saving.restore(path, variables)
    np.testing.assert_array_equal(variables["model"]["a/kernel"], [1.0, 2.0])


def test_the_end_waits_and_faults_are_told_once(tmp_path, monkeypatch, caplog):
    values = saving.copied({"model": {"kernel": tf.Variable(1.0)}})
    with saving.Writer() as writer:
        writer.begin(tmp_path, values, {"step": 1})
    assert pointers.find(tmp_path).name == "step-00000001"

    def full(self, prefix):
        raise tf.errors.ResourceExhaustedError(None, None, f"{prefix}; No space left on device")

    monkeypatch.setattr(tf.train.Checkpoint, "write", full)
    with saving.Writer() as writer:
        writer.begin(tmp_path, values, {"step": 2})
        assert "could not be written: No space left on device" in str(writer.fault(wait=True))
        assert writer.fault(wait=True) is None
        writer.begin(tmp_path, values, {"step": 3})
    assert "step-00000003 could not be written: No space left" in caplog.text
    with pytest.raises(ArithmeticError, match="loss"), saving.Writer() as writer:
        writer.begin(tmp_path, values, {"step": 4})
        raise ArithmeticError("the loss is not finite")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000001"]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    file = tmp_path_factory.mktemp("network") / "own.py"
    file.write_text(NETWORK)
    return file


def begun(folder, network, **changes):
    """Return a run of 2 epochs of 9 steps, validated after each."""
    recipe = hparams.choose(
        {
            "model": f"{network}:build",
            "dataset": "synthetic",
            "method": "standard",
            "image_size": 8,
            "epochs": 2,
            "batch_size": 40,
            "validation": 40,
            "validation_every": 1,
            "validation_attack": "pgd-1",
            "steps_per_call": 1,
            **changes,
        }
    )
    assembly.make_deterministic(0)
    dataset = data.load("synthetic", validation=40)
    return run_of.Run(recipe, dataset, tf.distribute.get_strategy(), folder)


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, network, gate):
    run, seen = begun(tmp_path, network), []

    def look(share):
        if share == 0.5:
            seen.append(run.state.model.get_weights())
        if share > 0.7:  # that of step 9 of 18 waits for step 13
            gate.set()

    run.train(look)
    assert gate.passed == [True, True] and run.total_steps == 18
    path = tmp_path / "checkpoints" / saving.folder_of(9)
    last = run.state.model.get_weights()
    saving.restore(path, {"model": run.variables()["model"]})
    for held, then, now in zip(run.state.model.get_weights(), seen[0], last, strict=True):
        np.testing.assert_array_equal(held, then)
        assert np.any(then != now)


def test_a_full_disk_does_not_end_a_run_but_at_its_end(tmp_path, network, monkeypatch, caplog):
    run, write, failing = begun(tmp_path, network, epochs=3), tf.train.Checkpoint.write, [True, False, True]

    def full(self, prefix):
        if failing.pop(0):
            raise tf.errors.ResourceExhaustedError(None, None, f"{prefix}; No space left on device")
        return write(self, prefix)

    monkeypatch.setattr(tf.train.Checkpoint, "write", full)
    with pytest.raises(OSError, match="step-00000027 could not be written: No space left"):
        run.train()
    assert "step-00000009 could not be written: No space left" in caplog.text and "tries again in 60" in caplog.text
    assert [row.get("lost", False) for row in run.history] == [True, False, False]
    assert saving.find_whole(tmp_path).name == pointers.find(tmp_path, "best").name == "step-00000018"


def test_a_run_that_fails_leaves_a_whole_checkpoint(tmp_path, network, gate):
    run = begun(tmp_path, network)

    def spoil(share):
        if share > 0.7:
            run.state.model.layers[-1].bias.assign(np.full(10, np.nan))
            gate.set()

    with pytest.raises(FloatingPointError, match="The loss of step 14 is not finite"):
        run.train(spoil)
    assert saving.find_whole(tmp_path).name == "step-00000009"
