"""Recipes out of files, recipes by the size of the data, and the folders that runs are named by."""

import json
import pathlib

import pytest

from sat_tf import hparams
from sat_tf.cli import naming


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_a_run_s_recipe_comes_back_by_its_file_its_folder_and_its_report(tmp_path):
    recipe = hparams.choose({"act": "celu:1.5", "epochs": 3, "attack": "pgd-2", "epsilon": "4/255"})
    write(tmp_path / "run/recipe.json", recipe.to_dict())
    write(tmp_path / "run/report.json", {"recipe": recipe.to_dict(), "evaluations": []})
    for name in ("run/recipe.json", "run", "run/report.json"):
        assert hparams.choose({}, str(tmp_path / name)) == recipe
    changed = hparams.choose({"seed": 3, "model": "resnet14"}, str(tmp_path / "run"))
    assert changed == recipe.replace(seed=3, model="resnet14")
    assert hparams.place_of(str(tmp_path / "run/recipe.json")) == hparams.place_of(str(tmp_path / "run"))
    assert hparams.place_of("fashion") is None


def test_fields_that_a_file_lacks_are_as_without_it(tmp_path):
    name = write(tmp_path / "mine.json", {"epochs": 3, "probe_every": 0.5, "name": "mine"})
    assert hparams.choose({}, name) == hparams.choose({"epochs": 3, "validation_every": 0.5})
    name = write(tmp_path / "fast.json", {"name": "resnet50", "epochs": 3})
    assert hparams.choose({}, name) == hparams.choose({"epochs": 3}, "resnet50")
    name = write(tmp_path / "one.json", {"step_size": "8/255"})
    assert hparams.choose({"attack": "pgd-2"}, name).step_size is None  # as where a recipe is named


@pytest.mark.parametrize(
    "content,says",
    [("{", "is damaged"), ("[]", "is damaged"), ({"epoch": 3}, "Did you mean epochs"), ({"epochs": -1}, "epochs=-1")],
)
def test_a_file_that_holds_no_recipe_is_a_sentence(tmp_path, content, says):
    name = write(tmp_path / "bad.json", content)
    with pytest.raises(ValueError, match=says) as error:
        hparams.choose({}, name)
    assert "bad.json" in str(error.value) and "\n" not in str(error.value)
    for missing in (str(tmp_path / "none.json"), str(tmp_path)):
        with pytest.raises(ValueError, match="Expected .* Received: recipe=.* There is no file .*json; --list shows"):
            hparams.choose({}, missing)


def test_a_folder_of_one_s_own_has_flips_and_as_many_epochs_as_it_needs():
    recipe = hparams.choose({"dataset": "folder"})
    assert (recipe.name, recipe.augment, recipe.epochs) == ("folder", "pad_crop_flip", None)
    assert [recipe.sized(count).epochs for count in (1, 900, 4000, 10**6)] == [100, 89, 20, 10]
    assert recipe.replace(epochs=3).sized(900).epochs == 3 and recipe.sized().epochs
    assert hparams.choose({"dataset": "folder", "model": "efficientnet-lite0"}).act == "relu6"
    assert hparams.choose({"dataset": "folder"}, "fashion").epochs == 7
    assert hparams.Recipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(ValueError, match="epochs="):
        recipe.replace(epochs="")


def folder_of(changes=None, name=None, data_dir=None):
    return str(naming.default_model_dir(hparams.choose(changes or {}, name), data_dir)).removeprefix("runs/")


FASHION = "resnet20-swish-sat-fashion_mnist_12k-seed0"


@pytest.mark.parametrize(
    "changes,wanted",
    [
        ({}, FASHION),
        ({"eval_attacks": "clean"}, FASHION),  # how it is evaluated is not what it is
        ({"epochs": 20}, f"{FASHION}-epochs_20"),
        ({"epochs": 7}, FASHION),
        ({"epochs": 20, "schedule": "constant"}, f"{FASHION}-schedule_constant"),
        ({"attack": "pgd-2"}, f"{FASHION}-attack_pgd-2"),
        ({"attack": "pgd-2", "step_size": "4/255"}, f"{FASHION}-attack_pgd-2-step_size_4_255"),
        ({"epsilon": "4/255"}, f"{FASHION}-epsilon_4_255"),
        ({"act": "celu:1.5", "seed": 2}, "resnet20-celu_1.5-sat-fashion_mnist_12k-seed2"),
        ({"model": "efficientnet-b0", "method": "standard"}, "efficientnet-b0-swish-standard-fashion_mnist_12k-seed0"),
    ],
)
def test_a_changed_recipe_has_a_folder_of_its_own(changes, wanted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folder_of(changes) == wanted
    assert str(naming.evaluated_model_dir(hparams.read(changes))) == f"runs/{wanted}"


def test_names_stay_short_and_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    many = {"learning_rate": 0.05, "augment": "pad_crop_flip", "validation_attack": "pgd-20", "weight_decay": 0.1}
    names = {folder_of({**many, "momentum": value}) for value in (0.5, 0.6, 0.7)}
    assert len(names) == 3 and all(len(name) < 140 and name.startswith(f"{FASHION}-augment_") for name in names)
    assert folder_of({"dataset": "folder"}, data_dir="/a/my flowers/") == "resnet20-swish-sat-folder-my_flowers-seed0"
    assert folder_of(name="table1-both") == "table1-both-relu-sat-imagenet2012-seed0"


def test_what_older_versions_named_is_found(tmp_path, monkeypatch):
    """Runs lay in the folder without their changes; and an evaluation need not say where the data lies."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "runs" / FASHION / "recipe.json", hparams.choose({"epochs": 20}).to_dict())
    assert folder_of({"epochs": 20}) == FASHION and folder_of({"epochs": 30}) == f"{FASHION}-epochs_30"
    own = tmp_path / "runs/resnet20-swish-sat-folder-flowers-seed0"
    own.mkdir()
    assert naming.evaluated_model_dir({"dataset": "folder"}) == pathlib.Path("runs") / own.name
    (tmp_path / "runs/resnet20-swish-sat-folder-birds-seed0").mkdir()
    assert naming.evaluated_model_dir({"dataset": "folder"}).name == "resnet20-swish-sat-folder-seed0"


def test_why_a_run_of_other_epochs_is_not_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "runs" / FASHION / "recipe.json", hparams.choose({}).to_dict())
    recipe = hparams.choose({"epochs": 20})
    words = naming.why_anew(recipe, naming.default_model_dir(recipe))
    assert "epochs: 7 there, 20 here" in words and "the schedule cosine" in words and "epochs_20" in words
    assert naming.why_anew(recipe.replace(seed=1), naming.default_model_dir(recipe.replace(seed=1))) is None
    write(tmp_path / "runs" / f"{FASHION}-epochs_20" / "recipe.json", recipe.to_dict())
    assert naming.why_anew(recipe, naming.default_model_dir(recipe)) is None  # it is there and goes on itself


@pytest.mark.parametrize("named", (False, True))
def test_a_run_is_gone_on_with_when_what_it_started_from_is_no_more(tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    weights, changes = pathlib.Path("net.keras"), {"init": "net.keras", "dataset": "folder"}
    weights.touch()
    recipe = naming.chosen(changes, None, None)
    folder = tmp_path / "mine" if named else naming.default_model_dir(recipe)
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    weights.unlink()
    again = naming.chosen(changes, None, folder if named else None)
    assert again == recipe and (named or naming.default_model_dir(again) == folder)
    with pytest.raises(FileNotFoundError, match="no file other.keras"):
        naming.chosen({**changes, "init": "other.keras"}, None, folder if named else None)
