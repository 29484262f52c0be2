"""Every state attack on random models: radius, range, seeds, neighbours, strength, closed forms."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
from test_attacks import RADII, photos, random_model

from sat_tf import attacks, losses
from sat_tf.evaluate import active

MAKERS = {  # name: ball, step size -> attack
    "worst": lambda ball, step: attacks.Ascent(ball=ball, step_size=step, steps=5),
    "final": lambda ball, step: attacks.Ascent(ball=ball, step_size=step, steps=5, final=True),
    "apgd": lambda ball, step: attacks.APGD(ball=ball, steps=20),
    "fab": lambda ball, step: attacks.FAB(ball=ball, steps=12),
    "square": lambda ball, step: {"linf": attacks.Square, "l2": attacks.SquareL2}[ball.norm](ball=ball, steps=30),
    "noise": lambda ball, step: attacks.Noise(ball=ball, steps=8),
}
CASES = [(name, norm) for name in MAKERS for norm in attacks.BALLS]
MODEL = random_model(0)
SEEDS = tf.range(100, 116)


def objective_of(model, labels, targets=None):
    """Return a state attack's objective: the cross-entropy, or the margin towards targets."""

    def objective(images):
        logits = model(images)
        values = (
            losses.cross_entropy(logits, labels) if targets is None else losses.targeted_margin(logits, labels, targets)
        )
        return values, active.wrong(logits, labels), active.margin_of(logits, labels)

    return objective


@functools.cache
def compiled(name, norm):
    """Return `(images, labels, seeds, epsilon) -> state` of all iterations; labels are the model's for most."""

    @tf.function
    def run(images, labels, seeds, epsilon):
        attack = MAKERS[name](attacks.BALLS[norm](epsilon=epsilon), epsilon / 3)
        targets = (labels + 1) % 10 if name == "fab" else None
        return attacks.whole(attack, objective_of(MODEL, labels, targets), images, seeds)

    return lambda images, labels, seeds, epsilon: {
        key: value.numpy()
        for key, value in run(images, labels, seeds, tf.constant(attacks.rounded_down(epsilon))).items()
    }


def read_right(seed):
    """Return images with the labels that the model gives them."""
    images, _ = photos(seed)
    return images, tf.argmax(MODEL(images), -1, tf.int32)


def lengths(norm, difference):
    return np.abs(difference).max((1, 2, 3)) if norm == "linf" else np.sqrt(np.square(difference).sum((1, 2, 3)))


@pytest.mark.parametrize("name,norm", CASES)
def test_stays_inside_ball_and_range(name, norm):
    run = compiled(name, norm)
    for seed, epsilon in enumerate([*RADII, 2.0] if norm == "l2" else RADII):
        images, labels = read_right(seed)
        state = run(images, labels, SEEDS, epsilon)
        for key in ("adversarial",) if name in ("fab", "noise") else ("adversarial", "current"):
            assert state[key].dtype == np.float32 and state[key].shape == images.shape
            assert state[key].min() >= 0 and state[key].max() <= 1
            exact = lengths(norm, state[key].astype(np.float64) - images.numpy().astype(np.float64))
            assert exact.max() <= epsilon * (1 if norm == "linf" else 1 + 1e-6)  # to the last bit, or to a millionth


@pytest.mark.parametrize("name,norm", CASES)
def test_fooled_images_are_misclassified_and_the_others_are_left_alone(name, norm):
    images, labels = read_right(1)
    kinds = set()
    for epsilon in (0.01, 0.05, 0.2) if norm == "linf" else (0.1, 0.5, 2.0):
        state = compiled(name, norm)(images, labels, SEEDS, epsilon)
        fooled = state["fooled"]
        margin = active.margin_of(MODEL(tf.constant(state["adversarial"])), labels).numpy()
        assert (margin[fooled] < 1e-5).all()
        if name != "final":  # which leaves its last iterate in any case
            np.testing.assert_array_equal(state["adversarial"][~fooled], images.numpy()[~fooled])
            np.testing.assert_array_equal(fooled, state["margin"] < 0)
        assert (state["margin"][fooled] <= margin[fooled] + 1e-5).all()
        kinds |= set(fooled.tolist())
    assert kinds == {True, False} or name == "noise"


@pytest.mark.parametrize("name,norm", CASES)
def test_epsilon_zero_leaves_the_image(name, norm):
    images, labels = read_right(2)
    state = compiled(name, norm)(images, labels, SEEDS, 0.0)
    assert not state["fooled"].any()
    np.testing.assert_array_equal(state["adversarial"], images)


@pytest.mark.parametrize("name,norm", CASES)
def test_a_image_does_not_see_its_neighbours(name, norm):
    (images, labels), (others, other_labels) = read_right(3), read_right(4)
    mine = np.arange(16) % 3 == 0
    mixed = np.where(mine[:, None, None, None], images, others)
    run, epsilon = compiled(name, norm), {"linf": 0.05, "l2": 0.5}[norm]
    alone = run(images, labels, SEEDS, epsilon)
    among = run(tf.constant(mixed), tf.where(mine, labels, other_labels), tf.where(mine, SEEDS, SEEDS + 50), epsilon)
    for key, value in alone.items():
        np.testing.assert_array_equal(value[mine], among[key][mine], err_msg=key)


@pytest.mark.parametrize("name,norm", CASES)
def test_seeds(name, norm):
    images, labels = read_right(5)
    run, epsilon = compiled(name, norm), {"linf": 0.05, "l2": 0.5}[norm]
    first, again, other = (run(images, labels, SEEDS + shift, epsilon) for shift in (0, 0, 1))
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
    if name != "fab":  # nothing in it is random
        assert (first["margin"] != other["margin"]).any()  # all may end in the same maximum but for rounding


@pytest.mark.parametrize("norm", attacks.BALLS)
def test_attacks_that_use_the_model_are_stronger_than_noise(norm):
    fooled = {}
    for name in MAKERS:
        fooled[name] = 0
        for seed in range(4):
            images, labels = read_right(seed)
            epsilon = {"linf": 0.04, "l2": 0.4}[norm]
            fooled[name] += compiled(name, norm)(images, labels, SEEDS, epsilon)["fooled"].sum()
    for name in ("worst", "final", "apgd", "square"):
        assert fooled[name] > fooled["noise"]
    assert fooled["apgd"] >= fooled["final"] - 1 and fooled["worst"] >= fooled["final"] and fooled["fab"] > 0


def test_the_worst_iterate_is_one_of_them_and_the_final_one_is_the_last():
    images, labels = read_right(6)
    for name in ("worst", "final"):
        attack = MAKERS[name](attacks.Linf(epsilon=0.05), 0.02)
        state, fooled = attack.begin(images, SEEDS), []
        for _ in range(attack.evaluations):
            fooled.append(active.wrong(MODEL(state["current"]), labels).numpy())
            state = attack.advance(objective_of(MODEL, labels), images, state)
        expected = np.any(fooled, 0) if name == "worst" else fooled[-1]
        np.testing.assert_array_equal(state["fooled"], expected)
        assert 0 < expected.sum() < 16 and (state["step"].numpy() == 6).all()


def linear(rng, middle):
    """Return a two-class linear model's normal, offset, and images that it reads as 0; far from the box or not."""
    images = rng.uniform(*((0.4, 0.6) if middle else (0, 1)), [16, 8, 8, 3]).astype(np.float32)
    if not middle:
        images[rng.random(images.shape) < 0.5] = 1.0
    weights = rng.normal(size=[8, 8, 3]).astype(np.float32)
    return tf.constant(images), tf.constant(weights), float((images * weights).sum((1, 2, 3)).max()) + 1.0


def linear_objective(weights, offset):
    """Return the objective towards class 1: its logit minus the label's is weights . x - offset."""

    def objective(images):
        value = tf.reduce_sum(images * weights, [1, 2, 3]) - offset
        return value, value > 0, -value

    return objective


@pytest.mark.parametrize("norm", attacks.BALLS)
@pytest.mark.parametrize("name", ["worst", "final", "apgd"])
def test_ascent_has_its_closed_form_on_a_linear_model(name, norm):
    images, weights, offset = linear(np.random.default_rng(0), middle=True)
    epsilon = {"linf": 0.05, "l2": 0.3}[norm]
    attack = MAKERS[name](attacks.BALLS[norm](epsilon=epsilon), epsilon / 2)
    attack = dataclasses.replace(attack, steps=59)
    objective = linear_objective(weights, offset)
    state = attack.begin(images, SEEDS)
    for _ in range(60):
        state = attack.advance(objective, images, state)
    step = np.sign(weights) if norm == "linf" else weights / np.linalg.norm(weights)
    best = state["best"] if name == "apgd" else state["current"]
    np.testing.assert_allclose(best, images + epsilon * step, atol=1e-6 if norm == "linf" else 2e-4)
    dual = np.abs(weights).sum() if norm == "linf" else np.linalg.norm(weights)
    np.testing.assert_allclose(-state["margin"], objective(images)[0] + epsilon * dual, rtol=1e-4, atol=1e-4)


def nearest(point, normal, offset, norm):
    """Return the distance within [0, 1] from a point to normal . x = offset, by sorting where coordinates end."""
    missing = float(offset - normal @ point)
    normal = normal * np.sign(missing)
    room = np.where(normal > 0, 1 - point, point)
    speed = np.sign(np.abs(normal)) if norm == "linf" else np.abs(normal)  # of each coordinate in t
    ends = room / np.maximum(speed, 1e-300)
    for t in np.sort(ends):
        if (np.abs(normal) * np.minimum(room, t * speed)).sum() >= abs(missing):
            full = ends < t
            t = (abs(missing) - (np.abs(normal) * room)[full].sum()) / (np.abs(normal) * speed)[~full].sum()
            step = np.minimum(room, t * speed)
            return step.max() if norm == "linf" else np.sqrt((step**2).sum())
    return np.inf


@pytest.mark.parametrize("norm", attacks.BALLS)
@pytest.mark.parametrize("middle", [True, False])
def test_fab_finds_the_distance_to_a_plane(norm, middle):
    for seed in range(2):
        images, weights, offset = linear(np.random.default_rng(seed), middle)
        attack = attacks.FAB(ball=attacks.BALLS[norm](epsilon=1e3 if norm == "l2" else 1.0), steps=20)
        state = attacks.whole(attack, linear_objective(weights, offset), images, SEEDS)
        flat, normal = images.numpy().reshape(16, -1).astype(np.float64), weights.numpy().ravel().astype(np.float64)
        expected = np.array([nearest(point, normal, offset, norm) for point in flat])
        if middle:
            dual = np.abs(normal).sum() if norm == "linf" else np.linalg.norm(normal)
            np.testing.assert_allclose(expected, (offset - flat @ normal) / dual, rtol=1e-6)
        assert np.isfinite(expected).all() and state["fooled"].numpy().all()
        ratio = state["length"].numpy() / expected
        assert ratio.min() > 1 - 1e-4 and ratio.max() < 1.02, (ratio.min(), ratio.max())
        found = lengths(norm, state["adversarial"].numpy().astype(np.float64) - images.numpy())
        np.testing.assert_allclose(found, state["length"], rtol=1e-5)


@pytest.mark.parametrize("shape", [[1], [4], [4, 2], [4, 3, 2, 3], [4, 0]])
def test_pick_takes_whole_rows(shape):
    rng = np.random.default_rng(0)
    which = np.arange(shape[0]) % 2 == 0
    these, those = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    those.flat[:1] = np.nan
    expected = np.where(which.reshape([-1] + [1] * (len(shape) - 1)), these, those)
    np.testing.assert_array_equal(attacks.pick(tf.constant(which), tf.constant(these), tf.constant(those)), expected)
