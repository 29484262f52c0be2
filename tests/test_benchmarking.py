"""`benchmark`: one call, the numbers of the engine's parts, data of every kind, and refusals of one sentence."""

import csv
import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import sat_tf
from sat_tf import data, evaluate, experiment, hparams, losses

FIGURES = True  # are drawn

layers = keras.layers
LABELS = np.arange(300) % 3
LEVELS = np.random.default_rng(0).integers(0, 60, [300, 8, 8, 3]) + 90
LEVELS = (LEVELS + 40 * np.eye(3, dtype=int)[LABELS][:, None, None]).astype(np.uint8)
IMAGES = (LEVELS / np.float32(255)).astype(np.float32)


def network(*before, end="softmax", name="mine"):
    keras.utils.set_random_seed(0)
    body = [layers.Conv2D(6, 3, strides=2, activation="relu"), layers.Flatten(), layers.Dense(3, activation=end)]
    return keras.Sequential([keras.Input([8, 8, 3]), *before, *body], name=name)


@pytest.fixture(scope="module")
def trained():
    """Return a network with a softmax that is right on most images and fooled on about half."""
    model = network()
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=False)
    model.fit(IMAGES, LABELS, batch_size=50, epochs=6, verbose=0)
    return model


def like(trained, *before, **known):
    model = network(*before, **known)
    model.set_weights(trained.get_weights())
    return model


@pytest.fixture(scope="module")
def found(trained):
    return sat_tf.benchmark(trained, (IMAGES, LABELS), ["clean", "pgd-5"], 6 / 255, checks=10)


def test_the_numbers_are_those_of_the_parts(trained, found):
    logits = like(trained, end=None)
    attacker = evaluate.Attacker(logits, batch_size=200)
    examples = evaluate.Examples(images=IMAGES, labels=LABELS)
    result = attacker.attack(examples, "pgd-5", epsilon=6 / 255)
    assert found.accuracies == {"clean": result.clean_accuracy, "pgd-5": result.robust_accuracy}
    assert 0.1 < result.robust_accuracy < result.clean_accuracy
    np.testing.assert_array_equal(found.results["pgd-5"].stage, result.stage)
    attack = sat_tf.attacks.for_training("pgd-5", epsilon=6 / 255)
    seeds = tf.stack([tf.zeros(300, tf.int32), tf.range(300)], 1)
    labels = tf.constant(LABELS)
    moved = attack(lambda x: losses.cross_entropy(logits(x, training=False), labels), tf.constant(IMAGES), seeds)
    final = (logits(moved, training=False).numpy().argmax(-1) == LABELS).mean()
    assert result.robust_accuracy <= final < result.robust_accuracy + 0.05  # the worst iterate, and the final one


def test_a_softmax_is_looked_behind_and_that_is_told(found):
    assert found.trusted and "probabilities" in str(found)
    assert {check.name for check in found.checks} > {"logits_not_probabilities", "noise_not_stronger"}


@pytest.mark.parametrize(
    "data",
    [
        lambda: (LEVELS, LABELS),
        lambda: (list(LEVELS), np.eye(3)[LABELS]),
        lambda: (255 * IMAGES, LABELS[:, None]),
        lambda: tf.data.Dataset.from_tensor_slices((LEVELS, LABELS)).batch(64),
        lambda: tf.data.Dataset.from_tensor_slices({"image": LEVELS, "label": LABELS}),
        lambda: ((LEVELS[i : i + 100], LABELS[i : i + 100], np.ones(100)) for i in (0, 100, 200)),
        lambda: evaluate.Examples(images=LEVELS, labels=LABELS),
    ],
)
def test_data_is_of_any_kind(data, trained, found):
    twin = like(trained, layers.Rescaling(1 / 255), name="twin")
    other = sat_tf.benchmark(twin, data(), "clean", value_range=(0, 255), checks=0)
    assert other.accuracies["clean"] == found.accuracies["clean"]
    np.testing.assert_array_equal(other.examples.images, found.examples.images)
    np.testing.assert_array_equal(other.examples.labels, found.examples.labels)


def test_the_same_radius_means_the_same_in_255(trained, found):
    twin = like(trained, layers.Rescaling(1 / 255), name="twin")
    other = sat_tf.benchmark(twin, (LEVELS, LABELS), ["clean", "pgd-5"], 6 / 255, value_range=(0, 255), checks=0)
    assert other.accuracies == found.accuracies
    assert not other.checks and "not checked" in str(other)


def test_a_padded_batch_is_masked(trained):
    mask = np.r_[np.ones(10), np.zeros(6)]
    done = sat_tf.benchmark(trained, [(IMAGES[:16], LABELS[:16], mask)], "clean", checks=0)
    assert done.rows[0]["count"] == 10


def test_the_report_and_what_a_notebook_shows(found, tmp_path):
    paths = found.report(tmp_path / "report")
    full = json.loads((tmp_path / "report" / "report.json").read_text())
    assert full["evaluations"][1]["accuracy"] == found.accuracies["pgd-5"] and full["trusted"]
    text = (tmp_path / "report" / "report.md").read_text()
    assert text.startswith("# mine on images of one's own") and "## Checks" in text
    lines = (tmp_path / "report" / "images.csv").read_text().splitlines()
    assert len(lines) == 301 == len(found.table) + 1 and lines[0].startswith("attack,id,label")
    assert {"report.md", "report.json", "images.csv", "figures/panel.png"} <= set(paths)
    page = found._repr_html_()
    low, high = found.intervals["pgd-5"]
    assert f"{100 * low:.2f} to {100 * high:.2f} %" in page and page.count("<tr>") == 3
    assert low < found.accuracies["pgd-5"] < high and repr(found) == str(found)


def test_a_number_that_cannot_be_believed_is_withheld(trained):
    logits = like(trained, end=None)

    def masked(images):  # without a gradient, which every attack by gradients then lacks
        return logits(tf.stop_gradient(images), training=False)

    done = sat_tf.benchmark(masked, (IMAGES[:60], LABELS[:60]), "clean,pgd-5", 6 / 255, checks=5)
    assert not done.trusted and "withheld" in str(done) and "withheld" in done._repr_html_()
    assert "zero_gradients" in done._repr_html_()
    shown = dataclasses.replace(done, forced=True)
    assert "PGD-5 accuracy" in str(shown) and "withheld" not in shown._repr_html_()


def functional(inputs=1, outputs=1, classes=3):
    given = [keras.Input([8, 8, 3]) for _ in range(inputs)]
    flat = layers.Flatten()(given[0] if inputs == 1 else layers.Add()(given))
    ends = [layers.Dense(classes)(flat) for _ in range(outputs)]
    return keras.Model(given, ends if outputs > 1 else ends[0])


PAIR = (IMAGES[:6], LABELS[:6])
REFUSED = {
    "uint8 in 0..1": (lambda m: sat_tf.benchmark(m, (LEVELS[:6], LABELS[:6])), "value_range=.0, 255."),
    "0..255 in 0..1": (lambda m: sat_tf.benchmark(m, (255 * IMAGES[:6], LABELS[:6])), "values from 0 to 1. Received"),
    "0..1 in 0..255": (lambda m: sat_tf.benchmark(m, PAIR, value_range=(0, 255)), "State value_range="),
    "a radius of 8": (lambda m: sat_tf.benchmark(m, PAIR, epsilon=8, value_range=(0, 255)), "Did you mean 8/255"),
    "labels": (lambda m: sat_tf.benchmark(m, (IMAGES[:6], LABELS[:6] + 1)), "from 0 to 2, the classes"),
    "one logit": (lambda m: sat_tf.benchmark(functional(classes=1), PAIR), "two classes or more"),
    "two outputs": (lambda m: sat_tf.benchmark(functional(outputs=2), PAIR), "one output of the model"),
    "two inputs": (lambda m: sat_tf.benchmark(functional(inputs=2), PAIR), "one input, images"),
    "an attack": (lambda m: sat_tf.benchmark(m, PAIR, ["pgd"]), "Expected an attack of"),
    "a model": (lambda m: sat_tf.benchmark(3, PAIR), "Expected a Keras model"),
    "a size": (lambda m: sat_tf.benchmark(m, (IMAGES[:6, :4], LABELS[:6])), "as the model takes them"),
    "no labels": (lambda m: sat_tf.benchmark(m, IMAGES[:6]), "images, labels"),
    "nothing": (lambda m: sat_tf.benchmark(m, (IMAGES[:0], LABELS[:0])), "one image or more"),
    "fewer labels": (lambda m: sat_tf.benchmark(m, (IMAGES[:6], LABELS[:5])), "with n labels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_one_sentence(case, trained):
    call, words = REFUSED[case]
    with pytest.raises(ValueError, match=words) as caught:
        call(trained)
    assert "\n" not in str(caught.value)


def test_the_command_lines_evaluation_of_the_file_is_the_same(tmp_path):
    split = data.load("synthetic", validation=40).test
    batches = data.evaluation_batches(split, batch_size=split.size, image_size=32, preprocess="resize_crop")
    images, labels = (part.numpy() for part in next(iter(batches))[:2])
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input([32, 32, 3]), layers.AveragePooling2D(4), layers.Flatten(), layers.Dense(10)], name="mine"
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, labels, batch_size=20, epochs=10, verbose=0)
    model.save(tmp_path / "mine.keras")
    asked = {"dataset": "synthetic", "eval_attacks": "clean,pgd-5", "eval_epsilon": "4/255", "eval_checks": "0"}
    given = hparams.read({**asked, "eval_active_set": "true"})
    report = experiment.evaluate(given, checkpoint=tmp_path / "mine.keras")
    found = sat_tf.benchmark(model, (images, labels), ["clean", "pgd-5"], 4 / 255, checks=0)
    rows = report["evaluations"]
    assert found.accuracies == {row["attack"]: row["accuracy"] for row in rows}
    assert rows[1]["accuracy"] < rows[0]["accuracy"] and {row["count"] for row in rows} == {split.size}
    text = (tmp_path / "mine" / "evaluations" / "001" / "images.csv").read_text()
    lines = list(csv.DictReader(text.splitlines()))
    assert [row["fooled_by"] for row in lines] == [row["fooled_by"] for row in found.table]
