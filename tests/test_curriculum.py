"""Curricula: a difficulty, a bound that rises, an attack that ends image by image; P-SAT, H-SAT and Dynamic AT."""

import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_methods import attack_of, linear, loop_of, make, network, small_batch

from sat_tf import attacks, losses, methods, schedules
from sat_tf.methods import difficulty

EPSILON = 8 / 255
SEED = tf.constant([0, 3])
ATTACK = attack_of(steps=5, step_size=2 / 255)


@pytest.fixture(scope="module")
def model():
    """Return a network that knows its batch somewhat, so that images differ in difficulty."""
    model = network()
    loop = loop_of(make("standard"), model, size=8, rate=0.5, batch_size=16)
    step = tf.function(loop.step)
    for _ in range(60):
        step(*some())
    return model


def some():
    return small_batch(count=16, size=8)


def curriculum(metric, bound, attack=ATTACK):
    return methods.Curriculum(attack=attack, metric=metric, schedule=schedules.constant(peak=bound))


def climb(method, model):
    """Return points, active, steps and rounds of a curriculum on the batch, and where it started."""
    images, labels = some()
    start = method.attack.start(images, SEED)
    bound = tf.cast(method.schedule(0), tf.float32)
    return (*tf.function(method.climb)(model, images, labels, start, bound), start)


def gap(model, points, labels):
    p = tf.nn.softmax(model(points, training=False)).numpy()
    rows = np.arange(len(p))
    rest = p.copy()
    rest[rows, labels] = -1
    return rest.max(-1) - p[rows, labels]


METRICS = {
    "gap": methods.ProbabilityGap(),
    "curvature": methods.HeadCurvature(),
    "fosc": methods.Convergence(highest=0.5),
    "steps": methods.Steps(most=5),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("compiled", [False, True])
def test_without_a_bound_it_is_multi_step_adversarial_training_bit_for_bit(name, compiled, model):
    images, labels = some()
    given = methods.Batch(images=images, labels=labels, step=tf.constant(0), seed=SEED)
    ours = curriculum(METRICS[name], 1.0)
    plain = make("pgd-at", ATTACK)
    wrap = tf.function if compiled else lambda function: function
    points, report = wrap(lambda: ours.attacked(model, given))()
    expected = wrap(lambda: plain.perturb(model, images, labels, given.step, SEED))()
    np.testing.assert_array_equal(points, expected)
    assert not report["stopped"].numpy().any() and (report["image_steps"].numpy() == 5).all()


def test_p_sat_trains_as_multi_step_adversarial_training_where_lambda_is_1():
    results = []
    for name, settings in (("p-sat", {"lambda_start": 1.0}), ("pgd-at", {})):
        model = network()
        loop = loop_of(make(name, attack_of(), **settings), model, size=8, momentum=0.9)
        step = tf.function(loop.step)
        told = [float(step(*small_batch(size=8, seed=each))["loss"]) for each in range(3)]
        results.append((told, [v.numpy() for v in model.variables]))
    assert results[0][0] == results[1][0]
    for one, two in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_array_equal(one, two)


def test_below_every_difficulty_only_the_random_start_is_left(model):
    points, active, steps, rounds, start = climb(curriculum(methods.ProbabilityGap(), -1.01), model)
    np.testing.assert_array_equal(points, start)
    assert not active.numpy().any() and not steps.numpy().any()
    assert rounds == 1  # the batch left the loop after its first look


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("bound", [0.0, 0.3, 0.9])
def test_inside_the_ball_and_the_range(name, bound, model):
    images, _ = some()
    points = climb(curriculum(METRICS[name], bound), model)[0]
    assert tf.reduce_max(tf.abs(points - images)) <= EPSILON + 1e-6
    assert tf.reduce_min(points) >= 0 and tf.reduce_max(points) <= 1


def test_every_image_is_above_the_bound_or_has_taken_all_steps(model):
    _, labels = some()
    last = climb(curriculum(methods.ProbabilityGap(), 1.0), model)[0]
    for bound in np.quantile(gap(model, last, labels), [0.2, 0.5, 0.8]):
        points, active, steps, *_ = climb(curriculum(methods.ProbabilityGap(), bound), model)
        stopped = ~active.numpy()
        assert (gap(model, points, labels)[stopped] > bound - 1e-6).all()
        assert (steps.numpy()[~stopped] == 5).all() and (steps.numpy()[stopped] < 5).all()
        assert stopped.any()


def test_the_path_is_a_prefix_of_pgd_s_and_longer_under_a_higher_bound(model):
    images, labels = some()
    start = ATTACK.start(images, SEED)
    path = [start]
    for _ in range(5):
        path.append(ATTACK.climb(lambda x: losses.cross_entropy(model(x, training=False), labels), images, path[-1], 1))
    before = np.zeros(16)
    for bound in (-0.4, -0.2, 0.0, 0.2, 0.5, 1.0):
        points, _, steps, *_ = climb(curriculum(methods.ProbabilityGap(), bound), model)
        steps = steps.numpy()
        assert (steps >= before).all()
        before = steps
        for image, taken in enumerate(steps.astype(int)):
            np.testing.assert_allclose(points[image], path[taken][image], atol=1e-6)


def test_any_metric_and_any_schedule():
    """Images whose mean is above a bound that depends on the step stop at once; others go on."""

    class Brightness(methods.Difficulty):
        def __call__(self, seen):
            return tf.reduce_mean(seen.images, [1, 2, 3])

    model = linear()
    images, labels = small_batch()
    images *= tf.reshape(tf.linspace(0.2, 1.0, 8), [8, 1, 1, 1])
    schedule = lambda step: tf.cast(step, tf.float32) / 10  # noqa: E731
    method = methods.Curriculum(attack=attack_of(random_start=False), metric=Brightness(), schedule=schedule)
    for step in (1, 3, 5):
        given = methods.Batch(images=images, labels=labels, step=tf.constant(step), seed=SEED)
        points, report = method.attacked(model, given)
        moved = np.abs(points - images).max((1, 2, 3)) > 0
        np.testing.assert_array_equal(moved, images.numpy().mean((1, 2, 3)) <= np.float32(step / 10))
        np.testing.assert_array_equal(report["stopped"], ~moved)
        np.testing.assert_allclose(report["lambda"], step / 10)


def test_the_gap_by_numpy():
    logits = tf.constant([[0.0, 0.0], [3.0, -1.0], [-2.0, 1.0], [200.0, 0.0]])
    seen = dataclasses.make_dataclass("Looked", ["logits", "labels"])(logits, tf.constant([0, 0, 0, 0]))
    np.testing.assert_allclose(methods.ProbabilityGap()(seen), [0, -np.tanh(2), np.tanh(1.5), -1], atol=1e-6)


def probabilities():
    rng = np.random.default_rng(0)
    drawn = np.exp(rng.normal(0, 3, [200, 6]))
    drawn /= drawn.sum(-1, keepdims=True)
    special = [
        [0.5, 0.5, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],
        [1 / 6] * 6,
        [0.4, 0.4, 0.2, 0, 0, 0],
        [1 - 1e-6, 1e-6, 0, 0, 0, 0],
    ]
    return np.concatenate([drawn, special]).astype(np.float32)


def test_the_top_eigenvalue_by_numpy():
    p = probabilities()
    expected = [np.linalg.eigvalsh(np.diag(row) - np.outer(row, row))[-1] for row in p.astype(np.float64)]
    values = difficulty.top_eigenvalue(tf.constant(p)).numpy()
    np.testing.assert_allclose(values, expected, atol=2e-7, rtol=1e-4)
    assert (values <= 0.5 + 1e-6).all() and (values >= -1e-7).all()
    assert values[200] == pytest.approx(0.5)


def test_the_curvature_has_its_hump_at_the_boundary():
    p = np.linspace(0.01, 0.99, 99).astype(np.float32)
    values = difficulty.top_eigenvalue(tf.constant(np.stack([p, 1 - p], 1))).numpy()
    np.testing.assert_allclose(values, 2 * p * (1 - p), atol=1e-6)
    assert np.argmax(values) == 49


def test_head_curvature_is_the_hessian_s_eigenvalue_by_finite_differences():
    """Second differences of the cross-entropy to kernel and bias of a dense layer, in float64."""
    rng = np.random.default_rng(0)
    phi, weights, label = rng.normal(0, 1, 3), rng.normal(0, 1, [4, 3]), 1  # rows: three inputs and the bias

    def loss(flat):
        logits = np.append(phi, 1) @ flat.reshape(4, 3)
        return np.log(np.exp(logits).sum()) - logits[label]

    flat, h, size = weights.ravel(), 1e-4, 12
    hessian = np.zeros([size, size])
    for i in range(size):
        for j in range(size):
            total = 0
            for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                moved = flat.copy()
                moved[i] += a * h
                moved[j] += b * h
                total += a * b * loss(moved)
            hessian[i, j] = total / (4 * h * h)
    logits = np.append(phi, 1) @ weights
    p = np.exp(logits) / np.exp(logits).sum()
    ours = difficulty.top_eigenvalue(tf.constant(p[None], tf.float32)) * difficulty.lengths(
        tf.constant(phi[None], tf.float32)
    )
    np.testing.assert_allclose(ours, np.linalg.eigvalsh(hessian)[-1:], rtol=1e-4)


def test_h_sat_looks_at_what_the_last_layer_sees(model):
    images, labels = some()
    metric = methods.HeadCurvature()
    logits, features = difficulty.with_features(model)(images, training=False)
    np.testing.assert_array_equal(logits, model(images, training=False))
    np.testing.assert_allclose(features @ model.layers[-1].kernel + model.layers[-1].bias, logits, atol=1e-5)
    scale = metric.begin(lambda x: difficulty.with_features(model)(x, training=False), images)
    squares = np.sort((features.numpy() ** 2).sum(-1) + 1)
    np.testing.assert_allclose(scale, squares[15], rtol=1e-6)  # the 95th percentile of 16
    method = curriculum(metric, 0.5)
    points, active, *_ = climb(method, model)
    logits, features = difficulty.with_features(model)(points, training=False)
    top = difficulty.top_eigenvalue(tf.nn.softmax(logits)).numpy()
    psi = np.minimum(2 * top * ((features.numpy() ** 2).sum(-1) + 1) / scale, 1)
    assert (psi[~active.numpy()] > 0.5 - 1e-5).all()


def test_h_sat_needs_a_dense_layer_at_the_end():
    layers = [keras.Input((4, 4, 3)), keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()]
    images, labels = small_batch()
    for model in (keras.Sequential(layers), lambda images, training: images[:, 0, 0]):
        with pytest.raises(ValueError, match="ends in a dense layer"):
            make("h-sat").perturb(model, images, labels, tf.constant(0), SEED)


def test_fosc_by_numpy_and_where_it_vanishes():
    model = linear()
    images, labels = small_batch()
    rng = np.random.default_rng(0)

    def gradient_at(points):
        return attacks.input_gradient(lambda x: losses.cross_entropy(model(x), labels), points)

    for _ in range(20):
        points = images + rng.uniform(-EPSILON, EPSILON, images.shape).astype(np.float32)
        gradient = gradient_at(points)
        values = methods.fosc(images, points, gradient, EPSILON).numpy()
        g, d = gradient.numpy(), (points - images).numpy()
        expected = EPSILON * np.abs(g).sum((1, 2, 3)) - (d * g).sum((1, 2, 3))
        np.testing.assert_allclose(values, expected, atol=1e-5)
        assert (values >= -1e-6).all() and values.max() > 1e-3
    points, binary = images, linear(classes=2)  # with two classes the gradient's signs are the same everywhere
    labels %= 2
    gradient = attacks.input_gradient(lambda x: losses.cross_entropy(binary(x), labels), images)
    points = images + EPSILON * tf.sign(gradient)
    gradient = attacks.input_gradient(lambda x: losses.cross_entropy(binary(x), labels), points)
    np.testing.assert_allclose(methods.fosc(images, points, gradient, EPSILON), 0, atol=1e-5)


def test_dynamic_training_stops_what_has_converged(model):
    images, labels = some()
    attack = attack_of(steps=8, step_size=2 / 255)
    for allowed in (0.5, 0.2, 0.02):
        bound = 1 - allowed / 0.5
        points, active, steps, *_ = climb(curriculum(methods.Convergence(highest=0.5), bound, attack), model)
        gradient = attacks.input_gradient(lambda x: losses.cross_entropy(model(x, training=False), labels), points)
        values = methods.fosc(images, points, gradient, EPSILON).numpy()
        assert (values[~active.numpy()] < allowed + 1e-4).all()
    assert steps.numpy().sum() > 0


@pytest.mark.parametrize("epochs", [4, 100])
def test_the_bound_of_dynamic_training_falls_to_0(epochs):
    length = methods.Length(epochs=epochs, epoch_steps=100)
    method = make("dynamic", length=length, fosc_max=0.5)
    allowed = 0.5 * (1 - method.schedule(tf.range(0, 100 * epochs, length.steps // 100)))
    np.testing.assert_allclose(allowed, np.maximum(0.5 - 0.5 * np.arange(100) / 80, 0), atol=1e-6)


def bounds(epochs, epoch_steps=7, **settings):
    """Return lambda in the last step of each epoch, after seeing that it is constant in each."""
    schedule = methods.pace(methods.Length(epochs=epochs, epoch_steps=epoch_steps), **settings)
    values = schedule(tf.range(epochs * epoch_steps)).numpy().reshape(epochs, epoch_steps)
    assert (values == values[:, :1]).all() and (np.diff(values[:, 0]) >= 0).all()
    return values[:, 0]


def test_the_authors_schedules():
    mnist = bounds(70, lambda_schedule="steps", lambda_epochs=(30, 45, 60))
    np.testing.assert_allclose(mnist[[0, 29, 30, 44, 45, 59, 60, 69]], np.repeat([0, 1, 2, 3], 2) / 3, atol=1e-6)
    assert mnist[-1] == 1.0
    np.testing.assert_array_equal(mnist, bounds(70, lambda_schedule="steps"))  # the default, in shares
    cifar = bounds(100, lambda_end=0.4, lambda_epochs=(30, 70), lambda_partial=True)
    np.testing.assert_allclose(
        cifar[[0, 29, 30, 49, 50, 69, 70, 99]], [0, 0, 0.01, 0.2, 0.21, 0.4, 0.4, 0.4], atol=1e-6
    )
    np.testing.assert_array_equal(cifar, bounds(100, lambda_end=0.4, lambda_partial=True))


def test_a_short_training_has_the_same_course():
    short = methods.pace(methods.Length(epochs=1, epoch_steps=1000))
    long = methods.pace(methods.Length(epochs=100, epoch_steps=10))
    np.testing.assert_allclose(short(tf.range(1000)), long(tf.range(1000)), atol=1e-5)


@pytest.mark.parametrize(
    "settings,says",
    [
        ({"lambda_end": 0.4}, "ends at 0.4"),
        ({"lambda_epochs": (5, 12)}, "ends at"),
        ({"lambda_schedule": "steps", "lambda_epochs": (3, 20)}, "ends at 0.5"),
        ({"lambda_epochs": (5, 3)}, "first and last epoch"),
        ({"lambda_epochs": (1, 2, 3)}, "lambda_schedule=steps"),
        ({"lambda_start": 0.5, "lambda_end": 0.2}, "a lambda that rises"),
        ({"lambda_end": math.nan}, "a lambda that rises"),
        ({"lambda_schedule": "cosine"}, "a known schedule of lambda"),
        ({"lambda_schedule": "steps", "lambda_every": 1}, "Leave it out"),
        ({"lambda_every": 0}, "above 0 epochs"),
        ({"lambda_epochs": 3}, "epochs such as"),
        ({"lambda_epochs": "3,7"}, "epochs such as"),
        ({"lambda_end": 0.4, "lambda_epochs": (30, 70), "lambda_partial": True}, "stays at 0. Choose earlier"),
    ],
)
def test_a_schedule_that_is_none_is_refused(settings, says):
    with pytest.raises(ValueError, match=says) as error:
        make("p-sat", length=methods.Length(epochs=10, epoch_steps=5), **settings)
    assert "Received: " in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("epochs", [1, 2, 4, 8, 16, 70])
@pytest.mark.parametrize("epoch_steps", [10, 20, 50, 390, 420])
def test_a_rise_that_ends_with_the_training_reaches_1(epochs, epoch_steps):
    length = methods.Length(epochs=epochs, epoch_steps=epoch_steps)
    method = make("p-sat", length=length, lambda_epochs=(epochs * 3 / 7, epochs))  # refused where it did not
    assert float(method.schedule(length.steps - 1)) == 1.0


def test_a_bound_may_stay_below_1_on_purpose():
    method = make("p-sat", length=methods.Length(epochs=10, epoch_steps=5), lambda_end=0.4, lambda_partial=True)
    assert float(method.schedule(49)) == np.float32(0.4)
