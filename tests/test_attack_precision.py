"""A training attack in a precision of its own: what it changes, what it leaves, how `auto` is decided and kept."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_methods import attack_of, loop_of, make, network, small_batch

from sat_tf import AdversarialModel, attacks, cli, experiment, half, losses, methods, models, passes
from sat_tf.assembly import devices, training
from sat_tf.distribute import precision
from sat_tf.hparams import Recipe, choose

TINY = {"model": "resnet2-w8", "dataset": "synthetic", "epochs": 1, "eval_attacks": "clean", "eval_images": 20}
OF_ITS_OWN = [name for name in methods.METHODS if name not in ("standard", "free")]


def policies(model):
    return [policy.name for _, policy in half.policies_of([model])]


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_the_attack_alone_computes_in_it(name):
    model = models.build("resnet8-w8", "swish", 10)
    images = tf.random.stateless_uniform([4, 16, 16, 3], [0, 1])
    exact, before = model(images, training=False), policies(model)
    backward = passes.Backward(attack_precision=name)
    short = backward.view(model, "attack")(images, training=False)
    assert 0 < np.abs(short - exact).max() < 0.05 and short.dtype == tf.float32
    with half.computing_in(model, name):
        np.testing.assert_array_equal(short, model(images, training=False))
    for purpose in ("update", "inference"):
        np.testing.assert_array_equal(backward.view(model, purpose)(images, training=False), exact)
    assert policies(model) == before


@pytest.mark.parametrize("kind", ["float32", "mixed_bfloat16"])
def test_an_attack_in_float32_on_a_network_of_any_precision(kind):
    images, _ = small_batch(size=8)
    model, exact = network(), network()
    half.compute_in(model, kind)
    seen = passes.Backward(attack_precision="float32").view(model, "attack")(images, training=False)
    np.testing.assert_array_equal(seen, exact(images, training=False))


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("name", OF_ITS_OWN)
def test_every_method_attacks_in_bfloat16_and_updates_in_float32(name, remat):
    if remat and name not in ("sat", "trades", "h-sat"):
        pytest.skip("three methods stand for all")
    images, labels = small_batch(size=8)
    found = {}
    for own in (None, "mixed_bfloat16"):
        backward = passes.Backward(attack_precision=own)
        loop = loop_of(make(name, attack_of(random_start=False), backward=backward), network(), size=8, remat=remat)
        step = tf.function(loop.step)
        found[own] = [float(step(images, labels)["loss"]) for _ in range(3)]
    nearly = 0.2 if name.startswith("trades") else 0.05  # whose first gradient, beside the image, is rounding
    np.testing.assert_allclose(found["mixed_bfloat16"], found[None], rtol=nearly)


def test_an_update_on_the_same_images_has_the_same_bits():
    images, labels = small_batch(size=8)
    weights = []
    for own in (None, "mixed_bfloat16"):
        still = attacks.PGD(epsilon=0.0, step_size=0.0, steps=1)
        loop = loop_of(make("sat", still, backward=passes.Backward(attack_precision=own)), network(), size=8)
        for _ in range(2):
            loop.step(images, labels)
        weights.append([variable.numpy() for variable in loop.state.model.variables])
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_it_is_no_weaker_than_float32():
    """On a network that has learned something, as many images are fooled, to a few."""
    keras.utils.set_random_seed(0)
    model = models.build("resnet8-w8", "swish", 10)
    rng = np.random.default_rng(0)
    means = 0.35 + 0.3 * rng.random((10, 1, 1, 3), np.float32)
    labels = tf.constant(rng.integers(0, 10, 200).astype(np.int32))
    images = tf.constant(np.clip(means[labels] + rng.normal(0, 0.1, (200, 16, 16, 3)), 0, 1).astype(np.float32))
    loop = loop_of(methods.standard(None), model, batch_size=200, rate=0.5)
    step = tf.function(loop.step)
    for _ in range(30):
        step(images, labels)
    fooled = {}
    for own in (None, "mixed_bfloat16"):
        method = methods.sat(attack_of(5, 2 / 255), backward=passes.Backward(attack_precision=own))
        moved = method.perturb(model, images, labels, tf.constant(0), tf.constant([0, 1]))
        fooled[own] = 200 - int(tf.reduce_sum(losses.correct(model(moved, training=False), labels)))
    clean = 200 - int(tf.reduce_sum(losses.correct(model(images, training=False), labels)))
    assert fooled[None] > clean + 20
    assert abs(fooled["mixed_bfloat16"] - fooled[None]) <= 4


def test_the_compiled_step_has_it():
    images, labels = small_batch(size=8)
    method = make("sat", attack_of(random_start=False), backward=passes.Backward(attack_precision="mixed_bfloat16"))
    loop = loop_of(method, network(), size=8)
    compiled = tf.function(lambda images, labels: loop.step(images, labels), jit_compile=True)
    text = compiled.experimental_get_compiler_ir(images, labels)(stage="hlo")
    assert "bf16" in text and np.isfinite(float(compiled(images, labels)["loss"]))


def test_fit_takes_it():
    images, labels = small_batch(size=8)
    model = network()
    before = policies(model)
    robust = AdversarialModel(model, attack_precision="mixed_bfloat16", validation_attack=None)
    robust.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = robust.fit(images, labels, verbose=0).history
    assert np.isfinite(history["loss"]).all() and policies(model) == before


# Recipes and command lines.


@pytest.mark.parametrize(
    "given, own", [("bfloat16", "mixed_bfloat16"), ("mixed_bfloat16", "mixed_bfloat16"), ("float32", "float32")]
)
def test_a_recipe_names_it(given, own):
    recipe = choose({**TINY, "attack_precision": given})
    assert recipe.attack_precision == given.removeprefix("mixed_")
    assert training.make_method(recipe).backward.attack_precision == own


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--attack_precision=half"], "bfloat16"),
        (["--attack_precision=bfloat16", "--method=free"], "attack and update are one pass"),
        (["--attack_precision=bfloat16", "--method=standard"], "a method that attacks, such as sat"),
    ],
)
def test_what_cannot_be_is_one_sentence(flags, words, capsys, tmp_path):
    folder = tmp_path / "run"
    assert cli.main(["main.py", "--dataset=synthetic", *flags, f"--model_dir={folder}"]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error and len(error.strip().splitlines()) == 1
    assert not folder.exists()


def test_another_name_is_refused_from_python():
    with pytest.raises(ValueError, match="mixed_bfloat16.*Received: bfloat8"):
        passes.Backward(attack_precision="bfloat8")


def test_auto_is_decided_once_and_kept(monkeypatch, tmp_path):
    measured = []
    monkeypatch.setattr(precision, "faster_precision", lambda: measured.append(1) or ("bfloat16", 0.5))
    recipe = choose({**TINY, "attack_precision": "auto"})
    experiment.train(recipe, tmp_path)
    assert json.loads((tmp_path / "recipe.json").read_text())["attack_precision"] == "bfloat16"
    monkeypatch.setattr(precision, "faster_precision", lambda: measured.append(1) or ("float32", 2.0))
    report = experiment.train(recipe, tmp_path)
    assert report["recipe"]["attack_precision"] == "bfloat16" and measured == [1]


def test_what_is_named_is_not_measured(monkeypatch):
    monkeypatch.setattr(precision, "faster_precision", lambda: pytest.fail("measured"))
    for name in (None, "bfloat16"):
        recipe = Recipe(attack_precision=name)
        assert devices.settled(recipe, lambda: None) == recipe


def test_auto_says_that_a_run_goes_on_as_it_began(caplog):
    caplog.set_level("INFO", "absl")
    assert devices.settled(Recipe(attack_precision="auto"), Recipe).attack_precision is None
    assert "the run goes on as it began, in the precision of updates" in caplog.text


@pytest.mark.parametrize("times, wanted", [([2.0, 1.0], "bfloat16"), ([1.0, 2.0], "float32"), ([1.0, 0.95], "float32")])
def test_the_faster_one_is_measured_in_turn(times, wanted, monkeypatch):
    clock, steps = [0.0], iter(times * precision.TRIALS)

    def now():
        clock.append(clock[-1] + (next(steps) if len(clock) % 2 == 0 else 0.0))
        return clock[-1]

    monkeypatch.setattr(precision.time, "perf_counter", now)
    found, share = precision.faster_precision()
    assert found == wanted and share == pytest.approx(times[1] / times[0])
