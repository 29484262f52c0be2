"""What is measured of a run's gradients, and what the mechanism's page says of it."""

import importlib
import json
import math
import types

import numpy as np
import pytest

from sat_tf import experiment, grid, hparams, mechanism, pointers, saving
from sat_tf.grid import mechanism as links
from sat_tf.grid import pairs

FIGURES = True  # are drawn

gradients = importlib.import_module("sat_tf.mechanism.gradients")  # the package has its function by that name

TINY = {
    "model": "resnet2-w8",
    "act": "relu",
    "dataset": "synthetic",
    "epochs": 2,
    "batch_size": 64,
    "validation": 40,
    "validation_attack": "pgd-1",
    "eval_attacks": "clean,pgd-1",
    "eval_images": 30,
    "eval_checks": 0,
}
ASKED = {"images": 40, "batches": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A ReLU network with two checkpoints."""
    folder = tmp_path_factory.mktemp("gradients") / "run"
    experiment.train(hparams.choose(TINY), folder)
    return folder


@pytest.fixture(scope="module")
def measured(run):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradients, "STEPS", 10)
        content = experiment.gradients(run, **ASKED)
    assert json.loads((run / "mechanism.json").read_text()) == content
    return content


def test_every_checkpoint_has_a_point_by_both_gradients(run, measured):
    steps = [saving.read_state(path)["step"] for path in saving.by_step(run / "checkpoints")]
    assert [point["step"] for point in measured["points"]] == sorted(steps) and len(steps) == 2
    assert [point["epoch"] for point in measured["points"]] == [1, 2]
    for point in measured["points"]:
        assert point["through"].keys() == {"own", "substitute"}
        own, other = point["through"].values()
        for seen in (own, other):
            assert 0 < seen["share"] <= 1.01 and -1 <= seen["cosine"] <= 1 and seen["noise"] > 0
            assert seen["share"] == pytest.approx(seen["rise"] / seen["rise_of_many"], rel=1e-3)
        assert own["loss"] == other["loss"] and own["rise_of_many"] == other["rise_of_many"]
        assert own["cosine"] != other["cosine"] and own["noise"] != other["noise"]
    assert not (run / "mechanism-part.json").exists() and not (run / "mechanism-work").exists()


def test_the_probe_counts_as_evaluations_do_on_all_test_images(run, measured):
    changes = {"eval_images": None, "eval_active_set": False, "eval_attacks": "clean,pgd-1"}
    changes["eval_backward"] = hparams.SUBSTITUTE
    report = experiment.evaluate(changes, checkpoint=pointers.find(run, "latest"))
    probe, row = measured["probe"], report["evaluations"][1]
    assert row["correct"] == probe["substitute"] and row["count"] == measured["test_images"]
    pairs = probe["pairs"]
    assert sum(pairs.values()) == measured["test_images"] > 40
    assert pairs["both"] + pairs["second"] == probe["own"] and pairs["both"] + pairs["first"] == probe["substitute"]
    assert probe["difference"] == pytest.approx((probe["substitute"] - probe["own"]) / measured["test_images"])
    assert probe["low"] <= probe["difference"] <= probe["high"]


def test_the_loss_along_the_attack_begins_at_the_image_and_passes_the_step_s_end(measured):
    along, last = measured["along"], measured["points"][-1]["through"]
    assert along["lengths"][0] == 0 and along["lengths"][8] == pytest.approx(measured["epsilon"])
    for name, seen in last.items():
        losses, planes = np.array(along[name]["loss"]), np.array(along[name]["plane"])
        assert losses[0] == planes[0] == pytest.approx(seen["loss"], rel=1e-5)
        assert losses[8] - losses[0] == pytest.approx(seen["rise"], rel=1e-3)
        assert planes[8] - planes[0] == pytest.approx(seen["promised"], rel=1e-3)


def test_a_measurement_that_was_stopped_goes_on_to_the_same_numbers(run, measured, monkeypatch):
    monkeypatch.setattr(gradients, "STEPS", 10)
    done, whole = [], gradients.Look.point

    def stopped(self, path):
        done.append(path.name)
        if len(done) == 2:
            raise KeyboardInterrupt
        return whole(self, path)

    monkeypatch.setattr(gradients.Look, "point", stopped)
    (run / "mechanism.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        experiment.gradients(run, **ASKED)
    assert (run / "mechanism-part.json").exists() and not (run / "mechanism.json").exists()
    assert experiment.gradients(run, **ASKED) == measured
    assert len(done) == 3 and done[1] == done[2]  # the first point was not measured again


def test_a_gradient_leaves_the_network_as_it_is_and_is_that_of_an_update(run):
    from sat_tf import assembly
    from sat_tf.runs import checkpoints

    found = checkpoints.open_checkpoint(pointers.find(run, "latest"), {})
    dataset = assembly.load_data(found.recipe, None)
    look = gradients.Look(found, dataset, {**ASKED, "steps": 2}, run / "work")
    before = [variable.numpy() for variable in look.model.variables]
    noise = look._noise("own", 5)
    for variable, value in zip(look.model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value, err_msg=variable.path)
    assert math.isfinite(noise["noise"]) and noise["length"] > 0


def seen(share, cosine, noise):
    return {"share": share, "cosine": cosine, "noise": noise, "loss": 1.0, "rise": 0.1, "promised": 0.2}


def fabricated(row, seed):
    """Return what would be measured of a run: swish and the substitute better by 0.1, with some spread."""
    better = 0.1 if row in ("swish", "both") else 0.0
    spread = 0.001 * seed
    through = {"own": seen(0.6 + better + spread, 0.4 + better - spread, 3 - better + spread)}
    line = {"loss": [1.0, 1.2, 1.3], "plane": [1.0, 1.3, 1.6]}
    probe, along = {"own": 48 - seed}, {"lengths": [0.0, 8 / 255, 16 / 255], "own": line}
    if row != "swish":
        through["substitute"] = seen(0.7 + 2 * spread, 0.4 + spread * (-1) ** seed, 3.0)
        pairs = {"both": 46 - seed, "first": 0, "second": 2, "neither": 52 + seed}
        probe |= {"substitute": 46 - seed, "pairs": pairs, "difference": -0.02, "low": -0.05, "high": 0.01, "p": 0.5}
        along["substitute"] = line
    points = [{"step": 4, "epoch": 1.0, "through": through}, {"step": 8, "epoch": 2.0, "through": through}]
    about = {"images": 40, "batches": 2, "steps": 50, "test_images": 100, "epsilon": 8 / 255}
    about["method"] = "standard" if row == "standard" else "sat"
    return {**about, "probe": probe, "along": along, "points": points}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The mechanism's content, its folder, from four rows of three seeds that were never trained."""
    tmp_path, items, runs = tmp_path_factory.mktemp("page"), [], {}
    for row, robust in (("standard", 5), ("relu", 30), ("both", 30.5), ("swish", 33)):
        runs[row] = {}
        for seed in range(3):
            folder = tmp_path / row / f"seed{seed}"
            folder.mkdir(parents=True)
            (folder / "mechanism.json").write_text(json.dumps(fabricated(row, seed)))
            items.append(types.SimpleNamespace(row=row, seed=seed, folder=folder, finished=True))
            numbers = {"clean": 40.0, "robust": robust + (seed - 1) * (1.0 if row == "both" else 0.1)}
            runs[row][str(seed)] = {**numbers, "train_loss": 1.9, "seconds": 2.0}
    recipe = hparams.row_recipe("mechanism", "relu", "small")
    found = {
        "experiment": "mechanism",
        "title": "The mechanism",
        "scale": "small",
        "command": "python main.py --experiment=mechanism",
        "created": "now",
        "dataset": {"source": "noise", "train": 100, "test": 100},
        "versions": {"tensorflow": "2"},
        "machine": {"cores": "2"},
        "attack": "pgd-10",
        "epsilon": 8 / 255,
        "recipe": recipe.to_dict(),
        "rows": [{"row": row, "runs": by_seed} for row, by_seed in runs.items()],
    }
    return links.write(found, tmp_path / "page", items), tmp_path / "page"


def test_each_claim_has_the_verdict_of_its_interval(page):
    content, _ = page
    by_text = {claim["text"]: claim for claim in content["claims"]}
    of = {(c["row"][0], c["row"][1], c["quantity"]): c for c in by_text.values() if c["baseline"] == ("relu", "own")}
    assert of["swish", "own", "cosine"]["verdict"] == "reproduced"
    assert of["swish", "own", "cosine"]["found"]["difference"] == pytest.approx(0.1)
    assert of["swish", "own", "noise"]["verdict"] == "reproduced"  # less is better
    assert of["relu", "substitute", "share"]["verdict"] == "reproduced"
    assert of["relu", "substitute", "cosine"]["verdict"] == "undecided"
    assert of["relu", "substitute", "probe"]["found"]["difference"] == pytest.approx(-2)
    assert of["swish", "own", "robust"]["verdict"] == "reproduced"
    assert of["both", "own", "robust"]["verdict"] == "undecided"
    assert of["attack", "own", "robust"]["verdict"] == of["update", "own", "robust"]["verdict"] == "not run"


def test_the_page_shows_claims_probes_and_figures(page):
    content, folder = page
    text = (folder / "mechanism.md").read_text()
    assert json.loads((folder / "mechanism.json").read_text())["claims"][0]["link"] == "better gradients"
    for word in ("**Better gradients**", "**Stronger attacks**", "**Better networks**", "McNemar", "48.00", "not run"):
        assert word in text
    assert len(content["probes"]) == 9  # all but swish
    for name in ("share", "turns-and-noise", "along", "probe"):
        assert (folder / f"{name}.png").stat().st_size > 10_000 and f"![]({name}.png)" in text
    assert f"of {len(links.CLAIMS)} claims" in text.lower().replace("\n", " ")


def test_a_page_without_runs_says_so(tmp_path):
    found = dict.fromkeys(("experiment", "title", "scale", "command", "created", "dataset", "versions", "machine"))
    found |= {"attack": None, "epsilon": 0.1, "recipe": {}, "rows": []}
    links.write(found, tmp_path, [])
    assert "No run has ended yet" in (tmp_path / "mechanism.md").read_text()


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "mechanism.json").write_text("{}")
    with pytest.raises(OSError, match="is damaged.*Remove it"):
        links.read(tmp_path)


def test_every_claim_is_about_rows_that_there_are():
    rows = hparams.rows_of("mechanism", "small")
    for claim in links.CLAIMS:
        assert {claim.row[0], claim.baseline[0]} <= set(rows)
        assert claim.quantity in (*links.AT_THE_END, "probe", "robust")


@pytest.mark.parametrize(
    "found,above,bound,says",
    [
        (None, True, 0, "not run"),
        ({"difference": None, "interval": None}, True, 0, "not run"),
        ({"difference": 1.0, "interval": None}, True, 0, "undecided"),
        ({"difference": 1.0, "interval": 0.9}, True, 0, "reproduced"),
        ({"difference": 1.0, "interval": 1.1}, True, 0, "undecided"),
        ({"difference": 1.0, "interval": 0.9}, False, 0, "not reproduced"),
        ({"difference": -0.5, "interval": 0.4}, True, -1, "reproduced"),
    ],
)
def test_a_verdict_is_where_the_interval_lies(found, above, bound, says):
    assert pairs.verdict(found, above=above, bound=bound) == says


def test_nothing_is_said_of_the_share_of_a_loss_that_does_not_rise():
    assert math.isnan(mechanism.share(np.ones(2), np.ones(2), np.zeros(2)))


def test_a_run_has_ended_once_its_gradients_were_measured_as_well(tmp_path):
    plan = {"scale": "small", "seeds": 1, "results_dir": tmp_path, "rows": ["swish"]}
    items, folder = grid.plan("mechanism", **plan)
    assert [(item.row, item.measured) for item in items] == [("relu", "mechanism"), ("swish", "mechanism")]
    assert folder == tmp_path / "small-fashion_mnist_12k" / "mechanism"
    item = items[1]
    item.folder.mkdir(parents=True)
    data = {"source": "noise", "train": 1, "test": 1}
    training = {"train_loss": 1.0, "wall_time_seconds": 1.0, "ended": "after all its epochs"}
    rows = [{"attack": name, "steps": steps, "accuracy": 0.5} for name, steps in (("clean", None), ("pgd-1", 1))]
    content = {"recipe": item.recipe.to_dict(), "dataset": data, "training": training, "evaluations": rows}
    (item.folder / "report.json").write_text(json.dumps({**content, "versions": {}, "machine": {}}))
    assert not item.finished and not grid.plan("mechanism", **{**plan, "seeds": 2})[0][1].finished
    (item.folder / "mechanism.json").write_text("{}")
    assert item.finished
    other = grid.plan("mechanism", **{**plan, "rows": ["relu"]})[0]  # what has ended belongs to the table, too
    assert [(each.row, each.planned) for each in other] == [("relu", True), ("swish", False)]


def test_a_training_keeps_checkpoints_over_its_time_and_shares_the_long_runs():
    for epochs in (4, 1):
        recipe = hparams.row_recipe("mechanism", "relu", "small", {"epochs": epochs})
        assert recipe.validation_every == epochs / 8 and recipe.keep_checkpoints == 8
        table1 = hparams.row_recipe("table1", "relu", "small", {"epochs": epochs})
        assert [line.partition(":")[0] for line in table1.differences(recipe)] == ["validation_every"]
    assert hparams.run_name("mechanism", "relu", "small") != hparams.run_name("table1", "relu", "small")
    assert hparams.run_name("mechanism", "swish", "long") == hparams.run_name("figure3", "swish", "long")
    assert hparams.row_recipe("mechanism", "swish", "long").keep_checkpoints == 16


def test_every_validation_leaves_a_checkpoint_better_or_not(tmp_path, monkeypatch):
    from sat_tf.assembly import validation

    accuracies = iter((0.5, 0.1, 0.3, 0.2))
    names = ("validation/clean_accuracy", "validation/robust_accuracy")
    monkeypatch.setattr(validation.Validation, "measure", lambda self: dict.fromkeys(names, next(accuracies)))
    changes = {"epochs": 1, "batch_size": 90, "validation_every": 0.25, "keep_checkpoints": 8}
    experiment.train(hparams.choose({**TINY, **changes}), tmp_path / "run")
    assert [path.name for path in saving.by_step(tmp_path / "run" / "checkpoints")] == [
        saving.folder_of(step) for step in (4, 3, 2, 1)
    ]
