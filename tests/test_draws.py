"""Random numbers of images: uniform, normal, and independent of seeds, counts and places next to them."""

import math

import numpy as np
import pytest
import tensorflow as tf

from sat_tf import attacks
from sat_tf.attacks import draws


def chi_square(values, bins):
    """Return chi-square of counts in equal bins of [0, 1), as standard deviations from its mean."""
    counts = np.bincount((np.ravel(values) * bins).astype(int), minlength=bins)
    expected = values.size / bins
    return (((counts - expected) ** 2 / expected).sum() - (bins - 1)) / np.sqrt(2 * (bins - 1))


WORDS = {  # which integers are hashed, 200,000 of them
    "seeds in a row": lambda n: (n, 3),
    "counts in a row": lambda n: (3, n),
    "great seeds": lambda n: (n * 16384, 1),
    "negative": lambda n: (-n, -1),
    "pairs": lambda n: (n // 447, n % 447),
}


@pytest.mark.parametrize("name", WORDS)
def test_hashes_are_uniform(name):
    words = [np.int32(word) for word in np.broadcast_arrays(*WORDS[name](np.arange(200_000)))]
    bits = draws.hashed(*(tf.constant(word) for word in words))
    values = draws.uniform(bits).numpy()
    assert values.min() >= 0 and values.max() < 1
    assert abs(chi_square(values, 256)) < 4
    assert abs(chi_square((values * 256) % 1, 256)) < 4  # lower bits
    pairs = np.floor(values[:-1] * 16) * 16 + np.floor(values[1:] * 16)
    assert abs(chi_square((pairs + 0.5) / 256, 256)) < 4
    signs = draws.sign(bits).numpy()
    assert set(signs) == {-1.0, 1.0} and abs(signs.mean()) < 4 / np.sqrt(200_000)
    assert abs(np.corrcoef(signs, values)[0, 1]) < 4 / np.sqrt(200_000)
    assert len(np.unique(bits)) > 200_000 * (1 - 4e-5)  # of 2^32, about 5 pairs are expected to meet


def test_the_order_of_words_matters():
    assert draws.hashed(1, 2) != draws.hashed(2, 1) and draws.hashed(1) != draws.hashed(1, 0)


@pytest.mark.parametrize("normal", [False, True])
def test_noise_has_its_moments(normal):
    values = draws.noise(tf.range(64), [16, 16, 3], normal=normal).numpy()
    assert values.shape == (64, 16, 16, 3) and values.dtype == np.float32 and np.isfinite(values).all()
    error = 4 / np.sqrt(values.size)
    variance, fourth = (1.0, 3.0) if normal else (1 / 3, 1 / 5)
    assert abs(values.mean()) < error
    assert abs(np.square(values).mean() - variance) < error * np.sqrt(fourth - variance**2)
    assert abs((values**3).mean()) < 5 * error
    assert abs((values**4).mean() - fourth) < 12 * error
    if normal:
        ranks = np.vectorize(math.erf)(values.ravel() / math.sqrt(2)) / 2 + 0.5
        assert abs(chi_square(ranks.clip(0, 1 - 1e-9), 64)) < 4
    else:
        assert abs(chi_square((values.astype(np.float64) + 1) / 2, 64)) < 4


@pytest.mark.parametrize("normal", [False, True])
def test_noise_of_neighbours_is_not_related(normal):
    make = lambda seeds, count: draws.noise(tf.constant(seeds), [32, 32, 3], count, normal).numpy()  # noqa: E731
    first = make([0, 1, 2], 0)
    later = make([0, 1, 2], 1)
    kinds = [*first, *later, *(np.roll(first[0], 1, axis) for axis in range(3))]
    related = np.corrcoef([kind.ravel() for kind in kinds]) - np.eye(len(kinds))
    assert np.abs(related).max() < 4.5 / np.sqrt(32 * 32 * 3)
    np.testing.assert_array_equal(make([2, 0], 0), first[[2, 0]])
    each = draws.noise(tf.constant([0, 1]), [32, 32, 3], tf.constant([1, 0]), normal)
    np.testing.assert_array_equal(each, [later[0], first[1]])


def test_where_balls_begin():
    images = tf.fill([400, 4, 4, 3], 0.5)
    seeds = tf.range(400)
    for ball in (attacks.Linf(epsilon=0.1), attacks.L2(epsilon=0.3)):
        noise = draws.noise(seeds, [4, 4, 3], normal=ball.normal)
        np.testing.assert_allclose(ball.length(ball.fill(noise)), ball.epsilon, rtol=1e-5)
        spread = ball.spread(noise, seeds)
        size = ball.length(spread).numpy() / ball.epsilon
        assert size.max() <= 1 + 1e-6
        if ball.norm == "linf":
            assert abs(chi_square((spread.numpy() / ball.epsilon + 1) / 2, 32)) < 4
        else:
            assert abs(chi_square(size.clip(0, 0.999999), 20)) < 4
        inside = ball.project(images + spread, images)
        assert ball.contains(inside, images).numpy()[size < 0.99].all()
        assert not ball.contains(images + 1.01 * ball.fill(noise), images).numpy().any()
