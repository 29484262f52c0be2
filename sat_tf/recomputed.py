"""A network whose backward passes compute activations again, block by block, instead of keeping them.

Of each block only what comes in is kept; its activations are there while its own backward pass runs (Chen et al. 2016,
"Training deep nets with sublinear memory cost"). A step takes 1.2 to 1.4 times as long. Statistics that a pass moves
are assigned outside of what is computed twice: they move once.
"""

import contextlib
import contextvars
import dataclasses
import inspect
import math
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from sat_tf.half import having, policies_of

_LEARNING = contextvars.ContextVar("whether gradients to weights are wanted", default=False)


@contextlib.contextmanager
def learning() -> Iterator[None]:
    """Let passes that begin here, of one tape, be those whose gradients to weights are wanted.

    Then a block's are there before the backward pass goes on, and its activations gone: TensorFlow's executor would
    put off what nothing else waits for, and all activations would be there in the end.
    """
    token = _LEARNING.set(True)
    try:
        yield
    finally:
        _LEARNING.reset(token)


class Recomputed:
    """A model as training calls it: values, gradients and statistics are the model's, to float tolerance.

    Args:
      model: functional or sequential, built, without activity regularisation; it stays as it is.

    Raises:
      ValueError: it is another kind of model.
    """

    def __init__(self, model: keras.Model) -> None:
        check(model)
        self.model = model
        begin, left, self.blocks = model.inputs[0], _nodes(model), []
        for end in cuts(model):
            number = 1 + next(i for i, node in enumerate(left) if any(end is each for each in node.output_tensors))
            self.blocks.append(Block(nodes=left[:number], begin=begin, ends=[end]))
            begin, left = end, left[number:]
        self.blocks.append(Block(nodes=left, begin=begin, ends=model.outputs))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def with_features(self) -> "Recomputed":
        """Return the model with what comes into its last layer, a dense one, as a second output."""
        return Recomputed(keras.Model(self.model.inputs, [self.model.outputs[0], self.model.layers[-1].input]))

    def __call__(self, images: tf.Tensor, training: bool) -> Any:
        """Return the logits `[batch, classes]`, or whatever the model does."""
        outputs = images
        for block in self.blocks[:-1]:
            outputs = _called(block, outputs, training)
        return self.blocks[-1](outputs, training)  # whose backward pass comes next: nothing to gain

    @property
    def kept(self) -> list[tuple[int | None, ...]]:
        """The shapes of what is kept between the blocks."""
        return [tuple(block.ends[0].shape) for block in self.blocks[:-1]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """A part of a network's graph.

    Attributes:
      nodes: calls of layers and operations, in order.
      begin: the tensor that it reads.
      ends: the tensors that it gives.
    """

    nodes: list[Any]
    begin: keras.KerasTensor
    ends: list[keras.KerasTensor]

    def __call__(self, inputs: tf.Tensor, training: bool) -> Any:
        """Return what its layers make of a tensor."""
        values = {id(self.begin): inputs}
        for node in self.nodes:
            if node.is_input:
                continue
            args, options = node.arguments.fill_in(values)
            if (
                isinstance(node.operation, keras.Layer)
                and "training" in inspect.signature(node.operation.call).parameters
            ):
                options = {**options, "training": training}
            outputs = keras.tree.flatten(node.operation(*args, **options))
            values.update((id(tensor), value) for tensor, value in zip(node.output_tensors, outputs, strict=True))
        found = [values[id(tensor)] for tensor in self.ends]
        return found[0] if len(found) == 1 else found

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables of its layers, each once."""
        return list({id(variable): variable for layer in self.layers for variable in layer.variables}.values())

    @property
    def layers(self) -> list[keras.Layer]:
        """Its layers, one for each call."""
        return [node.operation for node in self.nodes if isinstance(node.operation, keras.Layer)]


def check(model: keras.Model) -> None:
    """Refuse a model whose blocks cannot be seen, or that adds losses of its activations."""
    if len(getattr(model, "inputs", None) or ()) != 1 or _functional(model) is None:
        raise ValueError(
            "Expected a functional or sequential model with remat=true, whose blocks can be seen. "
            f"Received: {type(model).__name__}. Leave remat out; accumulate_steps=4 needs less memory, too."
        )
    adding = [each.name for each in model._flatten_layers() if getattr(each, "activity_regularizer", None)]
    if adding:
        raise ValueError(
            f"Expected no activity_regularizer with remat=true. Received: {adding[0]}. Leave remat out; "
            "accumulate_steps=4 needs less memory, too."
        )


def cuts(model: keras.Model) -> list[keras.KerasTensor]:
    """Return tensors through which everything flows, each of which begins a block, in order.

    Those that several layers read, as they do where a residual block begins; of a chain one of about its root's number.
    """
    narrow = list(_narrow(model))
    branching = [tensor for tensor, readers in narrow if readers > 1]
    if branching:
        return branching
    every = max(math.isqrt(len(narrow)), 1)
    return [tensor for tensor, _ in narrow[every - 1 :: every]]


def _functional(model):
    """Return a functional model, or that inside of a sequential one; None of another model."""
    model = getattr(model, "_functional", model)
    return model if hasattr(model, "_nodes_by_depth") else None


def _nodes(model):
    """Return the calls of a model's layers, each after those that it needs."""
    nodes = _functional(model)._nodes_by_depth
    return [node for depth in sorted(nodes, reverse=True) for node in nodes[depth]]


def _narrow(model) -> Iterator[tuple[keras.KerasTensor, int]]:
    """Yield each tensor that alone is still to be read when it has been computed, and how many nodes read it."""
    nodes, readers = _nodes(model), {}
    for node in nodes:
        for tensor in {id(tensor): tensor for tensor in node.input_tensors}.values():
            readers[id(tensor)] = readers.get(id(tensor), 0) + 1
    left = dict(readers)
    for tensor in model.outputs:
        left[id(tensor)] = left.get(id(tensor), 0) + 1
    live = {}
    for node in nodes:
        for tensor in {id(tensor): tensor for tensor in node.input_tensors}.values():
            left[id(tensor)] -= 1
            if not left[id(tensor)]:
                live.pop(id(tensor), None)
        live.update((id(tensor), tensor) for tensor in node.output_tensors)
        if len(live) == 1 and not node.is_input:
            (tensor,) = live.values()
            if tensor is node.output_tensors[0] and tensor is not model.outputs[0]:
                yield tensor, readers[id(tensor)]


def _called(block, inputs, training):
    """Return what a block makes of its inputs; its backward pass computes the block again."""
    trained = [variable for variable in block.variables if variable.trainable]
    others = [variable for variable in block.variables if not variable.trainable]
    held = [tf.convert_to_tensor(variable.value) for variable in others]  # before the pass moves them
    context, moved = contextvars.copy_context(), []  # of seeds and substitutes for gradients
    policies = policies_of(block.layers)  # which an attack may have otherwise than the update

    def compute(inputs, *weights):
        mapping = [*zip(trained, weights, strict=True), *zip(others, held, strict=True)]
        with having(policies), keras.StatelessScope(mapping, initialize_variables=False) as scope:
            outputs = context.copy().run(block, inputs, training)
        values = [scope.get_current_value(variable) for variable in others]
        moved[:] = [v for v, value, before in zip(others, values, held, strict=True) if value is not before]
        now = [value for value, before in zip(values, held, strict=True) if value is not before]
        return (outputs, *map(tf.stop_gradient, now))

    weights = [tf.convert_to_tensor(variable.value) for variable in trained]
    outputs, *values = _recomputed(compute, _LEARNING.get())(inputs, *weights)
    for variable, value in zip(list(moved), values, strict=True):
        variable.assign(value)
    return outputs


def _recomputed(compute, learning):
    """Return `compute`, of whose activations nothing is kept; `learning` as the context of that name says.

    Grappler sees through `tf.recompute_grad`, which gives all its gradients by one operation: an order asked for
    behind it is lost. And XLA heeds no control dependencies: computing again has to read the gradient that comes in.
    """

    @tf.custom_gradient
    def call(inputs, *weights):
        def gradient(*upstream, variables=()):
            some = tf.reshape(upstream[0], [-1])[:1]
            nothing = tf.cast(tf.reduce_sum(tf.minimum(tf.abs(some), 0)), inputs.dtype)
            again = [inputs + nothing, *map(tf.identity, weights)]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([*again, *variables])
                outputs = compute(*again)
            options = {"output_gradients": list(upstream), "unconnected_gradients": tf.UnconnectedGradients.ZERO}
            first, *others = tape.gradient(outputs, [*again, *variables], **options)
            with tf.control_dependencies(others if learning else []):
                found = tf.identity(first), *others[: len(weights)]
            return (found, others[len(weights) :]) if variables else found

        return compute(inputs, *weights), gradient

    return call
