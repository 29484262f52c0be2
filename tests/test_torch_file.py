"""PyTorch's files: both formats written here opcode by opcode, layouts, refusals, damage."""

import io
import pickle
import struct
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from torch_files import name, number, numbers, ordered, tensor, text, write

from sat_tf import torch_file

FORMATS = ("legacy", "zip")
KINDS = {  # storage -> its elements
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
VALUES = np.random.default_rng(0).normal(size=24).astype("<f4")


def simple(path, form):
    content = ordered([("weight", tensor("7", (2, 3), form=form)), ("bias", tensor("8", (3,), form=form))])
    return write(path, form, content, {"7": VALUES[:6], "8": VALUES[6:9]})


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_values_of_every_type(tmp_path, form, kind):
    wanted = (10 * VALUES).astype(KINDS[kind])
    content = ordered(
        [
            ("image", tensor("0", (4, 3, 2), kind=kind, form=form)),
            ("num_batches_tracked", tensor("1", (), kind=kind, form=form)),
            ("none", tensor("2", (0, 5), kind=kind, form=form)),
        ]
    )
    storages = {"0": wanted, "1": wanted[:1], "2": wanted[:0]}
    arrays = torch_file.read(write(tmp_path / "a.pth", form, content, storages))
    assert list(arrays) == ["image", "num_batches_tracked", "none"]
    assert [array.shape for array in arrays.values()] == [(4, 3, 2), (), (0, 5)]
    assert all(array.dtype == wanted.dtype for array in arrays.values())
    np.testing.assert_array_equal(arrays["image"], wanted.reshape(4, 3, 2))
    assert arrays["num_batches_tracked"] == wanted[0]


@pytest.mark.parametrize("form", FORMATS)
def test_bfloat16_becomes_float32(tmp_path, form):
    wanted = np.float32([1, -2.5, 3.140625, 1e38])  # the last has more digits than a bfloat16 holds
    halves = (wanted.view("<u4") >> 16).astype("<u2")
    content = ordered(
        [
            ("a", tensor("0", (4,), kind="BFloat16Storage", form=form)),
            ("b", tensor("1", (), kind="BFloat16Storage", form=form)),
        ]
    )
    arrays = torch_file.read(write(tmp_path / "a.pth", form, content, {"0": halves, "1": halves[1:2]}))
    assert arrays["a"].dtype == arrays["b"].dtype == np.float32 and arrays["b"] == -2.5
    np.testing.assert_array_equal(arrays["a"][:3], wanted[:3])
    np.testing.assert_allclose(arrays["a"], wanted, rtol=2**-7)


LAYOUTS = {  # of a storage of 24 elements: shape, strides, offset, the same in NumPy
    "contiguous": ((2, 3), (3, 1), 0, VALUES[:6].reshape(2, 3)),
    "offset": ((2, 3), (3, 1), 18, VALUES[18:].reshape(2, 3)),
    "transposed": ((4, 6), (1, 4), 0, VALUES.reshape(6, 4).T),
    "channels last": ((2, 3, 2, 2), (12, 1, 6, 3), 0, VALUES.reshape(2, 2, 2, 3).transpose(0, 3, 1, 2)),
    "every third": ((7,), (3,), 2, VALUES[2:23:3]),
    "expanded": ((5, 2), (0, 1), 4, np.broadcast_to(VALUES[4:6], (5, 2))),
    "one element": ((), (), 23, VALUES[23]),
}


@pytest.mark.parametrize("form", FORMATS)
def test_layouts_in_one_shared_storage(tmp_path, form):
    content = ordered(
        [
            (key, tensor("0", shape, strides, offset=offset, count=24, form=form))
            for key, (shape, strides, offset, _) in LAYOUTS.items()
        ]
    )
    arrays = torch_file.read(write(tmp_path / "a.pth", form, content, {"0": VALUES}))
    for key, (shape, _, _, wanted) in LAYOUTS.items():
        assert arrays[key].shape == shape and arrays[key].flags.c_contiguous
        np.testing.assert_array_equal(arrays[key], wanted)
    arrays["contiguous"][...] = 0  # its own memory
    np.testing.assert_array_equal(arrays["transposed"], LAYOUTS["transposed"][3])


@pytest.mark.parametrize("form", FORMATS)
def test_wrappings(tmp_path, form):
    weight = tensor("0", (2, 3), form=form)
    parameter = name("torch._utils", "_rebuild_parameter") + b"(" + weight + b"\x88" + ordered() + b"tR"
    metadata = b"}" + text("_metadata") + ordered([("", b"}" + text("version") + number(1) + b"s")]) + b"s"
    state = ordered([("module.weight", weight), ("scale", parameter)], metadata)
    checkpoint = b"}(" + text("epoch") + number(3) + text("state_dict") + state + text("best") + b"G" + bytes(8) + b"u"
    for content in (state, checkpoint):
        arrays = torch_file.read(write(tmp_path / "a.pth", form, content, {"0": VALUES[:6]}))
        assert list(arrays) == ["module.weight", "scale"]
        np.testing.assert_array_equal(arrays["scale"], VALUES[:6].reshape(2, 3))


def test_an_empty_state_dict(tmp_path):
    assert torch_file.read(write(tmp_path / "a.pth", "zip", ordered(), {})) == {}


class Named(pickle.Pickler):
    """Writes a tuple ("storage", ...) as a persistent id, as torch.save does."""

    def persistent_id(self, value):
        return value if isinstance(value, tuple) and value[:1] == ("storage",) else None


@pytest.mark.parametrize("protocol", (2, 3, 4, 5))
def test_what_pickle_itself_writes(tmp_path, monkeypatch, protocol):
    """Memo, frames and short opcodes, with a stand-in of torch that is there for writing only."""
    utilities, stand_in = type(sys)("torch._utils"), type(sys)("torch")
    exec("def _rebuild_tensor_v2(*arguments): raise AssertionError('was run')\n", utilities.__dict__)
    utilities._rebuild_tensor_v2.__module__ = "torch._utils"
    stand_in.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    storage = ("storage", stand_in.FloatStorage, "0", "cpu", 24, None)
    rows = {}
    for row in range(3):
        one = type(
            "Tensor",
            (),
            {
                "__reduce__": lambda self, row=row: (
                    utilities._rebuild_tensor_v2,
                    (storage, 8 * row, (2, 4), (4, 1), False, {}),
                )
            },
        )()
        rows[f"row{row}"], rows[f"again{row}"] = one, one
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch", stand_in)
        patch.setitem(sys.modules, "torch._utils", utilities)
        buffer = io.BytesIO()
        Named(buffer, protocol=protocol).dump(rows)
    path = write(tmp_path / "a.pth", "legacy", buffer.getvalue()[:-1], {"0": VALUES}, pairs=b"")
    arrays = torch_file.read(path)
    for row in range(3):
        for key in (f"row{row}", f"again{row}"):
            np.testing.assert_array_equal(arrays[key], VALUES.reshape(3, 2, 4)[row])


COMMAND = "echo ran > ran.txt"
ATTACKS = {  # a pickle that a plain unpickler would run -> the name that must be told
    "GLOBAL": (name("os", "system") + b"(" + text(COMMAND) + b"tR", "os.system"),
    "protocol 0": (b"cos\nsystem\n(S'" + COMMAND.encode() + b"'\ntR", "os.system"),
    "INST": (b"(" + text(COMMAND) + b"ios\nsystem\n", "os.system"),
    "STACK_GLOBAL": (
        text("builtins") + text("exec") + b"\x93(" + text("open('ran.txt', 'w')") + b"tR",
        "builtins.exec",
    ),
    "import": (name("antigravity", "fly_test"), "antigravity.fly_test"),
    "within a name": (name("torch._utils", "os.system"), "torch._utils.os.system"),
    "in a state dict": (ordered([("weight", name("os", "system") + b"(" + text(COMMAND) + b"tR")]), "os.system"),
    "called storage": (name("torch", "FloatStorage") + b"(" + number(9) + b"tR", "torch.FloatStorage"),
    "NEWOBJ": (name("collections", "OrderedDict") + b")\x81", "NEWOBJ"),
    "extension": (b"\x82\x01", "EXT1"),
    "state of a tensor": (tensor("0", (1,)) + b"}b", "state"),
    "field of a tensor": (tensor("0", (1,)) + b"}" + text("parts") + numbers((0, 9)) + b"sb", "state"),
    "slot of a name": (name("torch", "FloatStorage") + b"N}" + text("name") + b"Ns\x86b", "state"),
    "function of a name": (
        name("torch._utils", "_rebuild_tensor_v2") + b"}" + text("function") + name("torch", "FloatStorage") + b"sb",
        "state",
    ),
    "called tensor": (tensor("0", (1,)) + b")R", "Tensor"),
    "instance of a function": (name("torch._utils", "_rebuild_tensor_v2") + b"(" + number(1) + b"t\x81", "NEWOBJ"),
}


@pytest.mark.parametrize("place", ("plain", *FORMATS))
@pytest.mark.parametrize("attack", ATTACKS)
def test_what_could_run_is_refused_by_name_and_not_run(tmp_path, monkeypatch, place, attack):
    monkeypatch.chdir(tmp_path)
    content, named = ATTACKS[attack]
    path = tmp_path / "model.pth"
    if place == "plain":
        path.write_bytes(content + b".")
    else:
        write(path, place, content, {})
    with pytest.raises(ValueError, match="was not (run|set)") as error:
        torch_file.read(path)
    assert named in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran.txt").exists() and "antigravity" not in sys.modules
    assert torch_file.read(simple(path, "zip")).keys() == {"weight", "bias"}  # nothing of it stays


def test_attributes_of_a_state_dict_are_dropped(tmp_path):
    shadow = b"}" + text("items") + b"Ns"
    content = ordered([("weight", tensor("0", (2,)))], shadow)
    arrays = torch_file.read(write(tmp_path / "a.pth", "legacy", content, {"0": VALUES[:2]}))
    np.testing.assert_array_equal(arrays["weight"], VALUES[:2])


BOMBS = {  # content of a small file that asks for hundreds of megabytes
    "memo": b"Nr" + struct.pack("<I", 2**25),
    "bytes": b"\x8e" + struct.pack("<Q", 2**29),
    "bytearray": b"\x96" + struct.pack("<Q", 2**29),
    "frame": b"\x95" + struct.pack("<Q", 2**29),
    "expanded": ordered([("weight", tensor("0", (2**14, 2**13), (0, 0), count=1))]),
    "repeated": ordered([(f"weight{i}", tensor("0", (2**12, 2**8), (0, 0), count=1)) for i in range(99)]),
    "axes": ordered([("weight", tensor("0", (2**30, 2**30, 2**30), (0, 0, 0), count=1))]),
    "empty": ordered([("weight", tensor("0", (0, *[2**30] * 4), (0,) * 5, count=1))]),
    "count": ordered([("weight", tensor("0", (1,), count=2**29))]),
}


def refused_within_memory(path):
    tracemalloc.start()
    try:
        with pytest.raises(OSError, match=f"{path.name} is damaged: ") as error:
            torch_file.read(path)
        assert tracemalloc.get_traced_memory()[1] < 2**25 and "\n" not in str(error.value)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_takes_little_memory(tmp_path, bomb):
    refused_within_memory(write(tmp_path / "a.pth", "legacy", BOMBS[bomb], {"0": VALUES[:1]}))


def test_a_packed_zip_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + ordered() + b".")
        archive.writestr("archive/data/0", bytes(2**27))
    refused_within_memory(tmp_path / "a.pth")


OTHERS = {  # content of a file that is no state dict -> a word of the message
    "text": (b"conv1.weight 0.1 0.2\n", "which is none"),
    "image": (b"\x89PNG\r\n\x1a\n" + bytes(99), "which is none"),
    "pickle": (pickle.dumps({"weight": [1.0, 2.0]}), "which is none"),
    "NumPy": (b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}", "which is none"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_file_is_refused(tmp_path, other):
    content, word = OTHERS[other]
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"Expected .* Received: .*a.pth.*{word}"):
        torch_file.read(path)


def test_a_zip_without_a_state_dict_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, weight=VALUES)
    with pytest.raises(ValueError, match="Expected .* Received: .*a.npz, a zip without data.pkl"):
        torch_file.read(path)


REFUSED = {  # pickled content -> what the message names
    "a number": (number(3), "holds a value of type int"),
    "a tensor": (tensor("0", (2,)), "holds a value of type Tensor"),
    "another value": (ordered([("weight", tensor("0", (2,))), ("epoch", number(3))]), "'epoch' is of type int"),
    "a module": (name("torchvision.models.resnet", "ResNet") + b")\x81", "torchvision.models.resnet.ResNet"),
    "another storage": (ordered([("weight", tensor("0", (2,), kind="QInt8Storage"))]), "torch.QInt8Storage"),
    "a sparse tensor": (ordered([("weight", name("torch._utils", "_rebuild_sparse_tensor"))]), "_sparse_tensor"),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_another_content_is_refused(tmp_path, refused):
    content, word = REFUSED[refused]
    path = write(tmp_path / "a.pth", "legacy", content, {"0": VALUES[:2]})
    with pytest.raises(ValueError, match=f"Expected .* Received: .*{word}.*torch.save\\(model.state_dict"):
        torch_file.read(path)


@pytest.mark.parametrize("form", FORMATS)
def test_big_endian_is_refused(tmp_path, form):
    with pytest.raises(ValueError, match="little endian"):
        torch_file.read(write(tmp_path / "a.pth", form, ordered(), {}, order=b"big"))


@pytest.mark.parametrize("form", FORMATS)
def test_a_cut_file_is_told_at_every_length(tmp_path, form):
    whole = simple(tmp_path / "whole.pth", form).read_bytes()
    path = tmp_path / "cut.pth"
    for length in range(4 if form == "zip" else 0, len(whole)):
        path.unlink(missing_ok=True)  # a file that is written over goes to the disk at once
        path.write_bytes(whole[:length])
        with pytest.raises(OSError, match="cut.pth is damaged: ") as error:
            torch_file.read(path)
        assert "\n" not in str(error.value)


UNREADABLE = {  # layouts that do not fit a storage of 6 elements
    "beyond": {"shape": (2, 3), "offset": 1, "count": 6},
    "stride": {"shape": (2, 3), "strides": (4, 1), "count": 6},
    "negative offset": {"shape": (2,), "offset": -1, "count": 6},
    "negative stride": {"shape": (2,), "strides": (-1,), "offset": 3, "count": 6},
    "ranks": {"shape": (2, 3), "strides": (1,), "count": 6},
    "elements": {"shape": (2, 3), "count": 7},
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("unreadable", UNREADABLE)
def test_a_layout_outside_its_storage_is_damage(tmp_path, form, unreadable):
    content = ordered([("weight", tensor("0", form=form, **UNREADABLE[unreadable]))])
    with pytest.raises(OSError, match="a.pth is damaged: "):
        torch_file.read(write(tmp_path / "a.pth", form, content, {"0": VALUES[:6]}))


@pytest.mark.parametrize("form", FORMATS)
def test_missing_storages_are_damage(tmp_path, form):
    content = ordered([("weight", tensor("0", (6,), form=form))])
    with pytest.raises(OSError, match="a.pth is damaged: "):
        torch_file.read(write(tmp_path / "a.pth", form, content, {"1": VALUES[:6]}))


@pytest.mark.parametrize("form", FORMATS)
def test_whatever_a_damaged_file_holds_the_error_is_clear(tmp_path, form):
    whole, generator = simple(tmp_path / "whole.pth", form).read_bytes(), np.random.default_rng(3)
    path = tmp_path / "a.pth"
    told = 0
    for _ in range(600):
        content = bytearray(whole)
        content[generator.integers(len(content))] = generator.integers(256)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        try:
            torch_file.read(path)
        except (OSError, ValueError) as error:
            told += "a.pth" in str(error)
            assert "a.pth" in str(error), error
    assert told > 100


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        torch_file.read(tmp_path / "none.pth")
