"""Any Keras model with smooth activations in the place of ReLU, or with another gradient behind them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from sat_tf import activations

KINKED = ("relu", "relu6", "leaky_relu", "hard_silu", "hard_swish")  # functions that are replaced, by Keras' names
LAYERS = ("ReLU", "LeakyReLU", "PReLU", "ReLU6")  # layers that are: Keras', and this project's
OPERATIONS = ("Relu", "Relu6", "LeakyRelu", "HardSilu", "ReLU", "LeakyReLU")  # of functional models: keras.ops.relu(x)
OTHER_KINKS = (
    "hard_sigmoid",
    "hard_tanh",
    "hard_shrink",
    "soft_shrink",
    "threshold",
    "selu",
)  # that stay, and are told
STOCK = {  # activations that are Keras' own by another name: files of these open without this project
    "swish": "silu",
    "silu": "silu",
    "softplus": "softplus",
    "gelu": "gelu",
    "elu": "elu",
    "celu": "celu",
    "mish": "mish",
    "relu": "relu",
    "relu6": "relu6",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Smoothing:
    """What `smooth` did.

    Attributes:
      replaced: `{"ReLU -> swish": [layer, ...]}`; an argument is named behind its layer: "conv1, activation".
      left: `{layer: why}`, of what may hold a kink still.
    """

    replaced: dict[str, list[str]]
    left: dict[str, str]

    @property
    def count(self) -> int:
        """How many activations were replaced."""
        return sum(map(len, self.replaced.values()))

    def __str__(self) -> str:
        """Return both as people read them."""
        lines = [f"{self.count} activations replaced"]
        lines += [f"  {kind}: {'; '.join(names)}" for kind, names in self.replaced.items()]
        if self.left:
            lines += [f"{len(self.left)} left as they are", *(f"  {name}: {why}" for name, why in self.left.items())]
        return "\n".join(lines)


def smooth(model: keras.Model, act: str | None = None, *, backward: str | None = None) -> keras.Model:
    """Return a copy of a model with every ReLU-like activation replaced, and the same weights.

    ReLU-like are ReLU, ReLU6, leaky and parametric ReLU and hard swish: as layers, as the argument `activation`, as
    operations of a functional model; in nested models and wrappers, too. A leak and its slopes are gone with them.
    Which were replaced, and which layers could not be looked into, is printed, and lies in `smoothing` of the result.

    Args:
      model: a functional or Sequential model, its inner models the same. It is left as it is.
      act: the activation to put there, as `activations.factory` reads it; None for swish, or with `backward` for the
        model's own. Of swish, gelu, softplus, elu, celu and mish the result is of Keras' layers alone.
      backward: the activation whose gradient stands in, in every pass, while values stay as they are, as
        "parametric_softplus:10" (Xie et al. 2020, Section 3.2).

    Returns:
      A `keras.Model`, compiled where the model is.

    Raises:
      ValueError: an unknown activation, or a subclass of `keras.Model`, whose layers nobody can exchange.
    """
    for spec in (act, backward):
        if spec is not None:
            activations.factory(spec)
    if not isinstance(model, keras.Model) or not _is_graph(model):
        raise ValueError(
            f"Expected a functional or Sequential model, whose layers can be exchanged. Received: a "
            f"{type(model).__name__}. Where it is your own class, let it take its activation as an argument."
        )
    work = _Work(act or (None if backward else "swish"), backward)
    new = keras.models.clone_model(model, clone_function=work.clone, recursive=True)
    if model.built:
        work.copy_weights()
    new.smoothing = Smoothing(replaced=work.grouped(), left=work.left)
    print(new.smoothing, flush=True)
    return new


class _Work:
    """A copy in the making."""

    def __init__(self, act, backward):
        self.act, self.backward = act, backward
        self.replaced, self.left, self.copies, self.made = [], {}, [], []

    def clone(self, layer):
        """Return a layer's or operation's copy, its activations replaced."""
        if _kink_of(layer):
            return self._instead_of(layer)
        if not isinstance(layer, keras.layers.Layer):
            return layer  # an operation has no state
        if isinstance(layer, (keras.Model, keras.layers.Lambda)):
            self._leave(layer, "a model of its own class" if isinstance(layer, keras.Model) else "a function")
            return layer
        before = len(self.replaced)
        try:
            copy = type(layer).from_config(self._changed(layer))
        except Exception as error:  # a custom layer's configuration may lack what its constructor wants
            del self.replaced[before:]
            self._leave(layer, f"shared with the model, since it cannot be copied: {str(error).splitlines()[0]}")
            return layer
        if len(self.replaced) == before and not _is_known(layer):
            self._leave(layer, "a custom layer, which cannot be looked into")
        self.copies.append((layer, copy))
        return copy

    def copy_weights(self):
        """Give every copy the values of its layer."""
        fresh = {id(variable) for layer in self.made for variable in layer.variables}
        for layer, copy in self.copies:
            variables = [variable for variable in copy.weights if id(variable) not in fresh]
            for variable, value in zip(variables, layer.weights, strict=True):
                variable.assign(value)

    def grouped(self):
        """Return what was replaced, by what it was."""
        groups = {}
        for site, kind in self.replaced:
            groups.setdefault(f"{kind} -> {self._words}", []).append(site)
        return groups

    def _leave(self, layer, why):
        self.left[f"{layer.name} ({type(layer).__name__})"] = why

    def _instead_of(self, layer):
        """Return the layer that takes the place of an activation."""
        policy = getattr(layer, "dtype_policy", None)
        own = None
        if isinstance(layer, keras.layers.Layer):
            own = type(layer).from_config(layer.get_config())
        new = self._make(layer.name, own or layer, policy)
        self.replaced.append((layer.name, _kink_of(layer)))
        if own is not None and self.act is None and layer.weights:
            self.copies.append((layer, own))
        return new

    @property
    def _words(self):
        values = self.act or "its values"
        return f"{values}, gradient of {self.backward}" if self.backward else values

    def _make(self, name, own, policy=None):
        """Return an activation of a name; `own` is the one whose values it has where no other is wanted."""
        known = {"name": name, **({"dtype": policy} if policy is not None else {})}
        if self.backward:
            values = own if self.act is None else self._function()
            return activations.Substituted(values, self.backward, **known)
        if self.act in STOCK:
            return keras.layers.Activation(STOCK[self.act], **known)
        layer = activations.factory(self.act)(name)
        if policy is not None:
            layer.dtype_policy = policy
        self.made.append(layer)
        return layer

    def _function(self):
        """Return the activation that is wanted as a function or a layer without a name of its own."""
        if self.act in STOCK:
            return keras.activations.get(STOCK[self.act])
        layer = activations.factory(self.act)(None)
        self.made.append(layer)
        return layer

    def _changed(self, layer):
        """Return a layer's configuration with its activations replaced."""
        config = layer.get_config()
        for key, value in config.items():
            live = getattr(layer, key, None) if "activation" in key else None
            name = _name_of(live)
            if name in KINKED or _kink_of(live):
                config[key] = self._argument(layer.name, key, live, name or _kink_of(live))
            elif name in OTHER_KINKS:
                self.left[f"{layer.name} ({name})"] = "kinked, but no ReLU"
            elif name == "<lambda>":
                self.left[f"{layer.name} ({key})"] = "a function without a name"
            elif isinstance(value, (dict, list)):
                config[key] = self._nested(layer.name, value)
        return config

    def _argument(self, layer_name, key, live, name):
        self.replaced.append((f"{layer_name}, {key}", name))
        return self._make(None, live) if self.backward else self._function()

    def _nested(self, name, value):
        """Return the configuration of a layer within a layer with its activations replaced."""
        if isinstance(value, list):
            return [self._nested(name, part) for part in value]
        if not isinstance(value, dict):
            return value
        if value.get("class_name") in LAYERS:
            own = keras.saving.deserialize_keras_object(value)
            self.replaced.append((f"{name}, inside", value["class_name"]))
            return keras.saving.serialize_keras_object(self._make(None, own))
        changed = {}
        for key, part in value.items():
            if "activation" in key and part in KINKED:
                self.replaced.append((f"{name}, inside, {key}", part))
                made = self._make(None, keras.activations.get(part)) if self.backward else self._function()
                changed[key] = keras.saving.serialize_keras_object(made)
            else:
                changed[key] = self._nested(name, part)
        return changed


def _is_graph(model):
    """Say whether a model is functional or Sequential, by what `clone_model` can do with it."""
    return isinstance(model, keras.Sequential) or bool(getattr(model, "inputs", None))


def _is_known(layer):
    return type(layer).__module__.split(".")[0] in ("keras", "sat_tf")


def _kink_of(layer):
    """Return the name of the kink that a layer or operation is; None where it is none."""
    kind = type(layer).__name__
    if isinstance(layer, keras.layers.Layer):
        if kind in LAYERS and _is_known(layer):
            return kind
        if isinstance(layer, keras.layers.Activation):
            return name if (name := _name_of(layer.activation)) in KINKED else _kink_of(layer.activation)
        return None
    known = type(layer).__module__.startswith("keras.") and hasattr(layer, "output")
    return kind if known and kind in OPERATIONS else None


def _name_of(function: Callable | Any) -> str | None:
    """Return Keras' name of a function that is an activation; None of anything else."""
    if not callable(function) or isinstance(function, keras.layers.Layer):
        return None
    same = {tf.nn.relu: "relu", tf.nn.relu6: "relu6", tf.nn.leaky_relu: "leaky_relu"}
    same |= {getattr(keras.ops, name): name for name in KINKED if hasattr(keras.ops, name)}
    return same.get(function) or getattr(function, "__name__", None)
