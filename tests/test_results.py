"""The committed results: the page is what the tables say, the tables are what their runs say."""

import json
import pathlib
import subprocess
import sys

import pytest

from sat_tf import cost, experiment, hparams
from sat_tf.grid import pairs

FIGURES = True  # are drawn

RESULTS = pathlib.Path(__file__).parents[1] / "results"
sys.path.insert(0, str(RESULTS))
import costs  # noqa: E402

TABLES = sorted(RESULTS.rglob("table.json"))


def test_the_page_is_what_the_tables_say(tmp_path):
    subprocess.run([sys.executable, str(RESULTS / "write.py"), f"--output_dir={tmp_path}"], check=True, cwd=tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text == (RESULTS / "README.md").read_text() and "<!--" not in text
    assert (tmp_path / "claims.png").stat().st_size > 10_000
    for name, content in hparams.EXPERIMENTS.items():
        assert all(f"`{name}-{row}`" in text for row in content.rows)


@pytest.mark.parametrize("file", TABLES, ids=lambda file: str(file.parent.relative_to(RESULTS)))
def test_a_table_is_what_its_runs_say(file):
    content = json.loads(file.read_text())
    runs = {row["row"]: {int(seed): values for seed, values in row["runs"].items()} for row in content["rows"]}
    for row in content["rows"]:
        assert row["n"] == len(runs[row["row"]])
        found = pairs.summary(runs[row["row"]], runs[content["baseline"]])
        assert json.loads(json.dumps(found)) == row["quantities"]
        recipe = hparams.row_recipe(content["experiment"], row["row"], "small", {"dataset": content["dataset"]["name"]})
        assert row["changes"] == hparams.EXPERIMENTS[content["experiment"]].rows[row["row"]].changes and recipe
    assert not content["failures"] and content["planned"] == sum(row["n"] for row in content["rows"])
    assert content["command"].startswith("python main.py --experiment=") and "/tmp" not in file.read_text()
    assert (file.parent / "table.md").exists() and (file.parent / "figure.png").exists()


def test_hours_on_imagenet_follow_from_published_throughputs():
    found = json.loads((RESULTS / "costs.json").read_text())
    listed = {name for row in found["rows"] for name in row["rows"]}
    paper = {name for name in hparams.ROWS if hparams.RECIPES[name]().dataset == "imagenet2012"}
    assert listed == paper and sum(len(row["rows"]) for row in found["rows"]) == len(paper)
    rate = costs.rates(found["reference"])
    first = next(row for row in found["rows"] if "table1-relu" in row["rows"])
    images = 100 * ((1_281_167 - 10_000) // 256) * 256
    assert (first["model"], first["images"], first["passes"]) == ("resnet50", images, 5)
    by_hand = images / 2375 * 5 / 3 / 3600  # a step of 5 passes where one of 3 takes 1 / 2375 s an image
    assert costs.hours(first, rate)["a100"] == pytest.approx(by_hand)
    assert costs.hours(first, rate)["tpu-v3-8"] == pytest.approx(by_hand * 2375 / (125_100 * 1024 / (4.4 * 3600)))
    b7 = next(row for row in found["rows"] if "figure4-b7" in row["rows"])
    assert costs.hours(b7, rate)["a100x8"] == pytest.approx(
        b7["images"] * 5 * b7["forward_flops"] / (3 * 3550 * found["reference"]["efficientnet"]) / 3600
    )


def test_operations_are_those_that_a_plan_counts():
    found = json.loads((RESULTS / "costs.json").read_text())
    row = next(row for row in found["rows"] if "table1-relu" in row["rows"])
    plan = experiment.plan(hparams.RECIPES["table1-relu"](), images_per_second=100)
    assert plan["images to process"].startswith(f"{row['images']:,}, ")
    assert plan["forward pass"].startswith(cost.in_words(row["forward_flops"]))
    assert costs.forward("resnet50", "relu", 224) == row["forward_flops"]


def test_the_main_tables_have_five_seeds_and_the_recipe_in_the_code():
    files = [file for file in TABLES if file.parts[-3] == "cifar10-jpeg"]
    assert {"table1", "figure3"} <= {file.parent.name for file in files}
    for file in files:
        content = json.loads(file.read_text())
        name = content["experiment"]
        assert all(row["n"] >= 5 for row in content["rows"])
        recipe = hparams.row_recipe(name, content["baseline"], "small", {"dataset": "folder"}).to_dict()
        recorded = {**hparams.Recipe.from_dict(content["recipe"]).to_dict(), "name": recipe["name"]}
        assert recorded == recipe
