"""Checkpoints: round trip, pointers, strictness, damage, atomicity."""

import json

import numpy as np
import pytest
import tensorflow as tf

from sat_tf import models, optim, pointers, saving


def groups(model, optimizer=None):
    return {"model": saving.by_path(model)} | ({"optimizer": saving.by_path(optimizer)} if optimizer else {})


@pytest.fixture(scope="module")
def model():
    return models.build("resnet8-w8", "smoothrelu", 10)


def test_round_trip_of_model_and_optimizer(tmp_path, model):
    optimizer = optim.sgd(lambda step: tf.constant(0.1), momentum=0.9)
    optimizer.build(model.trainable_variables)
    optimizer.apply([tf.ones(v.shape) for v in model.trainable_variables])
    path = saving.save(tmp_path, groups(model, optimizer), {"step": 12, "recipe": {"act": "smoothrelu"}})
    other = models.build("resnet8-w8", "smoothrelu", 10)
    slots = optim.sgd(lambda step: tf.constant(0.1), momentum=0.9)
    slots.build(other.trainable_variables)
    saving.restore(path, groups(other, slots))
    for one, two in zip([*model.variables, *optimizer.variables], [*other.variables, *slots.variables], strict=True):
        np.testing.assert_array_equal(one, two)
    assert saving.read_state(path)["recipe"] == {"act": "smoothrelu"}
    only_model = models.build("resnet8-w8", "smoothrelu", 10)
    saving.restore(path, groups(only_model))
    np.testing.assert_array_equal(only_model.variables[0], model.variables[0])


def test_pointers_keep_what_they_point_to_and_drop_the_rest(tmp_path, model):
    for step, kinds in ((1, ("latest", "best")), (2, ("latest",)), (3, ("latest",))):
        saving.save(tmp_path / "checkpoints", groups(model), {"step": step}, kinds=kinds)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["best", "latest", "step-00000001", "step-00000002", "step-00000003"]
    assert pointers.find(tmp_path).name == "step-00000003"
    assert pointers.find(tmp_path, "best").name == "step-00000001"
    assert pointers.find(tmp_path / "checkpoints" / "best").name == "step-00000001"
    assert pointers.find(tmp_path / "checkpoints" / "step-00000003").name == "step-00000003"


def test_another_model_is_refused_with_the_differences(tmp_path, model):
    path = saving.save(tmp_path, groups(model), {"step": 1})
    with pytest.raises(ValueError) as error:
        saving.restore(path, groups(models.build("resnet8-w8", "swish", 7)))
    text = str(error.value)
    assert "only in the file: conv0_act/raw (1,)" in text
    assert "and " in text and "\n" not in text
    with pytest.raises(ValueError, match="missing in the file"):
        saving.restore(path, groups(models.build("resnet50", "smoothrelu", 10)))


def test_a_refused_checkpoint_changes_nothing(tmp_path, model):
    path = saving.save(tmp_path, groups(model), {"step": 1})
    other = models.build("resnet8-w8", "smoothrelu", 7)
    before = other.get_weights()
    with pytest.raises(ValueError, match="another shape"):
        saving.restore(path, groups(other))
    for one, two in zip(before, other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("damage", ["cut", "gone", "flipped", "state", "index"])
def test_damage_is_said_in_one_line(tmp_path, model, damage):
    path = saving.save(tmp_path, groups(model), {"step": 1})
    data = next(path.glob("variables.data*"))
    content = data.read_bytes()
    if damage == "cut":
        data.write_bytes(content[: len(content) // 2])
    elif damage == "gone":
        data.unlink()
    elif damage == "flipped":
        data.write_bytes(content[:5000] + bytes(255 - b for b in content[5000:6000]) + content[6000:])
    elif damage == "state":
        (path / "state.json").write_text("{")
    else:
        (path / "variables.index").write_bytes(b"x" * (path / "variables.index").stat().st_size)
    with pytest.raises(OSError, match="is damaged") as error:
        saving.restore(path, groups(model))
    assert "\n" not in str(error.value)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, model, monkeypatch):
    saving.save(tmp_path, groups(model), {"step": 1})

    def full(self, prefix):
        raise OSError("No space left on device")

    monkeypatch.setattr(tf.train.Checkpoint, "write", full)
    with pytest.raises(OSError, match="No space"):
        saving.save(tmp_path, groups(model), {"step": 2})
    monkeypatch.undo()
    assert pointers.find(tmp_path).name == "step-00000001"
    saving.restore(pointers.find(tmp_path), groups(model))
    saving.save(tmp_path, groups(model), {"step": 2})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000001", "step-00000002"]


def test_a_newer_format_is_refused(tmp_path, model):
    path = saving.save(tmp_path, groups(model), {"step": 1})
    state = json.loads((path / "state.json").read_text())
    del state["digest"]
    (path / "state.json").write_text(json.dumps({**state, "format": 99}))
    with pytest.raises(OSError, match="format 99"):
        saving.read_state(path)


def test_what_a_killed_process_left_is_removed_by_the_next_save(tmp_path, model):
    left = tmp_path / ".step-00000001.99.partial"
    left.mkdir()
    (left / "variables.index").touch()
    saving.save(tmp_path, groups(model), {"step": 2})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000002"]


def test_the_same_step_again_has_the_newer_state_and_is_whole(tmp_path, model):
    path = saving.save(tmp_path, groups(model), {"step": 1, "history": 1})
    written = next(path.glob("variables.data*")).stat().st_mtime_ns
    saving.save(tmp_path, groups(model), {"step": 1, "history": 2}, kinds=("best",))
    assert saving.read_state(path)["history"] == 2 and pointers.find(tmp_path, "best") == path
    assert next(path.glob("variables.data*")).stat().st_mtime_ns == written
    next(path.glob("variables.data*")).write_bytes(b"cut")
    saving.save(tmp_path, groups(model), {"step": 1, "history": 3})
    saving.restore(path, groups(model))
    assert saving.read_state(path)["history"] == 3


def damage(path, kind):
    """Damage a checkpoint as disks and killed machines do."""
    file = path / "state.json" if kind == "state" else next(path.glob("variables.data*"))
    content = bytearray(file.read_bytes())
    if kind == "cut":
        content = content[: len(content) // 2]
    elif kind == "gone":
        return file.unlink()
    elif kind == "state":
        content = content.replace(b'"history": 3', b'"history": 4')
    else:
        content[len(content) // 3] ^= 1
    return file.write_bytes(content)


@pytest.mark.parametrize("kind", ["cut", "gone", "a bit", "state"])
def test_a_run_goes_on_from_the_one_before_a_damaged_one(tmp_path, model, kind, caplog):
    for step, best in ((1, 1), (2, 1), (3, 3)):
        state = {"step": step, "history": step, "best": {"step": best}}
        saving.save(
            tmp_path / "checkpoints", groups(model), state, kinds=("latest", *(("best",) if best == step else ()))
        )
    folder = tmp_path / "checkpoints"
    assert saving.find_whole(tmp_path) == folder / "step-00000003"
    damage(folder / "step-00000003", kind)
    with caplog.at_level("WARNING", "absl"):
        assert saving.find_whole(tmp_path) == folder / "step-00000002"
    assert "step-00000003 is damaged" in caplog.text and "step-00000002." in caplog.text
    assert pointers.find(tmp_path).name == "step-00000002" and pointers.find(tmp_path, "best").name == "step-00000001"
    saving.save(folder, groups(model), {"step": 3, "history": 3, "best": {"step": 3}}, kinds=("latest", "best"))
    assert saving.find_whole(tmp_path) == folder / "step-00000003"
    saving.restore(folder / "step-00000003", groups(model))


def test_where_all_are_damaged_that_is_said(tmp_path, model):
    assert saving.find_whole(tmp_path) is None
    for step in (1, 2):
        damage(saving.save(tmp_path / "checkpoints", groups(model), {"step": step}), "cut")
    with pytest.raises(OSError, match=r"step-00000002 is damaged.*step-00000001 is damaged.*No checkpoint before"):
        saving.find_whole(tmp_path)


def test_a_pointer_to_nothing_is_no_end(tmp_path, model):
    for step in (1, 2):
        saving.save(tmp_path / "checkpoints", groups(model), {"step": step})
    (tmp_path / "checkpoints" / "latest").write_bytes(b"\xff\0")
    assert saving.find_whole(tmp_path).name == "step-00000002"
    assert pointers.find(tmp_path).name == "step-00000002"


def test_the_newest_stay_with_what_they_know_as_the_best(tmp_path, model):
    for step in range(1, 7):
        kinds = ("latest", "best") if step == 2 else ("latest",)
        saving.save(tmp_path, groups(model), {"step": step, "best": {"step": min(step, 2)}}, kinds=kinds, keep=2)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [f"step-0000000{step}" for step in (2, 5, 6)]
