"""The tool that writes shards: what it takes over, what it refuses, what it says."""

import functools

import forks
import pytest
from data_files import as_format, labelled, write_folder, write_photographs

from sat_tf import data
from sat_tf.data import make_shards


def test_shards_hold_the_folders_images(tmp_path):
    paths = write_photographs(tmp_path / "in" / "train", 10) + write_photographs(tmp_path / "in" / "val", 3, first=30)
    paths[0].write_bytes(as_format(paths[0].read_bytes(), "GIF"))
    counts, unreadable = make_shards.make(tmp_path / "in", tmp_path / "out", {"train": 4, "validation": 2})
    assert counts == {"train": 30, "validation": 9} and not unreadable
    folder, shards = data.load("folder", data_dir=tmp_path / "in"), data.load("shards", data_dir=tmp_path / "out")
    assert shards.classes == folder.classes == ("ant", "bee", "cat") and shards.image_size is None
    for parts in (("train", "validation"), ("test",)):
        images = [sorted(sum((labelled(getattr(loaded, part)) for part in parts), [])) for loaded in (folder, shards)]
        assert images[0] == images[1]
    make_shards.make(tmp_path / "in", tmp_path / "again", {"train": 4, "validation": 2})
    make_shards.make(tmp_path / "in", tmp_path / "other", {"train": 4, "validation": 2}, seed=1)
    written = [(tmp_path / name / "train-00002-of-00004").read_bytes() for name in ("out", "again", "other")]
    assert written[0] == written[1] != written[2]
    names = {path.name for path in (tmp_path / "again").iterdir()}
    assert names == {
        "classes.txt",
        "counts.txt",
        *(f"train-{number:05d}-of-00004" for number in range(4)),
        "validation-00000-of-00002",
        "validation-00001-of-00002",
    }


def test_tool_at_the_command_line(tmp_path):
    """As a user starts it: one line for an error, no traceback, the counts and the next command in the last line."""
    paths = write_photographs(tmp_path / "in", 10)
    paths[7].write_bytes(b"")
    words = [f"--data_dir={tmp_path / 'in'}", f"--output_dir={tmp_path / 'out'}"]
    words += ["--train_shards=2", "--validation_shards=1"]
    tool = functools.partial(forks.run, "sat_tf.data.make_shards", *words, cwd=tmp_path, folder=tmp_path)
    status, _, err = tool()
    assert "Traceback" not in err and status == 1
    assert err.strip().splitlines()[-1] == (
        f"make_shards: Expected whole images. Received: 1 unreadable, the first {paths[7]}: empty. "
        "Replace them, or leave them out by --skip_unreadable."
    )
    status, out, err = tool("--skip_unreadable")
    assert "Traceback" not in err and status == 0
    note, first, last = out.strip().splitlines()
    assert note.startswith("note: the test split is 5 of 30 images")
    assert first == f"left out: {paths[7]}: empty"
    assert "24 training and 5 validation images written, 1 left out." in last
    assert last.endswith(f"python main.py --dataset=shards --data_dir={tmp_path / 'out'}")
    assert "writing shards: 29 of 29 images (100 %)" in err
    loaded = data.load("shards", data_dir=tmp_path / "out")
    assert loaded.train.size + loaded.validation.size + loaded.test.size == 29


def test_tool_refuses(tmp_path):
    write_folder(tmp_path / "in", 3)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    for output, shards, message in (
        ("full", {"train": 1, "validation": 1}, "Expected an output_dir that is absent or empty"),
        ("out", {"train": 9, "validation": 1}, "Expected train_shards from 1 to the 6 images"),
        ("out", {"train": 1, "validation": 0}, "Expected validation_shards from 1 to the 3 .*validation_shards=0"),
    ):
        with pytest.raises(ValueError, match=message):
            make_shards.make(tmp_path / "in", tmp_path / output, shards)
    assert not (tmp_path / "out").exists()
