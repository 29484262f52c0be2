"""The head of a classifier: found, replaced and spared from freezing, whatever the model is built of."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sat_tf import heads, models

IMAGES = tf.random.stateless_uniform([2, 12, 12, 3], [0, 1])


def body(inputs):
    x = keras.layers.Conv2D(4, 3, strides=2, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    return keras.layers.ReLU(name="relu")(x)


def functional(end):
    inputs = keras.Input((12, 12, 3))
    return keras.Model(inputs, end(body(inputs)))


def pooled(x):
    return keras.layers.GlobalAveragePooling2D()(x)


def by_convolution(x):
    x = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = keras.layers.Conv2D(7, 1, name="classes")(x)
    return keras.layers.Softmax()(keras.layers.Reshape([7])(x))


def within(x):
    features = keras.Input(x.shape[1:])
    inner = keras.Model(features, keras.layers.Dense(7, activation="softmax", name="classes")(pooled(features)))
    return inner(x)


ENDS = {  # what a model ends in, and the name of the layer with the weights of its classes
    "dense": (lambda x: keras.layers.Dense(7, name="classes")(pooled(x)), "classes"),
    "dense with softmax": (lambda x: keras.layers.Dense(7, activation="softmax", name="classes")(pooled(x)), "classes"),
    "activation behind": (
        lambda x: keras.layers.Activation("softmax")(keras.layers.Dense(7, name="classes")(pooled(x))),
        "classes",
    ),
    "an operation behind": (lambda x: keras.ops.softmax(keras.layers.Dense(7, name="classes")(pooled(x))), "classes"),
    "convolution": (by_convolution, "classes"),
    "model within": (within, "classes"),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_new_head_takes_the_place_of_the_old_one(end):
    make, name = ENDS[end]
    model = functional(make)
    assert heads.of(model).name == name
    features = keras.Model(model.inputs, model.get_layer("relu").output)(IMAGES)
    renewed = heads.replace(model, 3)
    logits = renewed(IMAGES).numpy()
    head = heads.of(renewed)
    assert logits.shape == (2, 3) and head.name == "head" and renewed.get_layer("conv") is model.get_layer("conv")
    kernel, bias = (np.squeeze(v.numpy()) for v in head.weights)
    np.testing.assert_allclose(logits, np.mean(features, (1, 2)) @ kernel + bias, atol=1e-5)


@pytest.mark.parametrize("end", ["features", "pooled features"])
def test_features_get_a_head(end):
    model = functional(lambda x: x if end == "features" else pooled(x))
    renewed = heads.replace(model, 3)
    assert renewed(IMAGES).shape == (2, 3) and heads.of(renewed).name == "head"
    assert [v.path for v in heads.of(renewed).variables] == ["head/kernel", "head/bias"]


@pytest.mark.parametrize("end", [end for end in ENDS if end not in ("dense",)])
def test_logits_are_what_the_softmax_was_of(end):
    model = functional(ENDS[end][0])
    probabilities = model(IMAGES).numpy()
    stripped, words = heads.logits_of(model)
    assert "softmax" in words
    logits = stripped(IMAGES)
    np.testing.assert_allclose(tf.nn.softmax(logits), probabilities, atol=1e-6)
    assert not np.allclose(logits, probabilities) and heads.logits_of(stripped)[1] is None


def test_a_sequential_model_and_a_sigmoid():
    model = keras.Sequential([keras.Input((12, 12, 3)), keras.layers.Flatten(), keras.layers.Dense(7)])
    assert heads.logits_of(model) == (model, None) and heads.replace(model, 3)(IMAGES).shape == (2, 3)
    model.add(keras.layers.Activation("sigmoid"))
    with pytest.raises(ValueError, match="ends in a sigmoid. Let the model end in one logit a class"):
        heads.logits_of(model)


def test_models_without_one_end_are_refused():
    inputs = keras.Input((12, 12, 3))
    two = keras.Model(inputs, [pooled(inputs), inputs])
    with pytest.raises(ValueError, match="one input and one output. Received: .* with 1 inputs and 2 outputs"):
        heads.replace(two, 3)

    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="Expected a functional or Sequential model. Received: own, a Own"):
        heads.replace(Own(name="own"), 3)


@pytest.mark.parametrize("make", [lambda: functional(ENDS["model within"][0]), lambda: models.build("resnet8-w8")])
def test_a_frozen_backbone_stays_as_it_is(make):
    """Batch normalisation of Keras' own and of ours alike: neither weights nor statistics move in training mode."""
    model = make()
    heads.freeze(model)
    assert {id(v) for v in model.trainable_variables} == {id(v) for v in heads.of(model).variables}
    before = [v.numpy() for v in model.variables]
    images = tf.random.stateless_uniform([2, *(12 if s is None else s for s in model.input_shape[1:3]), 3], [0, 1])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(images, training=True) ** 2)
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    moved = [v.path for v, old in zip(model.variables, before, strict=True) if not np.array_equal(v.numpy(), old)]
    assert sorted(moved) == sorted(v.path for v in heads.of(model).variables)
