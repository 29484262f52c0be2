"""TFRecord shards of real photographs: what is read, what is said of damage, what is remembered."""

import os

import numpy as np
import pytest
import tensorflow as tf
from data_files import as_format, assert_same, batches, indices, labelled, photographs, portrait, write_photographs

from sat_tf import data
from sat_tf.data import contents, folders, index, tfrecords
from sat_tf.data.splits import to_arrays

SEED = tf.constant([3, 4])
CLASSES = ("ant", "bee", "cat")
TRAIN, VALIDATION = [12, 13, 11, 12], [8, 9]  # records in each shard


def example(content, label):
    features = {}
    if content is not None:
        features["image/encoded"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))
    if label is not None:
        features["image/class/label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_shard(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def write_shards(root, changes=None, classes=CLASSES, parts=None):
    """Write shards as the release's are, without counts. `changes`: `{(shard, record): function of the record}`."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    photos, number = photographs(sum(TRAIN + VALIDATION)), 0
    for part, counts in (parts or {"train": TRAIN, "validation": VALIDATION}).items():
        for shard, count in enumerate(counts):
            name = f"{part}-{shard:05d}-of-{len(counts):05d}"
            records = []
            for place in range(count):
                record = example(photos[number], number % len(classes) + 1)
                records.append((changes or {}).get((name, place), lambda whole: whole)(record))
                number += 1
            write_shard(root / name, records)
    return root


def changed(content=None, label=None, drop=None):
    """Return a function that changes a record: its image by a function, its label, or drops a feature."""

    def change(record):
        parsed = tf.train.Example.FromString(record)
        if content:
            values = parsed.features.feature["image/encoded"].bytes_list
            values.value[0] = content(values.value[0])
        if label is not None:
            parsed.features.feature["image/class/label"].int64_list.value[0] = label
        if drop:
            del parsed.features.feature[drop]
        return parsed.SerializeToString()

    return change


DAMAGE = {  # (shard, record): (change, what is said)
    ("train-00000-of-00004", 0): (changed(lambda c: c[: len(c) // 2]), "truncated JPEG"),
    ("train-00000-of-00004", 1): (changed(lambda c: c[:-1]), "truncated JPEG"),
    ("train-00000-of-00004", 5): (
        changed(lambda c: b"garbage" * 50),
        "no image of a known format: JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF, PPM and JPEG 2000 are read",
    ),
    ("train-00000-of-00004", 11): (changed(lambda c: b""), "empty"),
    ("train-00001-of-00004", 3): (changed(drop="image/encoded"), "no image/encoded"),
    ("train-00001-of-00004", 4): (changed(drop="image/class/label"), "no image/class/label"),
    ("train-00001-of-00004", 6): (changed(label=0), "label 0, which is not from 1 to 1000"),
    ("train-00001-of-00004", 7): (changed(label=1001), "label 1001, which is not from 1 to 1000"),
    ("train-00001-of-00004", 9): (lambda record: b"\xff no message", "not a tf.train.Example"),
    ("train-00001-of-00004", 10): (changed(lambda c: as_format(c, "PNG")[:200]), "unreadable PNG"),
}
HARMLESS = {
    ("train-00001-of-00004", 0): changed(lambda c: as_format(c, "PNG")),
    ("train-00001-of-00004", 1): changed(lambda c: as_format(c, "JPEG", "CMYK")),
    ("train-00001-of-00004", 2): changed(lambda c: as_format(c, "JPEG", "L")),
}


@pytest.fixture(scope="session")
def damaged(tmp_path_factory):
    """Return a folder of ImageNet's form with every kind of damage in its training part, and what should be said."""
    root = tmp_path_factory.mktemp("shards") / "imagenet"
    write_shards(root, {place: change for place, (change, _) in DAMAGE.items()} | HARMLESS, classes=["a class"] * 1000)
    said = {place: fault for place, (_, fault) in DAMAGE.items()}
    flipped, cut = root / "train-00002-of-00004", root / "train-00003-of-00004"
    content, (offsets, _) = bytearray(flipped.read_bytes()), tfrecords.scan(str(flipped))
    for record in (0, 4, 5):
        content[offsets[record] + 100] ^= 1
        said[flipped.name, record] = "its checksum does not match"
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[: tfrecords.scan(str(cut))[0][9] + 500])
    said[cut.name, 9] = "the file ends within it"
    return root, tuple(f"{root / shard}, record {record}: {fault}" for (shard, record), fault in sorted(said.items()))


# Damage -------------------------------------------------------------------------------------------


def test_damage_is_counted_and_named(damaged):
    root, said = damaged
    loaded = data.load("imagenet2012", data_dir=root, validation=5)
    assert loaded.train.unreadable == said
    assert len(loaded.classes) == 1000 and loaded.classes[0] == "n01440764" and loaded.image_size is None
    lost_behind_the_cut = 2
    assert loaded.train.size + 5 + len(said) + lost_behind_the_cut == sum(TRAIN)
    assert loaded.test.size == sum(VALIDATION) and not loaded.test.unreadable and not loaded.validation.unreadable
    assert loaded.notes == (
        "train: 1 CMYK JPEG, 1 PNG",
        "train: 45 records, imagenet2012 has 1,281,167",
        "validation: 17 records, imagenet2012 has 50,000",
    )
    assert loaded.diagnose() is None


def test_training_goes_around_what_is_unreadable(damaged):
    root, _ = damaged
    loaded = data.load("imagenet2012", data_dir=root, validation=5)
    whole = batches(loaded.train, batch_size=3, augment="none")
    seen = [{image.tobytes() for images, _ in epoch for image in images} for epoch in (whole[:9], whole[9:])]
    steps = data.steps_per_epoch(loaded.train, 3)
    assert len(whole) == 2 * steps and all(len(photos) == 3 * steps for photos in seen)
    order = indices(loaded.train.epoch(SEED))
    assert sorted(order) == list(range(loaded.train.size)) == indices(loaded.train.epoch(None))
    assert_same(batches(loaded.train, batch_size=3, augment="none", start_step=7), whole[7:])
    shares = [indices(loaded.train.epoch(SEED, host, 2)) for host in range(2)]
    assert sorted(sum(shares, [])) == sorted(order)
    assert sum(mask.sum() for *_, mask in evaluation(loaded.validation)) == 5


def evaluation(split, **arguments):
    return data.evaluation_batches(split, batch_size=4, image_size=32, **arguments).as_numpy_iterator()


def test_evaluation_refuses_with_the_name(damaged, tmp_path):
    root, said = damaged
    with pytest.raises(ValueError) as raised:
        evaluation(data.load("imagenet2012", data_dir=root, validation=5).train)
    assert f"Received: {len(said)} of {27 + len(said)} unreadable, the first {said[0]}. Replace" in str(raised.value)
    name = "validation-00001-of-00002"
    write_shards(tmp_path, {(name, 2): changed(lambda c: c[:300])})
    loaded = data.load("shards", data_dir=tmp_path)
    with pytest.raises(
        ValueError, match=f"Received: 1 of 17 unreadable, the first {tmp_path / name}, record 2: truncated"
    ):
        evaluation(loaded.test)
    assert loaded.test.size == 16


@pytest.mark.parametrize(
    ("cut", "fault"), [(-1, "the file ends within it"), (7, "the file ends within its header"), (0, None)]
)
@pytest.mark.parametrize("counted", [True, False])
def test_cut_shard(tmp_path, cut, fault, counted):
    """With counts.txt every lost record is counted; without it one fault stands for whatever followed."""
    path = write_shards(tmp_path) / "train-00001-of-00004"
    if counted:
        lines = [f"train-{shard:05d}-of-00004 {count}\n" for shard, count in enumerate(TRAIN)]
        (tmp_path / "counts.txt").write_text("".join(lines))
    content, (offsets, _) = path.read_bytes(), tfrecords.scan(str(path))
    path.write_bytes(content[: offsets[9] + cut if cut >= 0 else offsets[10] - 1])
    train = data.load("shards", data_dir=tmp_path, validation=0).train
    assert train.size == sum(TRAIN) - 4
    expected = [f"{path}, record 9: {fault}"] if fault else []
    if counted:
        lost = "missing: the file ends before it, or what precedes it is damaged"
        expected += [f"{path}, record {record}: {lost}" for record in range(9 + len(expected), 13)]
    assert list(train.unreadable) == expected


def test_damaged_length_and_empty_shard(tmp_path):
    root = write_shards(tmp_path)
    first, second = root / "train-00000-of-00004", root / "train-00001-of-00004"
    content = bytearray(first.read_bytes())
    content[tfrecords.scan(str(first))[0][2] + 3] ^= 1
    first.write_bytes(content)
    second.write_bytes(b"")
    train = data.load("shards", data_dir=root, validation=0).train
    assert train.size == 2 + TRAIN[2] + TRAIN[3]
    assert train.unreadable == (
        f"{first}, record 2: its length is damaged, and what follows cannot be found",
        f"{second}, record 0: the file is empty",
    )
    assert len(indices(train.epoch(SEED))) == train.size


def test_missing_shard_is_refused(tmp_path):
    write_shards(tmp_path)
    (tmp_path / "train-00002-of-00004").rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError, match=f"1 of 4 train shards are missing in {tmp_path}, train-00002-of-00004"):
        data.load("shards", data_dir=tmp_path)
    (tmp_path / "away").rename(tmp_path / "train-00002-of-00005")
    with pytest.raises(ValueError, match="the train shards of one set .*Received: some of 00004 and some of 00005"):
        data.load("shards", data_dir=tmp_path)
    (tmp_path / "train-00002-of-00005").rename(tmp_path / "train-00004-of-00004")
    with pytest.raises(ValueError, match="numbered from 0 .*Received: train-00004-of-00004"):
        data.load("shards", data_dir=tmp_path)


def test_validation_shards_alone(tmp_path):
    write_shards(tmp_path, parts={"validation": VALIDATION})
    loaded = data.load("shards", data_dir=tmp_path)
    assert (loaded.train.size, loaded.validation.size, loaded.test.size) == (0, 0, 17)
    assert sum(mask.sum() for *_, mask in evaluation(loaded.test, preprocess="crop_resize")) == 17
    with pytest.raises(ValueError, match="Expected batch_size"):
        batches(loaded.train)


def test_folders_that_hold_no_shards(tmp_path):
    for root, message in ((None, "Received: data_dir=None"), (tmp_path, "There is no .*classes.txt")):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            data.load("shards", data_dir=root)
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    with pytest.raises(FileNotFoundError, match="There are no files like train-00000-of-00008"):
        data.load("shards", data_dir=tmp_path)
    (tmp_path / "classes.txt").write_text("ant\n")
    with pytest.raises(ValueError, match="two or more classes in .*Received: 1"):
        data.load("shards", data_dir=tmp_path)


# What a look finds --------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.9, 0.99, 1.0])
def test_decoding_an_eighth_finds_every_cut(part):
    """The cheap look must find whatever the decoding in training would stumble on."""
    for content in [*photographs(6), tf.io.encode_jpeg(portrait(), progressive=True).numpy()]:
        cut = content[: min(int(part * len(content)), len(content) - 1)]
        with pytest.raises(tf.errors.InvalidArgumentError):
            contents.look(tf.constant(cut))
        assert contents.fault_of(cut) in ("truncated JPEG", "unreadable JPEG") and contents.fault_of(content) is None


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "BMP"])
def test_look_tells_kind_and_sides(name):
    content = as_format(tf.io.encode_png(portrait()[:70, :50]).numpy(), name)
    kind, sides, _ = contents.look(tf.constant(content))
    assert contents.KINDS[kind] == name and sides.numpy().tolist() == [70, 50]


def test_scan_finds_what_tensorflow_wrote(tmp_path):
    path = tmp_path / "records"
    records = [b"", b"a", b"b" * 1000, b""]
    write_shard(path, records)
    offsets, fault = tfrecords.scan(str(path))
    assert fault is None and offsets.tolist() == [0, 16, 33, 1049]
    with pytest.raises(OSError, match="nowhere cannot be read"):
        tfrecords.scan(str(tmp_path / "nowhere"))


# What is remembered -------------------------------------------------------------------------------


@pytest.fixture
def looks(monkeypatch):
    """Return a list to which every check of files adds their names."""
    seen = []

    def watch(module):
        check = module.check_files

        def watched(paths, advance, *arguments, **more):
            seen.append([os.path.basename(path) for path in paths])
            return check(paths, advance, *arguments, **more)

        monkeypatch.setattr(module, "check_files", watched)

    watch(tfrecords)
    watch(folders)
    return seen


def test_index_is_reused_and_only_changed_files_are_looked_at(tmp_path, looks):
    root = write_shards(tmp_path, {("train-00001-of-00004", 3): changed(label=9)})
    first = data.load("shards", data_dir=root)
    assert len(looks) == 1 and len(looks[0]) == 6 and (root / index.FILE_NAME).is_file()
    second = data.load("shards", data_dir=root)
    assert len(looks) == 1 and second.train.unreadable == first.train.unreadable and len(first.train.unreadable) == 1
    assert_same(batches(second.train), batches(first.train))
    write_shard(root / "train-00002-of-00004", [example(content, 1) for content in photographs(3)] + [b"x"])
    third = data.load("shards", data_dir=root)
    assert looks[1:] == [["train-00002-of-00004"]]
    assert [text.split(", ")[0][-8:] for text in third.train.unreadable] == ["of-00004"] * 2
    assert third.train.size + third.validation.size == sum(TRAIN) - 1 - 11 + 3
    (root / "classes.txt").write_text("1\n2\n3\n4\n5\n6\n7\n8\n9\n")  # label 9 is one now
    assert len(data.load("shards", data_dir=root).train.unreadable) == 1 and len(looks[2]) == 6
    assert not list(root.glob("*.partial*"))


def test_index_of_a_folder(tmp_path, looks):
    paths = write_photographs(tmp_path / "train", 10) + write_photographs(tmp_path / "val", 2, first=30)
    paths[4].write_bytes(paths[4].read_bytes()[:500])
    first = data.load("folder", data_dir=tmp_path)
    assert first.train.unreadable == (f"{paths[4]}: truncated JPEG",) and first.train.size + first.validation.size == 29
    second = data.load("folder", data_dir=tmp_path)
    assert len(looks) == 1 and second.train.unreadable == first.train.unreadable
    assert_same(batches(second.train), batches(first.train))
    paths[4].write_bytes(photographs(1)[0])
    paths[9].unlink()
    third = data.load("folder", data_dir=tmp_path)
    assert (
        looks[1:] == [[paths[4].name]] and not third.train.unreadable and third.train.size + third.validation.size == 29
    )


def test_interrupted_look_keeps_what_was_done(tmp_path, looks, monkeypatch):
    root = write_shards(tmp_path)
    monkeypatch.setattr(tfrecords, "_CHECKED", 2)
    check, calls = tfrecords.check_files, []

    def interrupted(paths, advance, features):
        calls.append(paths)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return check(paths, advance, features)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tfrecords, "check_files", interrupted)
        data.load("shards", data_dir=root)
    del looks[:]
    assert data.load("shards", data_dir=root).train.size > 0
    assert looks == [["validation-00000-of-00002", "validation-00001-of-00002"]]


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\3\4 half an archive"])
def test_unreadable_index_is_made_anew(tmp_path, content, looks):
    root = write_shards(tmp_path)
    (root / index.FILE_NAME).write_bytes(content)
    for _ in range(2):
        assert data.load("shards", data_dir=root).test.size == 17
    assert len(looks) == 1


def test_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    """Neither a folder's rights nor a directory in the way stops anything; root may write everywhere."""
    root = write_shards(tmp_path)
    (root / index.FILE_NAME).mkdir()
    said = []
    monkeypatch.setattr(index.logging, "warning", lambda text, *values: said.append(text % values))
    assert data.load("shards", data_dir=root).test.size == 17
    assert len(said) == 1 and "cannot be written" in said[0] and not list(root.glob("*.partial*"))


# Cache --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shards", "folder"])
def test_cache_keeps_order_and_reads_once(tmp_path, name):
    changes = {("train-00001-of-00004", 3): changed(lambda c: b"")}
    if name == "shards":
        write_shards(tmp_path, changes)
    else:
        write_photographs(tmp_path, 20)
    plain, cached = (data.load(name, data_dir=tmp_path, cache=cache) for cache in ("none", "memory"))
    assert cached.train.unreadable == plain.train.unreadable
    expected = batches(plain.train), batches(plain.train, host=1, hosts=2, start_step=1)
    natural = labelled(plain.test)
    assert_same(batches(cached.train), expected[0])
    assert_same(batches(cached.train, host=1, hosts=2, start_step=1), expected[1])
    assert labelled(cached.test) == natural
    for path in [*tmp_path.glob("*-of-*"), *tmp_path.glob("*/*.JPEG")]:
        path.unlink()
    assert_same(batches(cached.train, start_step=2), expected[0][2:])


def test_cache_of_small_sets_and_unknown_caches():
    np.testing.assert_array_equal(
        *(to_arrays(data.load("synthetic", cache=cache).train)[0] for cache in ("memory", "none"))
    )
    with pytest.raises(ValueError, match="Expected cache in .*none.*memory.* Received: cache='disk'"):
        data.load("synthetic", cache="disk")
