"""Backward substitutes: values never change, gradients are the substitute's where asked for and nowhere else."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from sat_tf import activations, attacks, losses, methods, models, passes, preprocess, train
from sat_tf.export import formats

ACTS = (
    "relu",
    "relu6",
    "swish",
    "softplus",
    "parametric_softplus:10",
    "gelu",
    "gelu_tanh",
    "elu:1.5",
    "celu:1.5",
    "smoothrelu",
    "mish",
)
X = np.concatenate([np.linspace(-7, 7, 57), [-100.0, 100.0]]).astype(np.float32)


def sigmoid(x):
    return 0.5 * (1 + np.tanh(x / 2))


SLOPES = {  # closed forms in NumPy of a few
    "relu": lambda x: (x > 0).astype(np.float64),
    "parametric_softplus:10": lambda x: sigmoid(10.0 * x),
    "softplus": sigmoid,
    "swish": lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))),
}


def value_and_gradient(call, x):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = call(x)
    return y.numpy(), tape.gradient(y, x).numpy()


@pytest.mark.parametrize("forward,backward", itertools.product(ACTS, ACTS))
def test_every_pair(forward, backward):
    layer, other = activations.factory(forward)("one"), activations.factory(backward)("two")
    values, own = value_and_gradient(layer, X)
    _, wanted = value_and_gradient(other, X)
    with activations.gradient_of(backward):
        substituted, gradient = value_and_gradient(layer, X)
    np.testing.assert_array_equal(substituted, values)
    np.testing.assert_array_equal(gradient, wanted)
    if backward in SLOPES:
        np.testing.assert_allclose(gradient, SLOPES[backward](X.astype(np.float64)), atol=1e-5)
    np.testing.assert_array_equal(value_and_gradient(layer, X)[1], own)  # nothing is left of it


def test_half_precision_is_computed_in_float32():
    layer = activations.ReLU(name="one", dtype="mixed_bfloat16")
    x = tf.constant([-0.1, 0.0, 0.3], tf.bfloat16)
    with activations.gradient_of("parametric_softplus:10"), tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    assert y.dtype == tf.bfloat16
    wanted = sigmoid(10 * tf.cast(x, tf.float32).numpy())
    np.testing.assert_allclose(tf.cast(tape.gradient(y, x), tf.float32), wanted, rtol=0.01)


def network(act):
    """Return a small random network `[n, 4, 4, 3] -> [n, 5]` and its weights as NumPy arrays."""
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Flatten()(inputs)
    for i, width in enumerate((7, 6)):
        x = activations.factory(act)(f"act{i}")(keras.layers.Dense(width, name=f"dense{i}")(x))
    model = keras.Model(inputs, keras.layers.Dense(5, name="logits")(x))
    return model, drawn(model, 0)


def drawn(model, seed):
    """Give a network other random weights; return them as NumPy arrays."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(0, 0.4, weight.shape).astype(np.float32) for weight in model.get_weights()]
    model.set_weights(weights)
    return [weight.astype(np.float64) for weight in weights]


def closed_form(weights, forward, slope, images, labels):
    """Return losses, gradients to the images and to all weights of `network` with any slope, by hand."""
    x, inputs, slopes = images.reshape(len(images), -1).astype(np.float64), [], []
    for i in (0, 2):
        inputs.append(x)
        z = x @ weights[i] + weights[i + 1]
        slopes.append(slope(z))
        x = forward(z)
    inputs.append(x)
    logits = x @ weights[4] + weights[5]
    e = np.exp(logits - logits.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    values = -np.log(p[np.arange(len(labels)), labels])
    delta, gradients = p - np.eye(5)[labels], []
    for i in (4, 2, 0):
        gradients[:0] = [inputs[i // 2].T @ delta, delta.sum(0)]
        delta = delta @ weights[i].T
        if i:
            delta = delta * slopes[i // 2 - 1]
    return values, delta.reshape(images.shape), gradients


IMAGES = np.random.default_rng(1).random((6, 4, 4, 3), np.float32)
LABELS = np.array([0, 1, 2, 3, 4, 0], np.int32)
FORWARD = {"relu": lambda z: np.maximum(z, 0), "swish": lambda z: z * sigmoid(z)}
PLACES = ((None, None), ("attack",), ("update",), ("attack", "update"))  # the rows of Table 1


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("forward,other", [("relu", "parametric_softplus:10"), ("swish", "relu")])
@pytest.mark.parametrize("jit", [False, True])
def test_attack_and_update_of_a_network_in_one_traced_step(jit, forward, other, places):
    """The rows of Table 1, against closed forms: which gradient is whose, losses alike in all of them."""
    model, _ = network(forward)
    backward = passes.Backward(**{name: other for name in places if name})
    attack = attacks.PGD(epsilon=8 / 255, step_size=3 / 255, steps=1, random_start=False)
    method = methods.METHODS["sat"](attack, backward=backward)
    seen = []

    @tf.function(jit_compile=jit)
    def step(images, labels):
        adversarial = method.perturb(model, images, labels, 0, tf.constant([0, 0]))
        climbed = attacks.input_gradient(
            lambda x: losses.cross_entropy(backward.view(model, "attack")(x, training=False), labels), images
        )
        with tf.GradientTape() as tape:
            values, _ = method.loss(model, images, adversarial, labels)
        seen.append(None)
        return adversarial, climbed, values, tape.gradient(values, model.trainable_variables)

    slopes = {name: SLOPES[other if name in places else forward] for name in ("attack", "update")}
    for seed in range(3):
        weights = drawn(model, seed)
        adversarial, climbed, values, gradients = step(tf.constant(IMAGES), tf.constant(LABELS))
        _, wanted, _ = closed_form(weights, FORWARD[forward], slopes["attack"], IMAGES, LABELS)
        np.testing.assert_allclose(climbed, wanted, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(adversarial, np.clip(IMAGES + 3 / 255 * np.sign(wanted), 0, 1), atol=1e-6)
        expected, _, wanted = closed_form(weights, FORWARD[forward], slopes["update"], adversarial.numpy(), LABELS)
        np.testing.assert_allclose(values, expected, rtol=1e-4)
        for mine, by_hand in zip(gradients, wanted, strict=True):
            np.testing.assert_allclose(mine, by_hand, rtol=1e-3, atol=1e-5)
    assert len(seen) == 1


def test_values_of_a_whole_network_do_not_change():
    model = models.build("resnet8-w8", "relu", 10)
    images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    backward = passes.Backward(attack="swish", update="parametric_softplus:10")
    wanted = model(images, training=False)
    for purpose in passes.PURPOSES:
        np.testing.assert_array_equal(backward.view(model, purpose)(images, training=False), wanted)
    assert backward.view(model, "inference") is model and passes.OWN.view(model, "attack") is model


def test_one_graph_may_hold_all_purposes():
    """Passes of different purposes in one trace do not mix, in whatever order they are traced."""
    model, weights = network("relu")
    backward = passes.Backward(attack="parametric_softplus:10", update="softplus")
    slope_of = {"attack": "parametric_softplus:10", "update": "softplus", "inference": "relu"}

    @tf.function
    def gradients(images, labels, order):
        return {
            purpose: attacks.input_gradient(
                lambda x, p=purpose: losses.cross_entropy(backward.view(model, p)(x, training=False), labels), images
            )
            for purpose in order
        }

    for order in itertools.permutations(passes.PURPOSES):
        for purpose, gradient in gradients(tf.constant(IMAGES), tf.constant(LABELS), order).items():
            _, wanted, _ = closed_form(weights, FORWARD["relu"], SLOPES[slope_of[purpose]], IMAGES, LABELS)
            np.testing.assert_allclose(gradient, wanted, rtol=1e-3, atol=1e-6, err_msg=f"{order} {purpose}")


def test_a_learned_alpha_keeps_its_own_gradient():
    layer = activations.factory("smoothrelu:4")("site")
    x = tf.constant(X[:57])
    gradients = []
    for other in (None, "relu"):
        with tf.GradientTape() as tape:
            if other:
                with activations.gradient_of(other):
                    y = layer(x)
            else:
                y = layer(x)
        gradients.append(tape.gradient(y, layer.trainable_variables)[0].numpy())
    assert gradients[0] != 0
    np.testing.assert_array_equal(*gradients)


def test_two_replicas_train_as_one(two_replicas):
    backward = passes.Backward(attack="parametric_softplus:10", update="parametric_softplus:10")
    attack = attacks.PGD(epsilon=8 / 255, step_size=8 / 255, steps=1, random_start=False)
    images = np.random.default_rng(0).random((4, 4, 4, 3), np.float32)
    labels = np.arange(4, dtype=np.int32)
    results = []
    for strategy, parts in ((tf.distribute.get_strategy(), 1), (two_replicas, 2)):
        with strategy.scope():
            model, _ = network("relu")
            optimizer = keras.optimizers.SGD(0.5)
            optimizer.build(model.trainable_variables)
        loop = train.Loop(
            state=train.TrainState(model=model, optimizer=optimizer),
            strategy=strategy,
            batch_size=4,
            method=methods.sat(attack, backward=backward),
        )
        batches = tf.data.Dataset.from_tensors((images, labels)).repeat().unbatch().batch(4 // parts)
        data = strategy.distribute_datasets_from_function(lambda context, batches=batches: batches)
        list(loop.run(data, until=3))
        results.append([variable.numpy() for variable in model.variables])
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
    plain, _ = network("relu")
    assert any(np.abs(a - b.numpy()).max() > 1e-3 for a, b in zip(results[0], plain.variables, strict=True))


@pytest.mark.parametrize("other", [None, "parametric_softplus:10"])
def test_gradients_survive_export_and_reload(other, tmp_path):
    """Of an export: the network's own where nothing else was asked for, else the substitute's, in both ways to them."""
    model, weights = network("relu")
    attacked = passes.Backward(attack=other).view(model, "attack")
    formats.saved_model(model, 4, tmp_path / "model", preprocess.resize_crop, (), attacked=attacked)
    reloaded = tf.saved_model.load(tmp_path / "model")
    served = reloaded.signatures
    images, labels = tf.constant(IMAGES), tf.constant(LABELS)
    _, wanted, _ = closed_form(weights, FORWARD["relu"], SLOPES[other or "relu"], IMAGES, LABELS)
    gradient = served["input_gradient"](images=images, labels=labels)["gradient"]
    np.testing.assert_allclose(gradient, wanted, rtol=1e-3, atol=1e-6)
    climbed = attacks.input_gradient(
        lambda x: losses.cross_entropy(served["serving_default"](images=x)["logits"], labels), images
    )
    np.testing.assert_allclose(climbed, wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "make,says",
    [
        (lambda: passes.Backward(attack="swich"), "Did you mean swish"),
        (lambda: passes.Backward(update="celu:-1"), "finite alpha > 0"),
        (lambda: passes.OWN.view(None, "attak"), "purpose of attack, update, inference. Received: purpose='attak'"),
    ],
)
def test_mistakes(make, says):
    with pytest.raises(ValueError, match=says):
        make()
