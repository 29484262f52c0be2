"""A model's layers on other images: what is put before them, without models inside models; what they are, in order."""

from collections.abc import Iterator

import keras

Pair = tuple[float, float]


def scaled(images: keras.KerasTensor, value_range: Pair) -> keras.KerasTensor:
    """Return images in [0, 1] as values of a range."""
    low, high = value_range
    return keras.layers.Rescaling(high - low, low, dtype="float32", name="to_value_range")(images)


def again(model: keras.Model, x: keras.KerasTensor, images: keras.KerasTensor) -> keras.Model:
    """Return a functional model `images -> model(x)` that shares the layers of a model, without models inside it."""
    if not is_graph(model):
        return keras.Model(images, model(x), name=model.name)
    try:
        return keras.Model(images, _inlined(model, x), name=model.name)
    except ValueError as error:
        if "unique" not in str(error):
            raise
    return keras.Model(images, model(x), name=model.name)  # layers of one name in models inside it


def _inlined(model, x):
    """Return what a model's layers make of a tensor, those of models inside it one by one.

    A model inside that is called with a fixed `training`, as is usual for a frozen one, stays a model.
    """

    def operation_fn(operation):
        if not (isinstance(operation, keras.Model) and is_graph(operation)):
            return operation
        alone = len(operation.inputs) == len(operation.outputs) == 1

        def call_model(inner, **given):
            fixed = given.get("training") is not None
            return operation(inner, **given) if fixed or not alone else _inlined(operation, inner)

        return call_model

    functional = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return functional._run_through_graph(x, operation_fn=operation_fn)


def is_graph(model: keras.Model) -> bool:
    """Say whether a model knows its layers' connections: a functional one, or a Sequential that is built."""
    return bool(getattr(model, "inputs", None)) and bool(getattr(model, "outputs", None))


def in_order(model: keras.Model) -> Iterator[keras.Layer]:
    """Yield the layers of a model in order, those of models inside it in their place."""
    for layer in model.layers:
        if isinstance(layer, keras.Model) and layer.layers:
            yield from in_order(layer)
        else:
            yield layer


def remember(model: keras.Model, momentum: float) -> None:
    """Let every batch normalisation of Keras' own in a model have a momentum."""
    for layer in in_order(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum
