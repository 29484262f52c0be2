"""The committed results: the page is what the tables say, the tables are what their runs say."""

import json
import pathlib
import subprocess
import sys

import pytest

from sat_tf import hparams
from sat_tf.grid import table

FIGURES = True  # are drawn

RESULTS = pathlib.Path(__file__).parents[1] / "results"
TABLES = sorted(RESULTS.rglob("table.json"))


def test_the_page_is_what_the_tables_say(tmp_path):
    subprocess.run([sys.executable, str(RESULTS / "write.py"), f"--output_dir={tmp_path}"], check=True, cwd=tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text == (RESULTS / "README.md").read_text() and "<!--" not in text
    assert (tmp_path / "claims.png").stat().st_size > 10_000
    for name, experiment in hparams.EXPERIMENTS.items():
        assert all(f"`{name}-{row}`" in text for row in experiment.rows)


@pytest.mark.parametrize("file", TABLES, ids=lambda file: str(file.parent.relative_to(RESULTS)))
def test_a_table_is_what_its_runs_say(file):
    content = json.loads(file.read_text())
    runs = {row["row"]: {int(seed): values for seed, values in row["runs"].items()} for row in content["rows"]}
    for row in content["rows"]:
        assert row["n"] == len(runs[row["row"]])
        found = table.summary(runs[row["row"]], runs[content["baseline"]])
        assert json.loads(json.dumps(found)) == row["quantities"]
        recipe = hparams.row_recipe(content["experiment"], row["row"], "small", {"dataset": content["dataset"]["name"]})
        assert row["changes"] == hparams.EXPERIMENTS[content["experiment"]].rows[row["row"]].changes and recipe
    assert not content["failures"] and content["planned"] == sum(row["n"] for row in content["rows"])
    assert content["command"].startswith("python main.py --experiment=") and "/tmp" not in file.read_text()
    assert (file.parent / "table.md").exists() and (file.parent / "figure.png").exists()


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
