"""Runs from weights of others and of networks that are none of the table's: started, stopped, evaluated, exported."""

import dataclasses
import logging
import os
import shutil
import signal

import data_files
import keras
import numpy as np
import pytest
import tensorflow as tf

from sat_tf import activations, assembly, data, evaluate, experiment, hparams, models, networks, pointers, saving
from sat_tf.experiment import run as run_of
from sat_tf.runs import checkpoints, starting

TINY = {
    "dataset": "folder",
    "epochs": 2,
    "batch_size": 8,
    "validation": 9,
    "augment": "none",
    "warmup_epochs": 0,
    "learning_rate": 0.1,
    "head_rate": 1,
    "method": "standard",
    "validation_attack": "clean",
    "validation_every": 2,
    "eval_attacks": "clean",
    "eval_batch_size": 12,
    "eval_checks": 0,
    "steps_per_call": 1,
}


def recipe(**changes):
    return hparams.choose({**TINY, **changes})


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Return the folder of a data set of three classes, which differ in brightness."""
    root = tmp_path_factory.mktemp("images")
    data_files.write_folder(root / "train", 11)
    data_files.write_folder(root / "test", 4, seed=7)
    return root


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Return the folder of a run of resnet8-w8 on ten classes."""
    folder = tmp_path_factory.mktemp("base") / "run"
    data_files.write_run(folder)
    return folder


@pytest.fixture
def lines(caplog):
    """Return a function that gives the lines of the log."""
    logger = logging.getLogger("absl")
    logger.propagate, before = True, logger.propagate
    caplog.set_level(logging.INFO, logger="absl")
    yield lambda: [record.getMessage() for record in caplog.records]
    logger.propagate = before


def values(model_dir, group="model"):
    reader = tf.train.load_checkpoint(str(pointers.find(model_dir) / "variables"))
    names = [name for name in reader.get_variable_to_shape_map() if name.startswith(group)]
    return {name: reader.get_tensor(name) for name in names}


def trained(given, model_dir, images, *, stop=False):
    """Train a run without its report, from where it stopped; `stop` it after its first step."""
    assembly.make_deterministic(given.seed)
    run = run_of.Run(given, assembly.load_data(given, images), tf.distribute.get_strategy(), model_dir)
    run.restore()
    if stop:
        with pytest.raises(KeyboardInterrupt, match="Stopped at step 1 of"):
            run.train(lambda share: os.kill(os.getpid(), signal.SIGINT))
    else:
        run.train()
    return run


def assert_same_bits(one, other):
    for group in ("model", "optimizer", "average"):
        mine, theirs = values(one, group), values(other, group)
        assert mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_a_frozen_backbone_keeps_the_run_it_started_from(base, images, tmp_path, lines):
    given = recipe(init=str(base), freeze="backbone")
    assert (given.name, given.model, given.act) == ("finetune", "resnet8-w8", "swish")
    run = trained(given, tmp_path / "run", images)
    said = "\n".join(lines())
    assert f"Starting from the weights of {base}: a new head tells its 3 classes apart." in said
    assert "The backbone is frozen: 99 of 19,227 values are trained." in said
    before, after = values(base), values(tmp_path / "run")
    assert before.keys() == after.keys()
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert {name.split("/")[1] for name in moved} == {"linear.Skernel", "linear.Sbias"}
    assert run.start.kept == {"architecture": None, "new_head": True}


def test_a_run_is_complete_without_what_it_started_from(base, images, tmp_path):
    """Stopped, and gone on with after the weights are gone: the same bits as in one go; and it is evaluated."""
    copy = shutil.copytree(base, tmp_path / "base")
    given = recipe(init=str(copy), epochs=1)
    trained(given, tmp_path / "whole", images)
    trained(given, tmp_path / "run", images, stop=True)
    shutil.rmtree(copy)
    report = experiment.train(given, tmp_path / "run", data_dir=images)
    assert_same_bits(tmp_path / "whole", tmp_path / "run")
    assert report["recipe"]["init"] == str(copy) and report["evaluations"][0]["count"] == 12
    again = experiment.evaluate({"eval_attacks": "clean"}, model_dir=tmp_path / "run", data_dir=images)
    assert again["evaluations"][0]["correct"] == report["evaluations"][0]["correct"]


def test_weights_of_the_same_classes_keep_their_head(base, lines):
    given = hparams.choose({"init": str(base), "dataset": "synthetic", "act": "relu"})
    dataset = assembly.load_data(given, None)
    names = checkpoints.open_checkpoint(base, {}).classes
    dataset = dataclasses.replace(dataset, classes=tuple(names))
    start = starting.begun(given, dataset, 32)
    source = checkpoints.open_checkpoint(base, {}).load()
    assert not start.new_head and start.model.get_layer("linear").get_weights()[0].shape == (32, 10)
    for mine, theirs in zip(start.model.variables, source.variables, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert lines()[-1] == f"Starting from the weights of {base}: with its own head."


def test_other_weights_are_told_apart():
    source, target = models.build("resnet8-w8", "smoothrelu", 10), models.build("resnet8-w8", "swish", 3)
    starting.take_over(source, target, new_head=True, init="x", by_name=saving.by_path)
    np.testing.assert_array_equal(target.get_layer("conv0").kernel, source.get_layer("conv0").kernel)
    with pytest.raises(ValueError, match="Expected weights of resnet8-w8. Received: init=x, which differs: .*linear"):
        starting.take_over(source, target, new_head=False, init="x", by_name=saving.by_path)


def small(end=None, classes=3):
    layers = [keras.Input((32, 32, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 5, strides=4)]
    layers += [keras.layers.BatchNormalization(), keras.layers.ReLU(), keras.layers.Dropout(0.1)]
    return keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(classes, activation=end)])


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Return a user's own file, of three classes, grey levels and a softmax."""
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("own") / "my.keras"
    small("softmax").save(path)
    return path


def test_a_file_is_evaluated_without_a_run(own, images, lines, capsys):
    report = experiment.evaluate({"eval_attacks": "clean,pgd-2"}, checkpoint=own, data_dir=images)
    said = "\n".join(lines())
    assert "does not name its classes; its outputs are taken for those of the data in their order: ant, bee" in said
    assert "is left out: what counts are logits" in said and "from 0 to 255, as its first layers want" in said
    clean, attacked = report["evaluations"]
    model, test = keras.saving.load_model(own), assembly.load_data(recipe(model=str(own)), images).test
    batches = data.evaluation_batches(test, batch_size=12, image_size=32)
    correct = sum(
        int((np.argmax(model.predict(255 * x, verbose=0), -1) == y).sum()) for x, y, *_ in batches.as_numpy_iterator()
    )
    assert clean["correct"] == correct and attacked["epsilon"] == 4 / 255 and report["method"] == "unknown"
    assert (own.with_suffix("") / "evaluations/001/report.md").is_file() and "my.keras" in capsys.readouterr().out


def test_a_file_is_trained_stopped_evaluated_exported(own, images, tmp_path):
    copy = shutil.copyfile(own, tmp_path / "my.keras")
    given = recipe(model=str(copy), average_decay=0.5, epochs=1)
    assert (given.act, given.init) == ("own", None)
    trained(given, tmp_path / "whole", images)
    trained(given, tmp_path / "run", images, stop=True)
    copy.unlink()
    trained(given, tmp_path / "run", images)
    assert_same_bits(tmp_path / "whole", tmp_path / "run")
    experiment.evaluate({"eval_attacks": "clean"}, model_dir=tmp_path / "run", data_dir=images)
    experiment.export({}, model_dir=tmp_path / "run", data_dir=images, formats=["saved_model", "keras"])
    (exported,) = (tmp_path / "run/export").glob("*")
    x = np.random.default_rng(0).random([2, 32, 32, 3], np.float32)
    model = keras.saving.load_model(exported / "model.keras")
    loaded = tf.saved_model.load(str(exported / "saved_model/1"))
    logits = loaded.signatures["serving_default"](images=tf.constant(x))["logits"]
    np.testing.assert_allclose(model(x, training=False), logits, atol=1e-5)


def test_a_new_head_on_a_file_and_its_plan(own, images, tmp_path, lines):
    path = tmp_path / "seven.keras"
    small(classes=7).save(path)
    with pytest.raises(ValueError, match="with the 3 classes of the data. Received: .* with 7. --init=.* a new head"):
        experiment.train(recipe(model=str(path)), tmp_path / "without", data_dir=images)
    given = recipe(init=str(path), epochs=1)
    plan = experiment.plan(given, data_dir=images, images_per_second=10)
    assert plan["parameters"] == f"{4 * 75 + 4 + 8 + 4 * 7 * 7 * 3 + 3}" and "3 classes, 32 x 32" in plan["model"]
    run = trained(given, tmp_path / "run", images)
    assert any("a new head of 3 classes is in the place of 7 outputs" in line for line in lines())
    assert run.start.new_head and run.state.model.output_shape == (None, 3)
    path.unlink()
    found = checkpoints.open_checkpoint(tmp_path / "run", {})
    x = np.random.default_rng(0).random([2, 32, 32, 3], np.float32)
    np.testing.assert_array_equal(found.load()(x, training=False), run.state.model(x, training=False))


FUNCTION = """
import keras


def build(act, classes, image_size):
    layers = [keras.Input((image_size, image_size, 3)), keras.layers.Conv2D(4, 5, strides=4), act("first")]
    return keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(classes)])
"""


def test_a_function_is_trained_with_any_activation(images, tmp_path):
    file = tmp_path / "my_models.py"
    file.write_text(FUNCTION)
    given = recipe(model=f"{file}:build", epochs=1, learning_rate=0.01)
    assert given.act == "swish" and given.image_size is None
    whole = trained(given, tmp_path / "whole", images)
    trained(given, tmp_path / "run", images, stop=True)
    trained(given, tmp_path / "run", images)
    assert_same_bits(tmp_path / "whole", tmp_path / "run")
    file.unlink()  # Keras' own layers and ours: the checkpoint has them all
    model = checkpoints.open_checkpoint(tmp_path / "run", {}).load()
    x = np.random.default_rng(0).random([2, 32, 32, 3], np.float32)
    np.testing.assert_array_equal(model(x, training=False), whole.state.model(x, training=False))
    assert isinstance(model.get_layer("first"), activations.Swish)


def test_radii_mean_the_same_with_a_rescaling_inside(own):
    """A twin without the Rescaling and on [0, 1]: the same answers under the same attack."""
    made = networks.classifier(networks.read(own))
    inner = keras.saving.load_model(own)
    x = tf.random.stateless_uniform([12, 32, 32, 3], [0, 1])
    twin = keras.Sequential([keras.Input((32, 32, 3)), *inner.layers[1:]])  # without its Rescaling
    twin.layers[-1].activation = keras.activations.linear
    labels = tf.argmax(twin(x, training=False), -1, tf.int32)
    found = []
    for model in (made.model, twin):
        attacker = evaluate.Attacker(model, batch_size=12)
        examples = evaluate.Examples(images=x.numpy(), labels=labels.numpy())
        found.append(attacker.attack(examples, "pgd-3", epsilon=8 / 255).robust)
    np.testing.assert_array_equal(*found)
