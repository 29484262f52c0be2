"""The record of a run: every start with how it ended, seconds by phase, metrics that survive a crash."""

import json
import types

import pytest
import tensorflow as tf

from sat_tf import hparams, methods
from sat_tf.cli import checks
from sat_tf.runs import journal

METHOD = methods.Standard()
RECIPE = hparams.choose({"dataset": "synthetic", "seed": 3})


def new(folder, step=0, command="python main.py"):
    return journal.Journal(folder, command, RECIPE, tf.distribute.get_strategy(), step, METHOD)


@pytest.mark.parametrize("text", ("100", "5:5", "9:3", "a:b", "0:4", ":", "1:2:3"))
def test_what_is_no_range_of_steps_is_refused(text):
    with pytest.raises(ValueError, match="Expected --profile_steps=FIRST:END"):
        checks.profiled(text)
    assert checks.profiled("100:110") == range(100, 110) and not checks.profiled(None)


def test_a_start_says_what_ran_where_and_how_it_ended(tmp_path):
    with new(tmp_path).open() as record:
        record.metrics(5, {"train/loss": 1.5})
        (start,) = journal.read(tmp_path)["starts"]
        assert start["exit"] is None and start["from_step"] == start["to_step"] == 0
    (start,) = journal.read(tmp_path)["starts"]
    assert start["exit"] == "finished" and start["to_step"] == 5 and start["seed"] == 3
    assert start["begun"] <= start["ended"] and start["versions"]["tensorflow"] == tf.__version__
    assert start["machine"]["replicas"] == "1" and set(start["git"] or {"commit": 0, "changed": 0}) == {
        "commit",
        "changed",
    }
    assert journal.read(tmp_path)["recipe"] == RECIPE.to_dict()


@pytest.mark.parametrize(
    "error,words",
    [
        (KeyboardInterrupt("Stopped at step 5."), "stopped on demand: Stopped at step 5."),
        (FloatingPointError("The loss is not finite."), "FloatingPointError: The loss is not finite."),
    ],
)
def test_an_error_is_the_reason_of_an_end(tmp_path, error, words):
    with pytest.raises(type(error)), new(tmp_path).open():
        raise error
    assert journal.read(tmp_path)["starts"][0]["exit"] == words


def test_a_start_that_was_killed_is_known_by_the_next(tmp_path):
    record = new(tmp_path, command="first")
    with record.open():
        killed = (tmp_path / "run.json").read_bytes()
    (tmp_path / "run.json").write_bytes(killed)
    with new(tmp_path, 7, "second").open():
        pass
    first, second = journal.read(tmp_path)["starts"]
    assert first["exit"] == journal.KILLED and first["command"] == "first"
    assert second["exit"] == "finished" and second["from_step"] == 7


def test_steps_that_are_taken_again_have_one_line(tmp_path):
    with new(tmp_path).open() as record:
        for step in (10, 20, 30):
            record.metrics(step, {"train/loss": 1 / step})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 40, "train/lo')  # a process that was killed while it wrote
    assert [row["step"] for row in journal.read_metrics(tmp_path)] == [10, 20, 30]
    with new(tmp_path, step=20).open() as record:
        record.metrics(25, {"train/loss": 0.0})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10, 20, 25]


def test_time_is_counted_once(tmp_path, monkeypatch):
    record, now = new(tmp_path), [0.0]
    monkeypatch.setattr(journal, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    with record.phase("training"):
        now[0] += 5
        with record.phase("saving"):
            now[0] += 3
        record.add("input", 2)
    assert {name: record.seconds[name] for name in ("training", "saving", "input")} == {
        "training": 3,
        "saving": 3,
        "input": 2,
    }


@pytest.mark.parametrize("content", ("", "{", "[]", '{"starts": 3}'))
def test_a_damaged_record_begins_anew(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with new(tmp_path).open():
        pass
    assert len(journal.read(tmp_path)["starts"]) == 1
