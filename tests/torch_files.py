"""PyTorch's files, written opcode by opcode without PyTorch."""

import pickle
import struct
import zipfile

import numpy as np


def text(string):
    return b"X" + struct.pack("<I", len(string)) + string.encode()


def number(value):
    return b"J" + struct.pack("<i", value)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def ordered(items=(), state=b""):
    """Return an OrderedDict of pickled values, filled as torch.save does; `state` is what is set on it."""
    filled = b"(" + b"".join(text(key) + value for key, value in items) + b"u" if items else b""
    return name("collections", "OrderedDict") + b")R" + filled + (state + b"b" if state else b"")


def tensor(key, shape, strides=None, *, offset=0, count=None, kind="FloatStorage", form="legacy"):
    """Return the pickled tensor of a storage of `count` elements; strides default to C order."""
    strides = np.cumprod([1, *shape[:0:-1]])[::-1] if strides is None and shape else strides or ()
    count = int(np.prod(shape, dtype=int)) if count is None else count
    place = text("storage") + name("torch", kind) + text(key) + text("cpu") + number(count)
    place = b"(" + place + (b"N" if form == "legacy" else b"") + b"tQ"
    return (
        name("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + place
        + number(offset)
        + numbers(shape)
        + numbers(strides)
        + b"\x89"
        + ordered()
        + b"tR"
    )


def write(path, form, content, storages, *, order=b"little", pairs=b"\x80\x02"):
    """Write a file of torch.save: the pickled content, and the storages `{key: array}`."""
    content = pairs + content + b"."
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/byteorder", order)
            for key, array in storages.items():
                archive.writestr(f"archive/data/{key}", array.tobytes())
        return path
    machine = {"protocol_version": 1001, "little_endian": order == b"little", "type_sizes": {"short": 2}}
    head = [pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, machine)]
    tail = b"".join(struct.pack("<q", array.size) + array.tobytes() for array in storages.values())
    path.write_bytes(b"".join(head) + content + pickle.dumps(list(storages), protocol=2) + tail)
    return path
