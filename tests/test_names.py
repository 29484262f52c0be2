"""One text of a radius, and what is offered for a name that is not known."""

import numpy as np
import pytest

from sat_tf import hparams, names, report

RADII = [
    (8 / 255, "8/255"),
    (np.float32(4 / 255), "4/255"),
    (0.0, "0/255"),
    (1.0, "255/255"),
    (0.1, "0.1"),
    (1 / 510, "0.5/255"),
    (8 / 255 / 5, "1.6/255"),
    (8 / 255 + 2e-6, "0.0313745"),
    (1e-7, "1e-07"),
    (1e-12, "1e-12"),
    (2.0, "2"),
]


@pytest.mark.parametrize(("radius", "text"), RADII)
def test_a_radius_has_one_text(radius, text):
    assert names.format_radius(radius) == hparams.format_radius(radius) == report.format_radius(radius) == text


def test_a_radius_reads_back_to_six_digits():
    for radius in [k / 255 for k in range(256)] + list(np.geomspace(1e-9, 1, 200)):
        assert hparams.radius("epsilon", names.format_radius(radius)) == pytest.approx(radius, rel=5e-6)
    for k in range(1, 256):
        assert names.format_radius(k / 255) == names.format_radius(np.float32(k / 255)) == f"{k}/255"
        assert "/" not in names.format_radius((k + 1e-4) / 255)


@pytest.mark.parametrize(("radius", "text"), [(8 / 255, "0.0313725"), (1.0, "1"), (0.5, "0.5"), (3.0, "3")])
def test_l2_is_a_plain_number(radius, text):
    assert names.format_radius(radius, "l2") == text
    assert hparams.show("eval_epsilon", radius, "l2") == hparams.show("eval_radii", (radius,), "l2") == text


def test_the_norm_of_the_evaluation_is_not_that_of_training():
    recipe = hparams.choose({"eval_norm": "l2", "eval_epsilon": "1", "eval_attacks": "clean,pgd-3"})
    assert hparams.show("epsilon", recipe.epsilon, recipe.eval_norm) == "8/255"
    other = recipe.replace(eval_epsilon=0.5)
    assert recipe.differences(other, fields=["eval_epsilon"]) == ["eval_epsilon: 1 there, 0.5 here"]


def test_the_radius_of_the_evaluation_is_its_own_or_that_of_training():
    recipe = hparams.choose({"epsilon": "4/255"})
    assert recipe.evaluated_epsilon == 4 / 255
    assert recipe.replace(eval_epsilon=0).evaluated_epsilon == 0


NEAR = [
    ("model", "resnt", "resnet50"),
    ("model", "resnet51", "resnet50"),
    ("model", "ResNet-50", "resnet50"),
    ("model", "b7", "efficientnet-b7"),
    ("activation", "swich", "swish"),
    ("activation", "SiLU", "silu"),
    ("activation", "leaky_relu", "relu"),
    ("method", "adversarial", "sat"),
    ("method", "AT", "sat"),
    ("method", "natural", "standard"),
    ("data set", "cifar-10", "cifar10"),
    ("data set", "ImageNet", "imagenet2012"),
    ("attack", "pgd", "pgd-k"),
    ("attack", "autoatack", "autoattack"),
    ("attack", "AA", "autoattack"),
    ("augmentation", "flip", "pad_crop_flip"),
    ("evaluation preprocessing", "crop-resize", "crop_resize"),
    ("export format", "tflite", "litert"),
]


@pytest.mark.parametrize(("kind", "name", "near"), NEAR)
def test_the_nearest_name(kind, name, near):
    assert names.nearest(name, hparams.names(kind)) == near


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("lr", "learning_rate"),
        ("eps", "epsilon"),
        ("wd", "weight_decay"),
        ("bs", "batch_size"),
        ("steps", "attack"),
        ("ema", "average_decay"),
        ("arch", "model"),
        ("epoch", "epochs"),
        ("momentm", "momentum"),
    ],
)
def test_the_nearest_field(name, near):
    assert names.nearest(name, hparams.fields_help()) == near
    with pytest.raises(ValueError, match=rf"a field of the recipe\. Received: {name}=1\. Did you mean {near}\?"):
        hparams.choose({name: 1})


@pytest.mark.parametrize(
    ("kind", "name"), [("activation", "sigmoid"), ("optimizer", "lbfgs"), ("data set", "svhn"), ("method", "")]
)
def test_where_nothing_is_near_nothing_is_offered(kind, name):
    assert names.nearest(name, hparams.names(kind)) is None
    error = names.unknown(f"a known {kind}", "x", name, hparams.names(kind))
    assert str(error) == f"Expected a known {kind}. Received: x={name}. --list shows all."


def test_aliases_are_written_as_they_are_looked_up_and_mean_names_of_ours():
    known = {*hparams.fields_help(), *(name for kind in hparams.TABLES for name in hparams.names(kind))}
    for alias, meant in names.ALIASES.items():
        assert alias == "".join(filter(str.isalnum, alias)).lower()
        assert known & set(meant), f"{alias}: none of {meant} is a name of ours"


def test_the_error_says_what_was_received_and_offers_for_its_key():
    error = names.unknown("a known model", "model", "resnt", ["resnet50", "efficientnet-b0"])
    assert str(error) == "Expected a known model. Received: model=resnt. Did you mean resnet50? --list shows all."
    error = names.unknown("a known activation", "act", "seluu:2", ["elu", "celu"], "seluu")
    assert "Received: act=seluu:2. Did you mean elu?" in str(error)
