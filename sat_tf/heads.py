"""The head of a classifier: its last layer with weights, and a new one in its place for other classes."""

from typing import Any

import keras

FLAT = (keras.layers.Flatten, keras.layers.Reshape)
END = (keras.layers.Activation, keras.layers.Softmax, keras.layers.Dropout, *FLAT)  # what may follow a classifier

CLASSIFYING = (keras.activations.linear, keras.activations.softmax, keras.activations.sigmoid)


def of(model: keras.Model) -> keras.layers.Layer:
    """Return the layer that makes logits of features: the last one with weights.

    Raises:
      ValueError: no layer has weights.
    """
    found = [layer for layer in _leaves(model) if layer.weights]
    if not found:
        raise ValueError(f"Expected a model with weights. Received: {model.name}, which has none.")
    last = _last(model)
    return last if last is not None and last.weights else found[-1]


def freeze(model: keras.Model) -> None:
    """Let only the head of a model be trained; batch normalisation before it keeps its statistics."""
    head = of(model)
    for layer in _leaves(model):
        layer.trainable = layer is head and layer.trainable
    for variable in model.trainable_variables:
        if not any(variable is own for own in head.trainable_variables):
            raise ValueError(
                f"Expected a model of layers to freeze its backbone. Received: {model.name}, whose variable "
                f"{variable.path} is of no layer."
            )


def replace(model: keras.Model, classes: int) -> keras.Model:
    """Return a model with a new head for other classes; all other layers are the model's own, weights included.

    A Dense layer, or a convolution whose outputs are the classes, makes room for a new one, with what follows it but a
    softmax. A model that ends in features, as keras.applications have them without their top, gets a Dense layer,
    behind the mean over the positions where features have any.

    Args:
      model: functional or Sequential, with one input and one output.
      classes: number of logits.

    Returns:
      A functional model: the same inputs -> logits `[batch, classes]`, whose layer `of` is the new head.

    Raises:
      ValueError: a model of another kind, or one whose end is not known.
    """
    inputs, output = ends(model)
    return keras.Model(inputs, _renewed(output, classes), name=model.name)


def logits_of(model: keras.Model) -> tuple[keras.Model, str | None]:
    """Return a functional model without the softmax at its end, and that softmax in words; None where it has none.

    The model is changed: a softmax that is the `activation` of its last layer becomes linear.

    Raises:
      ValueError: it ends in another activation of probabilities, a sigmoid.
    """
    inputs, output = ends(model)
    stripped, words = _without_softmax(output)
    return (keras.Model(inputs, stripped, name=model.name), words) if words else (model, None)


def ends(model: keras.Model) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Return a model's one input and its one output.

    Raises:
      ValueError: it has several, or is no functional or Sequential model.
    """
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise ValueError(
            f"Expected a functional or Sequential model. Received: {model.name}, a {type(model).__name__} whose layers "
            "are not known before it is called. Let it end in as many logits as there are classes."
        )
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            f"Expected a model with one input and one output. Received: {model.name} with {len(inputs)} inputs and "
            f"{len(outputs)} outputs."
        )
    return inputs[0], outputs[0]


def _operation(tensor):
    return tensor._keras_history.operation


def _input_of(operation, tensor):
    """Return the one tensor that an operation made another of."""
    node = operation._inbound_nodes[tensor._keras_history.node_index]
    if len(node.input_tensors) != 1:
        raise ValueError(
            f"Expected a model that ends in one classifier. Received: {operation.name}, which joins "
            f"{len(node.input_tensors)} tensors."
        )
    return node.input_tensors[0]


def _renewed(output, classes):
    """Return the logits of a new head in the place of the one that made `output`."""
    after, tensor = [], output
    while True:
        operation = _operation(tensor)
        before = None if isinstance(operation, keras.layers.InputLayer) else _input_of(operation, tensor)
        if isinstance(operation, keras.Model):
            inner = replace(operation, classes)
            return _followed(inner(before), after)
        if isinstance(operation, keras.layers.Dense):
            return _followed(_dense(operation, classes)(before), after)
        if isinstance(operation, keras.layers.Conv2D) and after and operation.activation in CLASSIFYING:
            return _followed(_convolution(operation, classes)(before), after)
        if not (_is_end(operation) or _is_pooling(operation)) or before is None:
            return _upon(output, classes)
        after.insert(0, operation)
        tensor = before


def _is_pooling(operation):
    return isinstance(operation, (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D))


def _is_end(operation):
    known = isinstance(operation, END) or type(operation).__name__ == "Softmax"
    return known and getattr(operation, "activation", None) in (None, *CLASSIFYING)


def _upon(features, classes):
    """Return the logits of a Dense layer on features."""
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D(name="features")(features)
    if len(features.shape) != 2:
        raise ValueError(f"Expected features [batch, n] or [batch, h, w, n]. Received: shape={features.shape}.")
    return keras.layers.Dense(classes, dtype="float32", name="head")(features)


def _dense(old, classes):
    return keras.layers.Dense(classes, use_bias=old.use_bias, dtype=old.dtype_policy, name="head")


def _convolution(old, classes):
    config: dict[str, Any] = {**old.get_config(), "filters": classes, "name": "head", "activation": "linear"}
    return type(old).from_config(config)


def _followed(x, operations):
    """Return what comes of logits through the rest of the old model's end, but softmax."""
    for operation in operations:
        if isinstance(operation, FLAT):
            x = keras.layers.Flatten(name=operation.name)(x) if len(x.shape) > 2 else x
        elif not _is_probability(operation):
            x = operation(x)
    return x


def _is_probability(operation):
    activation = getattr(operation, "activation", None)
    return type(operation).__name__ == "Softmax" or activation in (keras.activations.softmax, keras.activations.sigmoid)


def _without_softmax(output):
    """Return the tensor of logits behind probabilities, and what was taken away, None for nothing."""
    operation = _operation(output)
    if isinstance(operation, keras.layers.InputLayer):
        return output, None
    if isinstance(operation, keras.Model):
        inner, words = logits_of(operation)
        return (inner(_input_of(operation, output)), words) if words else (output, None)
    if isinstance(operation, (*FLAT, keras.layers.Dropout)):
        before, words = _without_softmax(_input_of(operation, output))
        return (operation(before), words) if words else (output, None)
    activation = getattr(operation, "activation", None)
    if activation is keras.activations.sigmoid or type(operation).__name__ == "Sigmoid":
        raise ValueError(
            f"Expected logits. Received: {operation.name}, which ends in a sigmoid. Let the model end in one logit a "
            "class, without an activation."
        )
    if type(operation).__name__ == "Softmax" or (
        activation is keras.activations.softmax and isinstance(operation, keras.layers.Activation)
    ):
        return _input_of(operation, output), f"the softmax {operation.name}"
    if activation is keras.activations.softmax:
        before = _input_of(operation, output)
        operation.activation = keras.activations.linear
        return operation(before), f"the softmax of {operation.name}"
    return output, None


def _leaves(model):
    """Yield the layers of a model, those within models and wrappers in their place."""
    for layer in model.layers if isinstance(model, keras.Model) else model._layers:
        if isinstance(layer, keras.Model) and layer.layers:
            yield from _leaves(layer)
        else:
            yield layer


def _last(model):
    """Return the layer that a functional model's output comes from, behind activations; None where not known."""
    outputs = getattr(model, "outputs", None)
    if not outputs or len(outputs) != 1:
        return None
    tensor = outputs[0]
    while True:
        operation = _operation(tensor)
        if isinstance(operation, keras.layers.InputLayer):
            return None
        if isinstance(operation, keras.Model):
            return _last(operation)
        if isinstance(operation, keras.layers.Layer) and operation.weights:
            return operation
        node = operation._inbound_nodes[tensor._keras_history.node_index]
        if len(node.input_tensors) != 1:
            return None
        tensor = node.input_tensors[0]
