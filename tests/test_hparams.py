"""Recipes: reading, refusing, round trip; names without TensorFlow; the published settings."""

import dataclasses
import json
import subprocess
import sys

import pytest

from sat_tf import hparams
from sat_tf.hparams import trades


def test_tables_are_read_without_tensorflow_and_are_the_tables():
    from sat_tf import activations, attacks, autoaugment, data, export, methods, models, optim, preprocess, schedules

    tables = {
        "model": models.MODELS,
        "activation": activations.ACTIVATIONS,
        "method": methods.METHODS,
        "data set": data.DATASETS,
        "attack": attacks.ATTACKS,
        "augmentation": preprocess.AUGMENTATIONS,
        "policy": autoaugment.POLICIES,
        "evaluation preprocessing": preprocess.EVALUATIONS,
        "schedule": schedules.SCHEDULES,
        "optimizer": optim.OPTIMIZERS,
        "export format": export.FORMATS,
    }
    assert set(tables) == set(hparams.TABLES)
    for kind, table in tables.items():
        assert list(hparams.names(kind)) == list(table)
        described = [name for name in table if hparams.names(kind)[name]]
        assert len(described) == len(table), f"{kind}: rows without a docstring"


def test_importing_recipes_takes_no_tensorflow():
    code = "import sys, sat_tf.hparams as h; h.choose({}); [h.names(kind) for kind in h.TABLES]"
    code += "; assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", hparams.RECIPES)
def test_every_recipe_round_trips_and_has_a_source(name):
    recipe = hparams.get(name)
    assert recipe.name == name
    stored = json.loads(json.dumps(recipe.to_dict()))
    assert hparams.Recipe.from_dict(stored) == recipe
    assert hparams.RECIPES[name].__doc__


def test_the_papers_recipe():
    recipe = hparams.choose({"model": "resnet50", "dataset": "imagenet2012"})
    expected = {
        "epochs": 100,
        "learning_rate": 0.1,
        "batch_size": 256,
        "momentum": 0.9,
        "schedule": "steps",
        "decay_epochs": (30, 60, 90),
        "weight_decay": 1e-4,
        "epsilon": 4 / 255,
        "step_size": 4 / 255,
        "attack": "pgd-1",
        "act": "swish",
        "method": "sat",
        "optimizer": "sgd",
        "image_size": 224,
        "norm_momentum": 0.9,
        "norm_epsilon": 1e-5,
        "augment": "imagenet",
        "warmup_epochs": 0,
    }
    assert {name: getattr(recipe, name) for name in expected} == expected


def test_the_papers_recipe_of_efficientnets_is_that_of_resnets():
    """Section 5.2: "all other training settings are the same"; only the size is the model's own."""
    resnet, efficientnet = hparams.get("resnet50"), hparams.get("efficientnet-b4")
    lines = resnet.differences(efficientnet)
    assert {line.partition(":")[0] for line in lines} == {"model", "image_size", "validation"}
    assert efficientnet.image_size is None


def test_the_enhanced_recipe():
    expected = {
        "weight_decay": 1e-5,
        "dropout": None,
        "stochastic_depth": 0.2,
        "policy": "autoaugment",
        "epochs": 200,
        "average_decay": 0.9999,
        "validation_weights": "averaged",
        "label_smoothing": 0.0,
        "optimizer": "sgd",
    }
    plain, enhanced = hparams.get("efficientnet-l1"), hparams.get("efficientnet-l1-enhanced")
    assert {name: getattr(enhanced, name) for name in expected} == expected and enhanced.patience
    changed = {line.partition(":")[0] for line in plain.differences(enhanced)}
    assert changed == {*expected, "decay_epochs", "patience", "validation_every"} - {"label_smoothing", "optimizer"}


def test_the_optimizer_of_the_release():
    expected = {
        "optimizer": "rmsprop",
        "learning_rate": 0.016,
        "schedule": "exponential",
        "decay_epochs": (2.4,),
        "decay_rate": 0.97,
        "warmup_epochs": 5,
        "momentum": 0.9,
        "label_smoothing": 0.1,
        "weight_decay": 1e-5,
    }
    recipe = hparams.get("efficientnet-b0-rmsprop")
    assert {name: getattr(recipe, name) for name in expected} == expected


@pytest.mark.parametrize(
    "changes,recipe,act",
    [
        ({"model": "efficientnet-b7"}, "fashion-efficientnet-adamw", "swish"),
        ({"model": "efficientnet-lite0"}, "fashion-efficientnet-adamw", "relu6"),
        ({"model": "efficientnet-lite0", "act": "swish"}, "fashion-efficientnet-adamw", "swish"),
        ({"model": "efficientnet-lite2", "dataset": "imagenet2012"}, "efficientnet-lite2", "relu6"),
        ({"dataset": "imagenet2012"}, "resnet50", "swish"),
    ],
)
def test_recipe_and_activation_that_nobody_named(changes, recipe, act):
    chosen = hparams.choose(changes)
    assert (chosen.name, chosen.act) == (recipe, act)


@pytest.mark.parametrize(
    "name,changes,expected",
    [
        ("mnist-p-sat", {"method": "pgd-at"}, {"attack": "pgd-40", "step_size": 0.02, "lambda_schedule": None}),
        (
            "mnist-p-sat",
            {"method": "h-sat"},
            {"attack": "pgd-40", "lambda_schedule": "steps", "lambda_epochs": (30, 45, 60)},
        ),
        ("mnist-p-sat", {"method": "trades", "epsilon": "0.45", "step_size": "0.03"}, {"attack": "pgd-40"}),
        ("cifar10-trades-wrn28-10", {"method": "mart"}, {"attack": "pgd-10", "beta": None}),  # another beta
        ("mnist-p-sat", {"method": "fast"}, {"attack": "pgd-1", "step_size": 0.375, "lambda_epochs": None}),
        ("imagenet-apgd2-resnet50", {"method": "fast"}, {"attack": "pgd-1", "random_start": True, "clean_start": 0}),
        ("imagenet-apgd2-resnet50", {"method": "pgd-at"}, {"attack": "pgd-10", "step_size": 1 / 255}),
        ("fashion", {"method": "pgd-at"}, {"attack": "pgd-10", "step_size": 2 / 255}),
        ("mnist-p-sat", {"method": "pgd-at", "attack": "pgd-7"}, {"attack": "pgd-7"}),
    ],
)
def test_another_method_keeps_of_a_recipe_what_it_has_too(name, changes, expected):
    recipe = hparams.choose(changes, name)
    for field, value in expected.items():
        found = getattr(recipe, field)
        assert found == (pytest.approx(value) if isinstance(value, float) else value), field


def test_a_named_recipe_keeps_its_activation_unless_the_architecture_has_another():
    assert hparams.choose({"model": "efficientnet-lite0"}, "fashion-efficientnet").act == "relu6"
    assert hparams.choose({}, "efficientnet-lite0").act == "relu6"
    assert hparams.choose({"epochs": "3"}, "fashion").act == "swish"


@pytest.mark.parametrize("optimizer", ["rmsprop", "adamw"])
def test_optimizers_that_know_no_nesterov(optimizer):
    with pytest.raises(ValueError, match=f"nesterov=false with the optimizer {optimizer}"):
        hparams.choose({"optimizer": optimizer, "nesterov": "true"})


def test_robust_imagenet_networks_of_2023():
    """Singh, Croce & Hein 2023 and their code: APGD-2 from the image, AdamW, MixUp or CutMix, averages."""
    expected = {
        "attack": "apgd-2",
        "epsilon": 4 / 255,
        "clean_start": 1.0,
        "random_start": False,
        "optimizer": "adamw",
        "weight_decay": 0.05,
        "mixup": 0.8,
        "cutmix": 1.0,
        "policy": "randaugment:9",
        "label_smoothing": 0.1,
        "average_decay": 0.9999,
        "validation_weights": "averaged",
    }
    recipe = hparams.get("imagenet-apgd2-resnet50")
    assert {name: getattr(recipe, name) for name in expected} == expected
    assert recipe.learning_rate * recipe.batch_size / 256 == pytest.approx(1e-3)


def test_robust_cifar_networks_of_2023():
    """The published command of Wang et al. 2023 for WRN-28-10."""
    expected = {
        "model": "wrn-28-10",
        "act": "swish",
        "beta": 5.0,
        "attack": "pgd-10",
        "step_size": 2 / 255,
        "epochs": 400,
        "batch_size": 512,
        "nesterov": True,
        "weight_decay": 5e-4,
        "label_smoothing": 0.1,
        "average_decay": 0.995,
    }
    recipe = trades.cifar10_trades_wrn28_10()
    assert {name: getattr(recipe, name) for name in expected} == expected
    assert recipe.learning_rate * recipe.batch_size / 256 == pytest.approx(0.2)


def test_changes_are_read_without_a_recipe():
    assert hparams.read({"eval_weights": "averaged", "epsilon": "8/255"}) == {
        "eval_weights": "averaged",
        "epsilon": 8 / 255,
    }
    with pytest.raises(ValueError, match="Did you mean epochs"):
        hparams.read({"epoch": 3})


def test_evaluated_weights():
    recipe = hparams.get("efficientnet-b0-enhanced")
    assert recipe.evaluated_weights == "averaged" and recipe.replace(eval_weights="raw").evaluated_weights == "raw"
    assert hparams.get("fashion").evaluated_weights == "raw"


def test_the_embedded_data_is_the_default():
    recipe = hparams.choose({"model": "resnet50"})
    assert (recipe.name, recipe.dataset, recipe.model, recipe.epsilon) == (
        "fashion",
        "fashion_mnist_12k",
        "resnet50",
        8 / 255,
    )


@pytest.mark.parametrize(
    "text,value", [("8/255", 8 / 255), ("0.5", 0.5), ("0", 0.0), ("1", 1.0), ("1e-3", 1e-3), ("0.5/255", 0.5 / 255)]
)
def test_radii(text, value):
    assert hparams.radius("epsilon", text) == value


def test_a_radius_in_grey_levels_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"Received: epsilon=8\. If you count in grey levels write 8/255"):
        hparams.choose({"epsilon": "8"})


BAD = [
    ("model", "resnet51", "Did you mean resnet50"),
    ("act", "swich", "Did you mean swish"),
    ("act", "elu:-1", "above 0"),
    ("act", "elu:x", "a number"),
    ("method", "at", "Did you mean sat"),
    ("dataset", "cifar", "Did you mean cifar10"),
    ("epochs", "0", "at least 1"),
    ("epochs", "2.5", "whole number"),
    ("epochs", "1e9", "whole number"),
    ("batch_size", "-4", "at least 1"),
    ("epsilon", "1.5", "8/255"),
    ("epsilon", "-0.1", "fraction"),
    ("epsilon", "nan", "fraction"),
    ("step_size", "1/0", "fraction"),
    ("step_size", "abc", "fraction"),
    ("attack_steps", "0", "at least 1"),
    ("seed", "-1", "at least 0"),
    ("learning_rate", "inf", "number"),
    ("learning_rate", "0", "above 0"),
    ("momentum", "1", "at most"),
    ("nesterov", "maybe", "true or false"),
    ("clean_start", "2", "at most 1"),
    ("eval_attacks", "", "at least one"),
    ("eval_attacks", "clean,pgd", "Did you mean pgd-k"),
    ("eval_attacks", "pgd-k", "number of steps"),
    ("eval_attacks", "pgd-0", "at least 1"),
    ("eval_attacks", "clean-3", "known attack"),
    ("eval_attacks", "pdg-3", "Did you mean pgd"),
    ("schedule", "steps", "decay_epochs"),
    ("augment", "flip", "Did you mean"),
    ("strategy", "tpus", "Did you mean tpu"),
    ("precision", "float16", "one of float32, mixed_bfloat16"),
    ("eval_precision", "fp16", "one of"),
    ("jit_compile", "yes", "one of auto, on, off"),
    ("image_size", "4", "at least 8"),
    ("epoch", "3", "Did you mean epochs"),
    ("self", "1", "a field of the recipe"),
    ("weight_decay", "-1", "at least 0"),
    ("policy", "autoaugmnt", "Did you mean auto"),
    ("policy", "autoaugment:3", "without a number"),
    ("policy", "randaugment:x", "a magnitude"),
    ("policy", "randaugment:31", "from 0 to 30"),
    ("schedule", "exponential", "such as 2.4"),
    ("validation_weights", "averaged", "average_decay above 0"),
    ("eval_weights", "averaged", "average_decay above 0"),
    ("eval_weights", "ema", "one of raw"),
    ("patience", "0", "at least 1"),
    ("validation_every", "0", "above 0"),
    ("dropout", "1", "at most"),
    ("dropout", "0.2", "an EfficientNet, which has dropout"),
    ("policy", "randaugment:", "such as randaugment:15"),
    ("average_decay", "1", "at most"),
    ("cache", "disk", "one of none"),
    ("eval_preprocess", "crop-resize", "Did you mean crop_resize"),
    ("unreadable_limit", "-1", "at least 0"),
    ("zero_gamma", "true", "an EfficientNet, which has zero_gamma"),
    ("mixup", "-1", "at least 0"),
    ("cutmix", "yes", "a number"),
    ("extra_share", "70", "at most 1"),
]


@pytest.mark.parametrize("name,value,says", BAD)
def test_bad_values_are_refused(name, value, says):
    with pytest.raises(ValueError, match=says) as error:
        hparams.choose({name: value})
    assert "Received: " in str(error.value) and "\n" not in str(error.value)


def test_unknown_recipe():
    with pytest.raises(ValueError, match="Did you mean fashion"):
        hparams.get("fasion")


def test_differences_name_both_sides():
    one = hparams.get("fashion")
    assert one.differences(one.replace(act="relu", epochs="9", epsilon="4/255")) == [
        "act: swish there, relu here",
        f"epochs: {one.epochs} there, 9 here",
        "epsilon: 8/255 there, 4/255 here",
    ]
    assert one.differences(one.replace(eval_attacks="clean")) == []


def test_imagenet_needs_a_recipe_of_its_own():
    with pytest.raises(ValueError, match="Received: model=resnet20. Or name the one to use"):
        hparams.choose({"model": "resnet20", "dataset": "imagenet2012"})


def test_recipes_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        hparams.get("fashion").epochs = 3


def test_every_field_is_explained():
    assert all(hparams.fields_help().values())
    assert set(hparams.EVALUATION_FIELDS) < set(hparams.fields_help())


@pytest.fixture
def run_folder(tmp_path):
    """Return the folder of a run of relu; of a converted file beside it the recipe says gelu."""
    for act, path in (("relu", tmp_path / "run/recipe.json"), ("gelu", tmp_path / "converted.json")):
        path.parent.mkdir(exist_ok=True)
        recipe = hparams.get("resnet50").replace(act=act, norm_epsilon=0.01).to_dict()
        path.write_text(json.dumps({"recipe": recipe} if act == "gelu" else recipe))
    (tmp_path / "converted.keras").touch()
    (tmp_path / "own.keras").touch()
    return tmp_path


@pytest.mark.parametrize(
    "init,changes,model,act,epsilon",
    [
        ("released:efficientnet-lite0", {}, "efficientnet-lite0", "swish", 1e-3),
        ("released:efficientnet-lite0", {"act": "relu6"}, "efficientnet-lite0", "relu6", 1e-3),
        ("released:Res50-silu", {}, "resnet50", "swish", 1e-5),
        ("keras:MobileNetV2", {}, "keras:MobileNetV2", "own", 1e-3),
        ("{}/run", {}, "resnet50", "relu", 0.01),
        ("{}/converted.keras", {}, "resnet50", "gelu", 0.01),
        ("{}/own.keras", {}, "{}/own.keras", "own", 1e-3),
        ("{}/own.keras", {"model": "my_models.py:build"}, "my_models.py:build", "own", 1e-3),
    ],
)
def test_weights_say_which_network_they_are_of(init, changes, model, act, epsilon, run_folder):
    chosen = hparams.choose({"init": init.format(run_folder), **changes})
    assert (chosen.name, chosen.model, chosen.act) == ("finetune", model.format(run_folder), act)
    assert chosen.norm_epsilon == epsilon and hparams.Recipe.from_dict(chosen.to_dict()) == chosen


def test_epsilon_of_published_lites():
    from sat_tf.released import lite

    assert lite.NORM["epsilon"] == hparams.get("finetune").norm_epsilon
    assert tuple(lite.PACKAGES) == hparams.networks.LITES


def test_fine_tuning_from_nothing():
    scratch, tuned = (hparams.choose(changes, "finetune") for changes in ({"init": "none"}, {}))
    assert scratch == tuned.replace(init=None) and tuned.init == "released:efficientnet-lite0"
    assert hparams.choose({"init": "none"}).name == "fashion"


@pytest.mark.parametrize(
    "model,recipe,act",
    [("own.keras", "finetune", "own"), ("keras:MobileNetV2", "fashion", "own"), ("{}/m.py:plain", "fashion", "own")]
    + [("{}/m.py:build", "fashion", "swish"), ("nowhere.py:build", "fashion", "own")],
)
def test_networks_of_others_and_their_activation(model, recipe, act, tmp_path):
    (tmp_path / "m.py").write_text("def build(act, classes): ...\ndef plain(*, classes): ...\n")
    chosen = hparams.choose({"model": model.format(tmp_path)})
    assert (chosen.name, chosen.act, chosen.init) == (recipe, act, None)
    assert hparams.title(chosen.model) in ("own", "MobileNetV2", "plain", "build")


@pytest.mark.parametrize(
    "changes,name,words",
    [
        ({"model": "resnet20"}, "finetune", "the model of the weights released:efficientnet-lite0, efficientnet-lite0"),
        ({"init": "released:Res50"}, None, "Expected a released checkpoint"),
        ({"model": "my_models.py"}, None, "FILE.py:FUNCTION, the function that builds the network"),
        ({"model": "keras:VGG16", "act": "swish"}, None, "Expected no --act with such a model. Received: act=swish"),
        ({"act": "own"}, None, "an activation for a model of the table"),
        ({"freeze": "backbone"}, None, "weights to keep, by --init, with --freeze=backbone"),
        ({"model": "keras:VGG16", "freeze": "backbone"}, None, "weights to keep, by --init"),
        ({"model": "own.keras", "eval_backward": "swish"}, None, "activations of this project.*eval_backward=swish"),
        ({"dataset": "folder", "method": "p-sat", "lambda_end": "0.4"}, None, "reaches 1 by the end"),
        ({"value_range": "0,255"}, None, "no value_range with a model of the table.*value_range=0,255"),
        ({"model": "own.keras", "value_range": "255,0"}, None, "two numbers, the lowest first"),
    ],
)
def test_what_does_not_go_together(changes, name, words):
    with pytest.raises(ValueError, match=words):
        hparams.choose(changes, name)


@pytest.mark.parametrize("init", ["resnet20", "nowhere/run", "none.keras"])
def test_weights_that_are_not_there(init):
    with pytest.raises(FileNotFoundError, match="a run's folder, released:NAME|There is no file none.keras"):
        hparams.choose({"init": init})
