"""Properties of every attack on random models: radius, range, seed, closed form, strength, graph."""

import numpy as np
import pytest
import tensorflow as tf

from sat_tf import attacks, losses

RADII = [0.0, 1 / 255, 4 / 255, 8 / 255, 0.1, 0.3, 1 / 3, 1.0]


def random_weights(seed):
    """Return a kernel and a matrix for `random_model`."""
    rng = np.random.default_rng(seed)
    return [tf.constant(rng.normal(0, 0.4, shape), tf.float32) for shape in ([3, 3, 3, 12], [16 * 12, 10])]


def random_model(seed, act=tf.nn.silu, weights=None):
    """Return a small random convolutional classifier: `[b, 8, 8, 3]` -> `[b, 10]`."""
    kernel, dense = weights or map(tf.Variable, random_weights(seed))
    return lambda x: tf.reshape(act(tf.nn.conv2d(x * 2 - 1, kernel, 2, "SAME")), [-1, 16 * 12]) @ dense


def photos(seed, count=16):
    """Return images with many pixels at the ends of the range and very near to them, and labels."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(-0.2, 1.2, [count, 8, 8, 3]).clip(0, 1).astype(np.float32)
    images[rng.random(images.shape) < 0.1] *= 1e-4
    return tf.constant(images), tf.constant(rng.integers(0, 10, count), tf.int32)


def climb(model, labels):
    return lambda x: losses.cross_entropy(model(x), labels)


def pgd(epsilon=8 / 255, step_size=2 / 255, steps=5, **kwargs):
    return attacks.PGD(epsilon=epsilon, step_size=step_size, steps=steps, **kwargs)


@pytest.mark.parametrize("epsilon", RADII)
@pytest.mark.parametrize("name", [name for name, row in attacks.ATTACKS.items() if row.training])
def test_stays_inside_ball_and_range_to_the_last_bit(name, epsilon):
    attack = attacks.for_training(name.replace("-k", "-4"), epsilon=epsilon, step_size=max(epsilon / 3, 1e-3))

    @tf.function
    def attacked(weights, images, labels, seed):
        return attack(climb(random_model(0, weights=weights), labels), images, seed)

    for seed in range(3):
        images, labels = photos(seed)
        adversarial = attacked(random_weights(seed), images, labels, tf.constant(seed)).numpy()
        assert adversarial.dtype == np.float32 and adversarial.shape == images.shape
        assert adversarial.min() >= 0 and adversarial.max() <= 1
        exact = np.abs(adversarial.astype(np.float64) - images.numpy().astype(np.float64))
        assert exact.max() <= epsilon  # in exact arithmetic, of the epsilon that was asked for
        assert np.abs(adversarial - images.numpy()).max() <= np.float32(epsilon)  # and as float32 subtracts


@pytest.mark.parametrize("epsilon", RADII[1:])
def test_the_ball_ends_at_the_last_float_inside(epsilon):
    powers = 2.0 ** -np.arange(1, 24)  # above a power of two floats are twice as far apart as below
    images = np.concatenate([np.random.default_rng(0).uniform(0, 1, 100_000), powers]).astype(np.float32)
    images = np.concatenate([images, abs(images - np.float32(epsilon)), np.minimum(images + np.float32(epsilon), 1)])
    radius = np.float64(attacks.rounded_down(epsilon))
    exact = [images.astype(np.float64) - radius, images.astype(np.float64) + radius]
    low, high = (bound.astype(np.float32) for bound in exact)
    low = np.where(low < exact[0], np.nextafter(low, np.float32(2)), low)
    high = np.where(high > exact[1], np.nextafter(high, np.float32(-2)), high)
    found = attacks.linf_ball(tf.constant(images), epsilon)
    np.testing.assert_array_equal(found[0], np.maximum(low, 0))
    np.testing.assert_array_equal(found[1], np.minimum(high, 1))


def test_reaches_the_edge_of_the_ball():
    images = tf.fill([1, 8, 8, 3], 0.3)
    low, high = attacks.linf_ball(images, 8 / 255)
    edge = np.float64(8 / 255)
    for bound in (low, high):
        assert 0 <= edge - np.abs(bound.numpy().astype(np.float64) - np.float64(np.float32(0.3))).max() < 6e-8


@pytest.mark.parametrize("random_start", [False, True])
def test_epsilon_zero_returns_the_image(random_start):
    images, labels = photos(0)
    attack = pgd(epsilon=0.0, random_start=random_start)
    np.testing.assert_array_equal(attack(climb(random_model(0), labels), images, 7), images)


def test_same_seed_same_result():
    images, labels = photos(1)
    loss_fn = climb(random_model(1), labels)
    attack = tf.function(lambda seed: pgd()(loss_fn, images, seed))
    first, again, other = (attack(tf.constant([0, seed])).numpy() for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_image_with_its_own_seed_does_not_depend_on_its_batch():
    images, labels = photos(2)
    model = random_model(2)
    seeds = tf.stack([tf.fill([16], 5), tf.range(16)], 1)
    whole = pgd()(climb(model, labels), images, seeds)
    part = pgd()(climb(model, labels[8:]), images[8:], seeds[8:])
    np.testing.assert_allclose(whole[8:], part, atol=1e-7)


@pytest.mark.parametrize("steps,step_size", [(1, 8 / 255), (4, 2 / 255), (20, 1 / 255), (3, 1 / 255)])
def test_closed_form_on_a_linear_model(steps, step_size):
    images, _ = photos(3)
    weights = tf.constant(np.random.default_rng(3).normal(size=[8, 8, 3]), tf.float32)
    attack = pgd(8 / 255, step_size, steps, random_start=False)
    adversarial = attack(lambda x: tf.reduce_sum(x * weights, [1, 2, 3]), images, 0)
    reach = min(steps * step_size, 8 / 255)
    np.testing.assert_allclose(adversarial, np.clip(images + reach * np.sign(weights), 0, 1), atol=1e-6)


def test_random_start_fills_the_ball_and_reaches_the_closed_form():
    images = tf.fill([64, 8, 8, 3], 0.5)
    start = pgd().start(images, 0).numpy() - 0.5
    assert abs(start.mean()) < 1e-3 and abs(start.std() - 8 / 255 / np.sqrt(3)) < 1e-3
    weights = tf.constant(np.random.default_rng(3).normal(size=[8, 8, 3]), tf.float32)
    adversarial = pgd(steps=8)(lambda x: tf.reduce_sum(x * weights, [1, 2, 3]), images, 0)
    np.testing.assert_allclose(adversarial, 0.5 + 8 / 255 * np.sign(weights) * np.ones_like(images), atol=1e-6)


def test_probability_of_a_clean_start():
    images, _ = photos(4)
    clean = [bool((pgd(clean_start=0.2).start(images, seed).numpy() == images.numpy()).all()) for seed in range(300)]
    assert 0.12 < np.mean(clean) < 0.28
    np.testing.assert_array_equal(pgd(clean_start=1.0).start(images, 0), images)


@pytest.mark.parametrize("act", [tf.nn.silu, tf.nn.relu])
def test_more_steps_are_never_weaker_on_average(act):
    means = []
    for steps in (1, 2, 5, 10, 20):
        values = []
        for seed in range(6):
            images, labels = photos(seed)
            loss_fn = climb(random_model(seed, act), labels)
            values.append(tf.reduce_mean(loss_fn(pgd(8 / 255, 1 / 255, steps)(loss_fn, images, seed))))
        means.append(np.mean(values))
    assert np.all(np.diff(means) > -1e-4), means


def test_stronger_than_noise():
    images, labels = photos(5)
    loss_fn = climb(random_model(5), labels)
    noise = pgd().start(images, 0)
    assert tf.reduce_mean(loss_fn(pgd()(loss_fn, images, 0))) > tf.reduce_mean(loss_fn(noise)) + 0.1


def graph_operations(steps):
    images, labels = photos(6)
    model = random_model(6)
    attack = tf.function(lambda x, y: pgd(steps=steps)(climb(model, y), x, 0))
    graph = attack.get_concrete_function(images, labels).graph.as_graph_def()
    return [node.op for node in graph.node], [needed_operations(function) for function in graph.library.function]


def needed_operations(function):
    """Return the operations of a graph function that its results depend on; the runtime drops the others."""
    nodes = {node.name: node for node in function.node_def}
    needed, todo = {}, [*function.ret.values(), *function.control_ret.values()]
    while todo:
        name = todo.pop().lstrip("^").partition(":")[0]
        if name in nodes and name not in needed:
            needed[name] = nodes[name].op
            todo += nodes[name].input
    return list(needed.values())


def test_one_loop_whose_graph_does_not_grow_with_steps_and_has_no_weight_gradients():
    (few, few_functions), (many, many_functions) = graph_operations(2), graph_operations(200)
    assert len(few) == len(many) and sum(map(len, few_functions)) == sum(map(len, many_functions))
    assert sum(op in ("While", "StatelessWhile") for op in many) == 1
    assert any("Conv2DBackpropInput" in operations for operations in many_functions)
    assert not any("Conv2DBackpropFilter" in operations for operations in many_functions)


def test_no_gradient_flows_through():
    images, labels = photos(7)
    weights = tf.Variable(tf.ones([3]))
    with tf.GradientTape() as tape:
        tape.watch(images)
        adversarial = pgd()(lambda x: tf.reduce_sum(x * weights, [1, 2, 3]), images, 0)
        total = tf.reduce_sum(adversarial)
    assert tape.gradient(total, [images, weights]) == [None, None]


def test_fgsm_is_one_step_from_the_image():
    images, labels = photos(9)
    loss_fn = climb(random_model(9), labels)
    mine = attacks.for_training("fgsm", epsilon=4 / 255, step_size=1 / 255)(loss_fn, images, 0)
    expected = tf.clip_by_value(images + 4 / 255 * tf.sign(attacks.input_gradient(loss_fn, images)), 0, 1)
    np.testing.assert_allclose(mine, expected, atol=1e-7)


def test_radius_may_be_a_tensor():
    images, labels = photos(10)
    loss_fn = climb(random_model(10), labels)
    attack = tf.function(lambda epsilon: pgd(epsilon, epsilon / 4)(loss_fn, images, 0))
    np.testing.assert_allclose(attack(tf.constant(8 / 255)), pgd()(loss_fn, images, 0), atol=1e-6)


@pytest.mark.parametrize(
    "bad",
    [
        {"epsilon": 8},
        {"epsilon": -0.1},
        {"step_size": 2.0},
        {"steps": -1},
        {"clean_start": 1.5},
        {"epsilon": float("nan")},
    ],
)
def test_bad_parameters(bad):
    with pytest.raises(ValueError, match=r"Expected .* Received: "):
        pgd(**bad)


@pytest.mark.parametrize("seed", [3, tf.constant([0, 3]), tf.stack([tf.fill([16], 5), tf.range(16)], 1)], ids=str)
def test_auto_pgd_of_a_whole_batch_is_stronger_than_pgd_and_free_of_neighbours(seed):
    images, labels = photos(11)
    model = random_model(11)
    loss_fn = climb(model, labels)
    attack = attacks.for_training("apgd-10", epsilon=8 / 255)
    adversarial = attack(loss_fn, images, seed)
    traced = tf.function(attack)(loss_fn, images, seed)
    assert np.mean(np.abs(adversarial - traced) < 1e-6) > 0.995  # the sign of what is nearly 0 goes by rounding
    pgd_1 = attacks.for_training("pgd-1", epsilon=8 / 255)(loss_fn, images, seed)
    assert tf.reduce_mean(loss_fn(adversarial)) > tf.reduce_mean(loss_fn(pgd_1))
    if getattr(seed, "shape", ()) == (16, 2):
        part = attack(climb(model, labels[8:]), images[8:], seed[8:])
        np.testing.assert_allclose(adversarial[8:], part, atol=1e-6)


def test_auto_pgd_may_start_at_the_images():
    images, labels = photos(12)
    loss_fn = climb(random_model(12), labels)
    attack = attacks.for_training("apgd-1", epsilon=8 / 255, random_start=False)
    same = attacks.for_training("apgd-1", epsilon=8 / 255, clean_start=1.0)
    one = attack(loss_fn, images, 0)
    np.testing.assert_array_equal(one, attack(loss_fn, images, 1))
    np.testing.assert_allclose(one, same(loss_fn, images, 2), atol=1e-7)
    assert tf.reduce_all(loss_fn(one) >= loss_fn(images))  # the best point that was seen


@pytest.mark.parametrize(
    "name,epsilon,step_size,expected",
    [
        ("pgd-1", 4 / 255, None, 4 / 255),
        ("pgd-10", 4 / 255, None, 1 / 255),
        ("pgd-200", 4 / 255, None, 1 / 255),
        ("pgd-2", 8 / 255, None, 4 / 255),
        ("pgd-20", 8 / 255, 2 / 255, 2 / 255),
        ("pgd-1", 8 / 255, 1 / 255, 1 / 255),
        ("fgsm", 8 / 255, None, 8 / 255),
    ],
)
def test_step_size_by_name(name, epsilon, step_size, expected):
    attack = attacks.for_training(name, epsilon=epsilon, step_size=step_size)
    assert isinstance(attack, attacks.PGD) and attack.step_size == pytest.approx(expected)
    assert attack.steps == int(name.partition("-")[2] or 1)


@pytest.mark.parametrize("name,expected", [("clean", 0), ("fgsm", 2), ("pgd-1", 2), ("pgd-7", 14), ("apgd-2", 6)])
def test_forward_equivalents_are_the_passes_that_are_made(name, expected):
    """A look is a forward pass and the gradient to the images, as much again."""
    images, labels = photos(13)
    model, passes = random_model(13), []

    def loss_fn(x):
        tf.py_function(lambda: passes.append(1), [], [])
        return losses.cross_entropy(model(x), labels)

    attack = attacks.for_training(name, epsilon=8 / 255)
    attack(loss_fn, images, 0)
    assert 2 * len(passes) == expected == attack.forward_equivalents


@pytest.mark.parametrize("name", [name for name, row in attacks.ATTACKS.items() if row.training is None])
def test_what_can_only_evaluate_does_not_train(name):
    with pytest.raises(ValueError, match="Expected an attack for training, of clean, fgsm, pgd-k, apgd-k"):
        attacks.for_training(name.replace("-k", "-3"), epsilon=8 / 255)
