"""Every architecture x what the project promises of it: size, sites, graphs, restoring, exports, two replicas."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from sat_tf import attacks, cost, efficientnet, methods, models, optim, preprocess, resnet, saving, train
from sat_tf.export import formats

EAGER = True

ONE_OF_EACH_KIND = ("resnet8-w8", "wrn-10-1", "resnet50", "resnext50-32x4d", "efficientnet-b0", "efficientnet-lite0")
IMAGES = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
LABELS = np.arange(4, dtype=np.int32)

TRAINED = {  # parameters: with ten classes for 32-pixel images, else with a thousand
    "resnet2-w8": 322,
    "resnet8-w8": 19_218,
    "resnet14": 172_506,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet20-w8": 68_050,
    "resnet32-w8": 116_882,
    "resnet20-w32": 1_073_962,
    "convnet3": 729_418,
    "preact-resnet18": 11_171_146,
    "wrn-10-1": 77_850,
    "wrn-28-10": 36_479_194,
    "wrn-34-10": 46_160_474,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50-32x4d": 25_028_904,
    "resnext50-32x8d": 48_021_800,
    "resnext152-32x8d": 122_372_392,
    "efficientnet-b0": 5_288_548,
    "efficientnet-b1": 7_794_184,
    "efficientnet-b2": 9_109_994,
    "efficientnet-b3": 12_233_232,
    "efficientnet-b4": 19_341_616,
    "efficientnet-b5": 30_389_784,
    "efficientnet-b6": 43_040_704,
    "efficientnet-b7": 66_347_960,
    "efficientnet-b8": 87_413_142,
    "efficientnet-l1": 272_630_564,
    "efficientnet-l2": 480_309_308,
    "efficientnet-lite0": 4_652_008,
    "efficientnet-lite1": 5_416_680,
    "efficientnet-lite2": 6_092_072,
    "efficientnet-lite3": 8_197_096,
    "efficientnet-lite4": 13_006_568,
}
SITES = {
    "resnet2-w8": 1,
    "resnet8-w8": 7,
    "resnet14": 13,
    "resnet20": 19,
    "resnet32": 31,
    "resnet20-w8": 19,
    "resnet32-w8": 31,
    "resnet20-w32": 19,
    "convnet3": 3,
    "preact-resnet18": 16,
    "wrn-10-1": 7,
    "wrn-28-10": 25,
    "wrn-34-10": 31,
    "resnet50": 49,
    "resnet101": 100,
    "resnet152": 151,
    "resnext50-32x4d": 49,
    "resnext50-32x8d": 49,
    "resnext152-32x8d": 151,
}
MULTIPLY_ADDS = {  # at each model's own size: the literature's count, and how far it was rounded
    "resnet20": (40.6e6, 0.01),
    "preact-resnet18": (0.56e9, 0.01),
    "wrn-28-10": (5.24e9, 0.01),
    "resnet50": (4.09e9, 0.01),
    "resnext50-32x4d": (4.23e9, 0.01),
    "efficientnet-b0": (0.39e9, 0.05),  # Tan & Le 2019, Table 2; its B4 has 4.2e9, all counts since 4.4e9
    "efficientnet-b1": (0.70e9, 0.05),
    "efficientnet-b2": (1.0e9, 0.05),
    "efficientnet-b3": (1.8e9, 0.05),
    "efficientnet-b4": (4.2e9, 0.05),
    "efficientnet-b5": (9.9e9, 0.05),
    "efficientnet-b6": (19e9, 0.05),
    "efficientnet-b7": (37e9, 0.05),
}


DEEP = {  # networks of many equal blocks, each with the one of its family that has the fewest
    **dict.fromkeys(("resnet101", "resnet152"), "resnet50"),
    **dict.fromkeys(("resnext50-32x8d", "resnext152-32x8d"), "resnext50-32x4d"),
    **{
        name: "efficientnet-lite0" if variant.lite else "efficientnet-b0"
        for name, variant in efficientnet.VARIANTS.items()
        if name not in ("efficientnet-b0", "efficientnet-lite0")
    },
}


class Marked(keras.layers.Layer):
    """An activation whose operation nothing else has."""

    def call(self, inputs):
        return tf.atan(inputs)


class Network:
    """An architecture without weights, and the activations that its factory was asked for."""

    def __init__(self, name):
        self.name, self.made = name, []
        self.classes = 10 if models.image_size(name) <= 32 else 1000
        with cost.weightless():
            self.model = models.build(name, self.act, self.classes)

    def act(self, name):
        self.made.append(Marked(name=name))
        return self.made[-1]

    def traced(self, training):
        """Return logits and operations of a graph in which the weights are given from outside, as the images are."""
        with tf.Graph().as_default() as graph:
            images = tf.compat.v1.placeholder(tf.float32, [None, 32, 32, 3])
            trained, kept = (
                [tf.compat.v1.placeholder(variable.dtype, variable.shape) for variable in variables]
                for variables in (self.model.trainable_variables, self.model.non_trainable_variables)
            )
            logits, _ = self.model.stateless_call(trained, kept, images, training=training)
        return logits, [operation.type for operation in graph.get_operations()]


@pytest.fixture(scope="module", params=models.MODELS)
def network(request):
    """Build every architecture once; the largest would have two gigabytes of weights."""
    yield Network(request.param)
    keras.utils.clear_session(free_memory=False)  # these networks are small, and a collection takes longer than them


def sites_of(name):
    """Return how many sites an architecture has; an EfficientNet by Tan & Le's Table 1."""
    if name in SITES:
        return SITES[name]
    variant = efficientnet.VARIANTS[name]
    repeats = [int(np.ceil(variant.depth * number)) for number in (1, 2, 2, 3, 3, 4, 1)]
    if variant.lite:  # first and last stage are not repeated
        repeats[0] = repeats[-1] = 1
    blocks, expanded = sum(repeats), sum(repeats) - repeats[0]
    return 2 + expanded + blocks + (0 if variant.lite else blocks)


def test_every_model_is_counted():
    assert set(TRAINED) == set(models.MODELS) and set(SITES) == set(resnet.VARIANTS)
    assert (sites_of("efficientnet-b0"), sites_of("efficientnet-b1")) == (2 + 15 + 16 + 16, 2 + 21 + 23 + 23)


def test_parameters_and_operations(network):
    assert cost.parameters(network.model) == TRAINED[network.name]
    said = float(models.MODELS[network.name].about.partition(" million parameters")[0])
    assert said == pytest.approx(TRAINED[network.name] / 1e6, rel=0.05)
    assert network.model.output_shape == (None, network.classes)
    if network.name in MULTIPLY_ADDS:
        wanted, rounded = MULTIPLY_ADDS[network.name]
        found = cost.forward_flops(network.model, models.image_size(network.name)) / 2
        assert found == pytest.approx(wanted, rel=rounded)


def test_every_site_uses_the_chosen_activation_and_the_batch_stays_open(network, traced_kinds):
    """A recording factory counts the sites, and no other nonlinearity is left but the gates of squeeze-excite.

    A deep network has no layer of a kind that the shallowest of its family, which is traced, has not.
    """
    sites, made = sites_of(network.name), network.made
    assert len(made) == sites == len({layer.name for layer in made})
    assert all(layer in network.model.layers and len(layer._inbound_nodes) == 1 for layer in made)
    gates = 0
    if network.name in efficientnet.VARIANTS:
        gates = sum(block.squeezed > 0 for block in efficientnet.sizes(network.name)[1])
    if network.name in DEEP:
        layers = network.model.layers
        assert {kind_of(layer) for layer in layers} <= traced_kinds(DEEP[network.name])
        assert sum(getattr(layer, "activation", None) is keras.activations.sigmoid for layer in layers) == gates
        assert network.model.output.dtype == "float32"
        return
    for training in (False, True):
        logits, operations = network.traced(training)
        assert logits.shape.as_list() == [None, network.classes] and logits.dtype == tf.float32
        assert operations.count("Atan") == sites and operations.count("Sigmoid") == gates
        assert not set(operations) & {"Relu", "Tanh", "Elu", "Softplus", "Selu", "Erf", "Relu6"}


@pytest.fixture(scope="module")
def traced_kinds():
    """Return a function that gives the kinds of layers of a network by its name."""
    return functools.cache(lambda name: {kind_of(layer) for layer in Network(name).model.layers})


def kind_of(layer):
    """Return a layer's class with every word and choice of its configuration; sizes and rates are no part of it."""
    config = layer.get_config()
    words = {
        key: value for key, value in config.items() if key != "name" and isinstance(value, (str, bool, type(None)))
    }
    return type(layer), tuple(sorted(words.items(), key=str))


def test_variables_have_unique_paths(network):
    paths = [variable.path for variable in network.model.variables]
    assert len(paths) == len(set(paths))


def shallow(name):
    """Build an architecture with weights and with few of its blocks: those left out repeat those that are there."""
    changes = ((resnet.BOTTLENECK_VARIANTS, {"blocks": (2, 1)}), (efficientnet.VARIANTS, {"width": 0.25}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(efficientnet.scaling, "_STAGES", [(1, 3, 1, 1, 16), (1, 3, 2, 6, 24), (1, 5, 1, 6, 24)])
        for variants, change in changes:
            if name in variants:
                patch.setitem(variants, name, dataclasses.replace(variants[name], **change))
        return models.build(name, "swish", 10)


@pytest.fixture(scope="module", params=ONE_OF_EACH_KIND)
def built(request):
    """Build one architecture of each kind."""
    return shallow(request.param)


@pytest.mark.graphs
def test_eager_and_graph_agree_whatever_the_batch(built):
    graph = tf.function(
        lambda x: built(x, training=False), input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.float32)]
    )
    for images in (IMAGES, IMAGES[:1]):
        np.testing.assert_allclose(graph(images), built(images, training=False), rtol=1e-4, atol=1e-5)
    assert graph.experimental_get_tracing_count() == 1


def test_restores(built, tmp_path):
    path = saving.save(tmp_path, {"model": saving.by_path(built)}, {"step": 0})
    other = shallow(built.name)
    assert not np.allclose(other(IMAGES, training=False), built(IMAGES, training=False))
    saving.restore(path, {"model": saving.by_path(other)})
    np.testing.assert_array_equal(other(IMAGES, training=False), built(IMAGES, training=False))


@pytest.mark.graphs
def test_exports(built, tmp_path):
    formats.saved_model(built, 32, tmp_path / "export", preprocess.resize_crop, ())
    reloaded = tf.saved_model.load(tmp_path / "export")
    logits = reloaded.signatures["serving_default"](images=tf.constant(IMAGES))["logits"]
    np.testing.assert_allclose(logits, built(IMAGES, training=False), rtol=1e-5, atol=1e-6)


def test_saves_as_keras_file(built, tmp_path):
    built.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(reloaded(IMAGES, training=False), built(IMAGES, training=False), atol=1e-6)


@pytest.mark.parametrize("name", (pytest.param(ONE_OF_EACH_KIND[0], marks=pytest.mark.graphs), *ONE_OF_EACH_KIND[1:]))
def test_trains_adversarially_on_two_replicas(name, two_replicas):
    with two_replicas.scope():
        model = shallow(name)
        optimizer = optim.sgd(lambda step: tf.constant(0.01), momentum=0.9)
        optimizer.build(model.trainable_variables)
    attack = attacks.PGD(epsilon=4 / 255, step_size=4 / 255, steps=1)
    loop = train.Loop(
        state=train.TrainState(model=model, optimizer=optimizer),
        method=methods.sat(attack),
        strategy=two_replicas,
        batch_size=4,
    )
    batches = tf.data.Dataset.from_tensors((IMAGES, LABELS)).repeat().unbatch().batch(2, drop_remainder=True)
    data = two_replicas.distribute_datasets_from_function(lambda context: batches)
    ((_, metrics),) = loop.run(data, until=1)
    assert np.isfinite(list(metrics.values())).all()
