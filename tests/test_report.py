"""Tests of sat_tf.report: what is written is complete, repeatable and replaces the old report in one move."""

import copy
import json
import os
import pathlib
import subprocess
import sys

import matplotlib
import matplotlib.image
import numpy as np
import pytest

from sat_tf import report

FIGURES = True  # are drawn

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
EPSILON = 8 / 255
IMAGES = ["figures/training_curves.png", "figures/accuracy_vs_steps.png", "figures/panel.png"]


def evaluation(attack, correct, **parameters):
    unset = dict.fromkeys(
        ["norm", "epsilon", "step_size", "steps", "random_start", "seed", "backward", "iterates", "restarts"]
    )
    counted = {"split": "test", "count": 2000, "correct": correct, "accuracy": correct / 2000}
    return {"attack": attack, "stages": [], **unset, **counted, "wall_time_seconds": 30.1, **parameters}


def pgd(steps, correct, step_size=1 / 255, **parameters):
    fixed = {"norm": "linf", "epsilon": EPSILON, "random_start": True, "iterates": "final", "seed": 0}
    return evaluation(f"pgd-{steps}", correct, steps=steps, step_size=step_size, **{**fixed, **parameters})


@pytest.fixture
def content():
    return {
        "schema_version": 2,
        "created": "2025-01-01T12:00:00+00:00",
        "command": "python main.py --model=resnet20 --act=swish",
        "mode": "train",
        "model": "resnet20",
        "act": "swish",
        "method": "sat",
        "trained_on": "adversarial",
        "seed": 0,
        "dataset": {"name": "fashion_mnist", "source": "idx files", "train": 11000, "validation": 1000, "test": 2000,
                    "classes": CLASSES},
        "parameters": {"trainable": 272474, "total": 273850},
        "recipe": {"epsilon": EPSILON, "milestones": [10, 15], "note": "a|b", "label_smoothing": None},
        "versions": {"python": "3.11", "tensorflow": "2.20", "keras": "3.15", "numpy": "2.4", "sat_tf": "0.1"},
        "machine": {"cpu": "two cores"},
        "training": {"steps": 300, "epochs": 3, "wall_time_seconds": 12.5, "images_per_second": 900.0},
        "checkpoint": {"path": "runs/best", "kind": "best", "step": 200},
        "evaluations": [evaluation("clean", 1722), pgd(20, 1444), pgd(10, 1462, 2 / 255)],
        "published": None, "radii": None, "extras": None,
        "checks": [], "checked": False, "trusted": True, "forced": False,
        "curve": {"attack": "pgd-20", "norm": "linf", "epsilon": EPSILON, "step_size": 1 / 255,
                  "steps": [0, 1, 2, 5, 10, 20],
                  "accuracy": [0.861, 0.84, 0.81, 0.762, 0.731, 0.722], "count": 2000},
    }  # fmt: skip


@pytest.fixture
def unplotted(content):
    """Return a report without what a plot is drawn of."""
    return content | {"curve": None, "evaluations": content["evaluations"][:1]}


@pytest.fixture
def history():
    return [
        {"step": 100 * epoch, "epoch": float(epoch), "learning_rate": 0.1 / epoch, "train/loss": 2.0 / epoch,
         "train/accuracy": 0.2 * epoch, "validation/clean_accuracy": 0.25 * epoch,
         "validation/robust_accuracy": 0.2 * epoch, "seconds": 4.0 * epoch}
        for epoch in (1, 2, 3)
    ]  # fmt: skip


def make_panel(count=4, height=28, width=28):
    random = np.random.default_rng(0)
    clean = np.repeat(random.random((count, height, width, 1), np.float32), 3, axis=-1)
    noise = random.uniform(-EPSILON, EPSILON, clean.shape).astype(np.float32)
    labels = np.arange(count) % 10
    return {"clean": clean, "adversarial": np.clip(clean + noise, 0, 1), "labels": labels, "clean_predictions": labels,
            "adversarial_predictions": (labels + 1) % 10, "classes": CLASSES, "attack": "pgd-20",
            "norm": "linf", "epsilon": EPSILON}  # fmt: skip


def all_files(directory):
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def read(directory, name):
    return (directory / name).read_text(encoding="utf-8")


# Words and numbers


@pytest.mark.parametrize(
    ("correct", "count", "expected"),
    [(8, 10, (0.4902, 0.9433)), (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (50, 100, (0.4038, 0.5962))],
)
def test_wilson_interval_against_hand_values(correct, count, expected):
    assert report.wilson_interval(correct, count) == pytest.approx(expected, abs=5e-5)


def test_wilson_interval_solves_its_defining_equation():
    for bound in report.wilson_interval(1444, 2000):  # |p - bound| = z sqrt(bound (1 - bound) / n)
        assert abs(0.722 - bound) == pytest.approx(1.959964 * np.sqrt(bound * (1 - bound) / 2000), rel=1e-9)


def test_wilson_interval_holds_the_proportion_however_it_rounds():
    for count in range(1, 5001, 7):
        for correct in (0, count // 3, count):
            low, high = report.wilson_interval(correct, count)
            assert 0 <= low <= correct / count <= high <= 1


@pytest.mark.parametrize(("correct", "count"), [(0, 0), (-1, 10), (11, 10)])
def test_wilson_interval_refuses_impossible_counts(correct, count):
    with pytest.raises(ValueError, match=f"Received: correct={correct}, count={count}"):
        report.wilson_interval(correct, count)


def test_summary_lines(content):
    paths = {"report": "run/report.md", "figures": "run/figures", "checkpoint": "run/best", "TensorBoard logs": ""}
    assert report.summary_lines(content, paths) == [
        "clean accuracy: 86.10 % (1722 / 2000)",
        "PGD-20 accuracy (epsilon 8/255, step size 1/255): 72.20 % (1444 / 2000)",
        "PGD-10 accuracy (epsilon 8/255, step size 2/255): 73.10 % (1462 / 2000)",
        "report: run/report.md",
        "figures: run/figures",
        "checkpoint: run/best",
    ]


# report.json


def test_json_holds_the_report(tmp_path, content):
    report.write(tmp_path, content, [], None)
    assert json.loads(read(tmp_path, "report.json")) == content


def test_json_converts_numpy_and_turns_non_finite_numbers_into_null(tmp_path, content, history):
    content["seed"] = np.int64(7)
    content["training"] = {"loss": float("nan"), "best": np.float32("inf"), "rates": np.array([0.5, np.nan])}
    content["evaluations"][1]["random_start"] = np.bool_(True)
    history[1]["train/loss"] = float("nan")
    report.write(tmp_path, content, history, None)
    text = read(tmp_path, "report.json")
    written = json.loads(text)
    assert "NaN" not in text and "Infinity" not in text
    assert written["seed"] == 7 and written["evaluations"][1]["random_start"] is True
    assert written["training"] == {"loss": None, "best": None, "rates": [0.5, None]}


def test_does_not_change_its_arguments(tmp_path, content, history):
    before = copy.deepcopy((content, history))
    report.write(tmp_path, content, history, make_panel())
    assert (content, history) == before


def test_refuses_another_schema(tmp_path, content):
    with pytest.raises(ValueError, match="Received: schema_version=1"):
        report.write(tmp_path, {**content, "schema_version": 1}, [], None)


# report.md


def test_markdown_says_what_was_measured_and_how(tmp_path, content, history):
    report.write(tmp_path, content, history, make_panel())
    text = read(tmp_path, "report.md")
    assert text.startswith("# resnet20 with swish, sat, on fashion_mnist\n")
    assert "**clean accuracy: 86.10 % (1722 / 2000)**, 95 % interval 84.51 to 87.55 %" in text
    row = (
        "| PGD-20 (linf) | 8/255 | 1/255 | 20 | yes (seed 0) | final | 1444 / 2000 | "
        "72.20 % (70.20 to 74.12 %) | 30.1 s |"
    )
    for expected in (row, content["command"], "| milestones | [10, 15] |", "| note | a\\|b |",
                     "| label_smoothing | none |",
                     "| cpu | two cores |", "| images_per_second | 900.0 |", "| kind | best |"):  # fmt: skip
        assert expected in text
    for name in IMAGES:
        assert f"]({name})" in text
    assert "Not the whole test split" not in text


def test_headline_is_the_lowest_accuracy_under_attack(tmp_path, content):
    content["evaluations"].append(pgd(100, 1420, 0.5 / 255, random_start=False))
    report.write(tmp_path, content, [], None)
    headline = read(tmp_path, "report.md").split("## Evaluations")[0]
    assert "**PGD-100 accuracy (epsilon 8/255, step size 0.5/255): 71.00 % (1420 / 2000)**" in headline
    assert "PGD-20" not in headline


def test_says_when_not_every_test_image_was_evaluated(tmp_path, content):
    content["dataset"]["test"] = 10000
    report.write(tmp_path, content, [], None)
    assert "**Not the whole test split**: evaluated on 2000 of 10000 images." in read(tmp_path, "report.md")


def test_evaluation_without_attack_curve_training_or_panel(tmp_path, content):
    content.update(mode="eval", training=None, curve=None, evaluations=[evaluation("clean", 1722)])
    written = report.write(tmp_path, content, [], None)
    assert set(written) == {"report.md", "report.html", "report.json"} == all_files(tmp_path)
    text = read(tmp_path, "report.md")
    assert "Not trained by this run" in text and "## Images" not in text


# Files


def test_returns_every_written_file_and_leaves_nothing_else(tmp_path, content, history):
    directory = tmp_path / "new" / "run"
    for _ in range(2):  # the second time over the files of the first
        written = report.write(str(directory), content, history, make_panel())
        assert set(written) == all_files(directory) == {"report.json", "report.md", "report.html", *IMAGES}
        assert all(written[name] == str(directory / name) for name in written)


@pytest.mark.parametrize("unreadable", [{"machine": {"lock": object()}}, {"evaluations": [{"attack": "pgd-20"}]}])
def test_a_report_that_cannot_be_rendered_leaves_every_old_file(tmp_path, content, history, unreadable):
    report.write(tmp_path, content, history, make_panel())
    before = {name: (tmp_path / name).read_bytes() for name in all_files(tmp_path)}
    with pytest.raises((TypeError, KeyError)):
        report.write(tmp_path, {**content, "model": "other", **unreadable}, history, make_panel())
    assert {name: (tmp_path / name).read_bytes() for name in all_files(tmp_path)} == before


def test_a_write_that_fails_midway_leaves_the_old_file(tmp_path, content, monkeypatch):
    content["curve"] = None
    content["evaluations"] = []
    report.write(tmp_path, content, [], None)
    before = read(tmp_path, "report.json")

    def write_on_full_disk(path, data):
        path.touch()
        raise OSError("No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", write_on_full_disk)
    with pytest.raises(OSError, match="No space left"):
        report.write(tmp_path, {**content, "model": "other"}, [], None)
    assert read(tmp_path, "report.json") == before
    assert all_files(tmp_path) == {"report.json", "report.md", "report.html"}


# Images


def load(path):
    return matplotlib.image.imread(path)[..., :3]


def test_plots_have_their_size_and_show_something(tmp_path, content, history):
    written = report.write(tmp_path, content, history, None)
    for name, shape in ((IMAGES[0], (600, 1500)), (IMAGES[1], (900, 1200))):
        image = load(written[name])
        assert image.shape[:2] == shape
        assert 0.01 < np.mean(image.min(axis=-1) < 0.9) < 0.5
        assert np.ptp(image, axis=-1).max() > 0.5  # coloured


@pytest.mark.parametrize("change", [
    lambda rows: rows[:1],
    lambda rows: [{key: row[key] for key in row if key != "validation/robust_accuracy"} for row in rows],
    lambda rows: [{**row, "validation/robust_accuracy": None, "train/loss": float("nan")} for row in rows],
    lambda rows: [{**rows[0], "step": 0, "epoch": 0.0}],
])  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_training_curves_of_short_and_incomplete_histories(tmp_path, content, history, change):
    image = load(report.write(tmp_path, content, change(history), None)[IMAGES[0]])
    assert image.shape[:2] == (600, 1500) and image.min() < 0.5


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("evaluations", [[], [evaluation("clean", 0), pgd(1, 0), pgd(1, 2000), pgd(1, 5)]])
@pytest.mark.parametrize("has_curve", [True, False])
def test_accuracy_vs_steps_needs_a_curve_or_an_attack(tmp_path, content, evaluations, has_curve):
    content["evaluations"] = evaluations
    content["curve"] = content["curve"] if has_curve else None
    assert (IMAGES[1] in report.write(tmp_path, content, [], None)) == (has_curve or bool(evaluations))


@pytest.mark.parametrize(("count", "height", "width", "shown", "cell"), [
    (1, 28, 28, 1, (168, 168)), (8, 32, 32, 8, (160, 160)), (11, 28, 28, 8, (168, 168)),
    (2, 224, 224, 2, (224, 224)), (2, 20, 40, 2, (80, 160)),
])  # fmt: skip
def test_panel_has_a_column_a_image(tmp_path, unplotted, count, height, width, shown, cell):
    image = load(report.write(tmp_path, unplotted, [], make_panel(count, height, width))[IMAGES[2]])
    assert image.shape[:2] == (3 * cell[0] + 3 * 40 + 16, 216 + shown * (cell[1] + 16))


def test_panel_shows_each_pixel_unblurred(tmp_path, unplotted):
    panel = make_panel(2)
    panel["epsilon"] = 16 / 255  # the noise spans 8/255: the middle half of the grey scale
    image = load(report.write(tmp_path, unplotted, [], panel)[IMAGES[2]])
    tops = {"clean": 40, "perturbation": 40 + 168 + 40, "adversarial": 40 + 168 + 40 + 168 + 16}
    expected = {**panel, "perturbation": (panel["adversarial"] - panel["clean"]) / (2 * panel["epsilon"]) + 0.5}
    for name, top in tops.items():
        for column in range(2):
            left = 216 + column * 184
            enlarged = np.kron(expected[name][column], np.ones((6, 6, 1)))
            shown = image[top : top + 168, left : left + 168]
            np.testing.assert_allclose(shown, enlarged, atol=1.01 / 255, err_msg=name)


@pytest.mark.filterwarnings("error")
def test_panel_without_perturbation_is_grey(tmp_path, unplotted):
    panel = make_panel(1)
    panel.update(adversarial=panel["clean"], epsilon=0.0)
    image = load(report.write(tmp_path, unplotted, [], panel)[IMAGES[2]])
    np.testing.assert_allclose(image[250:410, 220:380], 0.5, atol=1 / 255)


def test_panel_refuses_arrays_that_do_not_fit(tmp_path, content):
    panel = make_panel(3)
    panel["adversarial"] = panel["adversarial"][:2]
    with pytest.raises(ValueError, match=r"Received: clean=\(3, 28, 28, 3\), adversarial=\(2, 28, 28, 3\)"):
        report.write(tmp_path, content, [], panel)
    assert not all_files(tmp_path)


def test_empty_panel_is_no_panel(tmp_path, content):
    assert IMAGES[2] not in report.write(tmp_path, content, [], make_panel(0))


def test_leaves_the_settings_of_a_notebook_alone(tmp_path, content, history):
    before = dict(matplotlib.rcParams)
    report.write(tmp_path, content, history, make_panel())
    assert dict(matplotlib.rcParams) == before


def test_imports_no_plotting_before_it_draws_and_never_pyplot(tmp_path, content, history):
    (tmp_path / "in.json").write_text(json.dumps([content, history]), encoding="utf-8")
    program = ("import json, sys; from sat_tf import report; assert 'matplotlib' not in sys.modules; "
               "report.write(sys.argv[1], *json.load(open(sys.argv[1] + '/in.json')), None); "
               "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules")  # fmt: skip
    root = os.path.dirname(os.path.dirname(os.path.abspath(report.__file__)))
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=root)


def check(passed, hard=True, name="finite"):
    return {"name": name, "hard": hard, "passed": passed, "figure": f"{name} has 3 of 5", "numbers": {}}


@pytest.mark.parametrize(
    "checks,forced,headline",
    [
        ([check(True), check(None), check(False, hard=False)], False, "PGD"),
        ([check(True), check(False)], False, "withheld"),
        ([check(False)], True, "Not to be trusted"),
    ],
)
def test_a_failed_hard_check_takes_the_headline_back(tmp_path, content, checks, forced, headline):
    report.write(tmp_path, content | {"checks": checks, "checked": True, "forced": forced}, [], None)
    head = read(tmp_path, "report.md").partition("## Evaluations")[0]
    lines = report.summary_lines(content | {"checks": checks, "forced": forced}, {})
    withheld = headline == "withheld"
    assert headline in head and ("72.20 %" not in head) is withheld
    assert any(line.endswith(": withheld") for line in lines) is withheld
    assert any("finite has 3 of 5" in line for line in lines) and "## Checks" in read(tmp_path, "report.md")


def test_radii_corruptions_and_l2_are_shown(tmp_path, content):
    radii = {
        "attack": "pgd-20",
        "norm": "l2",
        "radii": [0, 0.25, 3.0],
        "correct": [90, 50, 0],
        "count": 100,
        "accuracy": [0.9, 0.5, 0.0],
    }
    extras = {
        "count": 100,
        "clean": 0.9,
        "library": "some 1.0",
        "corruptions": {"fog": [0.9, 0.8, 0.7, 0.6, 0.5]},
        "noise": {"0.1": 0.75},
    }
    row = {
        **content["evaluations"][1],
        "norm": "l2",
        "epsilon": 0.5,
        "step_size": 0.0625,
        "restarts": 3,
        "iterates": "worst",
        "stages": [{"attack": "a", "correct": 7, "steps": 5}, {"attack": "b", "correct": 6}],
    }
    paths = report.write(tmp_path, content | {"evaluations": [row], "radii": radii, "extras": extras}, [], None)
    text = read(tmp_path, "report.md")
    for expected in (
        "| 0.25 | 50 / 100 | 50.00 % |",
        "| fog | 90.0 | 80.0 | 70.0 | 60.0 | 50.0 | 70.0 |",
        "| 0.1 | 75.00 %",
        "L2, epsilon 0.5, step size 0.0625, 3 restarts, worst iterate",
        "| a | 7 / ",
    ):
        assert expected in text
    assert {"figures/accuracy_vs_radius.png", "figures/corruptions.png"} <= set(paths)
