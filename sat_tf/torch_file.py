"""PyTorch's files of weights, read without PyTorch and without running what they name.

    legacy (before 1.6)   pickles of a magic number, a protocol, the machine, the state dict and the storages' keys,
                          then of each storage: int64 number of elements, elements
    zip (since 1.6)       <any>/data.pkl, the state dict; <any>/data/<key>, the elements of each storage

`pickle.Unpickler` asks `find_class` for every name: those in `DTYPES` and `CALLS` get a sealed object of this file, all
others are refused. No class and nothing of another module is ever handed out.
"""

import dataclasses
import io
import math
import pathlib
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # the first two pickles of a legacy file
DTYPES = {  # what a storage's elements are
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.BFloat16Storage": "V2",  # NumPy does not know it: widened to float32 at the end
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}
GROWTH = 8  # arrays may take this many times the file's size: tied weights take 2, an expanded scalar all the memory
REMEDY = "Save the state dict alone: torch.save(model.state_dict(), path)."


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Return the arrays of a state dict that torch.save wrote, in the file's order.

    A checkpoint `{"state_dict": {...}, ...}` is unwrapped; names are left as they are (`module.` included).

    Args:
      path: of a legacy or a zip file.

    Returns:
      `{name: np.ndarray}`, each array its own memory in C order. Shapes and types are the file's (convolutions
      `[out, in / groups, height, width]`), but for bfloat16, which becomes float32.

    Raises:
      OSError: the file cannot be read, or is damaged.
      ValueError: it is something else than a state dict, or names what a state dict does not need.
    """
    content = pathlib.Path(path).read_bytes()
    try:
        tensors, storages = (_read_zip if content[:4] in (b"PK\3\4", b"PK\5\6") else _read_legacy)(content)
        views = {name: _view(storages[key], *layout) for name, (key, *layout) in tensors.items()}
        if sum(view.nbytes for view in views.values()) > GROWTH * len(content):
            raise ValueError("its tensors repeat their elements without end")
        return {name: _own(view) for name, view in views.items()}
    except _Refusal as error:
        raise ValueError(f"Expected a state dict that torch.save wrote. Received: {path}, {error}. {REMEDY}") from None
    except Exception as error:  # pickle, zipfile and NumPy have a class for every kind of damage
        raise OSError(f"The file {path} is damaged: {' '.join(str(error).split())}. Fetch it again.") from error


class _Refusal(Exception):
    """What is not read, as the end of "Received: the file, ..."; all else that reading throws is damage."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Sealed:
    """What a pickle may hold, and neither change nor, but for `CALLS`, call: a name, or a tensor and its parts."""

    name: str
    function: Callable | None = None
    parts: tuple = ()  # key of the storage, offset, shape, strides, the last three in elements

    def __call__(self, *arguments):
        if self.function is None:
            raise _Refusal(f"with a call of {self.name!r}, which was not run")
        return self.function(*arguments)

    def __setstate__(self, _):  # without it a pickle sets fields, frozen or not
        raise _Refusal(f"with a state for {self.name!r}, which was not set")


class _OrderedDict(dict):
    def __setstate__(self, _):
        """Drop what is set as an attribute: the versions of the layers, `_metadata`."""


def _tensor(key, offset, shape, strides, *_):
    return _Sealed("Tensor", None, (key, offset, shape, strides))


CALLS = {
    "collections.OrderedDict": _OrderedDict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
}


class _Unpickler(pickle.Unpickler):
    """Builds a state dict, and collects what it says of storages: `{key: (NumPy's type, elements)}`."""

    def __init__(self, content):
        super().__init__(io.BytesIO(content), encoding="latin1")  # of names that Python 2 wrote
        self.storages = {}

    def find_class(self, module, name):
        full = f"{module}.{name}"
        if full not in DTYPES and full not in CALLS:
            raise _Refusal(f"with the name {full[:99]!r}, which a state dict does not need and which was not run")
        return _Sealed(full, CALLS.get(full))

    def persistent_load(self, pid):
        """Return the key of the storage ("storage", type, key, device, elements[, view])."""
        word, kind, key, _, count, *view = pid
        if word != "storage" or view not in ([], [None]) or not isinstance(key, str) or not isinstance(count, int):
            raise ValueError("an unknown persistent id")
        described = np.dtype(DTYPES[kind.name]), count
        if self.storages.setdefault(key, described) != described:
            raise ValueError(f"storage {key} has two sizes or types")
        return key


def _unpickle(file):
    """Return the value of the pickle that starts at a file's position, and what it says of storages."""
    start = file.tell()
    for opcode, argument, place in pickletools.genops(file):  # well formed to its end, before anything is built
        if opcode.name.startswith("EXT"):  # copyreg may have its object at hand, and not ask find_class
            raise _Refusal(f"with the opcode {opcode.name}, which was not run")
        if opcode.name.endswith("PUT") and argument > place:  # memory is taken for as many values at once
            raise ValueError("a value has a number beyond all values")
    unpickler = _Unpickler(file.getbuffer()[start : file.tell()])
    try:
        return unpickler.load(), unpickler.storages
    except pickle.UnpicklingError as error:
        if "NEWOBJ" in str(error):  # wants a class, and nothing sealed is one
            raise _Refusal("with the opcode NEWOBJ, which was not run") from None
        raise


def _read_state_dict(file):
    """Return `{name: parts of a tensor}` of a pickle, out of a checkpoint's `state_dict` where it has one; storages."""
    value, storages = _unpickle(file)
    if isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        value = value["state_dict"]
    if not isinstance(value, dict):
        raise _Refusal(f"which holds a value of type {_kind(value)}")
    for name, tensor in value.items():
        if not isinstance(name, str) or _kind(tensor) != "Tensor":
            raise _Refusal(f"where {name if isinstance(name, str) else _kind(name)!r} is of type {_kind(tensor)}")
    return {name: tensor.parts for name, tensor in value.items()}, storages


def _kind(value):
    return value.name if isinstance(value, _Sealed) else type(value).__name__.lstrip("_")


def _read_legacy(content):
    """Return `{name: parts of a tensor}` and `{key: elements}` of a file of the time before 1.6."""
    file = io.BytesIO(content)
    try:
        magic, _ = _unpickle(file)
    except _Refusal:
        raise
    except Exception:  # no pickle
        magic = None
    if magic != MAGIC:
        if pickle.dumps(MAGIC, 2).startswith(content):
            raise EOFError("it ends before its first number")
        raise _Refusal(f"which is none: it begins with {content[:12]!r}")
    (protocol, _), (machine, _) = _unpickle(file), _unpickle(file)
    if protocol != PROTOCOL or machine["little_endian"] is not True:
        raise _Refusal(f"which is not of protocol {PROTOCOL} and little endian")
    tensors, storages = _read_state_dict(file)
    elements, (keys, _) = {}, _unpickle(file)
    if sorted(keys) != sorted(storages):
        raise ValueError("its list of storages differs from what its tensors are made of")
    for key in keys:
        count, (dtype, expected) = int.from_bytes(file.read(8), "little"), storages[key]
        elements[key] = _elements(key, file.read(count * dtype.itemsize), dtype, expected)
    return tensors, elements


def _read_zip(content):
    """Return `{name: parts of a tensor}` and `{key: elements}` of a file of the time since 1.6."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        pickles = [name for name in archive.namelist() if re.fullmatch("[^/]+/data.pkl", name)]
        if not pickles:
            raise _Refusal("a zip without data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        infos = [info for info in archive.infolist() if info.filename.startswith(folder)]
        if any(info.compress_type for info in infos) or sum(info.file_size for info in infos) > len(content):
            raise ValueError("its parts are packed, which torch.save doesn't do, or lie on each other")
        members = {info.filename.removeprefix(folder): archive.read(info) for info in infos}  # checksums verified
    if members.get("byteorder", b"little") != b"little":
        raise _Refusal("which is not little endian")
    tensors, storages = _read_state_dict(io.BytesIO(members["data.pkl"]))
    return tensors, {key: _elements(key, members[f"data/{key}"], *about) for key, about in storages.items()}


def _elements(key, content, dtype, count):
    if len(content) != count * dtype.itemsize:
        raise ValueError(f"storage {key} has {len(content)} bytes for {count} elements")
    return np.frombuffer(content, dtype)


def _view(elements, offset, shape, strides):
    """Return a tensor within its storage's elements, after a look at whether it lies there."""
    if not all(isinstance(number, int) and number >= 0 for number in (offset, *shape, *strides)):
        raise ValueError("a tensor is not made of sizes")
    reach = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
    if math.prod(shape) and offset + sum(reach) >= len(elements):
        raise ValueError(f"a tensor reaches beyond its {len(elements)} elements")
    strides = [stride * elements.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(elements[offset:], shape, strides)


def _own(view):
    """Return a view's values in memory of their own, in C order."""
    array = np.array(view, order="C")
    if array.dtype.kind != "V":
        return array
    return np.asarray(array.view("<u2").astype("<u4") << 16, "<u4").view("<f4")  # the upper half of a float32
