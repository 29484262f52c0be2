"""Every method's contract: modes of batch normalisation, cost, radius of the perturbation, and what each minimises."""

import dataclasses
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from small_methods import attack_of, linear, loop_of, make, network, small_batch

from sat_tf import attacks, losses, methods, models, passes, train

ATTACK = attacks.PGD(epsilon=8 / 255, step_size=8 / 255, steps=2)
ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model():
    model = models.build("resnet2-w8", "swish", 10)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name in ("moving_mean", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def batch():
    rng = np.random.default_rng(1)
    return tf.constant(rng.random([8, 32, 32, 3]), tf.float32), tf.constant(rng.integers(0, 10, 8), tf.int32)


def statistics(model):
    return [v.numpy() for v in model.variables if v.name in ("moving_mean", "moving_variance")]


@pytest.mark.parametrize("name", methods.METHODS)
def test_contract(name, model):
    images, labels = batch()
    method = methods.METHODS[name](ATTACK)
    adversarial = method.perturb(model, images, labels, tf.constant(0), tf.constant([0, 1]))
    assert adversarial.shape == images.shape and adversarial.dtype == tf.float32
    assert tf.reduce_max(tf.abs(adversarial - images)) <= 8 / 255
    assert tf.reduce_min(adversarial) >= 0 and tf.reduce_max(adversarial) <= 1
    values, report = method.loss(model, images, adversarial, labels)
    assert values.shape == (8,) and values.dtype == tf.float32
    assert report["accuracy"].shape == (8,)


@pytest.mark.parametrize("name", methods.METHODS)
def test_moving_statistics_stand_still_while_attacking_and_move_in_the_update(name, model):
    images, labels = batch()
    method = methods.METHODS[name](ATTACK)
    before = statistics(model)
    adversarial = method.perturb(model, images, labels, tf.constant(0), tf.constant([0, 1]))
    for old, new in zip(before, statistics(model), strict=True):
        np.testing.assert_array_equal(old, new)
    method.loss(model, images, adversarial, labels)
    assert all((old != new).any() for old, new in zip(before, statistics(model), strict=True))


@pytest.mark.parametrize("name", methods.METHODS)
def test_the_attack_sees_inference_mode_and_the_update_training_mode(name):
    modes = []

    class Spy:
        def __call__(self, images, training):
            modes.append(training)
            return tf.reshape(images, [-1, 32 * 32 * 3])[:, :10]

        def with_features(self):
            return lambda images, training: (self(images, training), tf.reshape(images, [-1, 32 * 32 * 3]))

    images, labels = batch()
    method = methods.METHODS[name](ATTACK)
    adversarial = method.perturb(Spy(), images, labels, tf.constant(0), tf.constant([0, 1]))
    assert set(modes) <= {False} and bool(modes) == (name != "standard")
    modes.clear()
    method.loss(Spy(), images, adversarial, labels)
    assert set(modes) == {True}


def test_sat_perturbs_with_its_attack_against_its_loss(model):
    images, labels = batch()
    seed = tf.constant([0, 5])
    mine = methods.METHODS["sat"](ATTACK).perturb(model, images, labels, 0, seed)
    expected = ATTACK(lambda x: losses.cross_entropy(model(x, training=False), labels), images, seed)
    np.testing.assert_array_equal(mine, expected)


def test_standard_leaves_images_alone(model):
    images, labels = batch()
    np.testing.assert_array_equal(methods.METHODS["standard"](ATTACK).perturb(model, images, labels, 0, None), images)


@pytest.mark.parametrize("steps,passes", [(1, 5), (3, 9)])
def test_the_cost_of_a_step_is_the_attack_s_and_the_update_s(steps, passes):
    attack = attacks.for_training(f"pgd-{steps}", epsilon=8 / 255)
    assert methods.METHODS["sat"](attack).forward_equivalents == passes
    assert methods.METHODS["standard"](attack).forward_equivalents == 3


COSTS = {  # with two steps: attack, updates
    "pgd-at": (4, 3),
    "apgd-at": (4, 3),
    "p-sat": (4, 3),
    "h-sat": (5, 3),  # S of the clean images
    "dynamic": (4, 3),
    "trades": (5, 6),  # the clean answer
    "mart": (4, 6),
    "cat": (5, 3),  # did it withstand?
    "fast": (2, 3),
    "free": (0, 24),
    "epsilon-warmup": (4, 3),
    "sat-awp": (4, 6),
    "trades-awp": (5, 12),
}


@pytest.mark.parametrize("name", COSTS)
def test_what_each_costs(name):
    method = methods.METHODS[name](ATTACK)
    assert (method.attack_equivalents, method.update_equivalents) == COSTS[name]
    assert method.forward_equivalents == sum(COSTS[name])


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_says_what_others_want_to_know_of_it(name):
    method = methods.METHODS[name](ATTACK)
    assert method.best_by in ("clean", "robust") and method.trains_on in ("clean", "adversarial") and method.words
    assert (method.attack is None) == (method.forward_equivalents == 3)
    assert method.updates >= 1


def test_no_other_file_knows_a_method_by_name():
    """Names stand in the table, in words for people, and in recipes; nothing compares them."""
    own = {"table.py"}
    names = "|".join(name for name in methods.METHODS if name not in ("standard", "free", "fast", "dynamic"))
    compared = re.compile(rf"""(==|!=|\bin\b)\s*\(?["']({names})["']|["']({names})["']\s*(==|!=)""")
    for file in [*(ROOT / "sat_tf").rglob("*.py"), *(ROOT / "hparams").glob("*.py")]:
        if file.name not in own:
            assert not compared.search(file.read_text(encoding="utf-8")), file


def trained(method, steps=3):
    """Return losses and all variables of a small network after some steps."""
    model = network()
    loop = loop_of(method, model, size=8, seed=3, momentum=0.9)
    reports = [loop.step(*small_batch(size=8, seed=each)) for each in range(steps)]
    return [float(report["loss"]) for report in reports], [v.numpy() for v in model.variables]


def test_trades_without_its_divergence_is_standard_training():
    without, standard = trained(make("trades", beta=0.0)), trained(make("standard"))
    assert without[0] == standard[0]
    for one, two in zip(without[1], standard[1], strict=True):
        np.testing.assert_array_equal(one, two)


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_trades_loss_by_numpy():
    model = linear()
    images, labels = small_batch()
    other = tf.clip_by_value(images + 0.1, 0, 1)
    values, report = make("trades", beta=3.0).loss(model, images, other, labels)
    p, q = softmax(model(images).numpy()), softmax(model(other).numpy())
    divergence = (p * (np.log(p) - np.log(q))).sum(-1)
    np.testing.assert_allclose(values, -np.log(p[np.arange(8), labels]) + 3 * divergence, rtol=1e-4)
    np.testing.assert_allclose(report["divergence"], divergence, atol=1e-6)
    np.testing.assert_array_equal(report["clean_accuracy"], p.argmax(-1) == labels)
    np.testing.assert_array_equal(report["accuracy"], q.argmax(-1) == labels)


def test_the_gradient_of_trades_flows_into_both_answers():
    """By finite differences of the whole loss, adversarial images fixed."""
    model = linear()
    images, labels = small_batch()
    other = tf.clip_by_value(images + 0.1, 0, 1)
    method, kernel = make("trades", beta=5.0), model.layers[-1].kernel

    def total():
        return tf.reduce_sum(method.loss(model, images, other, labels)[0])

    with tf.GradientTape() as tape:
        value = total()
    gradient, at = tape.gradient(value, kernel.value).numpy(), kernel.numpy()
    for place in ((0, 0), (17, 2), (40, 3)):
        ends = []
        for sign in (1, -1):
            moved = at.copy()
            moved[place] += sign * 1e-2
            kernel.assign(moved)
            ends.append(float(total()))
        kernel.assign(at)
        np.testing.assert_allclose(gradient[place], (ends[0] - ends[1]) / 2e-2, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", ["trades", "mart"])
def test_the_attack_starts_beside_the_image_and_ends_far_from_its_answer(name):
    model = linear()
    images, labels = small_batch()
    seed = tf.constant([0, 7])
    none = make(name, attack_of(steps=0)).perturb(model, images, labels, 0, seed)
    moved = (none - images).numpy()
    assert 0.0005 < moved.std() < 0.002 and abs(moved.mean()) < 0.0005
    method = make(name, attack_of(steps=5, step_size=2 / 255))
    adversarial = method.perturb(model, images, labels, 0, seed)
    noise = images + 8 / 255 * tf.sign(tf.random.stateless_normal(images.shape, seed))

    def harm(points):
        p, q = softmax(model(images).numpy()), softmax(model(points).numpy())
        if name == "mart":
            return -np.log(q[np.arange(8), labels]).mean()
        return (p * (np.log(p) - np.log(q))).sum(-1).mean()

    assert harm(adversarial) > 2 * max(harm(noise), harm(none)) - harm(images)


def test_mart_loss_by_numpy():
    model = linear()
    images, labels = small_batch()
    other = tf.clip_by_value(images + 0.1, 0, 1)
    values, _ = make("mart", beta=4.0).loss(model, images, other, labels)
    p, q = softmax(model(images).numpy()), softmax(model(other).numpy())
    rows = np.arange(8)
    rest = q.copy()
    rest[rows, labels] = -1
    margin = -np.log(q[rows, labels]) - np.log(1.0001 - rest.max(-1))
    divergence = (p * (np.log(p) - np.log(q))).sum(-1)
    np.testing.assert_allclose(values, margin + 4 * divergence * (1 - p[rows, labels]), rtol=1e-4)


def test_fast_is_one_step_of_a_quarter_more_than_the_radius(model):
    images, labels = batch()
    seed = tf.constant([0, 5])
    own = attacks.PGD(epsilon=8 / 255, step_size=1.25 * 8 / 255, steps=1)
    mine, by_hand = make("fast", attack_of(steps=1)), methods.sat(own)
    assert mine.attack == own
    one, two = (method.perturb(model, images, labels, 0, seed) for method in (mine, by_hand))
    np.testing.assert_array_equal(one, two)


def test_free_makes_m_updates_of_a_batch_and_hands_on_its_perturbation():
    """By hand in NumPy, two batches of three replays on a linear model."""
    method = make("free", attack_of(steps=1, step_size=3 / 255), replays=3)
    model = linear()
    kernel, bias = (each.numpy() for each in model.layers[-1].trainable_variables)
    loop = loop_of(method, model)
    delta = np.zeros([8, 4, 4, 3], np.float32)
    for number in range(2):
        images, labels = small_batch(seed=number)
        report = loop.step(images, labels)
        told = []
        for _ in range(3):
            inputs = np.clip(images + delta, 0, 1).reshape(8, -1)
            error = softmax(inputs @ kernel + bias)
            told.append(-np.log(error[np.arange(8), labels]).mean())
            error[np.arange(8), labels] -= 1
            direction = (error @ kernel.T).reshape(delta.shape)
            kernel, bias = kernel - 0.1 * inputs.T @ error / 8, bias - 0.1 * error.mean(0)
            delta = np.clip(delta + 3 / 255 * np.sign(direction), -8 / 255, 8 / 255).astype(np.float32)
        np.testing.assert_allclose(report["loss"], np.mean(told), rtol=1e-4)
    assert int(loop.state.optimizer.iterations) == 6 and loop.state.step == 2
    np.testing.assert_allclose(model.layers[-1].kernel, kernel, atol=1e-5)
    np.testing.assert_allclose(loop.state.memory["delta"], delta, atol=1e-6)


def test_free_wants_one_gradient_for_attack_and_update():
    backward = passes.Backward(attack="parametric_softplus:10")
    with pytest.raises(ValueError, match="same gradients for attack and update"):
        make("free", backward=backward)
    assert make("free", backward=passes.Backward(attack="softplus", update="softplus")).updates == 2


@pytest.mark.parametrize("replays", [0, 2.5])
def test_free_wants_whole_replays(replays):
    with pytest.raises(ValueError, match="replays of a batch"):
        make("free", replays=replays)


def test_what_half_precision_cannot_hold_stays_out_of_the_perturbation():
    model = linear()
    loop = loop_of(make("free", attack_of(steps=1, step_size=3 / 255), replays=2), model)
    images, labels = small_batch(seed=0)
    loop.step(np.where(np.arange(8)[:, None, None, None] == 3, np.nan, images).astype(np.float32), labels)
    assert np.isfinite(loop.state.memory["delta"]).all()


@pytest.mark.parametrize(
    "name, settings, says",
    [
        ("trades", {"beta": -1}, "a beta of at least 0"),
        ("trades", {"beta": "6"}, "a beta of at least 0"),
        ("dynamic", {"fosc_max": 0}, "fosc_max above 0"),
        ("epsilon-warmup", {"growth": "quadratic"}, "a known growth"),
    ],
)
def test_settings_that_are_none_are_refused(name, settings, says):
    with pytest.raises(ValueError, match=says) as error:
        make(name, **settings)
    assert "Received: " in str(error.value) and "\n" not in str(error.value)


def test_auto_pgd_is_whose_it_is():
    assert "Croce & Hein" in make("apgd-at", attacks.for_training("apgd-2", epsilon=8 / 255)).words
    assert "Madry" in make("pgd-at").words


def test_a_growing_radius():
    model = linear()
    images, labels = small_batch()
    length = methods.Length(epochs=10, epoch_steps=10)
    for growth in ("linear", "cosine"):
        method = make("epsilon-warmup", length=length, growth=growth, growth_epochs=5.0)
        shares = []
        for step in (0, 24, 49, 99):
            seed = tf.constant([0, step])
            given = methods.Batch(images=images, labels=labels, step=tf.constant(step), seed=seed)
            points, report = method.attacked(model, given)
            shares.append(float(report["epsilon"][0]) / (8 / 255))
            assert tf.reduce_max(tf.abs(points - images)) <= shares[-1] * 8 / 255 + 1e-7
        done = np.array([0, 0.48, 0.98, 1])  # of the rise, in tenths of an epoch
        np.testing.assert_allclose(shares, done if growth == "linear" else (1 - np.cos(np.pi * done)) / 2, atol=1e-6)
    with pytest.raises(ValueError, match="Choose fewer growth_epochs"):
        make("epsilon-warmup", length=length, growth_epochs=20.0)


def test_customized_radii_grow_where_the_model_withstands():
    model = linear()
    images, labels = small_batch()
    method = make("cat", attack_of(steps=2, step_size=0.5), radius_increment=0.02)
    loop = loop_of(method, model, rate=1e-9)
    ids = tf.range(8, dtype=tf.int64) * 7
    radius = np.zeros(8, np.float32)
    for _ in range(3):
        report = loop.step(images, labels, ids)
        tried = np.minimum(radius + 0.02, np.float32(8 / 255))
        logits = model(images).numpy()
        kernel = model.layers[-1].kernel.numpy()
        margin = []
        for row, label in zip(logits, labels.numpy(), strict=True):  # of a linear model against the worst other class
            reach = np.abs(kernel - kernel[:, label : label + 1]).sum(0)
            margin.append((row[label] - row - tried[len(margin)] * reach)[np.arange(4) != label].min())
        sure = np.array(margin) > 0  # withstands whatever an attack does
        wrong = logits.argmax(-1) != labels.numpy()  # a correct attack keeps it wrong
        new = loop.state.memory["radii"].numpy()[ids]
        np.testing.assert_allclose(new[sure], tried[sure], atol=1e-7)
        np.testing.assert_array_equal(new[wrong], radius[wrong])
        assert sure.any() and np.any(wrong)
        np.testing.assert_allclose(report["radius"], new.mean(), rtol=1e-5)
        radius = new
    others = np.delete(loop.state.memory["radii"].numpy(), ids)
    assert not others.any() and radius.max() <= 8 / 255


def test_customized_labels_are_smoothed_by_the_radius():
    method = make("cat", label_share=10.0)
    logits, labels = tf.constant([[2.0, 0.0, -1.0]] * 4000), tf.zeros([4000], tf.int32)
    plain = losses.cross_entropy(logits, labels)
    np.testing.assert_allclose(method.smoothed(logits, labels, tf.zeros([4000]), tf.constant([0, 1])), plain)
    values = method.smoothed(logits, labels, tf.fill([4000], 0.03), tf.constant([0, 1])).numpy()
    uniform = -tf.nn.log_softmax(logits[:1]).numpy().mean()  # what a Dirichlet(1) is on average
    np.testing.assert_allclose(values.mean(), 0.7 * plain[0] + 0.3 * uniform, rtol=0.01)
    assert values.std() > 0.05


def test_images_without_a_number_are_known_by_their_pixels():
    images, labels = small_batch()
    loop = loop_of(make("cat"), linear(), rate=1e-9)
    radii = []
    for _ in range(2):
        loop.step(images, labels)
        radii.append(loop.state.memory["radii"].numpy())
    assert radii[0].any() and ((radii[1] > 0) >= (radii[0] > 0)).all()
    assert (radii[1] > 1.5 * 0.005).any() and (radii[1] > 0).sum() <= 8


def test_customized_training_says_that_it_remembers():
    images, labels = small_batch()
    loop = loop_of(make("cat"), linear())
    loop = dataclasses.replace(loop, state=dataclasses.replace(loop.state, memory={}))
    with pytest.raises(ValueError, match="train.make_memory"):
        loop.step(images, labels)


@pytest.mark.parametrize("name", ["p-sat", "h-sat", "dynamic", "free", "cat", "epsilon-warmup"])
def test_methods_that_make_their_own_steps_refuse_others_attacks(name):
    attack = attacks.for_training("apgd-2", epsilon=8 / 255)
    with pytest.raises(ValueError, match="pgd-k or fgsm") as error:
        make(name, attack)
    assert "Received: attack=" in str(error.value)


def test_trades_takes_auto_pgd(model):
    images, labels = batch()
    attack = attacks.for_training("apgd-2", epsilon=8 / 255)
    adversarial = make("trades", attack).perturb(model, images, labels, 0, tf.constant([0, 1]))
    assert 0 < tf.reduce_max(tf.abs(adversarial - images)) <= 8 / 255


@pytest.mark.parametrize("name", [name for name in methods.METHODS if make(name).takes_mixed])
def test_soft_labels_of_one_class_are_that_class(name):
    """As mixed images have them: the loss and the report are those of the class itself."""
    images, labels = small_batch()
    reports = []
    for given in (labels, tf.one_hot(labels, 4)):
        loop = loop_of(make(name), linear())
        batch = methods.Batch(
            images=images, labels=given, step=tf.constant(0), seed=tf.constant([0, 1]), memory=loop.state.memory
        )
        updates = train.Updates(
            model=loop.state.model,
            seed=batch.seed,
            total=lambda losses, penalties: tf.reduce_mean(losses),
            apply=lambda gradients: None,
            mean=tf.reduce_mean,
        )
        reports.append(loop.method.learn(loop.state.model, batch, updates))
    assert set(reports[0]) == set(reports[1])
    for quantity, value in reports[0].items():
        np.testing.assert_allclose(value, reports[1][quantity], rtol=1e-5, atol=1e-6)
