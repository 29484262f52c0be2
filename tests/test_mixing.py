"""MixUp and CutMix: the definition in NumPy, the seed, what labels and losses become."""

import numpy as np
import pytest
import tensorflow as tf

from sat_tf import assembly, hparams, losses, methods, mixing

RNG = np.random.default_rng(0)
IMAGES = RNG.random((6, 8, 8, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 4, 0], np.int32)
CLASSES = 5


def mixed(seed, **alphas):
    images, labels = mixing.mix(tf.constant(IMAGES), tf.constant(LABELS), seed, classes=CLASSES, alphas=alphas)
    return images.numpy(), labels.numpy()


def parts(labels):
    """Return what a mixture is made of, told by its labels: the share of the first image, the partner of each."""
    soft = np.eye(CLASSES)[LABELS]
    shares = [row[own] for row, own in zip(labels, LABELS, strict=True) if row[own] < 1]
    share = min(shares) if shares else 1.0
    others = (labels - share * soft).argmax(1)
    return share, others


@pytest.mark.parametrize("seed", range(5))
def test_mixup_is_a_weighted_mean_of_two_images_and_their_labels(seed):
    images, labels = mixed([3, seed], mixup=1.0)
    share, others = parts(labels)
    assert 0 <= share <= 1 and sorted(others) == sorted(LABELS)  # a permutation
    for i, image in enumerate(images):
        candidates = [share * IMAGES[i] + (1 - share) * IMAGES[j] for j in np.flatnonzero(others[i] == LABELS)]
        assert min(np.abs(image - candidate).max() for candidate in candidates) < 1e-5
    np.testing.assert_allclose(
        labels, share * np.eye(CLASSES)[LABELS] + (1 - share) * np.eye(CLASSES)[others], atol=1e-6
    )


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_pastes_one_box_and_its_labels_are_the_areas(seed):
    images, labels = mixed([3, seed], cutmix=1.0)
    pasted = (images != IMAGES).any(-1)
    box = pasted.any(0)
    rows, columns = box.any(1), box.any(0)
    np.testing.assert_array_equal(box, rows[:, None] & columns)
    for inside in (rows, columns):  # one piece
        assert np.abs(np.diff(np.concatenate([[0], inside.astype(int), [0]]))).sum() in (0, 2)
    share, others = parts(labels)
    assert share == pytest.approx(1 - box.mean(), abs=1e-6)
    for i, other in enumerate(others):
        candidates = [np.where(box[..., None], IMAGES[j], IMAGES[i]) for j in np.flatnonzero(other == LABELS)]
        assert any(np.array_equal(images[i], candidate) for candidate in candidates)


@pytest.mark.parametrize("name", mixing.MIXTURES)
def test_the_seed_decides_in_a_graph_too(name):
    graph = tf.function(lambda seed: mixing.mix(IMAGES, LABELS, seed, classes=CLASSES, alphas={name: 0.8}))
    one, two = mixed([0, 1], **{name: 0.8}), mixed([0, 1], **{name: 0.8})
    for first, second, traced in zip(one, two, graph(tf.constant([0, 1])), strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_allclose(first, traced, atol=1e-6)
    assert any(not np.array_equal(one[0], mixed([0, seed], **{name: 0.8})[0]) for seed in (2, 3, 4))
    assert one[0].min() >= 0 and one[0].max() <= 1
    np.testing.assert_allclose(one[1].sum(1), 1, rtol=1e-5)


def test_of_both_each_batch_draws_one():
    kinds = {
        bool(np.isin(np.round(mixed([1, seed], mixup=1.0, cutmix=1.0)[0], 5), np.round(IMAGES, 5)).all())
        for seed in range(8)
    }
    assert kinds == {True, False}  # pasted pixels are an image's own, weighted means are not


def test_shares_have_the_mean_and_spread_of_their_distribution():
    for alpha in (0.8, 1.0, 4.0):
        share = tf.function(lambda i, alpha=alpha: mixing._share(tf.stack([5, i]), alpha))
        draws = np.array([float(share(tf.constant(i))) for i in range(300)])
        assert draws.mean() == pytest.approx(0.5, abs=0.06)
        assert draws.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.25)
    assert 0 <= float(mixing._share(tf.constant([0, 1]), 1e-4)) <= 1


def test_losses_of_soft_labels():
    logits = tf.constant(RNG.normal(size=(6, CLASSES)), tf.float32)
    soft = RNG.random((6, CLASSES))
    soft /= soft.sum(1, keepdims=True)
    log = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    soft = tf.constant(soft, tf.float32)
    np.testing.assert_allclose(losses.cross_entropy(logits, soft), -(soft * log).numpy().sum(1), rtol=1e-5)
    smoothed = losses.smoothed_cross_entropy(0.1)(logits, soft)
    np.testing.assert_allclose(smoothed, -((0.9 * soft + 0.1 / CLASSES) * log).numpy().sum(1), rtol=1e-5)
    hard = tf.one_hot(LABELS, CLASSES)
    np.testing.assert_allclose(losses.cross_entropy(logits, hard), losses.cross_entropy(logits, LABELS), rtol=1e-5)
    np.testing.assert_array_equal(losses.correct(logits, hard), losses.correct(logits, tf.constant(LABELS)))


@pytest.mark.parametrize("name", methods.METHODS)
def test_mixed_labels_need_a_method_that_takes_them(name):
    recipe = hparams.choose({"method": name, "cutmix": "1", "mixup": "0.8", "epochs": "10"})
    if assembly.make_method(recipe.replace(cutmix=0, mixup=0)).takes_mixed:
        assembly.make_method(recipe)
        return
    with pytest.raises(ValueError, match=f"mixup=0 and cutmix=0 with the method {name}"):
        assembly.make_method(recipe)
