"""Runs beside one another: paired intervals by pencil, the same images whatever they are called, what is left out."""

import csv
import io
import json
import math

import numpy as np
import pytest
import test_report

from sat_tf import experiment, hparams, report
from sat_tf.comparison import accuracies, read, unlike

FIGURES = True  # are drawn

CLASSES = ["ant", "bee"]


def test_mcnemar_by_pencil():
    assert report.mcnemar(0, 0) == 1.0 and report.mcnemar(3, 3) == 1.0
    assert report.mcnemar(0, 5) == pytest.approx(2 / 32)
    assert report.mcnemar(2, 8) == report.mcnemar(8, 2) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert report.mcnemar(5000, 5300) == pytest.approx(math.erfc(299 / math.sqrt(10300) / math.sqrt(2)), rel=1e-3)


def test_the_paired_interval_by_pencil():
    """With p1 = 0.9 and p2 = 0.7 of 10 images, Wilson's bounds are (0.5958, 0.9821) and (0.3968, 0.8922)."""
    value, low, high = report.difference(6, 3, 1, 0)
    r = (6 * 0 - 3 * 1) / math.sqrt(9 * 1 * 7 * 3)
    a, b = 0.9 - 0.5958, 0.8922 - 0.7
    c, d = 0.9821 - 0.9, 0.7 - 0.3968
    assert value == pytest.approx(0.2)
    assert low == pytest.approx(0.2 - math.sqrt(a * a - 2 * r * a * b + b * b), abs=2e-4)
    assert high == pytest.approx(0.2 + math.sqrt(c * c - 2 * r * c * d + d * d), abs=2e-4)


def test_the_paired_interval_is_what_an_interval_should_be():
    for counts in ((50, 5, 3, 42), (0, 7, 0, 3), (10, 0, 0, 0), (0, 0, 0, 10), (900, 30, 10, 60)):
        value, low, high = report.difference(*counts)
        both, first, second, neither = counts
        back = report.difference(both, second, first, neither)
        assert back == pytest.approx((-value, -high, -low))
        assert -1 <= low <= value <= high <= 1
    one, many = report.difference(90, 6, 4, 0), report.difference(900, 60, 40, 0)
    assert many[2] - many[1] < 0.5 * (one[2] - one[1])
    paired, apart = report.difference(700, 20, 20, 260), report.difference(500, 220, 220, 60)
    assert paired[2] - paired[1] < 0.5 * (apart[2] - apart[1])  # the same accuracies, less that only one gets right
    with pytest.raises(ValueError, match="Received"):
        report.difference(0, 0, 0, 0)


def test_the_paired_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    shares = [0.6, 0.12, 0.06, 0.22]
    drawn = [report.difference(*counts) for counts in rng.multinomial(200, shares, 2000).tolist()]
    assert 0.93 <= np.mean([low <= 0.06 <= high for _, low, high in drawn]) <= 0.97


def make_run(
    folder, right, *, epsilon=8 / 255, ids=None, digests=None, source="made", ended=True, labels=None, **changes
):
    """Write what a run leaves: `right` is bool [n, 2], of each image as it is and under PGD-2."""
    recipe = hparams.choose({"dataset": "synthetic", **changes})
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    if not ended:
        return folder
    count, labels = len(right), np.arange(len(right)) % 2 if labels is None else labels
    rows = [
        {"attack": "pgd-2", "id": ids[i] if ids else i, "label": labels[i],
         "clean_prediction": labels[i] if right[i][0] else 1 - labels[i],
         "fooled_by": "" if right[i][1] else "pgd-2" if right[i][0] else "clean"}
        | ({"image": digests[i]} if digests else {})
        for i in range(count)
    ]  # fmt: skip
    (folder / "images.csv").write_text(report.csv_text(rows))
    content = {
        "recipe": recipe.to_dict(),
        "dataset": {"name": "synthetic", "source": source, "classes": CLASSES, "train": 100},
        "checkpoint": {"step": 10, "weights": "raw"},
        "training": {"ended": "after all its epochs"},
        "checks": [], "forced": False,
        "evaluations": [
            test_report.evaluation("clean", int(np.sum(right, 0)[0]), count=count),
            test_report.pgd(2, int(np.sum(right, 0)[1]), count=count, epsilon=epsilon),
        ],
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def outcomes():
    """Return what 40 images are to two runs, bool [2, 40, 2]."""
    clean = np.random.default_rng(1).random([2, 40]) < [[0.9], [0.8]]
    robust = clean & (np.random.default_rng(2).random([2, 40]) < 0.6)
    return np.stack([clean, robust], -1)


def test_two_runs(tmp_path, monkeypatch, capsys, outcomes):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs/a", outcomes[0])
    make_run(tmp_path / "runs/b", outcomes[1], act="relu", epochs=3)
    make_run(tmp_path / "runs/c", outcomes[1], ended=False)
    (tmp_path / "runs/notes").mkdir()
    found = experiment.compare(["runs/*"], None, "python main.py --mode=compare")
    first, second = ([row for row in found["accuracies"] if row["run"] == name] for name in "ab")
    for place, (one, other) in enumerate(zip(first, second, strict=True)):
        a, b = outcomes[0, :, place], outcomes[1, :, place]
        assert (one["correct"], other["correct"], other["common_images"]) == (a.sum(), b.sum(), 40)
        assert other["right_alone"] == (b & ~a).sum() and other["baseline_right_alone"] == (a & ~b).sum()
        assert other["difference"] == pytest.approx(b.mean() - a.mean()) and one["difference"] is None
        assert other["mcnemar_p"] == report.mcnemar((b & ~a).sum(), (a & ~b).sum())
    assert {row["field"]: row["values"] for row in found["differences"]} == {
        "act": ["swish", "relu"],
        "epochs": ["7", "3"],
    }
    assert list(found["left_out"]) == ["c"] and "has not ended" in found["left_out"]["c"]
    out = capsys.readouterr().out
    folder = tmp_path / "runs/comparisons/001"
    names = ["comparison.csv", "comparison.html", "comparison.json", "comparison.md", "comparison.png", "recipes.csv"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert "| act | swish | relu |" in out and "* c: it has not ended." in out and "comparison.png" in out
    assert (folder / "comparison.md").read_text().startswith(out.partition("\n\ntable: ")[0].strip())
    lines = list(csv.DictReader(io.StringIO((folder / "comparison.csv").read_text())))
    assert [line["run"] for line in lines] == ["a", "a", "b", "b"]
    assert float(lines[3]["difference_low"]) < float(lines[3]["difference"]) < float(lines[3]["difference_high"])
    again = experiment.compare(["runs/b", "runs/a", "runs/b/"], tmp_path / "own")
    assert again["baseline"] == "b" and len(again["runs"]) == 2 and (tmp_path / "own/comparison.md").exists()
    assert again["accuracies"][3]["difference"] == pytest.approx(-second[1]["difference"])


def test_images_are_known_by_what_they_show(tmp_path, outcomes):
    """Another folder, another order, some images only in one: what is common is paired, with its label."""
    names = [f"{i // 2:016x}" for i in range(40)]  # two labels an image
    make_run(tmp_path / "a", outcomes[0], digests=names, source="here")
    order = [*range(39, 9, -1)]
    labels = np.arange(40)[order] % 2
    make_run(tmp_path / "b", outcomes[1][order], digests=[names[i] for i in order], source="there", labels=labels)
    one, two = (read(tmp_path / name, name) for name in "ab")
    assert unlike(one, two) is None
    for place, row in enumerate(accuracies(two, one)):
        a, b = outcomes[0, 10:, place], outcomes[1, 10:, place]
        assert row["common_images"] == 30 and row["right_alone"] == (b & ~a).sum()
        assert row["difference"] == pytest.approx(b.mean() - a.mean())


def test_what_cannot_be_compared_is_said_by_name(tmp_path, outcomes):
    make_run(tmp_path / "a", outcomes[0])
    make_run(tmp_path / "elsewhere", outcomes[1], source="other files")
    make_run(tmp_path / "apart", outcomes[1], ids=[*range(100, 140)])
    make_run(tmp_path / "smaller", outcomes[1], epsilon=4 / 255)
    found = experiment.compare([tmp_path / name for name in ("a", "elsewhere", "apart", "smaller")], tmp_path / "out")
    assert "evaluated on other files, the other on made" in found["left_out"]["elsewhere"]
    assert "no common image" in found["left_out"]["apart"] and "smaller" not in found["left_out"]
    rows = {(row["run"], row["attack"]): row["difference"] for row in found["accuracies"]}
    assert rows["smaller", "clean"] is not None and len(rows) == 8
    assert rows["smaller", "PGD-2 (epsilon 4/255, step size 1/255)"] is None
    (tmp_path / "empty").mkdir()
    (tmp_path / "elsewhere/images.csv").unlink()
    with pytest.raises(
        ValueError, match=r"two runs.*Received: a; not elsewhere: it has no images.csv.*empty: it holds"
    ):
        experiment.compare([tmp_path / name for name in ("a", "elsewhere", "empty")])


def test_a_table_that_was_cut_is_damaged(tmp_path, outcomes):
    for name in ("a", "b", "cut"):
        make_run(tmp_path / name, outcomes[int(name == "b")])
    lines = (tmp_path / "cut/images.csv").read_text().splitlines(keepends=True)
    (tmp_path / "cut/images.csv").write_text("".join(lines[:9]))
    found = experiment.compare([tmp_path / name for name in ("a", "b", "cut")], tmp_path / "out")
    assert "images.csv is damaged: it has 8 images" in found["left_out"]["cut"] and len(found["runs"]) == 2


def test_later_evaluations_count_and_those_of_other_weights_do_not(tmp_path, outcomes):
    run = make_run(tmp_path / "a", outcomes[0])
    for name, step in (("001", 10), ("002", 5)):
        place = make_run(run / "evaluations" / name, outcomes[1], epsilon=4 / 255)
        content = json.loads((place / "report.json").read_text())
        content["checkpoint"]["step"] = step
        (place / "report.json").write_text(json.dumps(content))
    found = read(run, "a")
    assert [outcome.title for outcome in found.outcomes.values()] == [
        "clean",
        "PGD-2 (epsilon 8/255, step size 1/255)",
        "PGD-2 (epsilon 4/255, step size 1/255)",
    ]
    assert sum(next(iter(found.outcomes.values())).right.values()) == outcomes[1, :, 0].sum()


def test_withheld_accuracies_are_not_compared(tmp_path, outcomes):
    run = make_run(tmp_path / "a", outcomes[0])
    content = json.loads((run / "report.json").read_text())
    content["checks"] = [{"name": "finite", "hard": True, "passed": False, "figure": "f"}]
    (run / "report.json").write_text(json.dumps(content))
    assert [outcome.title for outcome in read(run, "a").outcomes.values()] == ["clean"]
