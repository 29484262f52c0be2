"""docs/extending.md, followed to the letter: one of each kind in a copy of the package, trained and evaluated."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from doc_pages import ROOT, blocks

ROOMS = ("hparams", "resnet", "efficientnet")  # below the package, as in a wheel
STEPS = {  # a word of the page's code: the file that gets it, its table and row, and names that are the file's own
    "Squareplus": ("activations.py", "ACTIVATIONS", '"squareplus": Squareplus', {"activations.": ""}),
    "Momentum": ("attacks/table.py", "ATTACKS", '"momentum-k": Attack(momentum, training=Momentum)', {"attacks.": ""}),
    "LogitPairing": ("methods/table.py", "METHODS", '"alp": logit_pairing', {"methods.": ""}),
    "def stripes": ("data/stripes.py", None, None, {"data.Data": "splits.Data"}),
    "def adam": ("optim.py", "OPTIMIZERS", '"adam": adam', {"optim.": ""}),
    "def linear": ("schedules.py", "SCHEDULES", '"linear": linear', {}),
}
IMPORTS = {"attacks/table.py": "from sat_tf.attacks.pgd import input_gradient, linf_ball\n"}
COMMANDS = """
import sys
from sat_tf import cli, pointers, saving

def run(*words):
    status = cli.main(["sat-tf", *words])
    if status:
        sys.exit(f"{words}: status {status}")

made = ["--dataset=stripes", "--model=resnet8-w8", "--act=squareplus:4", "--method=alp",
        "--set", "beta=0.4", "--attack=momentum-2",
        "--set", "optimizer=adam", "--set", "schedule=linear", "--epochs=2", "--batch_size=40",
        "--set", "validation=15", "--set", "validation_attack=momentum-3", "--eval_attacks=clean,momentum-2",
        "--set", "eval_checks=0"]
run("--list")
run("--plan", "--images_per_second=10", *made)
run("--model_dir=run", *made)
run("--mode=eval", "--model_dir=run", "--eval_attacks=clean,momentum-2,pgd-2", "--set", "eval_checks=0")
print("history:", *saving.read_state(pointers.find("run", "latest"), ["history"])["history"][-1])
"""


def snippet(word):
    """Return the page's code that has a word, without its row and without the import of what it is put into."""
    (text,) = [text for language, text in blocks("docs/extending.md") if language == "python" and word in text]
    text = re.sub(r"^\w+\.[A-Z]+\[.*\Z", "", text, flags=re.DOTALL | re.MULTILINE)
    own = {"Squareplus": "activations", "Momentum": "attacks", "def adam": "optim", "def linear": "schedules"}
    text = re.sub(rf"^from sat_tf import {own.get(word, 'data')}$", "", text, flags=re.MULTILINE)
    return text.replace("from sat_tf import losses, methods, passes", "from sat_tf import losses, passes")


def add(package, word):
    """Do what the page says for one kind of thing; return the files that were touched."""
    name, table, row, own = STEPS[word]
    code = snippet(word)
    for long, short in own.items():
        code = code.replace(long, short)
    code = IMPORTS.get(name, "") + code
    file = package / name
    if table is None:  # a file of its own, and its row
        file.write_text(code)
        init = package / "data" / "__init__.py"
        text = init.read_text().replace("DATASETS = {", 'DATASETS = {\n    "stripes": stripes,')
        init.write_text(text.replace("\n__all__", "\nfrom sat_tf.data.stripes import stripes\n\n__all__", 1))
        return {file, init}
    text = file.read_text()
    assert text.count(f"\n{table} = {{") == 1
    file.write_text(text.replace(f"\n{table} = {{", f"\n{code}\n{table} = {{{row}, ", 1))
    return {file}


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """Return the folder in which an extended copy has trained and evaluated, and what it printed."""
    home = tmp_path_factory.mktemp("extended")
    package = home / "site" / "sat_tf"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "sat_tf", package, ignore=ignore)
    for room in ROOMS:
        shutil.copytree(ROOT / room, package / room, ignore=ignore)
    touched = [add(package, word) for word in STEPS]
    assert [len(files) for files in touched] == [1, 1, 1, 2, 1, 1]  # the table's file; a data set has its own beside it
    environment = {**os.environ, "PYTHONPATH": str(home / "site"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS], cwd=home, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return home, done.stdout


def test_the_lists_and_the_plan_know_what_was_added(extended):
    _, printed = extended
    for name in ("squareplus", "momentum-k", "alp", "stripes", "adam", "linear"):
        assert re.search(rf"^  {name}\b", printed, re.MULTILINE), name
    assert "4 forward-equivalents for the attack, 6 for the update" in printed


def test_it_trains_reports_its_own_scalar_and_evaluates(extended):
    home, printed = extended
    trained = json.loads((home / "run" / "report.json").read_text())
    evaluated = json.loads((home / "run" / "evaluations" / "001" / "report.json").read_text())
    assert trained["training"]["attack"].startswith("MOMENTUM-2 at epsilon 8/255")
    assert (
        trained["recipe"]["method"] == "alp"
        and trained["recipe"]["beta"] == 0.4
        and trained["recipe"]["optimizer"] == "adam"
    )
    assert [row["attack"] for row in evaluated["evaluations"]] == ["clean", "momentum-2", "pgd-2"]
    assert all(row["count"] == 50 and 0 <= row["accuracy"] <= 1 for row in evaluated["evaluations"])
    assert evaluated["evaluations"][1]["accuracy"] <= evaluated["evaluations"][0]["accuracy"]
    assert "MOMENTUM-2 accuracy" in printed and "train/distance" in printed.partition("history:")[2]
