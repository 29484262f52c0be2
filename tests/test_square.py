"""Square's schedule against the paper's, where its proposals differ from the image, the bumps of L2."""

import numpy as np
import pytest
import tensorflow as tf

from sat_tf import attacks
from sat_tf.attacks import square


def sides(steps, height, area=0.8):
    """Return the sides of the published schedule, a chain of comparisons of the query out of 10,000."""
    found = []
    for query in range(steps):
        rescaled, share = int(query / steps * 10_000), area
        for power, (after, to) in enumerate(
            [
                (10, 50),
                (50, 200),
                (200, 500),
                (500, 1000),
                (1000, 2000),
                (2000, 4000),
                (4000, 6000),
                (6000, 8000),
                (8000, 10_000),
            ],
            start=1,
        ):
            if after < rescaled <= to:
                share = area / 2**power
        found.append(max(int(round(np.sqrt(share * height * height))), 1))
    return found


@pytest.mark.parametrize("steps", [5000, 10_000])
@pytest.mark.parametrize("height", [32, 224])
def test_the_sides_are_the_paper_s(steps, height):
    attack = attacks.Square(ball=attacks.Linf(epsilon=0.1), steps=steps, schedule=steps)
    found = attack._side(tf.range(steps), tf.constant(height), tf.constant(height)).numpy()
    np.testing.assert_array_equal(found, sides(steps, height))


def proposals(attack, images, seeds, steps, values):
    """Return what was looked at, and what the attack kept before: lists of `[batch, h, w, c]`."""
    looked, kept = [], []

    def objective(moved):
        looked.append(moved.numpy())
        value = tf.constant(values[len(looked) - 1], tf.float32)
        return value, tf.zeros_like(value, tf.bool), -value

    state = attack.begin(images, seeds)
    for _ in range(steps):
        kept.append(state["current"].numpy())
        state = attack.advance(objective, images, state)
    return looked, kept


def test_a_proposal_differs_in_one_square_and_lies_at_the_edge():
    rng = np.random.default_rng(0)
    images = tf.constant(rng.uniform(-0.1, 1.1, [6, 12, 12, 3]).clip(0, 1), tf.float32)
    attack, values = attacks.Square(ball=attacks.Linf(epsilon=0.1), steps=60, schedule=60), rng.normal(size=[60, 6])
    looked, kept = proposals(attack, images, tf.range(6), 60, values)
    low, high = (bound.numpy() for bound in attacks.linf_ball(images, 0.1))
    places = set()
    for query, (moved, before) in enumerate(zip(looked, kept, strict=True)):
        assert ((moved == low) | (moved == high)).all()
        if not query:  # the start: stripes
            up = (moved == high) & (low < high)
            assert ((up | (moved == high)).all(1) | (moved == low).all(1)).all()
            continue
        best = values[:query].max(0)
        np.testing.assert_array_equal(before, [looked[np.argmax(values[:query, p])][p] for p in range(6)], str(best))
        side = int(attack._side(tf.constant([query]), tf.constant(12), tf.constant(12))[0])
        for image in range(6):
            rows, columns, _ = np.nonzero(moved[image] != before[image])
            if len(rows):
                assert np.ptp(rows) < side and np.ptp(columns) < side
                places.add((rows.min(), columns.min()))
    assert len(places) > 40


def test_squares_lie_anywhere():
    images, count = tf.fill([400, 8, 8, 3], 0.5), np.zeros([8, 8])
    attack = attacks.Square(ball=attacks.Linf(epsilon=0.1), steps=10_000)
    state = attack.begin(images, tf.range(400))
    state["step"] += 9000  # squares of one pixel
    looked, kept = [], state["current"].numpy()

    def objective(moved):
        looked.append(moved.numpy())
        return tf.zeros([400]), tf.zeros([400], tf.bool), tf.zeros([400])

    for _ in range(8):
        state = attack.advance(objective, images, state)
    for moved in looked:
        assert ((moved != kept).any(-1).sum((1, 2)) <= 1).all()
        count += (moved != kept).any(-1).sum(0)
    expected = 8 * 400 * 7 / 8 / 64  # one of eight signs changes nothing
    assert ((count - expected) ** 2 / expected).sum() < 63 + 4 * np.sqrt(2 * 63)


def bumps(side, turned):
    grid = tf.range(side)[None]
    return square.two_bumps(grid, grid, tf.constant([side]), tf.constant([turned])).numpy()[0]


@pytest.mark.parametrize("side", [3, 4, 5, 9, 10, 29])
def test_two_bumps_have_length_one_and_opposite_signs(side):
    eta = bumps(side, False)
    np.testing.assert_allclose(np.sqrt((eta.astype(np.float64) ** 2).sum()), 1, rtol=1e-5)
    assert (eta[: side // 2] > 0).all() and (eta[side // 2 :] < 0).all()
    np.testing.assert_allclose(bumps(side, True), eta.T, rtol=1e-6)
    for half in (eta[: side // 2], eta[side // 2 :]):
        np.testing.assert_allclose((half.astype(np.float64) ** 2).sum(), 0.5, rtol=1e-5)


def hill(height, width):
    """Return the paper's eta before it is scaled: squares that grow from the middle, each adding 1 / (k + 1)^2."""
    total, row, column = np.zeros([height, width]), height // 2, width // 2
    for k in range(max(row, column) + 1):
        total[max(row - k, 0) : row + k + 1, max(column - k, 0) : column + k + 1] += 1 / (k + 1) ** 2
    return total


@pytest.mark.parametrize("side", [3, 8, 15])
def test_two_bumps_are_the_paper_s(side):
    halves = [hill(side // 2, side), -hill(side - side // 2, side)]
    eta = np.concatenate([half / np.linalg.norm(half) for half in halves])
    np.testing.assert_allclose(bumps(side, False), eta / np.sqrt(2), rtol=1e-5)


def test_bumps_are_zero_outside_their_window():
    rows = tf.range(12)[None] - 4
    eta = square.two_bumps(rows, rows, tf.constant([5]), tf.constant([False])).numpy()[0]
    np.testing.assert_allclose(eta[4:9, 4:9], bumps(5, False), rtol=1e-6)
    eta[4:9, 4:9] = 0
    assert not eta.any()


@pytest.mark.parametrize("height,width", [(12, 12), (3, 4), (16, 10), (10, 33)])
def test_l2_proposals_lie_at_the_edge_and_differ_in_two_windows(height, width):
    rng = np.random.default_rng(1)
    images = tf.constant(rng.uniform(0.4, 0.6, [6, height, width, 3]), tf.float32)
    attack, values = attacks.SquareL2(ball=attacks.L2(epsilon=0.3), steps=40, schedule=40), rng.normal(size=[40, 6])
    looked, kept = proposals(attack, images, tf.range(6), 40, values)
    checked = 0
    for query, (moved, before) in enumerate(zip(looked, kept, strict=True)):
        delta, old = moved - images.numpy(), before - images.numpy()
        np.testing.assert_allclose(np.sqrt(np.square(delta.astype(np.float64)).sum((1, 2, 3))), 0.3, rtol=1e-4)
        if not query or height < 12:
            continue
        side = max(int(square.side_of(0.8, 40, tf.constant(query), height, width)), 3)
        side = min(side + (1 - side % 2), height, width)
        for after, prior in zip(delta, old, strict=True):  # outside the windows only the scale of the whole has changed
            ratio = np.median(after[np.abs(prior) > 1e-3] / prior[np.abs(prior) > 1e-3])
            changed = (np.abs(after - ratio * prior) > 1e-5).any(-1)
            if (prior != 0).any(-1).sum() > 4 * side * side:  # or the median may lie in a window
                assert 0 < changed.sum() <= 2 * side * side
                checked += 1
    assert checked or height < 12
