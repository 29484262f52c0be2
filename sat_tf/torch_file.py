"""PyTorch's files of weights, read without PyTorch: a pickle is interpreted opcode by opcode, never executed.

    legacy (before 1.6)   pickles of a magic number, a protocol, the machine, the state dict and the storages' keys,
                          then of each storage: int64 number of elements, elements
    zip (since 1.6)       <any>/data.pkl, the state dict; <any>/data/<key>, the elements of each storage

Of a pickle only what a state dict is made of is understood: numbers, strings, tuples, lists, dicts, and the names in
`DTYPES` and `CALLS`, which stand for functions of this file. Nothing is imported, and nothing that a file names is run.
"""

import dataclasses
import io
import math
import pathlib
import pickletools
import re
import zipfile
import zlib

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # the first two pickles of a legacy file
MAGIC_PICKLE = b"\x80\x02\x8a\x0a" + MAGIC.to_bytes(10, "little") + b"."
ZIP_HEADS = (b"PK\3\4", b"PK\5\6")
DTYPES = {  # what a storage's elements are; bfloat16, which NumPy does not know, is widened to float32 at the end
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}
REMEDY = "Save the state dict alone: torch.save(model.state_dict(), path)."


def read(path):
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
    path = pathlib.Path(path)
    with path.open("rb") as file:
        is_zip = file.read(4) in ZIP_HEADS
    tensors, elements = (_read_zip if is_zip else _read_legacy)(path)
    return {name: _array(tensor, elements[tensor.storage.key]) for name, tensor in tensors.items()}


class _Refusal(ValueError):
    """What a pickle asks for and is not given: not damage."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Global:
    """A name that a pickle refers to: a name only."""

    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class _Storage:
    key: str
    dtype: np.dtype
    widened: bool
    count: int  # elements


@dataclasses.dataclass(frozen=True, eq=False)
class _Tensor:
    storage: _Storage
    offset: int  # elements, as the strides
    shape: tuple
    strides: tuple


class _Machine:
    """The stack of one pickle, the heights that it marked, its memo, and the storages that it mentions."""

    def __init__(self):
        self.stack, self.marks, self.memo, self.storages = [], [], {}, {}

    def push(self, value):
        self.stack.append(value)

    def take(self, count):
        """Remove and return the last `count` values."""
        if not 0 <= count <= len(self.stack):
            raise IndexError("its stack is empty")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def take_to_mark(self):
        """Remove and return the values above the last mark, and remove the mark."""
        return self.take(len(self.stack) - self.marks.pop())

    def set_items(self, flat):
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise TypeError("items of what is not a dict")
        target.update(zip(flat[::2], flat[1::2], strict=True))

    def extend(self, values):
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError("items of what is not a list")
        target.extend(values)

    def name(self, module, name):
        """Push a name that a state dict needs; refuse any other, module and all."""
        full = f"{module}.{name}"
        if full not in DTYPES and full not in CALLS:
            raise _Refusal(f"the name {full!r}, which a state dict does not need and which was not run")
        self.push(_Global(full))

    def call(self):
        function, arguments = self.take(2)
        if not isinstance(function, _Global) or function.name not in CALLS:
            raise _Refusal(f"a call of {getattr(function, 'name', function)!r}, which was not run")
        self.push(CALLS[function.name](*arguments))

    def build(self):
        """Drop what was set on an OrderedDict as an attribute: the versions of the layers, `_metadata`."""
        target, _ = self.take(2)
        if not isinstance(target, dict):
            raise _Refusal(f"a state for an object of type {_kind(target)}, which was not set")
        self.push(target)

    def storage(self):
        """Replace the persistent id ("storage", type, key, device, elements[, view]) with the storage it means."""
        [(kind, element, key, _, count, *view)] = self.take(1)
        if kind != "storage" or not isinstance(key, str) or not isinstance(count, int) or count < 0:
            raise ValueError("an unknown persistent id")
        if element.name not in DTYPES or view not in ([], [None]):
            raise _Refusal(f"a storage of another kind: {element.name}, view {view}")
        widened = DTYPES[element.name] == "bfloat16"
        new = _Storage(key, np.dtype("<u2" if widened else DTYPES[element.name]), widened, count)
        known = self.storages.setdefault(key, new)
        if (known.dtype, known.widened, known.count) != (new.dtype, widened, count):
            raise ValueError(f"storage {key} has two sizes or types")
        self.push(known)


def _ordered_dict(items=()):
    return {name: value for name, value in items}  # noqa: C416  unequal pairs must be an error


def _tensor(storage, offset, shape, strides, *_):
    """Return the tensor, after a look at whether it lies within its storage; gradient flag and hooks are dropped."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise TypeError("a tensor that is not made of a storage and sizes")
    reach = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
    if math.prod(shape) and offset + sum(reach) >= storage.count:
        raise ValueError(f"a tensor of shape {shape} reaches beyond its {storage.count} elements")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(data, *_):
    return data


CALLS = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
OPCODES = {  # pickle's opcode -> what it does, given the machine and the argument
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    **dict.fromkeys(
        (
            "BININT",
            "BININT1",
            "BININT2",
            "LONG1",
            "LONG4",
            "BINFLOAT",
            "BINUNICODE",
            "SHORT_BINUNICODE",
            "BINUNICODE8",
            "BINSTRING",
            "SHORT_BINSTRING",
            "BINBYTES",
            "SHORT_BINBYTES",
        ),
        _Machine.push,
    ),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.take(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.take(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.take(3))),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.take_to_mark())),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "APPEND": lambda machine, _: machine.extend(machine.take(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.take_to_mark()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "SETITEM": lambda machine, _: machine.set_items(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.take_to_mark()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda machine, key: machine.memo.update({key: machine.stack[-1]})),
    "MEMOIZE": lambda machine, _: machine.memo.update({len(machine.memo): machine.stack[-1]}),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, key: machine.push(machine.memo[key])),
    **dict.fromkeys(("GLOBAL", "INST"), lambda machine, names: machine.name(*names.split(" ", 1))),
    "STACK_GLOBAL": lambda machine, _: machine.name(*machine.take(2)),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.storage(),
}


def _interpret(file, path):
    """Return the value of the pickle that starts at a file's position, and `{key: _Storage}` of what it mentions."""
    machine = _Machine()
    try:
        for opcode, argument, _ in list(
            pickletools.genops(file)
        ):  # well formed to its end, before anything is evaluated
            if opcode.name not in OPCODES:
                raise _Refusal(f"a pickle with the opcode {opcode.name}, which was not run")
            OPCODES[opcode.name](machine, argument)
        [value] = machine.stack
    except _Refusal as error:
        raise ValueError(f"Expected a state dict. Received: {path}, with {error}. {REMEDY}") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise _damaged(path, f"its pickle cannot be read ({error})") from error
    return value, machine.storages


def _read_legacy(path):
    """Return `{name: _Tensor}` and `{key: bytes of its elements}` of a file of the time before 1.6."""
    content = path.read_bytes()
    file = io.BytesIO(content)
    try:
        magic, _ = _interpret(file, path)
    except OSError:
        if MAGIC_PICKLE.startswith(content):
            raise _damaged(path, "it ends before its first number") from None
        magic = None
    if magic != MAGIC:
        raise ValueError(
            f"Expected a file that torch.save wrote. Received: {path}, which is none: it begins with {content[:12]!r}."
        )
    (protocol, _), (machine, _), (value, storages), (keys, _) = (_interpret(file, path) for _ in range(4))
    if protocol != PROTOCOL or not isinstance(machine, dict) or not machine.get("little_endian"):
        raise ValueError(
            f"Expected protocol {PROTOCOL} and little endian. Received: {path}, with protocol={protocol}, "
            f"machine={machine}."
        )
    tensors = _state_dict(value, path)
    if not isinstance(keys, list) or sorted(map(repr, keys)) != sorted(map(repr, storages)):
        raise _damaged(path, "its list of storages differs from what its tensors are made of")
    elements, place = {}, file.tell()
    for key in keys:
        start, size = place + 8, storages[key].count * storages[key].dtype.itemsize
        place = start + size
        if place > len(content):
            raise _damaged(path, f"it has {len(content)} bytes, storage {key} ends at {place}")
        if int.from_bytes(content[start - 8 : start], "little") != storages[key].count:
            raise _damaged(path, f"storage {key} has another size than its tensors")
        elements[key] = memoryview(content)[start:place]
    return tensors, elements


def _read_zip(path):
    """Return `{name: _Tensor}` and `{key: bytes of its elements}` of a file of the time since 1.6."""
    members = _members(path)
    if "data.pkl" not in members:
        raise ValueError(f"Expected a file that torch.save wrote. Received: {path}, a zip without data.pkl.")
    if members.get("byteorder", b"little") != b"little":
        raise ValueError(f"Expected little endian. Received: {path}, with byteorder={members['byteorder']}.")
    value, storages = _interpret(io.BytesIO(members["data.pkl"]), path)
    tensors = _state_dict(value, path)
    elements = {key: members.get(f"data/{key}", b"") for key in storages}
    for key, storage in storages.items():
        if len(elements[key]) != storage.count * storage.dtype.itemsize:
            raise _damaged(path, f"storage {key} has {len(elements[key])} bytes for {storage.count} elements")
    return tensors, elements


def _members(path):
    """Return `{name: content}` of the folder in a zip that has a data.pkl, checksums verified; empty without one."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            folders = [name.removesuffix("data.pkl") for name in names if re.fullmatch("[^/]+/data.pkl", name)]
            return {
                name.removeprefix(folders[0]): archive.read(name)
                for name in names
                if folders and name.startswith(folders[0])
            }
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise _damaged(path, f"it cannot be unzipped ({error})") from error


def _state_dict(value, path):
    """Return `{name: _Tensor}`, taken out of a checkpoint's `state_dict` where it has one."""
    if isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        value = value["state_dict"]
    if not isinstance(value, dict):
        raise ValueError(
            f"Expected a state dict. Received: {path}, which holds a value of type {_kind(value)}. {REMEDY}"
        )
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise ValueError(
                f"Expected names and tensors. Received: {path}, where {name!r} is of type {_kind(tensor)}. {REMEDY}"
            )
    return value


def _kind(value):
    return type(value).__name__.lstrip("_")


def _array(tensor, elements):
    """Return a tensor as an array of its own, in C order."""
    dtype = tensor.storage.dtype
    flat = np.frombuffer(elements, dtype)[tensor.offset :]
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    array = np.array(np.lib.stride_tricks.as_strided(flat, tensor.shape, strides), order="C")
    if tensor.storage.widened:  # a bfloat16 is the upper half of a float32
        array = np.asarray(array.astype("<u4") << 16, "<u4").view("<f4")
    return array


def _damaged(path, reason):
    return OSError(f"The file {path} is damaged: {reason}. Fetch it again.")
