"""Any Keras model by `fit`: the loop's own steps, Keras' own contracts, and files of the user's model alone."""

import inspect
import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import sat_tf
from sat_tf import attacks, methods, models, optim, train

RNG = np.random.default_rng(0)
LABELS = np.arange(64) % 3
IMAGES = (0.25 * RNG.random([64, 8, 8, 3]) + 0.25 * np.eye(3)[LABELS][:, None, None] + 0.2).astype(np.float32)
EAGER = {"run_eagerly": True}  # which on a few tiny steps takes less time than tracing
SPARSE, ONE_HOT = "sparse_categorical_crossentropy", "categorical_crossentropy"


def network(end="softmax", *, seed=0, before=(), regularizer=None):
    keras.utils.set_random_seed(seed)
    layers = [
        keras.Input([8, 8, 3]),
        *before,
        keras.layers.Conv2D(6, 3, strides=2, activation="relu", kernel_regularizer=regularizer),
        keras.layers.BatchNormalization(),
        keras.layers.Flatten(),
        keras.layers.Dense(3, activation=end),
    ]
    return keras.Sequential(layers, name="mine")


def adversarial(model=None, loss=SPARSE, *, optimizer=None, compiled=EAGER, **known):
    robust = sat_tf.AdversarialModel(model or network(), **{"validation_attack": "pgd-2", **known})
    optimizer = optimizer or keras.optimizers.SGD(0.05)
    robust.compile(optimizer, loss, **{"metrics": ["accuracy"], **dict(compiled)})
    return robust


def fit(robust, x=IMAGES, y=LABELS, **kwargs):
    return robust.fit(x, y, **{"batch_size": 16, "shuffle": False, "verbose": 0, **kwargs}).history


def weights(model):
    return [variable.numpy() for variable in model.variables]


def same(first, second, atol=0.0):
    for one, two in zip(first, second, strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=atol)


# The loop's own steps.


@pytest.mark.parametrize("method", methods.METHODS)
def test_twenty_steps_are_those_of_the_loop(method):
    def fresh():
        keras.utils.set_random_seed(0)
        return models.build("resnet2-w8", "swish", 10)

    images = np.random.default_rng(1).random([160, 16, 16, 3]).astype(np.float32)
    labels = np.random.default_rng(2).integers(0, 10, 160).astype(np.int32)
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
    rate = lambda step: 0.05 * tf.ones([])  # noqa: E731
    optimizers = [optim.sgd(rate, momentum=0.9) for _ in range(2)]
    model, other = fresh(), fresh()
    optimizers[0].build(model.trainable_variables)
    row = methods.METHODS[method]
    paced = "length" in inspect.signature(getattr(row, "make", row)).parameters
    length = {"length": methods.Length(epochs=1, epoch_steps=20)} if paced else {}
    made = row(attacks.for_training("pgd-2", epsilon=8 / 255), **length)
    memory = {} if method == "free" else train.make_memory(made, batch_size=8, image_shape=(16, 16, 3), images=2**20)
    loop = train.Loop(
        state=train.TrainState(model=model, optimizer=optimizers[0], updates=made.updates, memory=memory),
        method=made,
        strategy=tf.distribute.get_strategy(),
        batch_size=8,
        seed=3,
    )
    rows = [row for _, row in loop.run(data, until=20)]
    robust = sat_tf.AdversarialModel(other, method, "pgd-2", 8 / 255, seed=3)
    robust.compile(optimizers[1], keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    history = robust.fit(data, verbose=0).history
    same(weights(model), weights(other), 1e-5)
    np.testing.assert_allclose(history["loss"], [np.concatenate([row["loss"] for row in rows]).mean()], rtol=1e-4)
    told = {name: np.concatenate([row[name] for row in rows]).mean() for name in rows[0] if name != "loss"}
    assert set(told) == set(made.quantities) and set(told) <= set(history)
    for name in set(told) - {"accuracy"}:
        np.testing.assert_allclose(history[name], [told[name]], rtol=1e-3, atol=1e-5)
    if made.updates == 1:  # else accuracies are those of the last update
        accuracy = np.concatenate([row["accuracy"] for row in rows]).mean()
        np.testing.assert_allclose(history["accuracy"], [accuracy], atol=1e-6)


def test_a_seed_fixes_the_starts_and_another_changes_them():
    first, again, other = (adversarial(epsilon=0.2, seed=seed) for seed in (0, 0, 1))
    for robust in (first, again, other):
        fit(robust, epochs=2)
    same(weights(first.model), weights(again.model))
    assert max(np.abs(a - b).max() for a, b in zip(weights(first.model), weights(other.model), strict=True)) > 1e-5


def test_a_range_of_255_is_the_range_of_1():
    scaled = network(before=[keras.layers.Rescaling(1 / 255)])
    first, second = adversarial(network()), adversarial(scaled, value_range=(0, 255))
    histories = [fit(first), fit(second, IMAGES * 255)]
    same(weights(first.model), weights(second.model), 1e-5)
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], atol=1e-5)


def test_a_method_that_looks_at_features_sees_those_of_the_scaled_images():
    twins = (
        adversarial(network(), method="h-sat"),
        adversarial(network(before=[keras.layers.Rescaling(1 / 255)]), method="h-sat", value_range=(0, 255)),
    )
    histories = [fit(twins[0]), fit(twins[1], IMAGES * 255)]
    same(weights(twins[0].model), weights(twins[1].model), 1e-5)
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], atol=1e-5)


# Labels, losses, weights.


def test_logits_and_probabilities_one_hot_and_sparse_are_the_same():
    one_hot = np.eye(3)[LABELS].astype(np.float32)
    losses = keras.losses
    cases = [
        ("softmax", SPARSE, LABELS),
        ("softmax", losses.SparseCategoricalCrossentropy(), LABELS[:, None]),
        (None, losses.SparseCategoricalCrossentropy(from_logits=True), LABELS),
        ("softmax", ONE_HOT, one_hot),
        (None, losses.CategoricalCrossentropy(from_logits=True), one_hot),
        ("softmax", lambda t, p: losses.categorical_crossentropy(t, p), one_hot),
    ]
    found = []
    for end, loss, labels in cases:
        robust = adversarial(network(end), loss)
        history = fit(robust, y=labels, validation_data=(IMAGES, labels))
        found.append(weights(robust.model))
        assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy", "val_robust_accuracy"}
    for other in found[1:]:
        same(found[0], other, 1e-5)


def test_probabilities_without_known_logits_are_trained_by_their_logarithms():
    class Normalized(keras.layers.Layer):
        def call(self, x):
            return tf.exp(x) / tf.reduce_sum(tf.exp(x), -1, keepdims=True)

    first, second = adversarial(), adversarial(keras.Sequential([network(None), Normalized()]))
    for robust in (first, second):
        fit(robust, epochs=2)
    same(weights(first.model), weights(second.model), 1e-5)


def test_soft_labels_reach_the_loss():
    soft = 0.9 * np.eye(3)[LABELS] + 0.1 / 3
    first = adversarial(network(), ONE_HOT)
    second = adversarial(network(), keras.losses.CategoricalCrossentropy(label_smoothing=0.1))
    fit(first, y=soft)
    fit(second, y=np.eye(3)[LABELS])
    same(weights(first.model), weights(second.model), 1e-5)


def by_keras(model, loss=SPARSE, **kwargs):
    """Return the weights after Keras' own training of a model."""
    model.compile(keras.optimizers.SGD(0.05), loss, metrics=["accuracy"])
    history = model.fit(IMAGES, LABELS, batch_size=16, shuffle=False, verbose=0, epochs=2, **kwargs).history
    return weights(model), history


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"sample_weight": np.linspace(0, 2, 64)},
        {"class_weight": {0: 1.0, 1: 3.0, 2: 0.5}},
        {"validation_split": 0.25},
    ],
    ids=str,
)
def test_without_an_attack_fit_is_that_of_keras(kwargs):
    robust = adversarial(method="standard")
    history = fit(robust, epochs=2, **kwargs)
    expected, known = by_keras(network(), **kwargs)
    same(weights(robust.model), expected, 1e-5)
    for name, values in known.items():
        np.testing.assert_allclose(history[name], values, atol=1e-4)


@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight", "none"])
def test_the_reductions_of_a_loss_are_those_of_keras(reduction):
    def loss():
        return keras.losses.SparseCategoricalCrossentropy(reduction=reduction)

    if reduction == "none":  # Keras' own bookkeeping takes one number
        robust = adversarial(method="standard", loss=loss())
        fit(robust)
        return
    robust = adversarial(method="standard", loss=loss(), optimizer=keras.optimizers.SGD(0.05))
    share = np.linspace(0, 2, 64)
    fit(robust, epochs=2, sample_weight=share)
    same(weights(robust.model), by_keras(network(), loss(), sample_weight=share)[0], 1e-4)


def test_a_models_own_regularisation_is_minimised():
    robust = adversarial(network(regularizer=keras.regularizers.L2(5.0)), optimizer=keras.optimizers.SGD(0.02))
    norm = np.linalg.norm(robust.model.layers[0].kernel)
    history = fit(robust, epochs=3)
    assert np.linalg.norm(robust.model.layers[0].kernel) < 0.2 * norm
    assert history["loss"][0] > 5


# What the attack sees, and what stays as it is.


def test_the_attack_sees_inference_mode_and_frozen_statistics_stay():
    seen = []

    class Watch(keras.layers.Layer):
        def call(self, x, training=False):
            seen.append(training)
            return x

    model = network(before=[Watch(), keras.layers.Dropout(0.5), keras.layers.RandomFlip()])
    robust = adversarial(model, attack="pgd-2")
    model.layers[4].trainable = False
    seen.clear()
    before = [variable.numpy() for variable in model.layers[4].variables]
    robust.compile(keras.optimizers.SGD(0.05), SPARSE, **EAGER)
    fit(robust)
    same(before, [variable.numpy() for variable in model.layers[4].variables])
    assert seen == [False] + 4 * [False, False, True]  # a look at the model; then two steps of PGD and an update


@pytest.mark.parametrize("build", [lambda: models.build("resnet2-w8", "swish", 3), network], ids=["ours", "Keras'"])
def test_a_frozen_network_does_not_move(build):
    model = build()
    model.trainable = False
    whole = keras.Sequential([keras.Input([8, 8, 3]), model, keras.layers.Dense(3, activation="softmax")])
    before = weights(model)
    fit(adversarial(whole))
    same(before, weights(model))


def test_validation_is_under_its_attack_on_its_share():
    robust = adversarial(epsilon=0.3, validation_attack="pgd-5", validation_share=0.5)
    history = fit(robust, epochs=2, validation_data=(IMAGES, LABELS))
    assert history["val_robust_accuracy"][-1] < history["val_accuracy"][-1]
    first, again = (robust.evaluate(IMAGES, LABELS, 16, 0, return_dict=True) for _ in range(2))
    assert first == again
    halves = np.concatenate([np.arange(begin, begin + 8) for begin in range(0, 64, 16)])
    robust.validation_share = 1.0
    robust.make_test_function(force=True)
    alone = robust.evaluate(IMAGES[halves], LABELS[halves], 8, 0, return_dict=True)
    assert alone["robust_accuracy"] == pytest.approx(first["robust_accuracy"])
    without = adversarial(validation_attack=None)
    assert "val_robust_accuracy" not in fit(without, validation_data=(IMAGES, LABELS))


# Keras' own contracts.


def dataset():
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(16)


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        part = slice(16 * index, 16 * index + 16)
        return IMAGES[part], LABELS[part]


@pytest.mark.parametrize(
    "data",
    [
        lambda: {"x": dataset()},
        lambda: {"x": (batch for batch in dataset()), "steps_per_epoch": 4},
        lambda: {"x": Sequence()},
        lambda: {"x": list(IMAGES), "y": LABELS},
        lambda: {"x": tf.constant(IMAGES), "y": tf.constant(LABELS)},
    ],
)
def test_data_of_every_kind_trains_to_the_same_weights(data):
    first, second = adversarial(), adversarial()
    fit(first)
    given = data()
    kwargs = {"batch_size": None} if "y" not in given else {}
    fit(second, given.pop("x"), given.pop("y", None), **given, **kwargs)
    same(weights(first.model), weights(second.model), 1e-6)


def test_callbacks_of_keras(tmp_path):
    robust = adversarial(optimizer=keras.optimizers.SGD(0.05, momentum=0.9, use_ema=True), compiled={})
    callbacks = keras.callbacks
    best = {"monitor": "val_robust_accuracy", "mode": "max"}
    history = fit(
        robust,
        epochs=3,
        validation_data=(IMAGES, LABELS),
        callbacks=[
            callbacks.SwapEMAWeights(swap_on_epoch=True),
            callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), save_best_only=True, **best),
            callbacks.ModelCheckpoint(str(tmp_path / "w.weights.h5"), save_weights_only=True),
            callbacks.EarlyStopping(patience=5, restore_best_weights=True, **best),
            callbacks.ReduceLROnPlateau(**best),
            callbacks.TensorBoard(str(tmp_path / "logs")),
        ],
    )
    assert len(history["val_robust_accuracy"]) == 3 and "learning_rate" in history
    assert list((tmp_path / "logs").rglob("events*"))
    own = network(seed=5)
    own.load_weights(tmp_path / "w.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "best.keras")
    where = int(np.argmax(history["val_robust_accuracy"]))
    assert loaded.evaluate(IMAGES, LABELS, verbose=0)[1] == pytest.approx(history["val_accuracy"][where])


def test_a_stopped_fit_goes_on_to_the_same_weights(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def make():
        return adversarial(epsilon=0.2, optimizer=keras.optimizers.Adam(0.01))

    whole, stopped, resumed = make(), make(), make()
    fit(whole, epochs=4)
    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, epochs=4, callbacks=[backup, Stop()])
    fit(resumed, epochs=4, callbacks=[keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))])
    same(weights(whole.model), weights(resumed.model))


def test_jit_graph_and_several_steps_at_once_are_what_eager_is():
    expected = adversarial()
    losses = fit(expected)["loss"]
    for compiled, tolerance in (({"jit_compile": True}, 0.05), ({"steps_per_execution": 4}, 1e-4)):
        robust = adversarial(compiled=compiled)
        np.testing.assert_allclose(fit(robust)["loss"], losses, rtol=tolerance)  # XLA rounds otherwise; signs amplify
        assert np.isfinite(robust.evaluate(IMAGES, LABELS, verbose=0)).all()
    same(weights(expected.model), weights(robust.model), 1e-4)


def test_mixed_precision_trains_and_its_attack_keeps_small_gradients():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = network()
    finally:
        keras.config.set_dtype_policy("float32")
    robust = adversarial(model, epsilon=0.2, compiled={})
    history = fit(robust, epochs=2, validation_data=(IMAGES, LABELS))
    assert type(robust.optimizer).__name__ == "LossScaleOptimizer" and np.isfinite(history["loss"]).all()
    twin = adversarial(network())
    twin.evaluate(IMAGES[:2], LABELS[:2], verbose=0)  # which looks at what its outputs are
    twin.model.set_weights(model.get_weights())
    logits = np.sort(robust._view()(IMAGES).numpy(), -1)
    factor = 17 / np.median(logits[:, -1] - logits[:, -2])  # e^-17 is 4e-8, which half precision does not have
    for layer in (model.layers[-1], twin.model.layers[-1]):
        layer.set_weights([factor * value for value in layer.get_weights()])
    labels = tf.constant(model(IMAGES, training=False).numpy().argmax(-1))

    def without_gradient(view):
        def loss(x):
            return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, view(x, training=False))

        return (attacks.input_gradient(loss, tf.constant(IMAGES)).numpy() == 0).all((1, 2, 3)).mean()

    plain = robust._view()
    plain.keeps = False
    lost, kept, full = map(without_gradient, (plain, robust._view(), twin._view()))
    assert lost > full + 0.1 and kept <= full + 0.05


def test_two_replicas(two_replicas):
    with two_replicas.scope():
        model = network(regularizer=keras.regularizers.L2(0.1))
        optimizer = keras.optimizers.SGD(0.05)
    robust = adversarial(model, optimizer=optimizer, compiled={})
    history = fit(robust, validation_data=(IMAGES, LABELS))
    alone = adversarial(network(regularizer=keras.regularizers.L2(0.1)))
    expected = fit(alone, validation_data=(IMAGES, LABELS))
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=0.1)
    assert set(history) == set(expected) and robust.optimizer.iterations == 4


def test_files_hold_the_users_model_alone(tmp_path):
    robust = adversarial()
    fit(robust)
    robust.save(tmp_path / "robust.keras")
    robust.model.save(tmp_path / "mine.keras")
    for name in ("robust", "mine"):
        text = zipfile.ZipFile(tmp_path / f"{name}.keras").read("config.json").decode()
        assert "sat_tf" not in text and json.loads(text)["class_name"] == "Sequential"
    script = """
import sys, keras, numpy as np
assert not any(name.startswith("sat_tf") for name in sys.modules)
model = keras.saving.load_model(sys.argv[1])
np.save(sys.argv[2], model.predict(np.load(sys.argv[3]), verbose=0))
print(model.evaluate(np.load(sys.argv[3]), np.arange(64) % 3, verbose=0))
"""
    np.save(tmp_path / "images.npy", IMAGES)
    paths = [str(tmp_path / name) for name in ("mine.keras", "out.npy", "images.npy")]
    done = subprocess.run([sys.executable, "-c", script, *paths], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), robust.predict(IMAGES, verbose=0), atol=1e-5)


def test_what_others_could_not_read_is_not_in_the_file(tmp_path):
    robust = adversarial(loss=lambda t, p: keras.losses.sparse_categorical_crossentropy(t, p))
    fit(robust)
    assert not robust.model.compiled
    robust.model.save(tmp_path / "mine.keras")
    keras.saving.load_model(tmp_path / "mine.keras")


# What is refused, in a sentence.

REFUSED = {
    "a radius of 8": (lambda: adversarial(epsilon=8), "Did you mean 8/255"),
    "no model": (lambda: adversarial(lambda x: x), "Expected a Keras model"),
    "a method": (lambda: adversarial(method="madry"), "a known method"),
    "a setting": (lambda: adversarial(beta=6.0), "beta"),
    "an attack": (lambda: adversarial(attack="square"), "an attack for training"),
    "a share": (lambda: adversarial(validation_share=0), "validation_share in"),
    "a range": (lambda: adversarial(value_range=255), "a range"),
    "no loss": (lambda: adversarial(loss=None), "Expected a loss"),
    "0 to 255": (lambda: fit(adversarial(), IMAGES * 255), r"from 0 to 1\. Received: values from"),
    "uint8": (lambda: fit(adversarial(), (IMAGES * 255).astype(np.uint8)), "images of uint8"),
    "0 to 1": (lambda: fit(adversarial(value_range=(0, 255))), "State value_range="),
    "validation": (lambda: fit(adversarial(), validation_data=(IMAGES - 1, LABELS)), "values from -"),
    "labels": (lambda: fit(adversarial(), y=LABELS + 1), "from 0 to 2, the classes"),
    "one-hot": (lambda: fit(adversarial(), y=np.eye(3)[LABELS]), "labels of whole numbers"),
    "sparse": (lambda: fit(adversarial(loss=ONE_HOT)), "one-hot rows"),
    "logits": (lambda: fit(adversarial(network(None))), "Expected probabilities, .*from_logits=True"),
    "softmax": (
        lambda: fit(adversarial(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))),
        "Expected logits, .*Take the softmax off",
    ),
    "sigmoid": (lambda: fit(adversarial(network("sigmoid"))), "Expected probabilities"),
    "a gradient": (lambda: adversarial(attack_backward="softplus"), "activation layers of this package"),
    "two inputs": (lambda: adversarial(two_inputs()), "one input, images. Received: 2 inputs"),
    "two outputs": (lambda: adversarial(two_outputs()), "one output. Received: 2 outputs"),
    "one logit": (lambda: fit(adversarial(one_logit(), "binary_crossentropy")), "two classes or more"),
    "a later batch": (lambda: fit(adversarial(), later(), None, batch_size=None), "Scale the images, or state"),
}


def two_inputs():
    pair = [keras.Input([8, 8, 3]), keras.Input([8, 8, 3])]
    flat = keras.layers.Flatten()(keras.layers.Add()(pair))
    return keras.Model(pair, keras.layers.Dense(3, activation="softmax")(flat))


def two_outputs():
    images = keras.Input([8, 8, 3])
    flat = keras.layers.Flatten()(images)
    return keras.Model(images, [keras.layers.Dense(3)(flat), keras.layers.Dense(3)(flat)])


def one_logit():
    return keras.Sequential([keras.Input([8, 8, 3]), keras.layers.Flatten(), keras.layers.Dense(1, "sigmoid")])


def later():
    return dataset().concatenate(dataset().map(lambda x, y: (3 * x, y)))


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused_in_a_sentence(case):
    call, words = REFUSED[case]
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_package_stays_instant():
    script = "import sys, sat_tf; assert 'AdversarialModel' in dir(sat_tf); sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        sat_tf.absent  # noqa: B018


def test_fit_over_several_workers_is_refused(monkeypatch):
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    robust = sat_tf.AdversarialModel(model)
    many = object.__new__(tf.distribute.MultiWorkerMirroredStrategy)
    monkeypatch.setattr(sat_tf.AdversarialModel, "distribute_strategy", many)
    with pytest.raises(ValueError, match="Expected one process with fit.* --strategy=multiworker"):
        robust.fit(np.zeros([2, 4, 4, 3]), np.zeros(2))
