"""The authors' checkpoints, which TensorFlow 1 wrote: what a file holds, and its variables' places in our models."""

import dataclasses
import pathlib
import re
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from sat_tf import cost, efficientnet, models, resnet, saving

AVERAGE = "/ExponentialMovingAverage"
NORM = {"momentum": 0.9, "epsilon": 1e-5}  # of the published runs
SUFFIXES = (".index", ".data-00000-of-00001", ".meta")
ACTS = {"silu": "swish", "gelu": "gelu_tanh"}  # as the release names them -> as ours; its GELU is the tanh formula
SCOPES = {"efficientnet-l1": "efficientnet-bL1", "efficientnet-l2": "efficientnet-bL2"}  # where not the model's name
_NORM_NAMES = ("gamma", "beta", "moving_mean", "moving_variance")
_RESNET_NAMES = {
    "kernel": "W",
    "bias": "b",
    "gamma": "bn/gamma",
    "beta": "bn/beta",
    "moving_mean": "bn/mean/EMA",
    "moving_variance": "bn/variance/EMA",
    "raw": "smoothrelu_beta",
}
_BOOKKEEPING = re.compile(  # what training keeps beside weights and slots; the networks' own end in /EMA
    r"(.*/)?(global_step|local_step|learning_rate|beta[12]_power(_\d+)?)|(.*/)?EMA/.+|(.*/)?(apply_gradients|AccumGrad)/.+"
)
_SLOT = re.compile(r"/(Momentum|RMSProp|Adam\w*|adam_[mv]|Adagrad|Adadelta|Ftrl|LARS\w*|Lamb\w*|AccumGrad)(_\d+)?$")
_MARKS = {  # activation: the operations by which a graph shows that it is used
    "relu": {"Relu"},
    "swish": {"Sigmoid"},
    "softplus": {"Softplus"},
    "elu": {"Elu"},
    "gelu_tanh": {"Tanh"},
    "mish": {"Tanh", "Softplus"},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """What a checkpoint holds, as far as its names and shapes tell.

    model: a key of `models.MODELS`, None if it is no network of the release. act: "smoothrelu", whose parameters are
    variables; what the operations of the `.meta` file tell; or None. raw, averages: whether weights and their moving
    averages are there. shapes: `{name: shape}` of all variables.
    """

    model: str | None
    act: str | None
    raw: bool
    averages: bool
    shapes: dict[str, tuple[int, ...]]

    @property
    def words(self) -> str:
        """What the file holds, for messages."""
        act = f" with {self.act}" if self.act else ""
        kinds = {(True, True): "raw and averaged weights", (False, True): "averaged weights only"}
        return (
            f"{self.model}{act}, {kinds.get((self.raw, self.averages), 'raw weights')}"
            if self.model
            else f"{len(self.shapes)} variables such as {', '.join(sorted(self.shapes)[:3])}"
        )


def prefix_of(path: str | pathlib.Path) -> pathlib.Path | None:
    """Return the prefix NAME of a checkpoint's files, given it, one of them, or a folder that holds one checkpoint.

    Returns None where there is no such checkpoint.
    """
    path = pathlib.Path(path).expanduser()
    path = path if path.name else path.resolve()  # "."
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            path = path.with_name(path.name.removesuffix(suffix))
    if path.name and path.with_name(path.name + ".index").is_file():
        return path
    found = sorted(path.glob("*.index")) if path.is_dir() else []
    return found[0].with_suffix("") if len(found) == 1 else None


def variables(model: str, act: str = "swish") -> dict[str, tuple[int, ...]]:
    """Return `{name: shape}` of a network of the release as its file has them, without allocating any weights.

    Args:
      model: a key of `models.MODELS`, such as "resnet50", "efficientnet-l1".
      act: activation; the release's names, silu and gelu, are understood, too.

    Raises:
      ValueError: the release has no such network.
    """
    with cost.weightless():
        built = models.build(model, ACTS.get(act, act), **NORM)
    return {name: shape for name, shape, _ in _places(built)}


def contents(prefix: pathlib.Path) -> Contents:
    """Return the `Contents` of a checkpoint.

    Raises:
      OSError: its files are damaged or not all there; the message says which.
    """
    shapes = _shapes(prefix)
    averages = {name.removesuffix(AVERAGE) for name in shapes if name.endswith(AVERAGE)}
    raw = {name for name in shapes if not name.endswith(AVERAGE)}
    raw -= {name for name in raw if _SLOT.search(name) or _BOOKKEEPING.fullmatch(name)}
    model = _model_of({name.removesuffix(AVERAGE): shape for name, shape in shapes.items()})
    has_betas = any(name.endswith("smoothrelu_beta") for name in raw | averages)
    act = "smoothrelu" if has_betas else _act_of(prefix, gates=model in efficientnet.VARIANTS) if model else None
    return Contents(
        model=model, act=act, raw=bool(raw), averages=bool(averages & raw if raw else averages), shapes=shapes
    )


def load(prefix: pathlib.Path, model: str, act: str | Callable, weights: str) -> keras.Model:
    """Return a model with the weights of a checkpoint; see `released.load`."""
    held = contents(prefix)
    if held.model and model != held.model:
        raise ValueError(f"Expected the weights of {model}. Received: {prefix}, which holds {held.words}.")
    _check_act(prefix, held, act)
    if weights == "ema" and not held.averages:
        raise ValueError(
            f"Expected moving averages for weights='ema'. Received: {prefix}, which holds "
            f"{held.words}. Take the raw ones."
        )
    if weights == "raw" and held.model and not held.raw:
        raise ValueError(f"Expected raw weights. Received: {prefix}, which holds {held.words}: weights='ema'.")
    suffix = AVERAGE if weights == "ema" else ""
    classes = _classes(held.shapes)
    with cost.weightless():  # a wrong file is refused before any weights are allocated
        wanted = {name: shape for name, shape, _ in _places(models.build(model, act, classes, **NORM))}
    lines = _differences(held, wanted, suffix)
    if lines:
        raise ValueError(
            f"Expected the weights of {model} with {act}. Received: {prefix}, which differs: {'; '.join(lines)}."
        )
    built = models.build(model, act, classes, **NORM)
    reader = tf.compat.v1.train.NewCheckpointReader(str(prefix))
    for name, _, variable in _places(built):
        value = _read(reader, name + suffix, prefix).reshape(variable.shape)
        variable.assign(value[:, :, ::-1] if name == "conv0/W" else value)  # those kernels saw BGR
    return built


def _shapes(prefix):
    data = f"{prefix}{SUFFIXES[1]}"
    if "[" in str(prefix):
        raise OSError(f"Expected a path without '[', which TensorFlow takes for a pattern. Received: {prefix}.")
    try:
        reader = tf.compat.v1.train.NewCheckpointReader(str(prefix))
        shapes, kinds = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        size = pathlib.Path(data).stat().st_size
    except FileNotFoundError:
        raise OSError(
            f"The checkpoint {prefix} lacks its file {pathlib.Path(data).name}, which holds the values."
        ) from None
    except (tf.errors.OpError, RuntimeError, ValueError, IndexError) as error:
        raise OSError(
            f"{prefix}.index is no index of a checkpoint, or damaged: {_first_line(error)}. Get it again."
        ) from error
    needed = sum(int(np.prod(shape)) * kinds[name].size for name, shape in shapes.items())
    if size < needed:
        raise OSError(f"{data} is cut off or another file: it has {size} bytes of {needed}. Get it again.")
    return {name: tuple(shape) for name, shape in shapes.items()}


def _read(reader, name, prefix):
    try:
        value = np.asarray(reader.get_tensor(name), np.float32)
    except (tf.errors.OpError, RuntimeError, ValueError, IndexError) as error:
        raise OSError(f"{prefix}{SUFFIXES[1]} is damaged at {name}: {_first_line(error)}. Get it again.") from error
    if not np.isfinite(value).all():
        raise OSError(f"{prefix} holds values of {name} that are not finite. Get it again, or use another one.")
    return value


def _classes(shapes):
    """Return the number of classes on which the last layer's kernel and bias agree, the release's where they do not."""
    kernels, biases = (
        [shape for name, shape in shapes.items() if name.endswith(ends)]
        for ends in (("linear/W", "head/dense/kernel"), ("linear/b", "head/dense/bias"))
    )
    if kernels and biases and kernels[0][-1:] == biases[0]:
        return biases[0][0]
    return 1000


def _first_line(error):
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def _model_of(shapes):
    """Return the model that variables are of: by the scope of an EfficientNet, by the blocks of a ResNet."""
    ours = {SCOPES.get(name, name): name for name in efficientnet.VARIANTS}
    scopes = {name.partition("/")[0] for name in shapes} & set(ours)
    if len(scopes) == 1:
        return ours[scopes.pop()]
    blocks = [0, 0, 0, 0]
    for name in shapes:
        match = re.match(r"group([0-3])/block(\d+)/", name)
        if match:
            blocks[int(match[1])] = max(blocks[int(match[1])], int(match[2]) + 1)
    widths = [shapes[name] for name in ("group0/block0/conv2/W", "group0/block1/conv2/W") if name in shapes]
    widths = {(shape[3] // shape[2], shape[2]) for shape in widths if len(shape) == 4 and shape[2]}
    for name, variant in resnet.BOTTLENECK_VARIANTS.items():
        if variant.blocks == tuple(blocks) and (variant.groups, variant.group_width) in widths:
            return name
    return None


def _act_of(prefix, gates):
    """Return the activation that the graph in a `.meta` file shows; None without such a file or graph.

    The names and shapes of weights say nothing of it: ReLU's and swish's files have the same. `gates`: the network has
    sigmoids besides, those of squeeze-excite.
    """
    file = pathlib.Path(f"{prefix}.meta")
    graph = tf.compat.v1.MetaGraphDef()
    try:
        graph.ParseFromString(file.read_bytes())
    except (OSError, ValueError, RuntimeError, TypeError):
        return None
    except Exception as error:  # protobuf's DecodeError has no public place that all versions share
        if type(error).__name__ != "DecodeError":
            raise
        return None
    nodes = [*graph.graph_def.node, *(node for f in graph.graph_def.library.function for node in f.node_def)]
    operations = {node.op for node in nodes}
    if "Conv2D" not in operations:
        return None
    operations &= set.union(*_MARKS.values())
    if gates:
        operations = operations - {"Sigmoid"} or {"Sigmoid"}
    return next((act for act, marks in _MARKS.items() if marks == operations), None)


def _check_act(prefix, held, act):
    """Refuse an activation that the file contradicts."""
    if not (isinstance(act, str) and held.model):
        return
    name, has_betas = act.partition(":")[0], held.act == "smoothrelu"
    if has_betas != (name == "smoothrelu"):
        what = (
            "the parameters of smoothrelu at every site"
            if has_betas
            else f"{held.words}, but no parameters of smoothrelu"
        )
        raise ValueError(f"Expected weights that were trained with act={act}. Received: {prefix}, which holds {what}.")
    if held.act and ACTS.get(name, name) != held.act:
        raise ValueError(
            f"Expected weights that were trained with act={act}. Received: {prefix}, which holds {held.words}."
        )


def _differences(held, wanted, suffix):
    """Return how a file's variables differ from those wanted; slots and counters beside them are known.

    Of raw and averaged weights those that `suffix` means must all be there, and the others all or none.
    """
    kinds = {ending: {name + ending: shape for name, shape in wanted.items()} for ending in ("", AVERAGE)}
    expected = {}
    for ending, names in kinds.items():
        if ending == suffix or held.shapes.keys() & names.keys():
            expected |= names
    stored = {}
    for name, shape in held.shapes.items():
        slot = _SLOT.search(name)
        is_slot = slot and name[: slot.start()].removesuffix(AVERAGE) in wanted
        if name in expected or not (is_slot or _BOOKKEEPING.fullmatch(name)):
            stored[name] = shape
    return saving.differences(stored, expected, most=20)


def _places(model):
    """Yield `(name in the file, shape there, our variable)` for every variable of one of our models."""
    if model.name in efficientnet.VARIANTS:
        name_of = _efficientnet_name
    elif model.name in resnet.BOTTLENECK_VARIANTS:
        name_of = _resnet_name
    else:
        raise ValueError(
            f"Expected a network that the release has: a ResNet of bottlenecks or an EfficientNet. "
            f"Received: model={model.name}."
        )
    for variable in model.variables:
        name, shape = name_of(model.name, variable.path), tuple(variable.shape)
        is_vector = name_of is _efficientnet_name and variable.name in _NORM_NAMES
        yield name, ((1, 1, 1, 1, *shape) if is_vector else shape), variable


def _resnet_name(model, path):
    """group0_block0_conv1/kernel -> group0/block0/conv1/W; group0_block0_act/raw -> group0/block0/smoothrelu_beta."""
    layer, _, weight = path.partition("/")
    scope = re.sub(r"_(block|conv)", r"/\1", layer.removesuffix("_act"))
    return f"{scope}/{_RESNET_NAMES[weight]}"


def _efficientnet_name(model, path):
    """block1_project/kernel -> efficientnet-b0/blocks_1/conv2d_1/kernel; without expansion .../conv2d/kernel."""
    layer, _, weight = path.partition("/")
    scope = SCOPES.get(model, model)
    if weight == "raw":
        raise ValueError(
            "Expected an activation without parameters: the release has no EfficientNet with smoothrelu. "
            "Received: act=smoothrelu."
        )
    if layer == "linear":
        return f"{scope}/head/dense/{weight}"
    is_norm = weight in _NORM_NAMES
    if layer in ("stem", "head"):
        return f"{scope}/{layer}/{'tpu_batch_normalization' if is_norm else 'conv2d'}/{weight}"
    block, _, part = layer.partition("_")
    number = int(block.removeprefix("block"))
    scope = f"{scope}/blocks_{number}"
    if part.startswith("se_"):
        return f"{scope}/se/{'conv2d' if part == 'se_reduce' else 'conv2d_1'}/{weight}"
    expanded = efficientnet.sizes(model)[1][number].expansion > 1
    if is_norm:
        place = {"expand": 0, "depthwise": expanded, "project": 1 + expanded}[part]
        return f"{scope}/tpu_batch_normalization{_numbered(place)}/{weight}"
    if part == "depthwise":
        return f"{scope}/depthwise_conv2d/depthwise_kernel"
    return f"{scope}/conv2d{_numbered(expanded if part == 'project' else 0)}/kernel"


def _numbered(place):
    return f"_{int(place)}" if place else ""
