"""Networks of others as classifiers of images in [0, 1]: files, functions, applications; what is refused, and how."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sat_tf import activations, networks

IMAGES = tf.random.stateless_uniform([2, 16, 16, 3], [0, 1])


def small(*before, side=16, end=None, classes=4):
    layers = [keras.Input((side, side, 3)), *before, keras.layers.Conv2D(4, 3, strides=2, activation="relu")]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(classes, activation=end)]
    return keras.Sequential(layers)


def test_a_plain_model_answers_as_it_does():
    model = small()
    made = networks.classifier(model)
    np.testing.assert_array_equal(made.model(IMAGES), model(IMAGES))
    assert made.notes == [] and not made.new_head and made.model.input_shape == (None, 16, 16, 3)


def test_grey_levels_softmax_and_augmentation_are_seen():
    model = small(keras.layers.RandomFlip(), keras.layers.Rescaling(1 / 255), end="softmax")
    probabilities = model(255 * IMAGES, training=False)
    made = networks.classifier(model)
    np.testing.assert_allclose(tf.nn.softmax(made.model(IMAGES, training=False)), probabilities, atol=1e-5)
    assert made.notes[0].startswith("the softmax of dense") and made.notes[1].startswith("it is given values from 0 to")
    assert networks.value_range_of(small(keras.layers.Rescaling(2.0, -1.0))) == (0, 1)


def test_a_stated_range_wins():
    model = small()
    made = networks.classifier(model, value_range=(-1, 1))
    np.testing.assert_allclose(made.model(IMAGES), model(2 * IMAGES - 1), atol=1e-6)


def test_a_new_head_a_size_and_models_within():
    features = keras.Sequential([keras.layers.Conv2D(4, 3), keras.layers.ReLU()])
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(features(inputs))))
    made = networks.classifier(model, image_size=16, classes=3)
    assert made.new_head and made.model(IMAGES).shape == (2, 3) and made.model.input_shape == (None, 16, 16, 3)
    assert not any(isinstance(layer, keras.Model) for layer in made.model.layers)
    assert networks.classifier(model, classes=4).new_head is False


def test_half_precision_ends_in_float32():
    with_policy = keras.dtype_policies.DTypePolicy("mixed_float16")
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, dtype=with_policy)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(4, dtype=with_policy)(x))
    assert networks.classifier(model).model(IMAGES).dtype == "float32"


def test_a_subclassed_model():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.pool, self.dense = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)

        def call(self, x):
            return self.dense(self.pool(x))

    made = networks.classifier(Own(), image_size=16)
    assert made.model(IMAGES).shape == (2, 4) and len(made.model.trainable_variables) == 2
    assert networks.settled(made.model) == (made.model, None)


def two_inputs():
    one, other = keras.Input((16, 16, 3)), keras.Input((16, 16, 3))
    return keras.Model([one, other], keras.layers.Dense(4)(keras.layers.Flatten()(one + other)))


def two_outputs():
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Flatten()(inputs)
    return keras.Model(inputs, [keras.layers.Dense(4)(x), keras.layers.Dense(2)(x)])


def of_shape(*shape, dtype="float32"):
    inputs = keras.Input(shape, dtype=dtype)
    x = keras.layers.Rescaling(1.0)(inputs)
    return keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(x)))


@pytest.mark.parametrize(
    "make,words",
    [
        (two_inputs, "one input, images. Received: .* with 2 inputs"),
        (two_outputs, "one input and one output. Received: .* with 1 inputs and 2 outputs"),
        (lambda: of_shape(16, 16, 1), r"RGB images \[batch, h, w, 3\]. Received: .* which takes \[any, 16, 16, 1\]"),
        (lambda: of_shape(16, 8, 3), r"square images. Received: .* which takes \[any, 16, 8, 3\]"),
        (lambda: of_shape(16, 16, 3, dtype="uint8"), "images of floats.* which takes uint8. Let it begin with"),
        (lambda: small(classes=1), r"whose output is \[any, 1\]. Two classes with one logit z"),
        (lambda: small(end="sigmoid"), "Expected logits. Received: dense.*, which ends in a sigmoid"),
    ],
)
def test_what_is_no_classifier_of_images_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        networks.classifier(make())


def test_an_architecture_is_rebuilt_with_its_variables_in_order():
    inner = [keras.Sequential([keras.layers.Conv2D(3, 3, name="conv")]) for _ in range(2)]  # of the same paths
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(inner[1](inner[0](inputs)))))
    made = networks.classifier(model).model
    settled, text = networks.settled(made)
    np.testing.assert_allclose(settled(IMAGES), made(IMAGES), atol=1e-6)
    again = networks.rebuilt(text)
    for variable, value in zip(again.variables, settled.variables, strict=True):
        variable.assign(value)
    np.testing.assert_array_equal(again(IMAGES), settled(IMAGES))


def test_no_code_is_run_from_a_file(tmp_path):
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Lambda(lambda x: 2 * x)(inputs)
    keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(x))).save(tmp_path / "lambda.keras")
    with pytest.raises(OSError, match="code that is not Keras' own, which is never run from a file.*--model=FILE.py:"):
        networks.read(tmp_path / "lambda.keras")

    class Strange(keras.layers.Layer):
        def call(self, x):
            return x

    small(Strange()).save(tmp_path / "strange.keras")
    with pytest.raises(OSError, match="code that is not Keras' own"):
        networks.read(tmp_path / "strange.keras")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        networks.read(tmp_path / "none.keras")
    (tmp_path / "damaged.keras").write_text("no")
    with pytest.raises(OSError, match="cannot be read"):
        networks.read(tmp_path / "damaged.keras")


OWN = """
import beside
import keras


def build(act, classes):
    layers = [keras.Input((16, 16, 3)), keras.layers.Conv2D(beside.WIDTH, 3, name="conv"), act("first"), act()]
    return keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(classes)])


def plain(image_size, width=4):
    return keras.Sequential([keras.Input((image_size, image_size, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])


def anything(**given):
    assert set(given) == {"act", "classes", "image_size"}
    return build(given["act"], given["classes"])


def strange(width):
    return None


def nothing():
    return None


def failing(classes):
    raise RuntimeError("no disk")
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_models.py").write_text(OWN)
    (folder / "beside.py").write_text("WIDTH = 6\n")
    (folder / "wrong.py").write_text("import nothing_of_that_name\n")
    return folder / "my_models.py"


def built(own, name, **changes):
    given = {"act": activations.factory("swish"), "classes": 4, "image_size": 16, **changes}
    return networks.call(f"{own}:{name}", **given)


def test_a_function_gets_what_it_names(own):
    model = built(own, "build", classes=5)
    assert model.output_shape == (None, 5) and model.get_layer("conv").filters == 6
    assert sum(isinstance(layer, activations.Swish) for layer in model.layers) == 2
    assert built(own, "plain").input_shape == (None, 16, 16, 3) and built(own, "anything").output_shape == (None, 4)
    assert networks.takes(f"{own}:build", "act") and not networks.takes(f"{own}:plain", "act")


@pytest.mark.parametrize(
    "name,kind,words",
    [
        ("strange", ValueError, "parameters of act, classes, image_size. Received: .*:strange with width. Give the"),
        ("nothing", ValueError, "Expected a keras.Model from .*:nothing. Received: a NoneType"),
        ("failing", OSError, "my_models.py:failing failed: RuntimeError: no disk"),
        ("buidl", ValueError, "Expected a function of .*my_models.py. Received: model=.*Did you mean build?"),
    ],
)
def test_functions_that_do_not_build_are_refused(own, name, kind, words):
    with pytest.raises(kind, match=words):
        built(own, name)


def test_files_that_can_not_be_run(own):
    with pytest.raises(OSError, match="wrong.py can't be run: ModuleNotFoundError: No module named"):
        built(own.with_name("wrong.py"), "build")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        built(own.with_name("none.py"), "build")


def test_applications_get_images_as_their_weights_want_them(monkeypatch, tmp_path):
    """Each way against Keras' own `preprocess_input`, on a network of one layer in the place of theirs."""

    def make(**asked):
        inputs = keras.Input(asked["input_shape"])
        return keras.Model(inputs, keras.layers.Dense(asked["classes"])(keras.layers.Flatten()(inputs)))

    levels = np.random.default_rng(0).integers(0, 256, [2, 16, 16, 3]).astype(np.float32)
    for name, module in {
        "MobileNetV2": keras.applications.mobilenet_v2,
        "ResNet50": keras.applications.resnet,
        "ResNet50V2": keras.applications.resnet_v2,
        "DenseNet121": keras.applications.densenet,
        "MobileNetV3Small": keras.applications.mobilenet_v3,
        "EfficientNetB0": keras.applications.efficientnet,
    }.items():
        monkeypatch.setattr(keras.applications, name, make)
        model = networks.application(name, classes=4, image_size=16)
        kernel, bias = model.layers[-1].get_weights()
        wanted = module.preprocess_input(levels.copy()).reshape(2, -1) @ kernel + bias
        np.testing.assert_allclose(model(levels / 255), wanted, rtol=1e-4, atol=0.02)


def test_weights_of_applications_that_are_not_there(monkeypatch):
    def make(**asked):
        raise Exception("URL fetch failure on https://example.org/weights.h5: None -- refused\nmore")

    monkeypatch.setattr(keras.applications, "MobileNetV2", make)
    with pytest.raises(
        OSError, match="weights of keras:MobileNetV2 are not in .*models, and could not be downloaded: URL"
    ):
        networks.application("MobileNetV2", classes=4, weights=True)
    with pytest.raises(ValueError, match="Expected a network of keras.applications.*Did you mean MobileNetV2"):
        networks.application("MobilNetV2", classes=4)
    for name in vars(keras.applications):
        if name[0].isupper():
            assert any(name.startswith(start) for start in networks.PREPARED)
