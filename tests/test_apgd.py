"""Auto-PGD's checkpoints and halvings against Algorithm 1, on scripted losses."""

import numpy as np
import tensorflow as tf

from sat_tf import attacks

STEPS = 100


def scripted(values):
    """Return the states of a run whose losses are `values`, `[steps + 1, batch]`, with a gradient of ones."""
    values, count = tf.constant(values, tf.float32), iter(range(len(values)))

    def objective(images):
        total = tf.reduce_sum(images, [1, 2, 3])
        value = values[next(count)] + total - tf.stop_gradient(total)
        return value, tf.zeros_like(value, tf.bool), -value

    batch = values.shape[1]
    attack = attacks.APGD(ball=attacks.Linf(epsilon=0.1), steps=STEPS)
    images = tf.fill([batch, 2, 2, 3], 0.5)
    state, states = attack.begin(images, tf.range(batch)), []
    for _ in range(attack.evaluations):
        state = attack.advance(objective, images, state)
        states.append({name: value.numpy() for name, value in state.items()})
    return {name: np.array([state[name] for state in states]) for name in states[0]}


def checkpoints():
    """Return ceil(p_j * steps) of the paper: p_0 = 0, p_1 = 0.22, p_j+1 = p_j + max(p_j - p_j-1 - 0.03, 0.06)."""
    hundredths = [0, 22]
    while True:
        following = hundredths[-1] + max(hundredths[-1] - hundredths[-2] - 3, 6)
        if following > 100:
            return [p * STEPS // 100 for p in hundredths]
        hundredths.append(following)


def halvings(values):
    """Return which iterations halve one image's step: Algorithm 1, conditions 1 and 2."""
    marks, found, last_halved = checkpoints(), [], True  # as after a halving: condition 2 cannot hold at first
    best_before = values[0]
    for begin, end in zip(marks, marks[1:], strict=False):
        rises = sum(values[i + 1] > values[i] for i in range(begin, end))
        best = max(values[: end + 1])
        halved = rises <= 0.75 * (end - begin) or (not last_halved and best <= best_before)
        found += [end] if halved else []
        last_halved, best_before = halved, best
    return found


def found_halvings(states, image):
    sizes = np.r_[0.2, states["step_size"][:, image]]
    return [i for i in range(STEPS + 1) if sizes[i + 1] < 0.75 * sizes[i]]


def test_the_checkpoints_are_the_paper_s():
    assert checkpoints() == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    states = scripted(np.zeros([STEPS + 1, 1]))
    assert found_halvings(states, 0) == checkpoints()[1:]
    np.testing.assert_allclose(states["step_size"][-1], 0.2 / 2**8, rtol=1e-5)


def test_halvings_are_those_of_the_algorithm():
    rng = np.random.default_rng(0)
    rises = rng.random([STEPS, 64]) < np.linspace(0.6, 1.0, 64)
    moves = np.where(rises, rng.random([STEPS, 64]), -5 * rng.random([STEPS, 64]))
    values = np.concatenate([rng.normal(size=[1, 64]), moves]).cumsum(0).astype(np.float32)
    values[0, 40:] += 20  # the best value is at the start for long: condition 2
    values[0, 63], values[1:, 63] = 0.0, np.arange(1, STEPS + 1)
    states = scripted(values)
    expected = [halvings(values[:, image]) for image in range(64)]
    assert [found_halvings(states, image) for image in range(64)] == expected
    assert expected[63] == [] and len({len(found) for found in expected}) > 4
    few = [sum(values[i + 1, p] > values[i, p] for i in range(41, 57)) <= 12 for p in range(64)]
    assert any(57 in found and not less for found, less in zip(expected, few, strict=True))  # by condition 2 alone


def test_a_share_of_rises_that_is_just_enough():
    values = np.zeros([STEPS + 1, 2])
    for image, rises in enumerate((16, 17)):  # of 22, and 0.75 * 22 = 16.5
        values[1:23, image] = np.where(np.arange(22) < rises, 1.0, -1.0)
    states = scripted(values.cumsum(0))
    assert found_halvings(states, 0)[0] == 22 and found_halvings(states, 1)[0] == 41


def test_a_halving_goes_back_to_the_best_point():
    rng = np.random.default_rng(1)
    values = rng.normal(size=[STEPS + 1, 8])
    states = scripted(values)
    np.testing.assert_allclose(states["best_value"], np.maximum.accumulate(values), rtol=1e-6)
    for image in range(8):
        for end in found_halvings(states, image):
            np.testing.assert_array_equal(states["current"][end, image], states["best"][end, image])


def test_the_start_lies_at_the_edge_and_the_first_step_has_no_momentum():
    for norm, ball in (("linf", attacks.Linf(epsilon=0.1)), ("l2", attacks.L2(epsilon=0.4))):
        images = tf.fill([8, 4, 4, 3], 0.5)
        attack = attacks.APGD(ball=ball, steps=10)
        state = attack.begin(images, tf.range(8))
        np.testing.assert_allclose(ball.length(state["current"] - images), ball.epsilon, rtol=1e-5, err_msg=norm)

        def objective(x):
            total = tf.reduce_sum(x, [1, 2, 3])
            return total, tf.zeros_like(total, tf.bool), -total

        looked = attack.advance(objective, images, state)
        np.testing.assert_array_equal(looked["current"], state["current"])
        moved = attack.advance(objective, images, looked)
        stepped = ball.project(state["current"] + 2 * ball.epsilon * ball.direction(tf.ones_like(images)), images)
        np.testing.assert_allclose(moved["current"], stepped, atol=1e-6)
