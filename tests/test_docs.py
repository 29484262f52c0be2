"""README and documentation: every command reaches its work, what runs on two cores is run, and so is every snippet.

Commands are taken from blocks of `sh` and from code spans, snippets from blocks of `python`; beside those only `text`
is allowed. A command that no row of `RULES` knows fails, and so does a snippet that raises.
"""

import ast
import contextlib
import json
import pathlib
import re
import socket
import sys
import threading
import time
from unittest import mock

import data_files
import pytest
import released_vectors
import tensorflow as tf
from doc_pages import PAGES, ROOT, RULES, blocks, commands, run_main, start_curl, words_of

from sat_tf import activations, attacks, data, experiment, hparams, losses, methods, models, optim, released, schedules
from sat_tf.data import make_shards
from sat_tf.evaluate import sanity
from sat_tf.serving import client, server

URL = "http://localhost:8501"


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_known_and_reaches_its_work(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in commands(page):
        rules = [rule for start, rule in RULES.items() if re.match(start, f"{command} ")]
        assert len(rules) == 1, f"no rule runs: {command}"
        words = command if rules[0] is start_curl else words_of(command)
        try:
            rules[0](words, tmp_path)
        except (AssertionError, SystemExit) as error:
            raise AssertionError(f"{command}: {error} {capsys.readouterr().err}") from error


# Commands that are run to their end, on a run of a small ResNet on made images.

SMALL = ["--model=resnet8-w8", "--dataset=synthetic", "--epochs=1", "--eval_attacks=clean,pgd-2", "--model_dir=DIR"]
SMALL += [word for field in ("validation=40", "validation_attack=pgd-1", "eval_checks=0") for word in ("--set", field)]


@contextlib.contextmanager
def working_in(folder):
    """Be in a folder, with the log and the devices as the suite has them."""
    with pytest.MonkeyPatch.context() as patch, mock.patch.object(experiment, "start", autospec=True):
        patch.chdir(folder)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a folder in which the README's main command has run: `DIR` is its run."""
    folder = tmp_path_factory.mktemp("docs")
    command = "main.py --model=resnet20 --act=swish"
    assert f".venv/bin/python {command}" in commands("README.md")
    with working_in(folder):
        assert run_main([*words_of(command), *SMALL]) == 0
    (folder / "IMAGE.jpg").write_bytes(tf.io.encode_jpeg(tf.zeros([40, 36, 3], tf.uint8)).numpy())
    return folder


@pytest.fixture
def at_home(home):
    with working_in(home):
        yield home


def run_documented(page, start, extra=(), **changes):
    """Run to its end the one command of a page that begins so, with other words and some more."""
    command = next(command for command in commands(page) if command.startswith(start))
    for old, new in changes.items():
        assert old in command
        command = command.replace(old, new)
    return run_main([*words_of(command)[1:], *extra])


def test_what_a_run_writes(home):
    """The table of the start page names everything that lies in the folder, and nothing else."""
    table = PAGES["docs/index.md"].read_text(encoding="utf-8").partition("## What lies in")[2].partition("\n## ")[0]
    named = re.findall(
        r"`([\w.]+)/?[^`]*`", " ".join(line.split("|")[1] for line in table.splitlines() if "`" in line and "|" in line)
    )
    written = {path.name for path in (home / "DIR").iterdir() if not path.name.startswith(".")}
    assert written <= set(named) and set(named) - written <= {"evaluations", "export"}


def test_evaluate_and_verify(at_home, capsys):
    start = "python main.py --mode=eval --model_dir=DIR --eval_attacks=clean,pgd-20,autoattack --save_adversarial"
    small = ["--set", "eval_images=20", "--set", "eval_checks=0"]
    assert run_documented("docs/evaluate.md", start, small, **{"pgd-20,autoattack": "pgd-1"}) == 0
    assert (at_home / "DIR/evaluations/001/images.csv").exists()
    assert run_documented("docs/evaluate.md", "python main.py --mode=verify", autoattack="pgd-1") == 0
    assert "accuracy on the uint8 images" in capsys.readouterr().out


def test_plan_and_figures(at_home, capsys):
    assert run_documented("docs/reproduce.md", "python main.py --plan") == 0
    assert "accelerator-hours:" in capsys.readouterr().out
    for name in ("figure1", "figure2"):
        assert run_documented("docs/reproduce.md", f"python main.py --experiment={name}") == 0
        assert list((at_home / "runs/experiments" / name).glob("*.png"))


def test_shards_of_a_folder(tmp_path, monkeypatch):
    command = next(command for command in commands("docs/train.md") if "make_shards" in command)
    data_files.write_folder(tmp_path / "FOLDER/train", 4)
    data_files.write_folder(tmp_path / "FOLDER/test", 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", words_of(command)[2:])
    make_shards.main()
    assert data.load("shards", data_dir="DIR").classes == ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def exported(home):
    """Return the folder `DIR/export/step-N` after the export command has run, for a SavedModel alone."""
    with working_in(home):
        start, formats = "python main.py --mode=export", {"saved_model,keras,litert,onnx": "saved_model"}
        assert run_documented("docs/export.md", start, **formats) == 0
        (folder,) = (home / "DIR/export").glob("step-*")
        (home / "DIR/export/step-N").symlink_to(folder)
    return folder


@pytest.fixture(scope="module")
def url(exported):
    """Return the URL at which a thread serves the export, as `python -m sat_tf.serving.server` does."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    arguments = (exported / "saved_model", "localhost", port, "classifier")
    threading.Thread(target=server.serve, args=arguments, daemon=True).start()
    address = f"http://localhost:{port}"
    for _ in range(600):
        with contextlib.suppress(client.ServingError):
            client.Client(f"{address}/v1/models/classifier").status()
            break
        time.sleep(0.1)
    return address


def test_the_export_is_served(exported, url, at_home, capsys):
    for name in ("README.md", "classes.txt", "recipe.json", "parity.json", "saved_model/1"):
        assert (exported / name).exists()
    command = next(command for command in commands("docs/export.md") if "serving.client" in command)
    assert client.main(words_of(command.replace(URL, url))[3:]) == 0
    assert "IMAGE.jpg: pattern" in capsys.readouterr().out


# Snippets, each with what makes it small and what is then true.

MADE = {'"fashion_mnist_12k"': '"synthetic"', '"resnet20"': '"resnet8-w8"', "steps=20": "steps=2", "pgd-20": "pgd-1"}
TABLES = (
    activations.ACTIVATIONS,
    attacks.ATTACKS,
    methods.METHODS,
    data.DATASETS,
    optim.OPTIMIZERS,
    schedules.SCHEDULES,
)


def a_batch():
    return tf.random.stateless_uniform([4, 32, 32, 3], [0, 1]), tf.constant([0, 1, 2, 3])


def check_attack(scope):
    images, _ = a_batch()
    attack = attacks.for_training("momentum-3", epsilon=8 / 255, step_size=8 / 255)
    moved = attack(lambda x: tf.reduce_sum(x, [1, 2, 3]), images, 0)
    tf.debugging.assert_near(moved, tf.minimum(images + 8 / 255, 1.0))


def check_method(scope):
    method, model = (
        methods.METHODS["alp"](attacks.PGD(epsilon=0.1, step_size=0.1, steps=1)),
        models.build("resnet8-w8"),
    )
    images, labels = a_batch()
    adversarial = method.perturb(model, images, labels, 0, tf.constant([0, 1]))
    values, report = method.loss(model, images, adversarial, labels)
    assert values.shape == report["accuracy"].shape == (4,)
    assert report["distance"].shape == (4,) and method.forward_equivalents == 2 + 6
    assert (values.numpy() > losses.cross_entropy(model(images, training=True), labels).numpy()).all()


def check_curriculum(scope):
    moved = tf.reduce_max(tf.abs(scope["adversarial"] - scope["images"]))
    assert 0 < moved <= 8 / 255 and scope["adversarial"].shape == (4, 32, 32, 3)


def check_counts(scope):
    assert scope["total"] == 100 and 0 <= scope["correct"] <= 100


def check_data(scope):
    assert (data.load("stripes").train.size, data.load("stripes").test.size) == (135, 50)


def check_build(scope):
    model = scope["build"](activations.factory("swish"), 3)
    assert model(tf.zeros([2, 20, 20, 3])).shape == (2, 3) and model.get_layer("first").count_params() == 0


SNIPPETS = {  # a word of the snippet: replacements beside MADE, what must hold then
    "AdversarialModel": (
        {"value_range=(0, 255))\nprint": "value_range=(0, 255), checks=0)\nprint"},
        lambda scope: scope["again"].classes == list("01234") and pathlib.Path("report/report.md").exists(),
    ),
    "wider": ({}, lambda scope: scope["wider"].output_shape == (None, 100)),
    "own = keras.Sequential": ({}, lambda scope: scope["own"].output_shape == (None, 10)),
    "adversarial = attack(": ({}, lambda scope: scope["adversarial"].shape == (4, 32, 32, 3)),
    "evaluate.Counter": ({}, check_counts),
    "train.Loop": ({"128": "64", "steps = 3": "steps = 1"}, lambda scope: pathlib.Path("mine.keras").exists()),
    "experiment.train": (
        {
            'hparams.choose({"model": "resnet8-w8", "act": "swish", "epochs": 7})': "hparams.Recipe.from_dict(RECIPE)",
            "runs/from-python": "DIR",
            '"clean,pgd-50"': '"clean,pgd-1", "eval_checks": 0',
        },
        lambda scope: len(scope["again"]["evaluations"]) == 2,
    ),
    "data.from_arrays": ({}, lambda scope: len(list(scope["batches"])) == 2),
    "evaluate.examine": (
        {
            "batch_size=100": "batch_size=10",
            "sample=20": "sample=4",
            'models.build("resnet8-w8", "swish", classes=10)': "SMALL_MODEL",
        },
        lambda scope: (
            len(scope["checks"]) == len(sanity.BEFORE) + len(sanity.AFTER) and len(scope["result"].table()) == 10
        ),
    ),
    "released.load": ({}, lambda scope: scope["model"].output_shape == (None, 1000)),
    "Client(": ({}, lambda scope: True),
    "tf.saved_model.load": ({}, lambda scope: True),
    "Squareplus": ({}, lambda scope: abs(float(scope["act"]("a")(tf.constant([0.0]))[0]) - 1) < 1e-6),
    "Momentum": ({}, check_attack),
    "LogitPairing": ({}, check_method),
    "class Distance": ({"steps=10": "steps=2"}, check_curriculum),
    "def build(act": ({}, check_build),
    "def stripes": ({}, check_data),
    "def adam": ({}, lambda scope: optim.OPTIMIZERS["adam"](lambda step: 0.1, momentum=0.9).beta_1 == 0.9),
    "def linear": ({}, lambda scope: float(schedules.SCHEDULES["linear"](peak=2.0, total_steps=4)(1)) == 1.5),
}
FOUND = [(page, text) for page in PAGES for language, text in blocks(page) if language == "python"]
NEEDED = {"experiment.train": "home", "Client(": "url", "tf.saved_model.load": "exported"}


@pytest.fixture
def needed(request, tmp_path):
    """Return the folder that a snippet wants to be run in."""
    key = request.node.callspec.params["key"]
    if key == "released.load":
        released_vectors.write(tmp_path / "released/Res50-silu", released.variables("resnet50", "silu"))
    if key in NEEDED:
        request.getfixturevalue(NEEDED[key])
        return request.getfixturevalue("home")
    return tmp_path


@pytest.mark.parametrize("key", SNIPPETS)
def test_the_snippet_runs(key, needed, request, monkeypatch):
    (snippet,) = [text for _, text in FOUND if key in text]
    replacements, holds = SNIPPETS[key]
    url = {URL: request.getfixturevalue("url")} if key == "Client(" else {}
    for old, new in {**MADE, **replacements, **url}.items():
        assert old in snippet or old in MADE
        snippet = snippet.replace(old, new)
    monkeypatch.chdir(needed)
    scope = {"SMALL_MODEL": tf.keras.Sequential([tf.keras.layers.Flatten(), tf.keras.layers.Dense(10)])}
    if key == "experiment.train":
        scope["RECIPE"] = json.loads(pathlib.Path("DIR/recipe.json").read_text())
    with contextlib.ExitStack() as stack:
        for table in TABLES:
            stack.enter_context(mock.patch.dict(table))
        exec(compile(snippet, key, "exec"), scope)
        assert holds(scope) in (True, None)


def test_every_block_is_run():
    known = {"sh", "python", "text"}
    assert {(page, language) for page in PAGES for language, _ in blocks(page) if language not in known} == set()
    assert [text for _, text in FOUND if sum(key in text for key in SNIPPETS) != 1] == []


# The words around them.


def test_the_readme_is_one_screen_with_one_test_command():
    text = PAGES["README.md"].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    section = text.partition("## Run the tests\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```\w*\n(.*?)```", section, re.DOTALL)
    install, tests = block.strip().splitlines()
    assert "python3 -m venv .venv" in install and tests.startswith(".venv/bin/pytest")


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", PAGES[page].read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (PAGES[page].parent / link).exists()] == []
    rooms = r"`((?:sat_tf|hparams|resnet|efficientnet|tests|benchmarks|results|docs|layers)/[\w./-]*)`"
    assert [
        path for path in re.findall(rooms, text) if not (ROOT / path).exists() and not (ROOT / f"{path}.py").exists()
    ] == []


@pytest.mark.parametrize(
    "page,kind", [("evaluate", "attack"), ("methods", "method"), ("train", "data set"), ("export", "export format")]
)
def test_pages_name_every_row_of_their_table(page, kind):
    text = PAGES[f"docs/{page}.md"].read_text(encoding="utf-8")
    assert [name for name in hparams.names(kind) if f"`{name}`" not in text] == []


def test_reference_names_modules_that_exist():
    modules = re.findall(r"^::: (\S+)$", PAGES["docs/reference.md"].read_text(encoding="utf-8"), re.MULTILINE)
    for module in modules:
        path = ROOT / module.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), module
