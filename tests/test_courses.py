"""Courses: what validations found over a training, row by row, and since when rows are apart."""

import pytest

from sat_tf import files, report
from sat_tf.grid import courses

FIGURES = True  # are drawn


def run(folder, robust, losses=None, epochs=None):
    """Write the history of a run, a line a validation; return its folder."""
    losses, epochs = losses or [2.0] * len(robust), epochs or range(1, len(robust) + 1)
    rows = [
        {"step": 10 * epoch, "epoch": epoch, "train/loss": loss, "validation/robust_accuracy": number}
        for epoch, loss, number in zip(epochs, losses, robust, strict=True)
    ]
    folder.mkdir(parents=True)
    files.write(folder / courses.HISTORY, report.csv_text(rows))
    return folder


@pytest.fixture
def folders(tmp_path):
    robust = {
        ("relu", 0): [0.10, 0.20, 0.30, 0.40],
        ("relu", 1): [0.12, 0.22, 0.31, 0.41],
        ("swish", 0): [0.20, 0.15, 0.35, 0.46],  # apart at first, on the other side, and again
        ("swish", 1): [0.22, 0.17, 0.36, 0.47],
        ("elu", 0): [0.10, 0.20, 0.30, 0.40],
        ("elu", 1): [0.13, 0.21, 0.32, 0.40],
    }
    return {key: run(tmp_path / f"{key[0]}{key[1]}", numbers) for key, numbers in robust.items()}


def test_rows_are_apart_since_the_epoch_after_which_no_interval_holds_zero(folders):
    found = courses.of(folders, "relu")
    assert found["swish"]["parted"]["held_out"] == 3 and found["elu"]["parted"]["held_out"] is None
    assert found["swish"]["parted"]["train_loss"] is None and found["relu"]["parted"] is None
    point = found["swish"]["points"][-1]
    assert point["epoch"] == 4 and point["held_out"]["mean"] == pytest.approx(46.5)
    assert point["held_out"]["difference"] == pytest.approx(6) and point["held_out"]["pairs"] == 2
    assert point["train_loss"]["mean"] == 2 and found["swish"]["seeds"] == [0, 1]


def test_the_other_side_is_another_parting(tmp_path):
    folders = {("relu", seed): run(tmp_path / f"relu{seed}", [0.3, 0.3, 0.3]) for seed in (0, 1)}
    folders |= {("swish", seed): run(tmp_path / f"swish{seed}", [0.1, 0.5, 0.6]) for seed in (0, 1)}
    assert courses.of(folders, "relu")["swish"]["parted"]["held_out"] == 2


def test_few_validations_no_attack_and_runs_that_stopped_early(tmp_path, capsys):
    folders = {
        ("relu", 0): run(tmp_path / "a", [0.1, 0.2]),
        ("swish", 0): run(tmp_path / "b", ["", "", ""]),
        ("elu", 0): run(tmp_path / "c", [0.1, 0.2, 0.3]),
        ("elu", 1): run(tmp_path / "d", [0.1, 0.2, 0.3, 0.4]),
        ("gelu", 0): tmp_path / "of an older version",
    }
    found = courses.of(folders, "relu")
    assert found.keys() == {"swish", "elu"} and "held_out" not in found["swish"]["points"][0]
    assert [point["held_out"]["std"] is None for point in found["elu"]["points"]] == [False, False, False, True]
    assert found["elu"]["parted"]["held_out"] == courses.FEW  # there is no baseline to differ from
    (tmp_path / "b" / courses.HISTORY).write_text("epoch,train/loss\nx,1\n")
    (tmp_path / "c" / courses.HISTORY).write_text("epoch,train/loss\n1,nan\n")
    assert courses.of(folders, "relu").keys() == {"elu"}
    told = capsys.readouterr().err
    assert told.count("Left out of the courses: ") == 2 and "none" in told and "could not convert" in told


def test_courses_are_drawn_and_told(folders):
    rows = [{"row": row, "label": f"label {row}"} for row in ("relu", "swish", "elu", "gelu")]
    table = {"rows": rows, "courses": courses.of(folders, "relu"), "title": "a title"}
    figure = report.draw_courses(table)
    assert [axes.get_xlabel() for axes in figure.axes] == ["epochs", "epochs"]
    assert [len(axes.get_lines()) for axes in figure.axes] == [3, 3]
    assert figure.axes[1].get_lines()[1].get_ydata()[-1] == pytest.approx(46.5)
    text = "\n".join(report.courses.section(table))
    assert "![](courses.png)" in text and "| label swish | 2 seeds | never | 3 |" in text and "label relu |" not in text
    for none in ({}, {"courses": {}}, {"courses": None}):
        assert (
            report.draw_courses({"rows": rows, **none}) is None and report.courses.section({"rows": rows, **none}) == []
        )
