"""Images in IDX files: Fashion-MNIST (Xiao et al. 2017), a sixth of it inside the package, and MNIST."""

import gzip
import hashlib
import importlib.resources
import io
import os
import zlib

import numpy as np

from sat_tf.data.splits import Data, expand, from_arrays, nothing_to_find, set_aside

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# Written by `python -m sat_tf.data.make_fashion_mnist_12k` from the original files.
FASHION_MNIST_12K_SHA256 = "014eeb927fde9597a43c13eca134a3bd4ad4db0c3fc617813abce9342a370f94"
_DEBIAN_DIR = "/usr/share/datasets/fashion-mnist"
FASHION_HINT = (
    f"Install Debian's package dataset-fashion-mnist, which puts Fashion-MNIST's four files under {_DEBIAN_DIR}, or "
    "download them from https://github.com/zalandoresearch/fashion-mnist and give their folder as data_dir."
)
MNIST_HINT = (
    "The four are to be had from http://yann.lecun.com/exdb/mnist, or from a mirror such as "
    "https://ossci-datasets.s3.amazonaws.com/mnist."
)
_IDX_FILES = {"train": "train-{}-idx{}-ubyte", "test": "t10k-{}-idx{}-ubyte"}


def fashion_mnist_12k(data_dir: str | os.PathLike | None, validation: int | None, seed: int) -> Data:
    """12,000 + 2,000 images of clothes from Fashion-MNIST, inside the package (32 px, 10 classes)."""
    nothing_to_find("fashion_mnist_12k", data_dir)
    name = "fashion_mnist_12k.npz"
    content = (importlib.resources.files("sat_tf.data") / name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != FASHION_MNIST_12K_SHA256:
        raise ValueError(
            f"Expected SHA-256 {FASHION_MNIST_12K_SHA256} of the package's {name}. "
            f"Received: {digest}. Install the package anew."
        )
    with np.load(io.BytesIO(content)) as arrays:
        parts = {part: (arrays[f"{part}_images"], arrays[f"{part}_labels"]) for part in ("train", "test")}
        classes = tuple(map(str, arrays["classes"]))
    return _data("fashion_mnist_12k", f"{name} of the package", classes, parts, validation, seed)


def fashion_mnist(data_dir: str | os.PathLike | None, validation: int | None, seed: int) -> Data:
    """60,000 + 10,000 images of clothes, from IDX files at data_dir, e.g. Debian's dataset-fashion-mnist (32 px)."""
    folder = _DEBIAN_DIR if data_dir is None else expand(data_dir)
    parts = {part: read_idx_pair(folder, part, FASHION_HINT) for part in _IDX_FILES}
    return _data("fashion_mnist", f"IDX files in {folder}", FASHION_MNIST_CLASSES, parts, validation, seed)


def mnist(data_dir: str | os.PathLike | None, validation: int | None, seed: int) -> Data:
    """60,000 + 10,000 handwritten digits, from the four IDX files at data_dir (28 px; LeCun et al. 1998)."""
    if data_dir is None:
        raise ValueError(f"Expected data_dir, the folder of MNIST's four IDX files. Received: none. {MNIST_HINT}")
    folder = expand(data_dir)
    parts = {part: read_idx_pair(folder, part, MNIST_HINT) for part in _IDX_FILES}
    return _data("mnist", f"IDX files in {folder}", tuple(map(str, range(10))), parts, validation, seed, side=28)


def read_idx_pair(folder: str | os.PathLike, part: str, hint: str = FASHION_HINT) -> tuple[np.ndarray, np.ndarray]:
    """Return (images uint8 [n, 28, 28], labels uint8 [n]) of the part "train" or "test".

    Args:
      folder: of the four files.
      part: which.
      hint: where missing files are to be had.

    Raises:
      FileNotFoundError: if a file is missing, plain and as .gz.
      ValueError: if a file is not what its name says.
    """
    images = _read_idx(folder, _IDX_FILES[part].format("images", 3), 3, hint)
    labels = _read_idx(folder, _IDX_FILES[part].format("labels", 1), 1, hint)
    if len(images) != len(labels) or images.shape[1:] != (28, 28) or labels.max(initial=0) > 9:
        shapes = f"images={list(images.shape)}, labels={list(labels.shape)} up to {labels.max(initial=0)}"
        raise ValueError(f"Expected 28 x 28 images and a label from 0 to 9 for each in {folder}. Received: {shapes}.")
    return images, labels


def _read_idx(folder, name, dimensions, hint):
    """Return the uint8 array of an IDX file: 0, 0, 8 (uint8), dimensions, a big-endian uint32 each, the values."""
    path = next((path for path in _candidates(folder, name) if os.path.isfile(path)), None)
    if path is None:
        raise FileNotFoundError(f"{name} (plain or .gz) is not in {folder}. {hint}")
    try:
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
            content = file.read()
        if content[:4] != bytes([0, 0, 8, dimensions]):
            raise ValueError(f"it begins with {content[:4].hex(' ')}")
        shape = np.frombuffer(content, ">u4", dimensions, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (ValueError, EOFError, OSError, zlib.error) as error:
        message = f"Expected a whole IDX file of {dimensions} dimensions of uint8. Received: {path} ({error})."
        raise ValueError(message) from error


def _candidates(folder, name):
    return os.path.join(folder, name), os.path.join(folder, name + ".gz")


def _data(name, source, classes, parts, validation, seed, side=32):
    train, held = set_aside(*_as_rgb(*parts["train"], side), validation, seed)
    test = from_arrays(*_as_rgb(*parts["test"], side))
    return Data(name=name, source=source, classes=classes, image_size=side, train=train, validation=held, test=test)


def _as_rgb(images, labels, side):
    """Return 28 px grey images as RGB: black pixels on each side up to `side`, the grey three times."""
    edge = (side - 28) // 2
    padded = np.pad(images, [(0, 0), (edge, edge), (edge, edge)])
    return np.repeat(padded[..., np.newaxis], 3, axis=-1), labels.astype(np.int32)
