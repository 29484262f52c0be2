"""Folders of the user's own: which files are images, which are to test by, and that none is passed over in silence."""

import os
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from data_files import labelled, noise, write_folder

from sat_tf import data
from sat_tf.data import make_shards
from sat_tf.data.listing import drawn, listing

SEED = np.random.default_rng(0)


def save(path, kind="PNG", side=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(SEED.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path, kind)


def names(split):
    return set(split.names().tolist())


# What is taken ------------------------------------------------------------------------------------


def test_every_format_and_sub_folder_is_taken(tmp_path):
    files = {"0.png": "PNG", "1.WEBP": "WEBP", "2.tif": "TIFF", "3.jfif": "JPEG", "4": "PNG", "more/deep/5.Bmp": "BMP"}
    for name in "ab":
        for file, kind in files.items():
            save(tmp_path / "in" / "test" / name / file, kind)
    loaded = data.load("folder", data_dir=tmp_path / "in")
    assert loaded.test.size == 12 and not loaded.test.unreadable and len(labelled(loaded.test)) == 12
    assert names(loaded.test) == {f"{name}/{file}" for name in "ab" for file in files}
    assert loaded.notes == ("2 images in sub-folders of a class, the first a/more/deep/5.Bmp",)
    counts, unreadable = make_shards.make(tmp_path / "in", tmp_path / "out", {"train": None, "validation": None})
    assert counts == {"train": 0, "validation": 12} and not unreadable
    shards = data.load("shards", data_dir=tmp_path / "out")
    assert sorted(shards.test.digests()) == sorted(loaded.test.digests())
    assert sorted(labelled(shards.test)) == sorted(labelled(loaded.test))


def test_what_is_no_image_is_named_and_what_cannot_be_read_stops_evaluation(tmp_path):
    root = write_folder(tmp_path / "test", 2, height=8, width=8)
    (root / "ant" / "notes.txt").write_text("text")
    (root / "ant" / "README").write_text("more text")
    (root / "ant" / "Thumbs.db").write_bytes(b"\0")
    (root / "ant" / ".hidden").write_bytes(b"\0")
    loaded = data.load("folder", data_dir=tmp_path)
    assert loaded.notes == (f"2 files that are no images left out, the first {root / 'ant' / 'README'}",)
    assert not loaded.test.unreadable and loaded.test.size == 6
    (root / "bee" / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    (root / "cat" / "nothing").write_bytes(b"\0\1\2\xff" * 9)
    os.symlink("nowhere.png", root / "cat" / "link.png")
    loaded = data.load("folder", data_dir=tmp_path)
    assert [text.split(": ")[0].rpartition("/")[2] for text in loaded.test.unreadable] == [
        "photo.heic", "link.png", "nothing",
    ]  # fmt: skip
    assert "HEIC: " in loaded.test.unreadable[0] and "No such file" in loaded.test.unreadable[1]
    with pytest.raises(ValueError, match="Received: 3 of 9 unreadable, the first .*photo.heic: HEIC"):
        data.evaluation_batches(loaded.test, batch_size=2, image_size=8)


def test_folders_beside_those_that_are_taken_are_named(tmp_path):
    for part in ("train", "test", "valid", "extra"):
        write_folder(tmp_path / part, 2, height=8, width=8, seed=len(part))
    save(tmp_path / "logo.png")
    save(tmp_path / "train" / "loose.jpg")
    loaded = data.load("folder", data_dir=tmp_path, validation=1)
    assert (loaded.train.size, loaded.test.size) == (5, 6)
    said = "\n".join(loaded.notes)
    assert f"1 images in no class folder of {tmp_path} left out, the first {tmp_path / 'logo.png'}" in said
    assert f"1 images in no class folder of {tmp_path / 'train'} left out" in said
    for part in ("valid", "extra"):
        assert f"6 images in {tmp_path / part} left out: neither trained nor tested on" in said


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("training", "valid"), ("TRAIN", "Validation")])
def test_parts_are_known_in_any_case(tmp_path, train, test):
    write_folder(tmp_path / train, 4, height=8, width=8)
    write_folder(tmp_path / test, 2, height=8, width=8, seed=1)
    loaded = data.load("folder", data_dir=tmp_path)
    assert loaded.classes == ("ant", "bee", "cat") and loaded.test.size == 6
    assert loaded.train.size + loaded.validation.size == 12


@pytest.mark.parametrize("folders", [("train", "Train"), ("train", "training"), ("train", "test", "Test")])
def test_two_folders_of_one_part_are_refused(tmp_path, folders):
    for place, part in enumerate(folders):
        write_folder(tmp_path / part, 1, height=8, width=8, seed=place)
    with pytest.raises(ValueError, match="Expected one folder of that part .*Received: .*Put the images of one into"):
        data.load("folder", data_dir=tmp_path)


def test_classes_beside_a_test_folder_are_refused(tmp_path):
    write_folder(tmp_path, 2, height=8, width=8)
    write_folder(tmp_path / "test", 2, height=8, width=8, seed=1)
    with pytest.raises(ValueError, match="Expected the class folders in .*train beside test. Received: ant beside"):
        data.load("folder", data_dir=tmp_path)


def test_a_class_may_be_called_test(tmp_path):
    write_folder(tmp_path, 6, classes=["test", "train"], height=8, width=8)
    assert listing(tmp_path).classes == ("test", "train")


@pytest.mark.parametrize("count", [1, 2])
def test_folders_of_one_or_two_images_a_class(tmp_path, count):
    root = write_folder(tmp_path / "in", count, classes=["ant", "bee"], height=8, width=12)
    loaded = data.load("folder", data_dir=root, validation=0)
    assert (loaded.train.size, loaded.test.size) == (2, 2 * (count - 1))
    write_folder(tmp_path / "other" / "test", count, classes=["ant", "bee"], height=8, width=12)
    test = data.load("folder", data_dir=tmp_path / "other").test
    images, labels, mask = next(iter(data.evaluation_batches(test, batch_size=5, image_size=8)))
    assert images.shape == (5, 8, 8, 3) and int(mask.numpy().sum()) == test.size == 2 * count
    assert labels.numpy()[: test.size].tolist() == [0] * count + [1] * count


# Names --------------------------------------------------------------------------------------------


def test_names_need_not_be_text(tmp_path):
    root = os.fsencode(write_folder(tmp_path / "test", 3, height=70, width=70))
    os.rename(root + b"/bee/001.png", root + b"/bee/caf\xe9.png")
    os.rename(root + b"/cat", root + b"/k\xe4tzchen")
    for cache in ("none", "memory"):
        loaded = data.load("folder", data_dir=tmp_path, cache=cache)
        assert len(labelled(loaded.test)) == 9 and loaded.classes == ("ant", "bee", "k\\xe4tzchen")
        assert "bee/caf\\xe9.png" in names(loaded.test) and not loaded.notes
    with open(root + b"/bee/caf\xe9.png", "wb") as file:
        file.write(b"")
    (fault,) = data.load("folder", data_dir=tmp_path).test.unreadable
    assert fault.endswith("caf\\xe9.png: empty") and fault.encode()


def test_umlauts_under_an_ascii_locale(tmp_path):
    """Images, classes and names are those of any other locale."""
    write_folder(tmp_path / "Bilder" / "test", 2, classes=["Käfer", "Wespe"], height=70, width=70)
    (tmp_path / "Bilder" / "test" / "Wespe" / "000.png").rename(tmp_path / "Bilder" / "test" / "Wespe" / "große.png")
    code = (
        f"import sys\nfrom sat_tf import data\nassert sys.getfilesystemencoding() == 'ascii'\n"
        f"loaded = data.load('folder', data_dir={str(tmp_path / 'Bilder')!r})\n"
        "print(ascii((loaded.classes, sorted(loaded.test.names().tolist()), len(list(loaded.test.epoch(None))))))"
    )
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=".")
    expected = (("Käfer", "Wespe"), ["Käfer/000.png", "Käfer/001.png", "Wespe/001.png", "Wespe/große.png"], 4)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == ascii(expected)


# The drawn test split -----------------------------------------------------------------------------


def facts(count, classes=4):
    labels = np.repeat(np.arange(classes), count)
    return np.array([f"{label}/{place:05d}.png" for place, label in enumerate(labels)]), labels


def test_a_tenth_is_drawn_of_every_class():
    image_names, labels = facts(1000)
    chosen = drawn(image_names, labels, np.arange(1, 4001))
    counts = np.bincount(labels[chosen])
    assert (abs(counts - 100) < 30).all()  # three standard deviations of a binomial
    assert not np.array_equal(chosen[:1000], chosen[1000:2000])


def test_draw_is_for_good():
    image_names, labels = facts(30, 2)
    assert np.flatnonzero(drawn(image_names, labels, np.arange(1, 61))).tolist() == [21, 22, 30]


def test_what_comes_and_goes_moves_no_other_image():
    image_names, labels = facts(200)
    digests = np.arange(1, 801)
    whole = dict(zip(image_names, drawn(image_names, labels, digests), strict=True))
    random = np.random.default_rng(1)
    for _ in range(20):
        kept = random.random(800) < random.choice([0.5, 0.99])
        part = dict(zip(image_names[kept], drawn(image_names[kept], labels[kept], digests[kept]), strict=True))
        assert all(whole[name] == tested for name, tested in part.items())


@pytest.mark.parametrize("count", [2, 3, 7])
def test_small_classes_have_images_on_both_sides(count):
    image_names, labels = facts(count, 50)
    chosen = drawn(image_names, labels, np.arange(1, len(labels) + 1))
    counts = np.bincount(labels[chosen], minlength=50)
    assert counts.min() >= 1 and counts.max() < count


def test_copies_of_training_images_are_not_tested():
    image_names, labels = facts(100)
    digests = np.arange(400) // 2 + 1
    chosen = drawn(image_names, labels, digests)
    assert chosen.any() and not set(digests[chosen]) & set(digests[~chosen])
    assert drawn(image_names, labels, np.zeros(400, np.int64)).any()  # 0 is no digest: these are no copies


def test_an_added_image_moves_none(tmp_path):
    root = write_folder(tmp_path / "in", 30, height=8, width=8)
    before = data.load("folder", data_dir=root)
    assert f"{before.test.size} of 90 images" in before.notes[0] and "a tenth of each class" in before.source
    for place in range(5):
        save(root / "ant" / f"new {place}.png")
    (root / "bee" / "007.png").unlink()
    after = data.load("folder", data_dir=root)
    assert after.train.size + after.validation.size + after.test.size == 94
    assert not names(after.test) & (names(before.train) | names(before.validation))
    make_shards.make(root, tmp_path / "out", {"train": None, "validation": None})
    shards = data.load("shards", data_dir=tmp_path / "out")
    assert sorted(shards.test.digests()) == sorted(after.test.digests())


# What was seen ------------------------------------------------------------------------------------


def test_overlap_is_found_wherever_the_images_lie(tmp_path):
    images = noise(12, 8, 8)
    for place, image in enumerate(images[:10]):
        path = tmp_path / "a" / ("train" if place < 8 else "test") / "xy"[place % 2] / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image).save(path)
    dataset = data.load("folder", data_dir=tmp_path / "a", validation=2)
    seen = data.seen(dataset)
    assert (len(seen.train), len(seen.validation), len(seen.doubles)) == (6, 2, 0)
    data.write_seen(tmp_path / "seen.npz", seen)
    again = data.read_seen(tmp_path / "seen.npz")
    assert again.new(seen) == 0 and data.read_seen(tmp_path / "nothing.npz") is None
    for place in (0, 5, 10, 11):
        path = tmp_path / "b" / "test" / "xy"[place % 2] / f"renamed {place}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(images[place]).save(path)
    other = data.load("folder", data_dir=tmp_path / "b").test
    make_shards.make(tmp_path / "b", tmp_path / "c", {"train": None, "validation": None})
    arrays = data.from_arrays(images[[10, 0, 11, 5]], np.zeros(4))
    for split in (other, data.load("shards", data_dir=tmp_path / "c").test, arrays, data.part(arrays, 1, 2)):
        assert data.overlap(split, again).sum() == 2
    assert data.overlap(arrays, again).tolist() == [False, True, False, True]
    assert not data.overlap(dataset.test, again).any()
    (tmp_path / "seen.npz").write_bytes(b"PK no archive")
    with pytest.raises(OSError, match="seen.npz, which says what images the run has seen, is damaged"):
        data.read_seen(tmp_path / "seen.npz")


def test_doubles_of_a_set_are_known():
    images = noise(10, 8, 8)
    splits = {"train": images[:6], "validation": images[6:7], "test": images[[2, 8, 9]]}
    fields = {part: data.from_arrays(values, np.zeros(len(values))) for part, values in splits.items()}
    dataset = data.Data(name="own", source="memory", classes=("a", "b"), image_size=8, **fields)
    seen = data.seen(dataset)
    assert not data.overlap(dataset.test, seen).any()
    assert data.overlap(dataset.test, seen, doubles=True).tolist() == [True, False, False]
    assert data.overlap(data.from_arrays(images[[2, 3, 6, 9]], np.zeros(4)), seen).tolist() == [
        False,
        True,
        True,
        False,
    ]
