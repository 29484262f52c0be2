"""What is handed in: the harmless is converted to the same numbers, the rest is one sentence before any trace."""

import keras
import numpy as np
import pytest
import small_attacks
import tensorflow as tf

from sat_tf import evaluate, inputs, train

IMAGES = small_attacks.examples().images[:12]
LABELS = small_attacks.examples().labels[:12]
LEVELS = np.round(IMAGES * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def attacker():
    return evaluate.Attacker(small_attacks.model, batch_size=12)


def robust(attacker, images, labels, epsilon=0.008, **known):
    examples = evaluate.Examples(images=images, labels=labels, **known)
    return attacker.attack(examples, "pgd-2", epsilon=epsilon).robust.tolist()


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: (x.astype(np.float64), y.astype(np.int64)),
        lambda x, y: (tf.constant(x), tf.constant(y)),
        lambda x, y: (x.tolist(), y.tolist()),
        lambda x, y: (x, y[:, None].astype(np.uint8)),
        lambda x, y: (x, y.astype(np.float32)),
        lambda x, y: (list(x), tf.one_hot(y, small_attacks.CLASSES)),
        lambda x, y: (x, np.eye(small_attacks.CLASSES, dtype=bool)[y]),
    ],
)
def test_the_harmless_is_converted(attacker, change):
    images, labels = change(IMAGES, LABELS)
    assert robust(attacker, images, labels) == robust(attacker, IMAGES, LABELS)
    assert attacker.accuracy(images, labels) == attacker.accuracy(IMAGES, LABELS) == 10 / 12
    np.testing.assert_allclose(attacker.logits(images), small_attacks.model(IMAGES), rtol=1e-5)


def test_half_precision_is_widened():
    examples = evaluate.Examples(images=IMAGES.astype(np.float16), labels=LABELS)
    assert examples.images.dtype == np.float32 and examples.labels.dtype == np.int32
    bfloat = tf.cast(IMAGES, tf.bfloat16).numpy()
    np.testing.assert_allclose(inputs.array(bfloat), IMAGES, atol=2**-8)


@pytest.mark.parametrize("low, high", [(0, 255), (-1, 1), (-2.5, 2.5)])
def test_a_model_of_another_range_is_attacked_in_fractions_of_it(attacker, low, high):
    def model(images):
        return small_attacks.model((images - low) / (high - low))

    other = evaluate.Attacker(model, batch_size=12, value_range=(low, high))
    images = IMAGES * (high - low) + low
    expected = robust(attacker, IMAGES, LABELS)
    assert 0 < sum(expected) < 10
    for given, known in ((images, {}), (images, {"value_range": (low, high)}), (IMAGES, {"value_range": (0, 1)})):
        assert robust(other, given, LABELS, **known) == expected
    np.testing.assert_allclose(other.logits(images), attacker.logits(IMAGES), atol=1e-4)
    assert other.accuracy(images, LABELS) == 10 / 12
    checks = {c.name: c for c in evaluate.examine(other, evaluate.Examples(images=images, labels=LABELS), sample=12)}
    assert checks["images_in_range"].passed and checks["gradient_matches_function"].passed
    with pytest.raises(ValueError, match="State which range they have"):
        robust(other, IMAGES, LABELS)


def test_whole_numbers_need_their_range(attacker):
    assert robust(attacker, LEVELS, LABELS, value_range=(0, 255)) == robust(attacker, LEVELS / np.float32(255), LABELS)
    stated = evaluate.Examples(images=LEVELS, labels=LABELS, value_range=(0, 255))
    np.testing.assert_array_equal(stated.images, LEVELS / np.float32(255))
    np.testing.assert_array_equal(stated.take([1, 3]).images, stated.images[[1, 3]])
    for given in (lambda: attacker.logits(LEVELS), lambda: robust(attacker, LEVELS, LABELS)):
        with pytest.raises(ValueError, match="Expected images of floats in .* Received: images of uint8"):
            given()


FAULTS = {
    "0 to 255": (IMAGES * 255, LABELS, r"values from 0 to 1\. Received: values from .* to 25"),
    "-1 to 1": (IMAGES * 2 - 1, LABELS, r"values from 0 to 1\. Received: values from -"),
    "not a number": (np.where(IMAGES < 0.5, np.nan, IMAGES), LABELS, "Received: values from nan"),
    "one image": (IMAGES[0], LABELS, r"Write images\[None\]"),
    "rows of several lengths": ([IMAGES[0], IMAGES[1, :3]], LABELS[:2], "images of one size"),
    "words": (IMAGES, ["cat"] * 12, "a label for each image"),
    "data set": (tf.data.Dataset.from_tensors(IMAGES), LABELS, "images of one size"),
    "one label": (IMAGES, LABELS[:1], r"with n labels.* Received: 12 images, labels=\[1\]"),
    "label of all": (IMAGES, 3, r"with n labels.* labels=\[\]"),
    "negative": (IMAGES, LABELS - 1, "whole labels from 0.* Received: labels from -1"),
    "beyond": (IMAGES, LABELS + 1, "from 0 to 4, the classes of the logits. Received: labels from 1 to 5"),
    "halves": (IMAGES, LABELS + 0.5, "whole labels"),
    "not a label": (IMAGES, np.full(12, np.nan), "whole labels"),
    "soft": (IMAGES, np.full([12, 5], 0.2), "whose rows are not one 1 among zeros"),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("entry", ["accuracy", "attack", "examine"])
def test_the_rest_is_one_sentence(attacker, name, entry):
    images, labels, words = FAULTS[name]
    enter = {
        "accuracy": lambda: attacker.accuracy(images, labels),
        "attack": lambda: robust(attacker, images, labels),
        "examine": lambda: evaluate.examine(attacker, evaluate.Examples(images=images, labels=labels)),
    }
    with pytest.raises(ValueError, match=f"Expected .*{words}") as error:
        enter[entry]()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"epsilon": -0.1}, "epsilon from 0 to 1 in linf.* Received: epsilon=-0.1"),
        ({"epsilon": float("nan")}, "Received: epsilon=nan"),
        ({"epsilon": float("inf")}, "Received: epsilon=inf"),
        ({"epsilon": 8}, "fractions of the range of values.* Received: epsilon=8. Did you mean 8/255"),
        ({"epsilon": "8/255"}, "Received: epsilon='8/255'"),
        ({"epsilon": None}, "Received: epsilon=None"),
        ({"epsilon": 0.1, "step_size": -0.1}, "Received: step_size=-0.1"),
        ({"epsilon": 0.1, "step_size": float("nan")}, "Received: step_size=nan"),
        ({"epsilon": 0.1, "step_size": 2}, "Did you mean 2/255"),
        ({"epsilon": 0.1, "step_size": 0.0}, "a step_size above 0"),
        ({"epsilon": 0.1, "restarts": 0}, "restarts as a whole number of at least 1. Received: restarts=0"),
        ({"epsilon": 0.1, "restarts": 1.5}, "Received: restarts=1.5"),
        ({"epsilon": 0.1, "steps": 0}, "Received: steps=0"),
    ],
)
def test_numbers_of_an_attack_are_checked_before_it_is_traced(arguments, words):
    attacker = evaluate.Attacker(lambda x: pytest.fail("traced"), batch_size=4)
    examples = evaluate.Examples(images=IMAGES, labels=LABELS)
    with pytest.raises(ValueError, match=f"Expected .*{words}"):
        attacker.attack(examples, "pgd-2", **arguments)


def test_radii_of_either_norm_and_numbers_of_numpy():
    assert inputs.check_ball("l2", [6, 6, 3], np.float32(3.0), tf.constant(0.5)) == (3.0, 0.5)
    assert inputs.check_ball("linf", [6, 6, 3], 0, 0) == (0.0, 0.0)
    with pytest.raises(ValueError, match="from 0 to 10.3923 in l2.* Received: epsilon=128.*128/255"):
        inputs.check_ball("l2", [6, 6, 3], 128)
    with pytest.raises(ValueError, match="Expected batch_size as a whole number"):
        evaluate.Attacker(small_attacks.model, batch_size=0)
    for wrong in ((1, 0), 255, (0, float("nan")), "ab"):
        with pytest.raises(ValueError, match="Expected a range"):
            evaluate.Attacker(small_attacks.model, value_range=wrong)


def test_what_is_no_examples_or_no_results():
    attacker = evaluate.Attacker(small_attacks.model)
    with pytest.raises(ValueError, match="Expected Examples.* Received: examples of tuple"):
        attacker.attack((IMAGES, LABELS), "pgd-2", epsilon=0.1)
    with pytest.raises(ValueError, match="Expected results"):
        evaluate.examine(attacker, small_attacks.examples(), "pgd-2")
    with pytest.raises(ValueError, match="one image or more"):
        attacker.logits(IMAGES[:0])


def test_what_is_not_a_number_is_no_class():
    attacker = evaluate.Attacker(lambda x: small_attacks.model(x) * tf.constant(float("nan")), batch_size=12)
    assert attacker.accuracy(IMAGES, np.zeros(12)) == 0
    result = attacker.attack(evaluate.Examples(images=IMAGES, labels=np.zeros(12)), "fgsm", epsilon=0.1)
    assert result.clean_accuracy == result.robust_accuracy == 0


def test_the_loop_looks_at_the_first_batch_before_anything_is_traced():
    model = keras.Sequential([keras.Input([6, 6, 3]), keras.layers.Flatten(), keras.layers.Dense(5)])
    state = train.TrainState(model=model, optimizer=keras.optimizers.SGD())
    loop = train.Loop(state=state, method=None, strategy=tf.distribute.get_strategy(), batch_size=12)
    rows = tf.one_hot(LABELS, 5)
    for labels in (LABELS, LABELS[:, None], rows):
        loop.check(tf.data.Dataset.from_tensors((IMAGES.astype(np.float64), labels)))
        assert train.labels_of(tf.constant(labels)).numpy().tolist() == LABELS.tolist()
    for images, labels, words in (
        (IMAGES * 255, LABELS, "values from 0 to 1"),
        (LEVELS, LABELS, "of floats"),
        (IMAGES, LABELS + 1, "from 0 to 4"),
        (IMAGES, rows[:, :4], "one 1 among zeros|rows of 5 classes"),
    ):
        with pytest.raises(ValueError, match=f"Expected .*({words})"):
            next(loop.run(tf.data.Dataset.from_tensors((images, labels)), until=1))
    with pytest.raises(ValueError, match="Expected batches of images and labels"):
        loop.check(tf.data.Dataset.from_tensors(IMAGES))
