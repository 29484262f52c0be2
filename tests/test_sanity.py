"""The sanity checks find what is wrong with fooled models, and nothing on honest ones; the file of 8-bit images."""

import json
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from sanity_models import BATCH, DISHONEST, EPSILON, HONEST, Net, images_of, plain

from sat_tf import verify
from sat_tf.evaluate import Attacker, Examples, active, attack_checks, gradient_check, model_checks, sanity, saved

SAMPLE = 40
PAGE = pathlib.Path(__file__).parents[1] / "docs" / "sanity_checks.md"


@pytest.fixture(autouse=True)
def one_size_of_batches(monkeypatch):
    """Keep batches from being halved: each size is one more trace."""
    monkeypatch.setattr(active, "SMALLEST", 10**6)


@pytest.fixture(scope="session")
def families():
    """Return nets, each with the images that it reads and weights by name."""
    images, labels, examples = images_of()
    mlp = Net(16, 10, widths=())
    conv = Net(16, 10, act=tf.nn.silu, widths=(8, 16), hidden=0)
    found = {
        "mlp": (
            mlp,
            examples,
            {
                "standard": mlp.train(images, labels, seed=0),
                "other": mlp.train(images, labels, seed=2),
                "adversarial": mlp.train(images, labels, seed=1, epsilon=EPSILON, steps=250),
            },
        ),
        "conv": (
            conv,
            examples,
            {
                "standard": conv.train(images, labels, seed=3),
                "adversarial": conv.train(images, labels, seed=4, epsilon=EPSILON, steps=250),
            },
        ),
    }
    for name, classes, side, arguments in (
        ("linear", 10, 16, {"widths": (), "hidden": 0}),
        ("two", 2, 16, {}),
        ("three", 3, 8, {"act": tf.nn.gelu}),
    ):
        images, labels, examples = images_of(side, classes)
        net = Net(side, classes, **{"widths": (), **arguments})
        found[name] = net, examples, {"standard": net.train(images, labels, seed=5, steps=100)}
    return found


@pytest.fixture(scope="session")
def attackers(families):
    """Return an attacker of each net; loading other weights into the net changes what it attacks."""
    return {
        name: Attacker(net, batch_size=BATCH, norm="l2" if name == "three" else "linf")
        for name, (net, _, _) in families.items()
    }


def checks_of(attacker, examples, attack, epsilon, **arguments):
    """Return all checks of one evaluation, by name."""
    logits = attacker.logits(examples.images)
    recorded = float((logits.argmax(-1) == examples.labels).mean())
    checks = sanity.before(attacker, examples, logits, recorded=recorded, sample=SAMPLE)
    result = attacker.attack(examples, attack, epsilon=epsilon, logits=logits)
    checks += sanity.after(attacker, examples, logits, {attack: result}, sample=SAMPLE, **arguments)
    return {check.name: check for check in checks}


def looked_at(model, examples, **arguments):
    attacker = Attacker(model, batch_size=BATCH)
    checks = sanity.before(attacker, examples, attacker.read(examples.images), sample=SAMPLE, **arguments)
    return {check.name: check for check in checks}


def failed(checks):
    return {name: check.figure for name, check in checks.items() if check.passed is False}


def loaded(families, name, weights="standard", scale=1.0):
    net, examples, trained = families[name]
    net.load(trained[weights])
    net.scale.assign(scale)
    return net, examples


TRAINED = [
    ("mlp", "standard", 1.0, "pgd-20", EPSILON),
    ("mlp", "other", 1.0, "pgd-1", 2 * EPSILON),
    ("mlp", "adversarial", 1.0, "pgd-20", EPSILON),
    ("mlp", "standard", 0.1, "pgd-20", EPSILON),
    ("mlp", "standard", 10.0, "pgd-20", EPSILON),
    ("conv", "standard", 1.0, "pgd-20", EPSILON / 2),
    ("conv", "adversarial", 1.0, "pgd-20", EPSILON),
    ("conv", "adversarial", 10.0, "pgd-20", EPSILON),
    ("linear", "standard", 1.0, "pgd-20", EPSILON),
    ("two", "standard", 1.0, "pgd-20", EPSILON),
    ("three", "standard", 1.0, "pgd-20", 0.5),
]


@pytest.mark.parametrize("name, weights, scale, attack, epsilon", TRAINED)
def test_no_hard_check_fails_on_an_honest_model(families, attackers, name, weights, scale, attack, epsilon):
    _, examples = loaded(families, name, weights, scale)
    told = []
    checks = checks_of(attackers[name], examples, attack, epsilon, progress=told.append)
    assert list(checks) == [*sanity.BEFORE, *sanity.AFTER]
    assert not {found: figure for found, figure in failed(checks).items() if checks[found].hard}
    assert sanity.trusted(checks.values()) and sum(told) == pytest.approx(1)
    assert {found for found, check in checks.items() if check.passed is None} == {"transfer_not_stronger"}
    json.dumps([check.numbers for check in checks.values()], allow_nan=False)


def staircase(levels):
    return lambda images: tf.round(images * levels) / levels


def of_the_batch(images):
    return images - tf.reduce_mean(images, 0)


FOOLED_INPUT = {  # what stands before an honest net, and the check that must see it
    "quantised": (staircase(8), "zero_gradients"),
    "dropout": (lambda x: tf.nn.dropout(x, 0.1), "same_input_same_output"),
    "noise": (lambda x: x + tf.random.normal(tf.shape(x), stddev=0.01), "same_input_same_output"),
    "statistics of the batch": (of_the_batch, "same_input_same_output"),
    "wants 255 x": (lambda x: x / 255, "input_scaling_and_channels"),
    "wants x / 255": (lambda x: 255 * x, "input_scaling_and_channels"),
    "wants 2 x - 1": (lambda x: (x + 1) / 2, "input_scaling_and_channels"),
    "wants 1 - x": (lambda x: 1 - x, "input_scaling_and_channels"),
}


@pytest.mark.parametrize("name", FOOLED_INPUT)
def test_a_fooled_input_is_seen(families, name):
    net, examples = loaded(families, "mlp")
    change, meant = FOOLED_INPUT[name]
    assert meant in failed(looked_at(lambda x: net(change(x)), examples))


FOOLED_OUTPUT = {
    "softmax": (tf.nn.softmax, "logits_not_probabilities"),
    "sigmoid": (lambda logits: tf.sigmoid(4 * logits), "logits_not_probabilities"),
    "probabilities of no sum": (lambda logits: 0.5 * tf.nn.softmax(logits), "logits_not_probabilities"),
    "tanh": (lambda logits: 5 * tf.tanh(logits / 5), "logits_not_saturating"),
    "clipped": (lambda logits: tf.clip_by_value(logits, -8, 8), "logits_not_saturating"),
    "scaled softmax": (lambda logits: 20 * tf.nn.softmax(logits) - 3, "logits_not_saturating"),
    "huge": (lambda logits: 1e6 * logits, "zero_gradients"),
    "not a number": (lambda logits: logits * tf.constant(float("nan")), "finite"),
    "infinite": (lambda logits: logits + float("inf"), "finite"),
    "constant": (lambda logits: 0 * logits, "not_constant"),
    "one class": (lambda logits: logits + 1e3 * tf.one_hot([1], 10), "not_constant"),
    "gradient not a number": (lambda logits: logits + tf.norm(logits - tf.stop_gradient(logits)), "zero_gradients"),
}


@pytest.mark.parametrize("name", FOOLED_OUTPUT)
def test_a_fooled_output_is_seen(families, name):
    net, examples = loaded(families, "mlp")
    change, meant = FOOLED_OUTPUT[name]
    checks = looked_at(lambda x: change(net(x)), examples)
    assert meant in failed(checks) and not sanity.trusted(checks.values())
    json.dumps([check.numbers for check in checks.values()], allow_nan=False)


def test_logarithms_of_probabilities_are_logits(families):
    net, examples = loaded(families, "mlp")
    check = looked_at(lambda x: tf.nn.log_softmax(net(x)), examples)["logits_not_probabilities"]
    assert check.passed and "logarithms" in check.figure


def test_channels_in_another_order_are_seen():
    images, labels, examples = images_of(8, coloured=True)
    net = Net(8, 10, widths=())
    net.train(images, labels)
    assert not failed(looked_at(net, examples))
    checks = looked_at(lambda x: net(x[..., ::-1]), examples)
    assert set(failed(checks)) == {"input_scaling_and_channels"}
    assert "BGR" in checks["input_scaling_and_channels"].figure


def test_fooled_images_are_seen(families):
    net, good = loaded(families, "mlp")
    attacker = Attacker(net, batch_size=BATCH)
    logits = attacker.logits(good.images)
    for images in (
        good.images * 255,
        good.images / 255,
        good.images - 0.01,
        np.where(good.images > 0, good.images, np.float32("nan")),
    ):
        examples = Examples(images=images.astype(np.float32), labels=good.labels, ids=good.ids)
        case = model_checks.Case(attacker=attacker, examples=examples, logits=logits)
        assert not model_checks.images_in_range(case)[0]
        if images.max() > 0.1:
            with pytest.raises(ValueError, match="Expected images with values from 0 to 1. Received: values from"):
                sanity.examine(attacker, examples)


def gradient_of(build):
    """Return what the gradient check says of a model, and its logits, on images of its own predictions."""
    keras.utils.set_random_seed(1)
    images = images_of(16, test=BATCH)[2].images
    attacker = Attacker(build(), batch_size=BATCH)
    logits = attacker.logits(images)
    examples = Examples(images=images, labels=logits.argmax(-1))
    return model_checks.Case(attacker=attacker, examples=examples, logits=logits, sample=24)


@pytest.mark.parametrize("name", HONEST)
def test_the_gradient_of_an_honest_model_matches(name):
    case = gradient_of(HONEST[name])
    passed, figure, numbers = gradient_check.gradient_matches_function(case)
    assert passed and numbers["along the gradient's sign"] <= 0.05, figure
    assert model_checks.logits_not_saturating(case)[0]


@pytest.mark.parametrize("name", DISHONEST)
def test_a_gradient_of_something_else_is_seen(name):
    passed, figure, _ = gradient_check.gradient_matches_function(gradient_of(DISHONEST[name]))
    assert passed is False, figure


def test_a_gradient_that_is_asked_for_is_not_compared():
    attacker = Attacker(plain(), batch_size=BATCH, attacked=plain())
    case = model_checks.Case(attacker=attacker, examples=None, logits=np.zeros([2, 10]))
    passed, figure, _ = gradient_check.gradient_matches_function(case)
    assert passed is None and "as asked for" in figure


def test_another_accuracy_than_the_recorded_is_seen(families):
    net, examples = loaded(families, "mlp")
    accuracy = Attacker(net, batch_size=BATCH).accuracy(examples.images, examples.labels)
    for recorded, passed in ((accuracy, True), (accuracy + 0.02, True), (accuracy - 0.15, False), (None, None)):
        check = looked_at(net, examples, recorded=recorded)["clean_accuracy_as_recorded"]
        assert check.passed is passed
    few = looked_at(net, examples, recorded=accuracy - 0.15, recorded_images=20)  # may well be the draw
    assert few["clean_accuracy_as_recorded"].passed is True
    assert few["clean_accuracy_as_recorded"].figure.endswith("by the draw of images)")


def test_gradients_that_lead_nowhere_are_seen(families):
    net, examples = loaded(families, "mlp")
    examples = examples.take(slice(0, 120))

    def masked(images):  # steps of a sixteenth, with a slope that points anywhere
        return net(staircase(16)(images) + 1e-4 * tf.sin(2000 * images))

    checks = checks_of(Attacker(masked, batch_size=BATCH), examples, "pgd-20", 2 * EPSILON, sibling=net)
    assert checks["zero_gradients"].passed and not sanity.trusted(checks.values())
    assert {"black_box_not_stronger", "transfer_not_stronger"} <= set(failed(checks))


@pytest.fixture
def evaluated(families, attackers):
    """Return the case of a standard net under one step of PGD."""
    _, examples = loaded(families, "mlp")
    attacker = attackers["mlp"]
    logits = attacker.logits(examples.images)
    result = attacker.attack(examples, "pgd-1", epsilon=EPSILON, logits=logits)
    return attack_checks.Case(attacker, examples, logits, {"pgd-1": result}, sample=100)


def test_an_attack_that_stopped_early_has_not_converged(evaluated):
    passed, figure, numbers = attack_checks.converged(evaluated)
    assert not passed and "upper bound" in figure and numbers["longer"] < numbers["reached"]


def test_a_saturated_model_withstands_the_whole_cube(families, attackers):
    net, examples = loaded(families, "mlp", scale=1e6)
    logits = attackers["mlp"].logits(examples.images)
    result = attackers["mlp"].attack(examples, "pgd-20", epsilon=EPSILON, logits=logits)
    case = attack_checks.Case(attackers["mlp"], examples, logits, {"pgd-20": result}, sample=SAMPLE)
    assert not attack_checks.huge_epsilon_reaches_zero(case)[0]


def test_images_beyond_the_radius_and_false_claims_are_seen(evaluated):
    result = evaluated.results["pgd-1"]
    fooled = np.flatnonzero(result.stage >= 0)
    assert attack_checks.radius_respected(evaluated)[0] and attack_checks.eight_bits_keep_it(evaluated)[0]
    kept = result.adversarial[fooled].copy()
    clean = evaluated.examples.images[fooled]
    for change in (
        lambda x: clean + 1.001 * (x - clean),
        lambda x: np.where(x > 0, x, np.float32(-1e-6)),
        lambda x: x * np.float32("nan"),
        lambda x: clean,
    ):
        result.adversarial[fooled] = change(kept)
        assert not attack_checks.radius_respected(evaluated)[0]


def test_a_rise_is_seen():
    assert attack_checks._falls({1: 0.6, 5: 0.4, 20: 0.42}, 0.02, str)[0]
    assert not attack_checks._falls({1: 0.6, 5: 0.4, 20: 0.43, 40: 0.41}, 0.02, str)[0]


def test_samples_are_spread_and_inputs_must_fit(families, attackers):
    _, examples = loaded(families, "mlp")
    assert sanity.model_checks.evenly(10, 4).tolist() == [0, 2, 5, 7]
    assert sanity.model_checks.evenly(3, 100).tolist() == [0, 1, 2]
    logits = attackers["mlp"].logits(examples.images)
    assert sanity.after(attackers["mlp"], examples, logits, {}) == []
    with pytest.raises(ValueError, match="Expected logits of every image"):
        sanity.before(attackers["mlp"], examples, logits[1:])
    with pytest.raises(ValueError, match="Expected a sample"):
        sanity.before(attackers["mlp"], examples, logits, sample=0)
    result = attackers["mlp"].attack(examples.take([1, 2]), "pgd-1", epsilon=EPSILON)
    with pytest.raises(ValueError, match="Expected results of the same"):
        sanity.after(attackers["mlp"], examples, logits, {"pgd-1": result})


def test_the_page_explains_every_check():
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", PAGE.read_text(encoding="utf-8"), re.M | re.S))
    checks = {**sanity.BEFORE, **sanity.AFTER}
    assert list(sections) == list(checks)
    for name, (hard, _) in checks.items():
        assert sections[name].lstrip().startswith("Hard." if hard else "Soft."), name
        assert "**Looks at**" in sections[name] and "**When it fails**" in sections[name]
    page = PAGE.read_text(encoding="utf-8")
    limits = [attack_checks.QUERIES, attack_checks.STEPS, gradient_check.IMAGES, *sanity.model_checks.VARIANTS]
    assert all(str(limit) in page for limit in limits)


@pytest.mark.parametrize("norm, epsilon", [("linf", 4 / 255), ("linf", 0.3 / 255), ("l2", 0.5)])
@pytest.mark.parametrize("grid", [True, False])
def test_the_file_of_images_passes_its_reader(tmp_path, norm, epsilon, grid):
    rng = np.random.default_rng(0)
    images = rng.uniform(-0.1, 1.1, [70, 8, 8, 3]).clip(0, 1).astype(np.float32)
    if grid:
        images = (images * 255).round().astype(np.uint8) / np.float32(255)
    examples = Examples(images=images, labels=rng.integers(0, 3, 70), ids=np.arange(5, 75))
    weights = tf.constant(rng.normal(size=[192, 3]), tf.float32)
    attacker = Attacker(lambda x: tf.reshape(x, [-1, 192]) @ weights, norm=norm, batch_size=BATCH)
    result = attacker.attack(examples, "pgd-3", epsilon=epsilon)
    assert (result.stage >= 0).any()
    path = tmp_path / "adversarial.npz"
    saved.write(path, examples, result, dataset="random", preprocess="none", source="test")
    content = verify.read(path)
    findings = verify.check(content, images, examples.labels, examples.ids, norm=norm, epsilon=epsilon)
    assert not [finding for finding in findings if not finding.passed]
    assert np.array_equal(content["float32"], result.attacked(images))
    assert list(tmp_path.iterdir()) == [path]
    if grid and norm == "linf":
        assert np.abs(content["uint8"].astype(int) - (images * 255).round()).max() == int(epsilon * 255 + 1e-6)


def test_rounding_keeps_to_the_ball_where_it_can():
    clean = np.full([1, 1, 3, 1], 100.4 / 255)
    moved = clean + np.array([3.9, -3.9, 0.2]).reshape(1, 1, 3, 1) / 255
    assert saved.eight_bits(moved, clean, 4 / 255, "linf").ravel().tolist() == [104, 97, 101]
    assert saved.eight_bits(moved, clean, 1.0, "l2").ravel().tolist() == [104, 96, 101]
    assert saved.eight_bits(moved, clean, 5.5 / 255, "l2").ravel().tolist() == [104, 97, 101]
    assert saved.eight_bits(clean + 0.3 / 255, clean, 0.3 / 255, "linf").ravel().tolist() == [100] * 3
    with pytest.raises(ValueError, match="Expected a norm"):
        saved.eight_bits(clean, clean, 0.1, "l1")


def test_an_unwritten_file_leaves_nothing(tmp_path, evaluated):
    result, examples = evaluated.results["pgd-1"], evaluated.examples
    with pytest.raises(ValueError, match="Expected a result of these"):
        saved.write(tmp_path / "a.npz", examples.take([1]), result, dataset="", preprocess="", source="")
    result.adversarial = None
    with pytest.raises(TypeError):
        saved.write(tmp_path / "a.npz", examples, result, dataset="", preprocess="", source="")
    assert not list(tmp_path.iterdir())
