"""Chosen images of a split: at places, every n-th, by a file of ids; for sets in memory, in files, and streamed."""

import hashlib

import numpy as np
import pytest
import tensorflow as tf
from data_files import as_format, indices, labelled, noise, photographs, write_folder, write_photographs, write_tfds
from data_files import places as places_of

from sat_tf import data
from sat_tf.data import make_shards, tfrecords

KINDS = ("arrays", "small_folder", "folder", "shards", "tfds", "nameless_tfds", "cached_shards", "cached_folder")
NAMED = tuple(kind for kind in KINDS if kind not in ("arrays", "nameless_tfds"))


@pytest.fixture(scope="session")
def splits(tmp_path_factory):
    """Return `{kind: Split}`, a test part of each way in which images are kept."""
    root = tmp_path_factory.mktemp("subset")
    write_folder(root / "small" / "train", 5)
    write_folder(root / "small" / "test", 7, seed=1)
    write_photographs(root / "large" / "train", 2)
    write_photographs(root / "large" / "val", 7, first=6)
    make_shards.make(root / "large", root / "shards", {"train": 1, "validation": 3})
    counts = {"train": [12], "validation": [9, 4, 11]}
    write_tfds(root, "imagenet2012", 1000, counts, sides=50, named=True)
    write_tfds(root, "imagenette", 10, counts, "160px-v2", sides=40)
    loaded = {
        "small_folder": data.load("folder", data_dir=root / "small"),
        "folder": data.load("folder", data_dir=root / "large"),
        "shards": data.load("shards", data_dir=root / "shards"),
        "tfds": data.load("imagenet2012", data_dir=root),
        "nameless_tfds": data.load("imagenette", data_dir=root),
        "cached_shards": data.load("shards", data_dir=root / "shards", cache="memory"),
        "cached_folder": data.load("folder", data_dir=root / "large", cache="memory"),
    }
    arrays = data.from_arrays(noise(20, 8, 8), np.arange(20) % 4)
    return {"arrays": arrays} | {kind: dataset.test for kind, dataset in loaded.items()}


@pytest.fixture
def write(tmp_path):
    """Return a function that writes lines, or bytes, to a file of ids."""

    def to_file(*lines):
        path = tmp_path / "ids.txt"
        path.write_bytes(lines[0] if isinstance(lines[0], bytes) else "\n".join(map(str, lines)).encode())
        return path

    return to_file


def some(size, seed, least=1):
    random = np.random.RandomState(seed)
    return np.sort(random.choice(size, random.randint(least, size + 1), replace=False))


def digest(ids):
    return hashlib.sha256("\n".join(map(str, ids)).encode()).hexdigest()


# At places ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_selection_holds_exactly_its_images(splits, kind):
    split = splits[kind]
    places, whole = some(split.size, KINDS.index(kind), least=4), labelled(split)
    chosen = data.selected(split, places)
    assert chosen.size == len(places) and labelled(chosen) == [whole[place] for place in places]
    assert indices(chosen.epoch(None)) == chosen.places.tolist() == places.tolist()
    shares = [places_of(chosen.order(None, host, 2, 2, 0)) for host in range(2)]
    assert sorted(sum(shares, [])) == places.tolist()
    assert indices(chosen.epoch(None, 1, 2, block=2, start=1)) == shares[1][2:]
    with pytest.raises(ValueError, match="natural order"):
        chosen.epoch(tf.constant([1, 2]))


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_of_a_selection_sees_its_images_once(splits, kind):
    split = splits[kind]

    def evaluated(split):
        batches = data.evaluation_batches(split, batch_size=4, image_size=32, preprocess="resize_crop")
        images, labels, mask = map(np.concatenate, zip(*batches.as_numpy_iterator(), strict=True))
        return images[mask > 0], labels[mask > 0]

    places = some(split.size, 2)
    for one, all_of_them in zip(evaluated(data.selected(split, places)), evaluated(split), strict=True):
        np.testing.assert_array_equal(one, all_of_them[places])


@pytest.mark.parametrize("kind", KINDS)
def test_selecting_twice_is_selecting_once(splits, kind):
    split = splits[kind]
    first = some(split.size, KINDS.index(kind), least=4)
    second = some(len(first), KINDS.index(kind) + 10)
    twice, once = data.selected(data.selected(split, first), second), data.selected(split, first[second])
    assert indices(twice.epoch(None)) == twice.places.tolist() == once.places.tolist() == first[second].tolist()
    assert labelled(twice) == labelled(once)
    if split.names:
        assert twice.names().tolist() == once.names().tolist() == split.names()[first[second]].tolist()


def test_nothing_may_be_selected(splits):
    for split in (splits["arrays"], splits["shards"]):
        assert not list(data.selected(split, np.arange(0)).epoch(None))


@pytest.mark.parametrize("places", [[3, 2], [2, 2], [-1, 2], [5, 20], [0.0, 1.0], [True, False], [[1]], 3])
def test_wrong_places_are_refused(splits, places):
    with pytest.raises(ValueError, match="Expected places .* Received: places="):
        data.selected(splits["arrays"], np.array(places))


def test_a_sample_is_a_selection_of_its_places(splits):
    """The numbers are those that runs were evaluated by: they must not change."""
    sample = data.sampled(splits["arrays"], 6)
    assert sample.places.tolist() == [1, 8, 10, 17, 18, 19]
    named = data.sampled(splits["folder"], 6)
    assert named.names().tolist() == splits["folder"].names()[named.places].tolist()


def test_what_is_left_out_of_files_is_not_read(tmp_path):
    paths = write_photographs(tmp_path / "val", 5)
    split = data.load("folder", data_dir=tmp_path).test
    whole, places = labelled(split), [2, 3, 11]
    for place, path in enumerate(paths):
        if place not in places:
            path.unlink()
    assert labelled(data.selected(split, places)) == [whole[place] for place in places]
    assert labelled(data.selected(data.selected(split, places), [1])) == [whole[3]]


def test_a_streamed_set_is_read_up_to_the_last_chosen(tmp_path):
    write_tfds(tmp_path, "imagenette", 10, {"train": [5], "validation": [6, 6]}, "160px-v2")
    split = data.load("imagenette", data_dir=tmp_path).test
    whole = labelled(split)
    next(tmp_path.glob("*/*/*/*validation*00001-of*")).unlink()
    assert labelled(data.selected(split, [1, 5])) == [whole[1], whole[5]]


# Names --------------------------------------------------------------------------------------------


def test_names_are_those_of_a_folder_however_the_set_is_stored(splits):
    classes = ("ant", "bee", "cat")
    expected = [f"{name}/{place:03d}" for name in classes for place in range(7)]
    assert splits["small_folder"].in_memory and not splits["folder"].in_memory
    assert splits["small_folder"].names().tolist() == [f"{name}.png" for name in expected]
    for kind in ("folder", "cached_folder"):
        assert splits[kind].names().tolist() == [f"{name}.JPEG" for name in expected]
    by_name = dict(zip(splits["folder"].names().tolist(), labelled(splits["folder"]), strict=True))
    for kind in ("shards", "cached_shards"):
        names = splits[kind].names().tolist()
        assert names != sorted(names) and set(names) == set(by_name)
        assert labelled(splits[kind]) == [by_name[name] for name in names]
    assert splits["tfds"].names().tolist() == [
        f"class {number}/validation_{shard}_{number:03d}.JPEG" for shard, count in enumerate([9, 4, 11])
        for number in range(count)
    ]  # fmt: skip
    for kind in KINDS:
        assert (splits[kind].names is None) == (kind not in NAMED)


def test_names_of_a_part_of_the_records(tmp_path):
    write_tfds(tmp_path, "imagenet2012", 1000, {"train": [5, 7], "validation": [4]}, named=True)
    loaded = data.load("imagenet2012", data_dir=tmp_path, validation=3)
    everything = data.load("imagenet2012", data_dir=tmp_path, validation=0)
    names = everything.train.names().tolist()
    assert loaded.train.names().tolist() == names[:9] and loaded.validation.names().tolist() == names[9:]
    assert everything.validation.names().shape == (0,)


def test_names_are_relative_to_the_folder_of_the_split(tmp_path):
    write_folder(tmp_path, 10)
    loaded = data.load("folder", data_dir=f"{tmp_path}/")
    names = [name for part in (loaded.train, loaded.validation, loaded.test) for name in part.names().tolist()]
    assert sorted(names) == [f"{name}/{place:03d}.png" for name in ("ant", "bee", "cat") for place in range(10)]


def test_records_are_named_by_class_and_file():
    features = tfrecords.Features(image="i", label="l", first=0, classes=2, name="n", class_names=("ant", "bee"))
    assert features.full_name(b"7.JPEG", 1) == features.full_name(b"some/folder/7.JPEG", 1) == "bee/7.JPEG"
    assert features.full_name(b"", 1) == ""
    assert str(features) == "Features(image='i', label='l', first=0, classes=2)"  # else each remembered index is void


# A file of ids ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_file_of_places_or_names_in_any_order(splits, kind, seed, write):
    split, random = splits[kind], np.random.RandomState(seed)
    places = some(split.size, seed)
    shuffled = random.permutation(places)
    names = split.names().tolist() if split.names else None
    expected = digest(sorted(names[place] for place in places) if names else places)
    ids = [[str(place) for place in shuffled]]
    if names:
        ids.append([names[place] for place in shuffled])
        ids.append([f"{random.choice(['', 'val/', 'test/', 'validation/'])}{names[place]}" for place in shuffled])
        ids.append([f"{names[place]}{random.choice([' ', chr(9), '   '])}{place % 7}" for place in shuffled])
        ids.append([random.choice([names[place], str(place)]) for place in shuffled])
    for lines in ids:
        found, sha = data.read_subset(write("# chosen", "", *lines, "  ", "#0"), split)
        assert found.dtype == np.int64 and found.tolist() == places.tolist() and sha == expected
        windows = b"\xef\xbb\xbf" + "\r\n".join(lines).encode()
        again, sha = data.read_subset(write(windows), split)
        assert again.tolist() == places.tolist() and sha == expected


def test_last_component_is_enough_where_one_has_it(splits, write):
    names = splits["tfds"].names().tolist()
    ids = [names[place].rpartition("/")[2] for place in (9, 4, 20)]
    for prefix in ("", "val/"):
        places, sha = data.read_subset(write(*(prefix + name for name in ids)), splits["tfds"])
        assert places.tolist() == [4, 9, 20] and sha == digest(sorted(names[place] for place in places))
    with pytest.raises(
        ValueError,
        match="Expected names that one image has. Received: '003.JPEG' in line 2 of .*"
        "which 3 have, 'ant/003.JPEG' and 'bee/003.JPEG' for two. Write the full",
    ):
        data.read_subset(write("ant/001.JPEG", "003.JPEG"), splits["folder"])


def test_the_digest_is_the_same_however_the_set_is_stored(splits, write):
    file = write("val/bee/003.JPEG", "ant/000.JPEG 0", "cat/006.JPEG")
    found = {kind: data.read_subset(file, splits[kind]) for kind in ("folder", "shards", "cached_shards")}
    assert {sha for _, sha in found.values()} == {digest(["ant/000.JPEG", "bee/003.JPEG", "cat/006.JPEG"])}
    images = [sorted(labelled(data.selected(splits[kind], places))) for kind, (places, _) in found.items()]
    assert images[0] == images[1] == images[2]


def test_names_as_imagenet_has_them(tmp_path, write):
    """A class may be called as the folder of a part is, and a file may have spaces in its name."""
    content = photographs(1)[0]
    for name in ("n01440764/ILSVRC2012_val_00009111.JPEG", "n01443537/my own 7.JPEG", "val/1.JPEG", "val/7"):
        path = tmp_path / "set" / "val" / f"{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".JPEG").write_bytes(content)
    split = data.load("folder", data_dir=tmp_path / "set").test
    ids = ["val/n01440764/ILSVRC2012_val_00009111.JPEG\t0", "my own 7.JPEG", "val/1.JPEG", "val/val/7.JPEG 3"]
    assert data.read_subset(write(*ids), split)[0].tolist() == [0, 1, 2, 3]


def test_places_in_a_file_are_those_of_the_whole_part(splits, write):
    """So an id means the same image whatever was chosen before, and so does the digest."""
    for kind in ("nameless_tfds", "tfds"):
        chosen = data.selected(splits[kind], [1, 4, 6, 20])
        places, sha = data.read_subset(write(20, 4), chosen)
        assert places.tolist() == [1, 3] and data.selected(chosen, places).places.tolist() == [4, 20]
        assert sha == data.read_subset(write(4, 20), splits[kind])[1]
        with pytest.raises(
            ValueError,
            match="Expected places from 1 to 20 among the 4 chosen before. Received: 1 of 2 others, '5' in line 2",
        ):
            data.read_subset(write(4, 5), chosen)


@pytest.mark.parametrize(
    ("kind", "lines", "message"),
    [
        ("folder", ["# none", ""], "Expected at least one id. Received: none in .*ids.txt. Write one a line"),
        ("folder", [b"\xff\xfe1\x00"], r"Expected a UTF-8 text file of ids.*Received: .*ids.txt \(.*byte 0\). Save"),
        ("folder", ["3", "ant/001.JPEG", "7", "3", "1"], "Expected every image once. Received: 2 repeated, the first "
         "'3' in line 4 of .*, which line 1 names. Remove"),
        ("folder", ["ant/001.JPEG", "ant/1.JPEG", "9", "dog/1.JPEG"], "Expected names of the 21 images, such as "
         "'ant/000.JPEG'. Received: 2 unknown of 3, the first 'ant/1.JPEG' in line 2 of .*. Remove what is unknown"),
        ("folder", ["train/ant/001.JPEG"], "Received: 1 unknown of 1, 'train/ant/001.JPEG' in line 1"),
        ("folder", ["3 1"], "Received: 1 unknown of 1, '3 1' in line 1"),
        ("shards", ["20", "21", "-1"], "Expected places from 0 to 20. Received: 2 of 3 others, the first '21' in line "
         "2 of .*. Remove them, or look whether"),
        ("arrays", ["9" * 5000], "Expected places.*Received: '9+[.]{3}' in line 1"),
        ("arrays", ["3", "ant/001.JPEG"], "Expected places, whole numbers from 0, .* have no names. Received: "
         "'ant/001.JPEG' in line 2 of .*. Write places"),
        ("arrays", ["3 1"], "Expected places, whole numbers .*Received: '3 1' in line 1"),
    ],
)  # fmt: skip
def test_wrong_files_of_ids(splits, kind, lines, message, write):
    with pytest.raises(ValueError, match=message) as raised:
        data.read_subset(write(*lines), splits[kind])
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 500


def test_no_file_of_ids(splits, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"There is no {tmp_path}/x.txt: name a text file"):
        data.read_subset(tmp_path / "x.txt", splits["arrays"])
    with pytest.raises(ValueError, match=f"Expected a text file of ids.*Received: {tmp_path} "):
        data.read_subset(tmp_path, splits["arrays"])


def test_names_that_do_not_tell_images_apart_are_not_in_the_digest(write):
    for names in (["ant/1", "ant/1", "bee/2"], ["ant/1", "", "bee/2"]):
        split = data.from_arrays(noise(3, 4, 4), np.arange(3), names=lambda names=names: np.array(names))
        assert data.read_subset(write("bee/2", "0"), split)[1] == digest([0, 2])
    with pytest.raises(ValueError, match="which 2 have"):
        data.read_subset(
            write("ant/1"), data.from_arrays(noise(2, 4, 4), np.arange(2), names=lambda: np.array(["ant/1", "ant/1"]))
        )


# Beside unreadable images ---------------------------------------------------------------------------


def test_a_subset_without_the_unreadable_image_is_evaluated(tmp_path, write):
    """By name only: places count the images that can be used, and behind an unreadable one they are others'."""
    paths = write_photographs(tmp_path / "val", 4)
    whole = data.load("folder", data_dir=tmp_path).test
    names = whole.names().tolist()
    wanted = labelled(data.selected(whole, [1, 9]))
    paths[3].write_bytes(as_format(photographs(1)[0], "PNG")[:200])
    split = data.load("folder", data_dir=tmp_path).test
    assert len(split.unreadable) == 1 and split.names().tolist() == names[:3] + names[4:]
    file = write(names[9], names[1])
    places, sha = data.read_subset(file, split)
    chosen = data.selected(split, places)
    assert places.tolist() == [1, 8] and labelled(chosen) == wanted and not chosen.unreadable
    assert sha == data.read_subset(file, whole)[1]
    evaluation = data.evaluation_batches(chosen, batch_size=4, image_size=32)
    assert sum(mask.sum() for *_, mask in evaluation.as_numpy_iterator()) == 2
    with pytest.raises(
        ValueError,
        match="Expected names: beside unreadable .*Received: '9' in line 2 .*; 1 unreadable, the "
        "first .*ant/003.JPEG: .*Replace",
    ):
        data.read_subset(write(names[0], 9), split)
    with pytest.raises(
        ValueError, match=f"1 unknown of 2, '{names[3]}' in line 2 .*1 of the set are unreadable and not"
    ):
        data.read_subset(write(names[0], names[3]), split)
    for others in (data.sampled(split, 5), data.part(split, 0, 2), split):
        with pytest.raises(ValueError, match="Expected to evaluate on every image"):
            data.evaluation_batches(others, batch_size=4, image_size=32)


# Parts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["arrays", "folder", "shards"])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_parts_are_the_whole_and_share_nothing(splits, kind, count):
    split = data.selected(splits[kind], np.arange(20))
    parts = [data.part(split, number, count) for number in range(count)]
    assert [part.places.tolist() for part in parts] == [list(range(number, 20, count)) for number in range(count)]
    assert sorted(sum((places_of(part.order(None, 0, 1, 1, 0)) for part in parts), [])) == list(range(20))
    assert max(part.size for part in parts) - min(part.size for part in parts) <= 1


def test_parts_of_a_selection_keep_the_places_of_the_whole(splits):
    places = some(splits["tfds"].size, 5, least=6)
    parts = [data.part(data.selected(splits["tfds"], places), number, 3) for number in range(3)]
    assert [part.places.tolist() for part in parts] == [places[number::3].tolist() for number in range(3)]
    names = splits["tfds"].names()
    for part in parts:
        assert part.names().tolist() == names[part.places].tolist()
        assert places_of(part.order(None, 0, 1, 1, 0)) == part.places.tolist()


@pytest.mark.parametrize(
    ("number", "count", "message"),
    [
        (4, 4, "Expected number from 0 to count - 1. Received: number=4, count=4. The first part is 0"),
        (-1, 4, "Received: number=-1"),
        (0, 0, "Received: number=0, count=0"),
        (0.0, 2, "Expected whole numbers. Received: number=0.0"),
        (0, True, "Expected whole numbers. Received: number=0, count=True"),
        (0, 21, "Expected at most as many parts as the 20 images .*Received: count=21. Choose fewer"),
    ],
)
def test_wrong_parts(splits, number, count, message):
    with pytest.raises(ValueError, match=message):
        data.part(splits["arrays"], number, count)
