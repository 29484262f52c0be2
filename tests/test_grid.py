"""Experiments: the paper's numbers as recipes, statistics, which run comes when, kill and resume, what is written."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from sat_tf import activations, assembly, efficientnet, files, grid, hparams, models, report, stopping, train
from sat_tf.experiment import draw
from sat_tf.grid import pairs, runs, table
from sat_tf.hparams import paper

FIGURES = True  # are drawn

ROOT = pathlib.Path(__file__).parents[1]
TINY = {
    "model": "resnet2-w8",
    "dataset": "synthetic",
    "batch_size": "64",
    "validation": "40",
    "eval_attacks": "clean,pgd-1,pgd-2",
    "eval_images": "50",
    "warmup_epochs": "0",
    "validation_every": "1",
}


RECIPES = {name: make() for name, make in paper.RECIPES.items()} | {
    f"{experiment}-{row}-{scale}": hparams.row_recipe(experiment, row, scale)
    for experiment, content in hparams.EXPERIMENTS.items()
    for scale in content.scales[1:]
    for row in hparams.rows_of(experiment, scale)
}


def kind_of(recipe):
    """Return what makes a row's step another graph: method, activations by name, optimizer, what an update adds."""
    acts = [act and act.partition(":")[0] for act in (recipe.act, recipe.attack_backward, recipe.update_backward)]
    return recipe.method, *acts, recipe.attack, recipe.optimizer, recipe.average_decay > 0, recipe.dropout


KINDS = {kind_of(recipe): name for name, recipe in reversed(RECIPES.items())}


@pytest.mark.parametrize("name", paper.RECIPES)
def test_every_number_of_the_paper_has_a_recipe(name):
    for part in ("Command: python main.py --recipe=", "Cost: ", "SAT paper, "):
        assert part in paper.RECIPES[name].__doc__


@pytest.mark.parametrize("name", RECIPES)
def test_every_row_has_a_network_a_method_and_an_optimizer(name):
    recipe = RECIPES[name]
    assert recipe.model in models.MODELS and recipe.batch_size > 0
    activations.factory(recipe.act)
    assembly.make_method(recipe)
    assembly.make_optimizer(recipe, 10, 100)


@pytest.mark.parametrize("name", KINDS.values())
def test_every_kind_of_row_takes_a_step(name, narrow_b0):
    """On the narrowest network of its family; test_promises builds the networks that are named."""
    recipe = RECIPES[name]
    narrow = narrow_b0 if recipe.model in efficientnet.VARIANTS else "resnet2-w8"
    recipe = recipe.replace(batch_size=2, model=narrow)
    model = assembly.build_model(recipe, 10)
    optimizer = assembly.make_optimizer(recipe, 10, 100)
    optimizer.build(model.trainable_variables)
    state = train.TrainState(model=model, optimizer=optimizer, average=assembly.make_average(recipe, model))
    loop = train.Loop(
        state=state,
        method=assembly.make_method(recipe),
        strategy=tf.distribute.get_strategy(),
        batch_size=2,
        weight_decay=recipe.weight_decay,
    )
    before = [variable.numpy() for variable in model.trainable_variables[:3]]
    images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    means = loop.step(tf.constant(images), tf.constant([1, 3]))
    loss, accuracy = means["loss"].numpy(), means["accuracy"].numpy()
    changed = [
        not np.array_equal(old, new.numpy()) for old, new in zip(before, model.trainable_variables[:3], strict=True)
    ]
    assert math.isfinite(loss) and 0 <= accuracy <= 1 and state.step == 1 and any(changed)


@pytest.mark.parametrize("experiment", [name for name, c in hparams.EXPERIMENTS.items() if "small" in c.scales])
def test_small_rows_are_a_narrow_network_on_what_comes_along(experiment):
    for row in hparams.rows_of(experiment, "small"):
        recipe = hparams.row_recipe(experiment, row, "small")
        narrow = "resnet8-w8" if experiment.startswith("curriculum") else "resnet20-w8"
        assert recipe.model == narrow and recipe.dataset == "fashion_mnist_12k"


def test_the_papers_numbers_are_all_there():
    """What Sections 3 to 5 quote of the authors' own models, in percent or nats."""
    quoted = {
        "table1": [68.8, 33.0, 68.3, 34.5, 69.4, 35.8, 68.9, 36.9, 2.71, 2.59],
        "section3.2": [16.9, 12.9, 48.7, 48.0, 76.8, 77.0, 1.22, 1.18],
        "section3.3": [33.6, 68.7, 71.4, 31.2, 2.62, 2.71],
        "figure3": [33.0, 38.7, 42.3, 69.7, 41.1, 40.3, 69.4],
        "table2": [41.1, 40.8, 39.1, 37.4, 34.9, 33.2, 41.2, 40.8, 40.9, 40.6],
        "table3": [69.7, 42.3, 72.9, 45.5, 73.9, 46.0, 71.2, 42.5, 73.6, 45.1, 70.9, 43.8, 71.6, 44.1, 78.2, 51.2],
        "section5.1": [33.0, 39.4, 36.7, 36.9, 46.3],
        "figure4": [37.6, 57.0, 65.1, 79.8, 80.5, 58.0],
        "table4": [82.2, 58.6, 84.1],
        "curriculum": [49.1, 28.0, 78.05, 8.9, 66.2, 30.3, 69.1, 35.45, 72.2, 31.25],
        "curriculum-large": [42.55, 21.05, 68.5, 1.9, 52.5, 24.5, 47.5, 27.75, 62.15, 20.0],
        "mechanism": [76.8, 68.8, 33.0, 68.3, 34.5, 69.4, 35.8, 68.9, 36.9, 38.7, 69.7, 42.3],
        "dose": [68.8, 33.0, 38.7, 40.3, 41.1, 40.8, 39.1, 37.4, 34.9, 33.2],
        "rate": [],
    }
    assert quoted.keys() == hparams.EXPERIMENTS.keys()
    for name, numbers in quoted.items():
        known = {number for row in hparams.EXPERIMENTS[name].rows.values() for number in row.paper.values()}
        assert set(numbers) <= known, name


def test_the_rows_of_table_1_differ_in_their_gradients_alone():
    recipes = {row: hparams.row_recipe("table1", row, "small") for row in hparams.rows_of("table1", "small")}
    differing = {
        row: {line.partition(":")[0] for line in recipes["relu"].differences(recipe)} for row, recipe in recipes.items()
    }
    assert differing == {
        "relu": set(),
        "attack": {"attack_backward"},
        "update": {"update_backward"},
        "both": {"attack_backward", "update_backward"},
    }


def test_equal_rows_share_their_runs_and_others_do_not():
    for scale in hparams.SCALES:
        by_name = {}
        for experiment, content in hparams.EXPERIMENTS.items():
            if scale not in content.scales:
                continue
            for row in hparams.rows_of(experiment, scale):
                recipe = dataclasses.replace(hparams.row_recipe(experiment, row, scale), name="")
                folder = hparams.run_name(experiment, row, scale)
                assert re.fullmatch(r"[\w.=-]+", folder)
                assert by_name.setdefault(folder, recipe) == recipe, f"{experiment}, {row}: {folder}"
        recipes = list(by_name.values())
        assert all(recipes.count(recipe) == 1 for recipe in recipes)


def test_rows_are_named_as_their_recipes_too():
    assert hparams.rows_of("figure3", "small", ["figure3-swish"]) == hparams.rows_of("figure3", "small", ["swish"])
    assert hparams.rows_of("curriculum", "small", ["curriculum-p-sat"]) == ["pgd-at", "p-sat"]


@pytest.mark.parametrize(
    "call,says",
    [
        (lambda: hparams.rows_of("table9", "small"), "Did you mean table"),
        (lambda: hparams.rows_of("table3", "small"), "Expected --scale=paper for table3"),
        (lambda: hparams.rows_of("table1", "tiny"), "Received: scale=tiny"),
        (
            lambda: hparams.rows_of("table1", "small", ["both", "swish"]),
            "Expected --rows of relu, attack, update, both.",
        ),
        (lambda: hparams.row_recipe("table1", "both", "small", {"act": "swish"}), "Received: act=swish"),
        (lambda: hparams.row_recipe("table1", "both", "small", {"epoch": 3}), "Did you mean epochs?"),
        (lambda: hparams.row_recipe("table1", "both", "small", {"epochs": None}), "a number of epochs"),
        (lambda: hparams.row_recipe("section3.3", "pgd-2", "small", {"attack_steps": 2}), "Received: attack=pgd-2"),
        (lambda: hparams.row_recipe("table3", "resnet50", "paper", {"model": "resnet20"}), "Received: model=resnet20"),
        (lambda: hparams.row_recipe("table3", "resnet50", "paper", {"image_size": 64}), "Received: image_size=64"),
    ],
)
def test_what_can_not_be_run_is_refused_in_words(call, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        call()


def test_fields_of_rows_that_are_not_there_may_be_changed():
    assert hparams.row_recipe("section3.3", "pgd-2", "small", {"epochs": 2}).epochs == 2


def test_the_baseline_comes_with_chosen_rows():
    assert hparams.rows_of("table1", "small", ["both"]) == ["relu", "both"]


def test_moments_and_intervals_by_pencil_and_paper():
    assert pairs.moments([]) == (None, None) and pairs.moments([3.0]) == (3.0, None)
    values = [1.0, 4.0, 2.5, 7.25]
    assert pairs.moments(values) == pytest.approx((statistics.mean(values), statistics.stdev(values)))
    assert [pairs.student(n) for n in (1, 2, 4, 30, 31)] == pytest.approx(
        [12.706, 4.303, 2.776, 2.042, 2.040], abs=3e-3
    )
    runs_of = {0: {"robust": 31.0}, 1: {"robust": 35.0}, 2: {"robust": 33.0}, 7: {"robust": 40.0}}
    baseline = {0: {"robust": 30.0}, 1: {"robust": 31.0}, 2: {"robust": 31.0}, 3: {"robust": 99.0}}
    found = pairs.summary(runs_of, baseline)["robust"]
    assert found["mean"] == 34.75 and found["pairs"] == 3
    assert found["difference"] == pytest.approx(7 / 3)  # of 1, 4, 2
    assert found["interval"] == pytest.approx(4.303 * statistics.stdev([1, 4, 2]) / math.sqrt(3))
    assert pairs.summary({}, baseline) == {}


def test_the_loss_of_the_last_steps():
    history = [{"step": 4, "train/loss": 9.0}, {"step": 10, "train/loss": 2.0}, {"step": 11, "train/loss": 1.0}]
    assert stopping.last_loss(history, 1) == 1.0 and stopping.last_loss([], 1) is None
    assert stopping.last_loss(history, 5) == pytest.approx((1 + 6 * 2) / 7)
    assert stopping.last_loss(history, 99) == pytest.approx((1 + 12 + 36) / 11)


def planned(folder, **options):
    return grid.plan(
        "table1", **{"scale": "small", "seeds": 2, "results_dir": folder, "changes": dict(TINY), **options}
    )


def test_seeds_are_the_outer_loop_and_folders_differ(tmp_path):
    items, folder = planned(tmp_path)
    assert [(item.row, item.seed) for item in items] == [
        (row, seed) for seed in (0, 1) for row in ("relu", "attack", "update", "both")
    ]
    assert len({item.folder for item in items}) == 8 and folder == tmp_path / "small-synthetic" / "table1"
    assert all(item.recipe.seed == item.seed for item in items)


def test_a_folder_of_another_recipe_is_refused_before_any_work(tmp_path):
    (item, *_), _ = planned(tmp_path)
    item.folder.mkdir(parents=True)
    (item.folder / "recipe.json").write_text(json.dumps(item.recipe.replace(epochs=9).to_dict()))
    with pytest.raises(ValueError, match="epochs: 9 there, 1 here.* Name another --results_dir"):
        planned(tmp_path)
    (item.folder / "recipe.json").write_text("{")
    with pytest.raises(OSError, match="is damaged"):
        planned(tmp_path)
    (item.folder / "recipe.json").write_text(json.dumps(item.recipe.to_dict()))
    finish(item)
    assert planned(tmp_path)
    with pytest.raises(ValueError, match="eval_images: 50 there, 20 here"):
        planned(tmp_path, changes={**TINY, "eval_images": "20"})


def finish(item, clean=0.5, robust=0.25, ended=report.WHOLE, source="noise"):
    """Write the report of a run that was never made."""
    item.folder.mkdir(parents=True, exist_ok=True)
    steps = {name: hparams.split_attack(name)[1] for name in item.recipe.eval_attacks}
    rows = [
        {"attack": name, "steps": number, "accuracy": robust if number else clean} for name, number in steps.items()
    ]
    content = {
        "evaluations": rows,
        "training": {"train_loss": 1.5, "wall_time_seconds": 2.0, "ended": ended, "attack": "PGD-1"},
        "recipe": item.recipe.to_dict(),
        "versions": {"tensorflow": tf.__version__},
        "machine": {"cores": "2"},
        "dataset": {"name": "synthetic", "source": source, "train": 100, "test": 50, "classes": ["a"]},
    }
    for name in runs.files_of(item.measured):  # what else is measured of it; the report is the one that is read
        (item.folder / name).write_text("{}")
    (item.folder / "report.json").write_text(json.dumps(content))


class FakeChild:
    """A run that ends at the second look: well, busy at first, or in an error."""

    outcomes, started, alive, most, progress = {}, [], 0, 0, 0.5

    def __init__(self, item, options):
        FakeChild.alive += 1
        FakeChild.most = max(FakeChild.most, FakeChild.alive)
        FakeChild.started.append((item.row, item.seed))
        self.item, self.looks, self.share = item, 0, FakeChild.progress

    @property
    def over(self):
        self.looks += 1
        return self.looks > 1

    def outcome(self):
        FakeChild.alive -= 1
        result = FakeChild.outcomes.get((self.item.row, self.item.seed), [None])
        result = result.pop(0) if len(result) > 1 else result[0]
        if result is None:
            finish(self.item, 0.5 + 0.01 * self.item.seed, 0.25 + 0.02 * (self.item.row == "both"))
        return result


@pytest.fixture()
def fake(monkeypatch):
    monkeypatch.setattr(grid.runs, "Child", FakeChild)
    monkeypatch.setattr(grid, "PAUSE", 0)
    FakeChild.outcomes, FakeChild.started, FakeChild.alive, FakeChild.most = {}, [], 0, 0
    FakeChild.progress = 0.5
    return FakeChild


def run(folder, **options):
    return grid.run(
        "table1",
        **{
            "scale": "small",
            "seeds": 2,
            "results_dir": folder,
            "changes": dict(TINY),
            "jobs": 3,
            "command": "python main.py",
            **options,
        },
    )


def test_failures_are_recorded_the_rest_goes_on_and_the_next_time_runs_what_is_left(fake, tmp_path):
    fake.outcomes = {("both", 1): ["the disk was full."]}
    content, folder = run(tmp_path)
    assert len(fake.started) == 8 and fake.most == 3
    (key,) = content["failures"]
    assert content["failures"][key] == "the disk was full." and key.endswith("/seed1")
    assert [row["n"] for row in content["rows"]] == [2, 2, 2, 1]
    text = (folder / "table.md").read_text()
    assert "the disk was full." in text and "7 of 8 runs" in text and "Runs that were stopped early" not in text
    fake.outcomes, fake.started[:] = {}, []
    content, folder = run(tmp_path)
    assert fake.started == [("both", 1)] and not content["failures"]
    assert json.loads((folder / "table.json").read_text()) == json.loads(json.dumps(content))
    fake.started[:] = []
    run(tmp_path)
    assert fake.started == []


def test_runs_that_another_process_has_ended_meanwhile_are_not_run_again(fake, tmp_path):
    class Helpful(FakeChild):
        def outcome(self):
            for other in planned(tmp_path)[0][:4]:
                finish(other)
            return super().outcome()

    grid.runs.Child = Helpful
    run(tmp_path, jobs=1, seeds=1)
    assert fake.started == [("relu", 0)]


def test_a_run_under_lock_is_left_alone(fake, tmp_path):
    items, _ = planned(tmp_path, seeds=1)
    items[0].folder.mkdir(parents=True)
    with contextlib.ExitStack() as lock:
        lock.enter_context(files.locked(items[0].folder))
        assert files.is_locked(items[0].folder) and not files.is_locked(items[1].folder)

        class Releasing(FakeChild):
            def __init__(self, item, options):
                assert item.row != "relu" or len(fake.started) == 3
                super().__init__(item, options)
                if len(fake.started) == 3:
                    lock.close()

        grid.runs.Child = Releasing
        run(tmp_path, seeds=1, jobs=1)
    assert fake.started == [(row, 0) for row in ("attack", "update", "both", "relu")]


def test_runs_on_other_images_are_not_compared(fake, tmp_path):
    items, _ = planned(tmp_path)
    finish(items[0])
    finish(items[1], source="other noise")
    with pytest.raises(ValueError, match="Expected runs on the same images.*other noise"):
        run(tmp_path)
    assert not fake.started


def test_a_smaller_command_keeps_what_is_known(fake, tmp_path):
    run(tmp_path)
    fake.started[:] = []
    content, _ = run(tmp_path, rows=["both"], seeds=1)
    assert [row["n"] for row in content["rows"]] == [2, 2, 2, 2] and not fake.started
    items, _ = planned(tmp_path)
    shutil.copytree(items[0].folder, items[0].folder.with_name("seed0.bak"))  # no run of the grid
    assert [item.folder for item in planned(tmp_path)[0]] == [item.folder for item in items]


def test_a_damaged_report_is_named(tmp_path):
    items, _ = planned(tmp_path)
    finish(items[0])
    file = items[0].folder / "report.json"
    whole = json.loads(file.read_text())
    partial = [{**whole, "training": {"train_loss": None}}, {**whole, "dataset": 3}]
    for text in ("", "{", "[]", *map(json.dumps, partial)):
        file.write_text(text)
        with pytest.raises(OSError, match=f"{re.escape(str(file))} is damaged.*Remove"):
            planned(tmp_path)


@pytest.mark.parametrize(
    "changes,says",
    [
        ({"seed": "7"}, "Expected --seeds"),
        ({"eval_attacks": "pgd-1"}, "Expected clean and at least one attack"),
        ({"eval_attacks": "clean"}, "Expected clean and at least one attack"),
    ],
)
def test_settings_that_make_no_table_are_refused(tmp_path, changes, says):
    with pytest.raises(ValueError, match=says):
        planned(tmp_path, changes={**TINY, **changes})


@pytest.mark.parametrize(
    "name,scale", [(name, scale) for name, content in hparams.EXPERIMENTS.items() for scale in content.scales]
)
def test_every_experiment_becomes_a_table_and_a_figure(tmp_path, name, scale):
    items, folder = grid.plan(name, scale=scale, seeds=2, results_dir=tmp_path)
    for number, item in enumerate(items):
        finish(item, 0.5 + 0.01 * number, 0.2 + 0.005 * number, ended="early" if number == 1 else report.WHOLE)
    content = table.write(name, scale, folder, items, {})
    text = (folder / "table.md").read_text()
    assert all(row["n"] == 2 for row in content["rows"]) and "## Runs that were stopped early" in text
    named = {quantity for row in content["rows"] for quantity in row["paper"] if "-" in quantity}
    assert all(f"{quantity.upper()} (%) |" in text.partition("## The paper")[0] for quantity in named)
    assert (folder / "figure.png").stat().st_size > 10_000


def test_what_is_wrong_with_the_command_is_said_once(fake, tmp_path):
    fake.outcomes = {(row, 0): ["no such folder."] for row in ("relu", "attack", "update", "both")}
    fake.progress = 0.0
    with pytest.raises(ValueError, match="^No run can begin: no such folder.$"):
        run(tmp_path, jobs=1)
    assert len(fake.started) == 2


def test_a_run_that_another_process_has_begun_is_waited_for(fake, tmp_path):
    fake.outcomes = {("relu", 0): [runs.BUSY, runs.BUSY, None]}
    content, _ = run(tmp_path, jobs=1)
    assert fake.started.count(("relu", 0)) == 3 and [row["n"] for row in content["rows"]] == [2, 2, 2, 2]


def test_the_table_says_what_was_measured_beside_the_paper(fake, tmp_path):
    content, folder = run(tmp_path)
    both = content["rows"][3]
    assert both["quantities"]["clean"]["mean"] == pytest.approx(50.5)
    assert both["quantities"]["robust"]["difference"] == pytest.approx(2.0)
    assert both["quantities"]["robust"]["interval"] == pytest.approx(0.0)
    assert both["runs"] == {
        str(seed): {
            "clean": 50.0 + seed,
            "pgd-1": 27.0,
            "pgd-2": 27.0,
            "robust": 27.0,
            "train_loss": 1.5,
            "seconds": 2.0,
        }
        for seed in (0, 1)
    }
    text = (folder / "table.md").read_text()
    for part in ("Scale: small.", "robust, PGD-2 (%)", "36.9", "33.0", "+2.00 [+2.00, +2.00]", "python main.py"):
        assert part in text
    assert (folder / "figure.png").stat().st_size > 10_000


def test_a_table_without_a_run_is_written_too(tmp_path):
    items, folder = planned(tmp_path)
    content = table.write("table1", "small", folder, items, {"relu/seed0": "why"})
    assert not (folder / "figure.png").exists() and "No run has ended yet." in (folder / "table.md").read_text()
    assert content["rows"][0]["n"] == 0


def test_the_curve_of_figure_4_joins_what_was_scaled_together():
    content = hparams.EXPERIMENTS["figure4"]
    rows = [
        {
            "row": name,
            "label": row.label,
            "paper": {"clean": 60.0 + i, "robust": 30.0 + i},
            "quantities": {k: {"mean": 50.0 + i, "std": None} for k in ("clean", "robust")},
            "runs": {seed: {"clean": 50.0 + i, "robust": 50.0 + i} for seed in "01"},
        }
        for i, (name, row) in enumerate(content.rows.items())
    ]
    figure = report.draw_table({"rows": rows, "connected": list(content.connected), "attack": "pgd-10", "title": "t"})
    measured, paper_panel = figure.axes
    dots = [line for line in measured.get_lines() if line.get_marker() == "."]
    assert len(dots) == len(rows) and all(len(line.get_xdata()) == 2 for line in dots)  # a dot for every seed
    (line, *_), (paper_line, *_) = measured.get_lines(), paper_panel.get_lines()
    assert len(line.get_xdata()) == len(paper_line.get_xdata()) == 8  # B0 to B7; L1 stands alone
    figure = report.draw_table(
        {"rows": rows[:1] + rows[7:], "connected": list(content.connected), "attack": "pgd-10", "title": "t"}
    )
    assert len(figure.axes[0].get_lines()[0].get_xdata()) == 0  # B1 to B6 are missing


def test_figures_1_and_2_show_activations_and_their_derivatives(tmp_path):
    for name, (title, acts) in hparams.DRAWN.items():
        assert draw(title, acts, tmp_path / name).stat().st_size > 10_000
        curves = json.loads((tmp_path / name / "figure.json").read_text())
        assert list(curves) == list(acts)
        for act, lines in curves.items():
            x, value, slope = (np.array(lines[key]) for key in ("x", "value", "derivative"))
            numeric = (value[2:] - value[:-2]) / (x[2:] - x[:-2])
            smooth = np.abs(x[1:-1]) > (0.05 if "relu" in act else -1)  # the difference blurs their bend
            np.testing.assert_allclose(slope[1:-1][smooth], numeric[smooth], atol=3e-3, err_msg=act)


def command(folder, *flags):
    settings = [f"--set={name}={value}" for name, value in TINY.items() if name not in ("dataset", "batch_size")]
    return [
        sys.executable,
        str(ROOT / "main.py"),
        "--experiment=table1",
        "--rows=attack",
        "--seeds=1",
        "--dataset=synthetic",
        "--epochs=1",
        "--batch_size=64",
        f"--results_dir={folder}",
        *settings,
        *flags,
    ]


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_killed_in_the_middle_it_finishes_with_nothing_run_twice(tmp_path):
    first = subprocess.Popen(command(tmp_path, "--jobs=1"), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    done = tmp_path / "small-synthetic" / "relu" / "seed0" / "report.json"
    other = tmp_path / "small-synthetic" / hparams.run_name("table1", "attack", "small") / "seed0"
    wait_for(lambda: done.exists() and other.exists(), first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    stamp = done.stat().st_mtime_ns
    second = subprocess.run(command(tmp_path), cwd=tmp_path, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert done.stat().st_mtime_ns == stamp and (other / "report.json").exists()
    content = json.loads((tmp_path / "small-synthetic" / "table1" / "table.json").read_text())
    assert [row["n"] for row in content["rows"]] == [1, 1] and not content["failures"]
    assert content["machine"]["threads of an operation"] == "1"
    assert "table.md" in second.stdout and "2 of 2 runs" in second.stderr


def test_a_failed_run_is_one_line_and_exit_status_1(tmp_path):
    blocked = tmp_path / "small-synthetic" / "relu"
    blocked.parent.mkdir()
    blocked.write_text("a file where a folder should be")
    found = subprocess.run(command(tmp_path, "--jobs=2"), cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 1 and "Traceback" not in found.stderr
    assert found.stderr.strip().splitlines()[-1].startswith("1 of 2 runs failed")
    content = json.loads((tmp_path / "small-synthetic" / "table1" / "table.json").read_text())
    assert [row["n"] for row in content["rows"]] == [0, 1]


def wait_for(condition, process, seconds=600):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until and process.poll() is None, process.stderr.read() if process.poll() else "slow"
        time.sleep(0.1)
