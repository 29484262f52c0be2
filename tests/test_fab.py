"""FAB's projections on planes inside the box against sorting in NumPy, and its search for `filled`."""

import numpy as np
import pytest
import tensorflow as tf

from sat_tf.attacks import fab


def filled(limits, weights, target):
    """Return the least t with sum(weights * min(t, limits)) = target by sorting; without one the largest limit."""
    order = np.argsort(limits, kind="stable")
    limits, weights = limits[order], weights[order]
    done, slope = 0.0, weights.sum()
    before = 0.0
    for limit, weight in zip(limits, weights, strict=True):
        reached = done + slope * (limit - before)
        if reached >= target:
            return before + (target - done) / slope if slope > 0 else before
        done, before, slope = reached, limit, slope - weight
    return limits[-1]


def problems(count=200, size=30):
    """Return random problems, some with zero weights, no room, equal limits, a target of 0 or one out of reach."""
    rng = np.random.default_rng(0)
    limits, weights = rng.random([count, size]), rng.exponential(size=[count, size]) ** 3
    weights[20:60] *= rng.random([40, size]) < 0.3
    limits[40:80] *= rng.random([40, size]) < 0.3
    limits[80:100] = np.round(limits[80:100] * 4) / 4
    share = rng.random(count)
    share[100:110], share[110:130] = 0.0, 1.5
    limits[130:135], weights[135:140] = 0.0, 0.0
    scale = 10.0 ** rng.integers(-4, 5, count)
    weights *= scale[:, None]
    return limits, weights, share * (limits * weights).sum(1) + (np.arange(count) == 132)


@pytest.mark.parametrize("dtype,tolerance", [(np.float32, 2e-4), (np.float64, 2e-6)])
def test_filled_is_what_sorting_gives(dtype, tolerance):
    limits, weights, target = problems()
    found = fab.filled(*(tf.constant(x.astype(dtype)) for x in (limits, weights, target))).numpy()
    expected = np.array([filled(*row) for row in zip(limits, weights, target, strict=True)])
    assert np.isfinite(found).all() and (found >= 0).all()
    reach = lambda t: (weights * np.minimum(t[:, None], limits)).sum(1)  # noqa: E731
    total = np.maximum((weights * limits).sum(1), 1e-30)
    np.testing.assert_allclose(reach(found) / total, reach(expected) / total, atol=1e-5)
    well = (weights > 0).any(1) & (limits > 0).any(1) & (np.arange(200) < 100)
    np.testing.assert_allclose(found[well], expected[well], rtol=tolerance, atol=tolerance)


def test_filled_where_the_target_is_out_of_reach_is_the_largest_limit():
    limits, weights, target = (x[110:130] for x in problems())
    found = fab.filled(*(tf.constant(x, tf.float32) for x in (limits, weights, target)))
    np.testing.assert_allclose(found, limits.max(1), rtol=1e-6)


def test_filled_of_one_row_does_not_depend_on_the_others():
    limits, weights, target = (x.astype(np.float32) for x in problems())
    together = fab.filled(limits, weights, target).numpy()
    for row in range(0, 200, 9):
        np.testing.assert_array_equal(
            fab.filled(*(x[row : row + 1] for x in (limits, weights, target))), together[row : row + 1]
        )


@pytest.mark.parametrize("norm", fab.PROJECTIONS)
def test_projections_reach_the_plane_inside_the_box_by_the_least_step(norm):
    rng = np.random.default_rng(1)
    points = rng.uniform(-0.3, 1.3, [100, 20]).clip(0, 1)
    normals = rng.normal(size=[100, 20]) * (rng.random([100, 20]) < 0.8)
    offsets = (normals * rng.random([100, 20])).sum(1)  # a point of the box lies on the plane
    steps = fab.PROJECTIONS[norm](*(tf.constant(x, tf.float32) for x in (points, normals, offsets))).numpy()
    moved = points + steps
    assert moved.min() > -1e-6 and moved.max() < 1 + 1e-6
    np.testing.assert_allclose((moved * normals).sum(1), offsets, atol=2e-5)
    length = np.abs(steps).max(1) if norm == "linf" else np.linalg.norm(steps, axis=1)
    for _ in range(60):  # no other point of the plane and the box is nearer
        other = projected(points + steps + rng.normal(0, 0.05, points.shape), normals, offsets)
        good = (np.abs((other * normals).sum(1) - offsets) < 1e-6) & (np.abs(other - 0.5) <= 0.5 + 1e-9).all(1)
        away = other - points
        distance = np.abs(away).max(1) if norm == "linf" else np.linalg.norm(away, axis=1)
        assert (distance[good] >= length[good] - 1e-5).all()


def projected(points, normals, offsets):
    """Return points brought to the plane and into the box in turn, which ends in both."""
    for _ in range(60):
        missing = (offsets - (normals * points).sum(1)) / np.maximum((normals**2).sum(1), 1e-12)
        points = np.clip(points + missing[:, None] * normals, 0, 1)
    return points


@pytest.mark.parametrize("norm", fab.PROJECTIONS)
def test_projections_of_degenerate_planes(norm):
    points = tf.constant([[0.0, 0.5, 1.0]] * 4)
    normals = tf.constant([[0.0, 0, 0], [1, 1, 1], [1, 1, 1], [1, 0, 0]])
    offsets = tf.constant([1.0, 99, 1.5, -1])  # no plane; out of reach; already there; the wall is in the way
    steps = fab.PROJECTIONS[norm](points, normals, offsets).numpy()
    np.testing.assert_allclose(points + steps, [[0, 0.5, 1], [1, 1, 1], [0, 0.5, 1], [0, 0.5, 1]], atol=1e-6)
