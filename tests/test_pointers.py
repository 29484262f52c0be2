"""Where in a run's folder its checkpoints lie."""

import pytest

from sat_tf import pointers


def test_a_folder_a_pointer_or_a_checkpoint_is_named(tmp_path):
    for name in ("step-00000001", "step-00000003"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "state.json").write_text("{}")
    (tmp_path / "checkpoints" / "latest").write_text("step-00000003\n")
    (tmp_path / "checkpoints" / "best").write_text("step-00000001")
    for place, kind, found in [
        (tmp_path, "latest", "step-00000003"),
        (tmp_path, "best", "step-00000001"),
        (tmp_path / "checkpoints", "best", "step-00000001"),
        (tmp_path / "checkpoints" / "best", "latest", "step-00000001"),
        (tmp_path / "checkpoints" / "step-00000003", "best", "step-00000003"),
    ]:
        assert pointers.find(place, kind) == tmp_path / "checkpoints" / found


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="looked for .*/none/state.json, .*/best: not there. Train first"):
        pointers.find(tmp_path / "none", "best")
