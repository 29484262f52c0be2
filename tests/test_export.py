"""Exports: every format opened by its consumer elsewhere, the signatures, and requests that make no sense."""

import contextlib
import json
import pathlib
import struct
import subprocess
import sys
import types
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from sat_tf import activations, attacks, export, layers, losses, models, preprocess
from sat_tf.export import card, formats, parity
from sat_tf.resnet.small import Subsample
from sat_tf.serving import client

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, [20, 40, 36, 3], np.uint8)
ENCODED = [tf.io.encode_png(photo).numpy() for photo in IMAGES]
IMAGES = np.stack([preprocess.resize_crop(tf.constant(photo), 32).numpy() for photo in IMAGES])
LABELS = np.arange(20, dtype=np.int32) % 10
ATTACK = {"epsilon": 2 / 255, "step_size": 0.5 / 255, "steps": 10, "count": 18}
FACTS = {
    "model": "resnet2-w8",
    "act": "smoothrelu",
    "method": "sat",
    "weights": "raw",
    "checkpoint": "run/step-1",
    "step": 1,
    "image_size": 32,
    "classes": [f"class {i}" for i in range(10)],
    "preprocess": "resize_crop",
    "trained": "by a test",
    "trained_on": "toys",
    "formats": list(export.FORMATS),
    "recipe": {"epochs": "7"},
    "published": None,
    "created": "now",
    "command": "main",
    "versions": {"keras": keras.__version__},
}
EVALUATIONS = [
    {
        "attack": "pgd-20",
        "norm": "linf",
        "epsilon": 8 / 255,
        "step_size": 1 / 255,
        "restarts": 1,
        "iterates": "final",
        "backward": None,
        "correct": 807,
        "count": 1000,
        "dataset": "toys",
    }
]


def a_model(act="smoothrelu"):
    """Return a small network whose variables are no longer those it began with."""
    model = models.build("resnet2-w8", act, 10)
    rng = np.random.default_rng(1)
    for variable in model.variables:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        if variable.name == "raw":
            variable.assign(rng.uniform(2, 25, variable.shape))
    return model


def one_of_everything():
    """Return a small network with every convolution, a shortcut and every activation, and inputs for it."""
    inputs = keras.Input((None, None, 3), name="images")
    x = layers.ConvNorm(8, 7, strides=2, padding="symmetric", name="stem")(inputs)
    x = layers.DepthwiseConvNorm(3, name="depthwise")(layers.ConvNorm(8, 3, 2, 4, "symmetric", name="grouped")(x))
    x = keras.layers.Add()([layers.ConvNorm(16, 3, 2, name="strided")(x), Subsample(16, name="shortcut")(x)])
    x = keras.layers.Rescaling(60.0)(x)  # as far as exponentials overflow
    each = [activations.factory(name)(f"a_{name}")(x) for name in activations.ACTIVATIONS]
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Concatenate()(each))
    return keras.Model(inputs, keras.layers.Dense(5, name="linear")(x))


@contextlib.contextmanager
def no_progress(what, total):
    yield types.SimpleNamespace(update=lambda number: None)


def write(model, directory, **changes):
    options = {
        "facts": FACTS,
        "recipe": {"epochs": 7},
        "attack": ATTACK,
        "evaluations": EVALUATIONS,
        "examples": (IMAGES, LABELS, ENCODED, "twenty images"),
        "preprocess": preprocess.resize_crop,
        "progress": no_progress,
    }
    return export.write(model, directory, **{**options, **changes})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return a model, the folder of its export in all formats, and its parity."""
    model, folder = a_model(), tmp_path_factory.mktemp("export") / "step-1"
    labels = model(IMAGES, training=False).numpy().argmax(-1)
    return model, folder, write(model, folder, examples=(IMAGES, labels, ENCODED, "twenty images"))


def test_every_consumer_answers_as_the_model(written):
    _, folder, result = written
    assert list(result["formats"]) == ["saved_model", "keras", "litert", "onnx"]
    for name, row in result["formats"].items():
        assert row["passed"] and row["difference"] < 1e-5 and row["same_classes"] == row["images"] == 20, name
    saved = result["formats"]["saved_model"]
    assert saved["encoded_difference"] < 1e-5 and saved["encoded_same_classes"] == 20
    assert saved["robust_model"] == saved["robust_export"] and saved["attacked"] == 18
    assert json.loads((folder / "parity.json").read_text()) == result
    assert [path.name for path in folder.parent.iterdir()] == ["step-1"]


def test_attack_through_the_gradient_is_pgd(written, tmp_path):
    """What consumers climb gives the accuracy of the project's own attack from the clean images."""
    model = written[0]
    *_, answers = parity.prepare(model, tmp_path, (IMAGES, LABELS, ENCODED), ATTACK)
    attack = attacks.PGD(epsilon=2 / 255, step_size=0.5 / 255, steps=10, random_start=False)
    images, labels = tf.constant(IMAGES[:18]), tf.constant(LABELS[:18])
    adversarial = attack(lambda x: losses.cross_entropy(model(x, training=False), labels), images, 0)
    wanted = model(adversarial, training=False)
    np.testing.assert_allclose(answers["attacked"], wanted, rtol=0.05, atol=0.02 * np.abs(wanted).max())


def test_what_lies_in_the_folder(written):
    folder = written[1]
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {
        "README.md",
        "parity.json",
        "export.json",
        "recipe.json",
        "classes.txt",
        "model.keras",
        "model.tflite",
        "model.onnx",
        "saved_model/1/saved_model.pb",
        "saved_model/1/assets/classes.txt",
        "saved_model/1/assets/recipe.json",
        "saved_model/1/assets.extra/README.md",
    } <= names
    assert (folder / "classes.txt").read_text().splitlines() == FACTS["classes"]
    assert json.loads((folder / "recipe.json").read_text()) == {"epochs": 7}
    facts = json.loads((folder / "export.json").read_text())
    assert facts["weights"] == "raw" and facts["evaluations"] == EVALUATIONS


def test_the_card_says_what_where_and_how_good(written):
    text = (written[1] / "README.md").read_text()
    for phrase in (
        "resnet2-w8 with smoothrelu",
        "80.70 % (807 / 1000)",
        "PGD-20 accuracy (epsilon 8/255",
        "class 9",
        "## Intended use",
        "## Limits",
        "| saved_model | 20 |",
        "Interpreter(",
        "tensorflow/serving",
    ):
        assert phrase in text, phrase
    alone = card.write(
        {
            **FACTS,
            "formats": ["onnx"],
            "published": {
                "name": "Res50-silu",
                "dataset": "ImageNet validation set",
                "epsilon": 4 / 255,
                "step_size": 1 / 255,
                "image_size": 224,
                "accuracies": {"clean": 0.697},
            },
        },
        [],
        {"attack": ATTACK, "formats": {}, "tolerance": 1e-4, "images": "none"},
    )
    assert "Interpreter(" not in alone and "Not measured" in alone and "clean 69.7 %" in alone


DIFFERENTIATE = """
import sys
for name in ("sat_tf",):
    sys.modules[name] = None
import numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
images = tf.constant(np.load(sys.argv[2]))
with tf.GradientTape() as tape:
    tape.watch(images)
    logits = model.signatures["serving_default"](images=images)["logits"]
    top = tf.reduce_sum(tf.reduce_max(logits, -1))
np.savez(sys.argv[3], logits=logits, gradient=tape.gradient(top, images))
"""


def test_a_reloaded_savedmodel_can_be_differentiated_elsewhere(tmp_path):
    """Every activation is in it: those with a gradient of their own, and SmoothReLU with its variable."""
    model = one_of_everything()
    formats.saved_model(model, 32, tmp_path / "model", preprocess.resize_crop, ())
    np.save(tmp_path / "images.npy", IMAGES)
    subprocess.run(
        [sys.executable, "-I", "-c", DIFFERENTIATE, tmp_path / "model", tmp_path / "images.npy", tmp_path / "out.npz"],
        check=True,
        cwd=tmp_path,
        capture_output=True,
    )
    out, images = np.load(tmp_path / "out.npz"), tf.constant(IMAGES)
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = model(images, training=False)
        top = tf.reduce_sum(tf.reduce_max(logits, -1))
    np.testing.assert_allclose(out["logits"], logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out["gradient"], tape.gradient(top, images), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["litert", "onnx"])
def test_converters_know_every_activation_and_convolution(name, tmp_path):
    model = one_of_everything()
    formats.FORMATS[name](model, 32, tmp_path / "model", preprocess.resize_crop, ())
    *_, wanted = parity.prepare(model, tmp_path, (IMAGES, LABELS % 5, ENCODED), {**ATTACK, "count": 1})
    found = parity.ask(name, tmp_path / "model", tmp_path, lambda number: None)
    assert parity.compare(wanted, found, LABELS)["passed"]


def png(width, height):
    """Return a PNG whose head claims some sides."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


JPEG = tf.io.encode_jpeg(IMAGES[0]).numpy()
CONTENTS = {  # encoded images that are none, and what the error says
    "empty": (b"", "bytes of a JPEG or PNG"),
    "text": (b"hello" * 20, "bytes of a JPEG or PNG"),
    "GIF": (b"GIF89a" + bytes(99), "bytes of a JPEG or PNG"),
    "cut JPEG": (JPEG[: len(JPEG) // 2], "JPEG"),
    "head of a JPEG": (JPEG[:3], "whole file"),
    "cut PNG": (ENCODED[0][:80], "PNG"),
    "head of a PNG": (ENCODED[0][:18], "whole file"),
    "beginning of a PNG": (ENCODED[0][:8], "whole file"),
    "huge": (png(60000, 60000), "at most 67108864 pixels"),
    "strip": (png(60000, 10), "100 times the short one"),
    "no pixels": (png(0, 10), "with pixels"),
    "negative": (png(2**32 - 5, 100), "with pixels"),
}
IMAGE_ARRAYS = {  # images that are none, and what the error says
    "NaN": (np.full([1, 32, 32, 3], np.nan), "finite pixels"),
    "8-bit": (IMAGES[:1] * 255, "divide 8-bit values"),
    "infinite": (np.full([1, 32, 32, 3], np.inf), "finite pixels"),
    "negative": (IMAGES[:1] - 1, "finite pixels"),
    "wrong size": (np.zeros([1, 64, 64, 3]), "not compatible"),
    "wrong rank": (np.zeros([32, 32, 3]), "not compatible"),
    "grey": (np.zeros([1, 32, 32, 1]), "not compatible"),
    "none": (np.zeros([0, 32, 32, 3]), "at least one image"),
}


@pytest.fixture(scope="module")
def served(written):
    model = tf.saved_model.load(written[1] / "saved_model" / "1")
    yield model.signatures
    del model  # kept until here: signatures alone do not keep its variables alive


def still_serves(served, model):
    answer = served["image_bytes"](image_bytes=tf.constant([ENCODED[0], JPEG]))
    np.testing.assert_allclose(answer["logits"][0], model(IMAGES[:1], training=False)[0], rtol=1e-4, atol=1e-5)
    assert answer["classes"].dtype == tf.int32 and answer["probabilities"].shape == (2, 10)


@pytest.mark.parametrize("content", CONTENTS)
def test_a_malformed_image_is_an_error_of_its_request(content, served, written):
    data, says = CONTENTS[content]
    with pytest.raises(tf.errors.InvalidArgumentError, match=says):
        served["image_bytes"](image_bytes=tf.constant([ENCODED[0], data]))
    still_serves(served, written[0])


@pytest.mark.parametrize("array", IMAGE_ARRAYS)
@pytest.mark.parametrize("signature", ["serving_default", "input_gradient"])
def test_malformed_arrays_are_errors_of_their_request(array, signature, served, written):
    values, says = IMAGE_ARRAYS[array]
    labels = {"labels": tf.zeros(len(values), tf.int32)} if signature == "input_gradient" else {}
    with pytest.raises(tf.errors.InvalidArgumentError, match=says):
        served[signature](images=tf.constant(values, tf.float32), **labels)
    still_serves(served, written[0])


def test_the_local_server_serves_an_export(written):
    """Over REST, as TensorFlow Serving would: images, an error for a request that makes no sense, gradients."""
    command = [sys.executable, "-m", "sat_tf.serving.server", f"--model={written[1] / 'saved_model'}", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            asked = client.Client(server.stdout.readline().split()[-1])
            for data, says in CONTENTS.values():
                with pytest.raises(client.ServingError, match=says) as caught:
                    asked.classify([data])
                assert caught.value.status == 400
            answer = asked.classify([ENCODED[0], JPEG])
            np.testing.assert_allclose(answer["logits"][0], written[0](IMAGES[:1], training=False)[0], rtol=1e-3)
            with pytest.raises(client.ServingError, match="finite pixels"):
                asked.gradient(IMAGES[:1] * np.nan, [3])
            with pytest.raises(client.ServingError, match="shape"):
                asked.predict({"images": IMAGES[0]})
            assert np.shape(asked.gradient(IMAGES[:1], [3])["gradient"]) == (1, 32, 32, 3)
        finally:
            server.terminate()


@pytest.mark.parametrize(
    "labels,says", [([10], "labels from 0 to 9"), ([-1], "labels from 0 to 9"), ([1, 2], "one label an image")]
)
def test_labels_that_can_not_be(labels, says, served):
    with pytest.raises(tf.errors.InvalidArgumentError, match=says):
        served["input_gradient"](images=tf.constant(IMAGES[:1]), labels=tf.constant(labels))


def test_gradient_is_that_of_the_cross_entropy(served, written):
    images, labels = tf.constant(IMAGES[:3]), tf.constant([1, 2, 3])
    answer = served["input_gradient"](images=images, labels=labels)
    loss_fn = lambda x: losses.cross_entropy(written[0](x, training=False), labels)  # noqa: E731
    np.testing.assert_allclose(answer["loss"], loss_fn(images), rtol=1e-5)
    wanted = attacks.input_gradient(loss_fn, images).numpy()
    np.testing.assert_allclose(answer["gradient"], wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("size", [1, 2, 7])
def test_any_batch(size, served, written):
    logits = served["serving_default"](images=tf.constant(IMAGES[:size]))["logits"]
    np.testing.assert_allclose(logits, written[0](IMAGES[:size], training=False), rtol=1e-4, atol=1e-5)


def test_evaluation_preprocessing_is_inside(tmp_path):
    """Encoded images of other sides are prepared as the evaluation of EfficientNets does."""
    model = one_of_everything()
    formats.saved_model(model, 64, tmp_path / "model", preprocess.crop_resize, ())
    reloaded = tf.saved_model.load(tmp_path / "model")
    served = reloaded.signatures
    photo = RNG.integers(0, 256, [90, 120, 3], np.uint8)
    content = tf.io.encode_png(photo)
    image = preprocess.crop_resize(content, 64)[tf.newaxis]
    wanted = served["serving_default"](images=image)["logits"]
    np.testing.assert_allclose(served["image_bytes"](image_bytes=content[tf.newaxis])["logits"], wanted, rtol=1e-4)


def test_formats_are_added_to_an_export(tmp_path):
    """What lies there is written anew with the new ones; the same again, or other weights, are refused."""
    assert export.with_present(tmp_path / "export", ["onnx"], "raw") == ["onnx"]
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "export.json").write_text(json.dumps({"formats": ["keras"], "weights": "raw"}))
    assert export.with_present(tmp_path / "export", ["onnx", "keras"], "raw") == ["keras", "onnx"]
    for asked, weights in ((["keras"], "raw"), (["onnx"], "averaged")):
        with pytest.raises(FileExistsError, match="or a format that it lacks. Received: .*export, which exists"):
            export.with_present(tmp_path / "export", asked, weights)


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "export").mkdir()
    with pytest.raises(FileExistsError, match="exists"):
        write(None, tmp_path / "export")
    assert list((tmp_path / "export").iterdir()) == []


def test_an_export_that_answers_otherwise_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    other = a_model("relu")
    monkeypatch.setitem(export.FORMATS, "onnx", lambda model, *rest: formats.onnx(other, *rest))
    with pytest.raises(ValueError, match="answers of the model itself from every format. Received others: onnx: "):
        write(a_model(), tmp_path / "export", facts={**FACTS, "formats": ["onnx"]})
    assert list(tmp_path.iterdir()) == []


def test_parity_sees_differences():
    logits = RNG.normal(size=(20, 10)).astype(np.float32)
    same = {"logits": logits, "attacked": logits[:5]}
    assert parity.compare(same, same, LABELS)["passed"]
    assert not parity.compare(same, {"logits": logits + 0.01}, LABELS)["passed"]
    assert not parity.compare(same, {"logits": logits, "encoded": logits + 0.01}, LABELS)["passed"]
    assert not parity.compare(same, {"logits": logits * np.nan}, LABELS)["passed"]
    labels = logits.argmax(-1)
    assert not parity.compare(same, {"logits": logits, "attacked": -logits[:5]}, labels)["passed"]


def test_a_consumer_that_fails_says_why(tmp_path):
    (tmp_path / "model.onnx").write_text("no model")
    with pytest.raises(OSError, match="consumer of onnx could not run .*model.onnx"):
        parity.ask("onnx", tmp_path / "model.onnx", tmp_path, None)


def test_consumers_can_not_import_this_project():
    """The consumer's file makes an import of ours an error, editable installations included."""
    code = pathlib.Path(parity.consumer.__file__).read_text().replace("main(*sys.argv[1:])", "import sat_tf")
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert "sat_tf" in done.stderr.splitlines()[-1] and "None in sys.modules" in done.stderr


def test_formats_are_checked_before_any_work(monkeypatch):
    export.check(["saved_model", "keras", "litert", "onnx"])
    with pytest.raises(ValueError, match="formats of saved_model, keras, litert, onnx. Received: format=tflite"):
        export.check(["tflite"])
    with pytest.raises(ValueError, match="Received: format="):
        export.check([])
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    export.check(["saved_model", "keras"])
    with pytest.raises(OSError, match=r'onnx: tf2onnx, onnx, onnxruntime. pip install "sat-tf\[export\]"'):
        export.check(["onnx"])
