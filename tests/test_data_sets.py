"""What is each data set's own: its files, what they must hold, and the sentence when they do not."""

import hashlib
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from data_files import assert_same, batches, indices, noise, write_folder, write_idx, write_tfds

from sat_tf import data
from sat_tf.data import fashion, folders, make_fashion_mnist_12k, tfrecords
from sat_tf.data.splits import to_arrays

SEED = tf.constant([3, 4])

# Fashion-MNIST ------------------------------------------------------------------------------------


def test_embedded_subset():
    loaded = data.load("fashion_mnist_12k")
    assert (loaded.train.size, loaded.validation.size, loaded.test.size) == (11_000, 1_000, 2_000)
    assert loaded.classes == fashion.FASHION_MNIST_CLASSES
    for split, each in ((loaded.train, 1100), (loaded.test, 200)):
        images, labels = to_arrays(split)
        assert images.shape[1:] == (32, 32, 3) and images.max() == 255
        assert images.sum(dtype=np.int64) == images[:, 2:30, 2:30].sum(dtype=np.int64)
        assert (images[..., :1] == images).all()
        np.testing.assert_array_equal(np.bincount(labels), [each] * 10)
    file = pathlib.Path(fashion.__file__).with_name("fashion_mnist_12k.npz")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == fashion.FASHION_MNIST_12K_SHA256
    assert file.stat().st_size < 7_000_000
    assert "2017 Zalando SE, https://tech.zalando.com" in file.with_suffix(".LICENSE").read_text()


def test_damaged_subset_is_an_error(monkeypatch):
    monkeypatch.setattr(fashion, "FASHION_MNIST_12K_SHA256", "0" * 64)
    with pytest.raises(ValueError, match="Expected SHA-256 0000.* Received: .* Install the package anew"):
        data.load("fashion_mnist_12k")


def test_subset_is_rebuilt_to_the_byte(tmp_path, capsys, monkeypatch):
    images, labels = write_idx(tmp_path, "train", 15, compress=True)
    write_idx(tmp_path, "test", 5, compress=False)
    counts = {"train": 12, "test": 3}
    first = make_fashion_mnist_12k.make(str(tmp_path), str(tmp_path / "a.npz"), counts)
    os.utime(tmp_path / "train-images-idx3-ubyte.gz", (0, 0))
    monkeypatch.setattr(make_fashion_mnist_12k, "PER_CLASS", counts)
    monkeypatch.setattr("sys.argv", ["make", f"--idx_dir={tmp_path}", f"--output={tmp_path / 'b.npz'}"])
    make_fashion_mnist_12k.main()
    assert capsys.readouterr().out.split()[0] == first
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    chosen = sorted(place for label in range(10) for place in np.flatnonzero(labels == label)[:12])
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["train_images"], images[chosen])
        np.testing.assert_array_equal(arrays["train_labels"], labels[chosen])
        assert arrays["test_images"].shape == (30, 28, 28)
        assert tuple(arrays["classes"]) == fashion.FASHION_MNIST_CLASSES
    assert not list(tmp_path.glob("*.partial*"))
    with pytest.raises(ValueError, match="Expected at least 16 images of each class"):
        make_fashion_mnist_12k.make(str(tmp_path), str(tmp_path / "c.npz"), {"train": 16})


def test_idx_errors(tmp_path, monkeypatch):
    with pytest.raises(
        FileNotFoundError, match=r"train-images-idx3-ubyte .* is not in .*dataset-fashion-mnist.*data_dir"
    ):
        data.load("fashion_mnist", data_dir=tmp_path)
    monkeypatch.setattr(fashion, "_DEBIAN_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"is not in {tmp_path}"):
        data.load("fashion_mnist")
    write_idx(tmp_path, "train", 3, compress=False)
    write_idx(tmp_path, "test", 2, compress=True)
    assert data.load("fashion_mnist").train.size == 27
    labels = tmp_path / "train-labels-idx1-ubyte"
    content = labels.read_bytes()
    for wrong in (content[:-1], b"", b"<html>", content[:3] + b"\3" + content[4:]):
        labels.write_bytes(wrong)
        with pytest.raises(ValueError, match=f"Expected a whole IDX file .*Received: {labels}"):
            data.load("fashion_mnist", data_dir=tmp_path)
    labels.write_bytes(content[:4] + (29).to_bytes(4, "big") + content[8:-1])
    with pytest.raises(
        ValueError, match="a label from 0 to 9 for each in .*Received: images=.30, 28, 28., labels=.29."
    ):
        data.load("fashion_mnist", data_dir=tmp_path)
    labels.write_bytes(content)
    packed = tmp_path / "t10k-images-idx3-ubyte.gz"
    packed.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(ValueError, match=f"Expected a whole IDX file .*Received: {packed}"):
        data.load("fashion_mnist", data_dir=tmp_path)


# Sets of tensorflow-datasets ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenette", "imagenet2012"])
def test_set_that_is_not_prepared(tmp_path, name):
    (tmp_path / name / "160px-v2" / "incomplete.1.0.0").mkdir(parents=True)
    with pytest.raises(FileNotFoundError) as raised:
        data.load(name, data_dir=tmp_path)
    full_name = {"imagenette": "imagenette/160px-v2"}.get(name, name)
    command = f"tfds.builder('{full_name}', data_dir='{tmp_path}').download_and_prepare()"
    assert f"not prepared for tensorflow-datasets under {tmp_path}" in str(raised.value)
    assert command in str(raised.value) and "\n" not in str(raised.value)
    assert ("image-net.org" in str(raised.value)) == (name == "imagenet2012")


def test_newest_version_is_read(tmp_path):
    folder = write_tfds(tmp_path, "cifar10", 10, {"train": [20], "test": [10]})
    folder.rename(folder.with_name("9.0.0"))
    newest = write_tfds(tmp_path, "cifar10", 10, {"train": [40], "test": [10]}).rename(folder.with_name("10.0.0"))
    loaded = data.load("cifar10", data_dir=tmp_path)
    assert loaded.train.size == 36 and str(newest) in loaded.source


def test_missing_and_cut_shards_are_named(tmp_path):
    folder = write_tfds(tmp_path, "imagenette", 10, {"train": [9, 9], "validation": [9]}, "160px-v2")
    loaded = data.load("imagenette", data_dir=tmp_path)
    shard = folder / "imagenette-train.tfrecord-00001-of-00002"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(tf.errors.DataLossError):
        batches(loaded.train, batch_size=4)
    assert str(shard) in loaded.diagnose()
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=f"1 of 2 files of the train split are missing .*{shard.name}"):
        data.load("imagenette", data_dir=tmp_path)


def test_blocks_of_records_are_shuffled(tmp_path, monkeypatch):
    """Many small blocks, as in a set that is larger than one: still every record once, and no block in file order."""
    monkeypatch.setattr(tfrecords, "_BLOCK", 8)
    monkeypatch.setattr(tfrecords, "_CYCLE", 2)
    write_tfds(tmp_path, "imagenette", 10, {"train": [13, 20, 27], "validation": [9]}, "160px-v2")
    split = data.load("imagenette", data_dir=tmp_path).train
    order = indices(split.epoch(SEED))
    assert sorted(order) == list(range(split.size)) and order == indices(split.epoch(SEED))
    blocks = [order[place : place + 8] for place in range(0, len(order), 8)]
    assert all(block != sorted(block) for block in blocks if len(block) > 3)
    assert_same(batches(split, start_step=3), batches(split)[3:])


def test_validation_records_are_the_last_ones(tmp_path):
    write_tfds(tmp_path, "imagenette", 10, {"train": [13, 20, 27], "validation": [9]}, "160px-v2")
    everything = data.load("imagenette", data_dir=tmp_path, validation=0)
    assert not list(everything.validation.epoch(SEED)) and not list(everything.validation.epoch(None))
    images = to_arrays(everything.train)[0]
    loaded = data.load("imagenette", data_dir=tmp_path, validation=30)  # more than the last file's 27
    np.testing.assert_array_equal(to_arrays(loaded.train)[0], images[:30])
    np.testing.assert_array_equal(to_arrays(loaded.validation)[0], images[30:])


# Folders ------------------------------------------------------------------------------------------


def test_plain_folder_gives_a_tenth_for_test(tmp_path):
    root = write_folder(tmp_path, 40)
    (root / "ant" / "more.png").mkdir()
    (root / ".git").mkdir()
    (root / "ant" / ".hidden.png").write_bytes(b"")
    (root / "ant" / "notes.txt").write_text("not an image")
    loaded = data.load("folder", data_dir=root)
    assert (loaded.train.size, loaded.validation.size, loaded.test.size) == (100, 11, 9)
    assert loaded.classes == ("ant", "bee", "cat") and "a tenth of each class (9 of 120" in loaded.source
    np.testing.assert_array_equal(np.bincount(to_arrays(loaded.test)[1]), [3, 3, 3])
    others = data.load("folder", data_dir=root, validation=30, seed=3)
    np.testing.assert_array_equal(to_arrays(others.test)[0], to_arrays(loaded.test)[0])


@pytest.mark.parametrize("name", ["test", "val", "validation"])
def test_folder_with_its_own_test_split(tmp_path, name):
    write_folder(tmp_path / "train", 10)
    write_folder(tmp_path / name, 2, seed=1)
    loaded = data.load("folder", data_dir=str(tmp_path))
    assert (loaded.train.size, loaded.validation.size, loaded.test.size) == (27, 3, 6)
    assert str(tmp_path / name) in loaded.source


def test_folder_with_flat_test_images_uses_val(tmp_path):
    """As ImageNet comes: the folder test holds images without classes."""
    write_folder(tmp_path / "train", 10)
    write_folder(tmp_path / "val", 2, seed=1)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "1.png").write_bytes(b"whatever")
    assert data.load("folder", data_dir=tmp_path).test.size == 6


def test_train_folder_alone_gives_a_tenth_for_test(tmp_path):
    write_folder(tmp_path / "train", 10)
    assert data.load("folder", data_dir=tmp_path).test.size == 3


def test_every_format(tmp_path):
    image = noise(1, 40, 40)[0]
    flat = np.full_like(image, 200)
    bmp = b"BM" + np.array([54 + 4800, 0, 54, 40, 40, 40], "<i4").tobytes() + np.array([1, 24], "<i2").tobytes()
    bmp += np.array([0, 4800, 0, 0, 0, 0], "<i4").tobytes() + flat.tobytes()
    gif = bytes.fromhex("47494638396101000100800000ff0000ffffff2c00000000010001000002024401003b")  # one red pixel
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.JPG").write_bytes(tf.io.encode_jpeg(flat).numpy())
        (tmp_path / name / "2.png").write_bytes(tf.io.encode_png(flat[..., :1]).numpy())
        (tmp_path / name / "3.bmp").write_bytes(bmp)
        (tmp_path / name / "4.gif").write_bytes(gif)
    loaded = data.load("folder", data_dir=tmp_path, validation=0)
    assert loaded.image_size == 64 and not loaded.train.in_memory
    shapes = {image.shape for split in (loaded.train, loaded.test) for image, *_ in split.epoch(None)}
    assert shapes == {(40, 40, 3), (1, 1, 3)}
    for images, _ in batches(loaded.train, batch_size=2, image_size=32, augment="imagenet"):
        assert images.shape == (2, 32, 32, 3)


@pytest.mark.parametrize(
    ("height", "width", "image_size", "in_memory"),
    [(28, 28, 28, True), (64, 64, 64, True), (20, 30, 32, True), (60, 30, 64, True), (70, 70, 70, False),
     (300, 300, None, False), (90, 70, None, False)],
)  # fmt: skip
def test_size_follows_the_images(tmp_path, height, width, image_size, in_memory):
    loaded = data.load("folder", data_dir=write_folder(tmp_path, 4, height=height, width=width))
    assert loaded.image_size == image_size and loaded.train.in_memory == in_memory


def test_one_image_of_another_size_among_many(tmp_path):
    write_folder(tmp_path, 60)
    large = noise(1, 500, 20)[0]
    (tmp_path / "bee" / "001.png").write_bytes(tf.io.encode_png(large).numpy())
    loaded = data.load("folder", data_dir=tmp_path)
    assert not loaded.train.in_memory
    everything = [image for split in (loaded.train, loaded.validation, loaded.test) for image, *_ in split.epoch(None)]
    assert sum(np.array_equal(image, large) for image in everything) == 1 and len(everything) == 180


def test_files_and_memory_give_the_same_batches(tmp_path, monkeypatch):
    root = write_folder(tmp_path, 20)
    in_memory = data.load("folder", data_dir=root)
    monkeypatch.setattr(folders, "_SMALL_COUNT", 0)
    from_files = data.load("folder", data_dir=root)
    assert in_memory.train.in_memory and not from_files.train.in_memory
    assert_same(batches(from_files.train), batches(in_memory.train))


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda content: content[:900], "unreadable PNG"),
        (
            lambda content: b"<html>" + content,
            "no image of a known format: JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF, PPM and JPEG 2000 are read",
        ),
        (lambda content: b"", "empty"),
    ],
)
@pytest.mark.parametrize("side", [32, 70])
def test_unreadable_image_is_left_out_of_training_and_named(tmp_path, damage, fault, side):
    for part, count in (("train", 20), ("val", 3)):
        write_folder(tmp_path / part, count, height=side, width=side, seed=count)
    unreadable = tmp_path / "train" / "bee" / "001.png"
    unreadable.write_bytes(damage(unreadable.read_bytes()))
    loaded = data.load("folder", data_dir=tmp_path)
    assert loaded.train.unreadable == (f"{unreadable}: {fault}",)
    assert (loaded.train.size, loaded.validation.size, loaded.test.size) == (54, 5, 9)
    assert loaded.train.in_memory == (side == 32)
    assert not loaded.validation.unreadable and not loaded.test.unreadable and loaded.diagnose() is None
    assert len({image.tobytes() for images, _ in batches(loaded.train, 6, augment="none") for image in images}) == 48
    with pytest.raises(ValueError, match="another number. Received: 1 of 55 unreadable, the first .*bee/001.png: "):
        data.evaluation_batches(loaded.train, batch_size=4, image_size=32)


def test_unreadable_test_image_stops_evaluation(tmp_path):
    write_folder(tmp_path / "train", 5)
    write_folder(tmp_path / "val", 3, seed=1)
    for name in ("ant", "cat"):
        (tmp_path / "val" / name / "000.png").write_bytes(b"unreadable")
    loaded = data.load("folder", data_dir=tmp_path)
    assert not loaded.train.unreadable and len(loaded.test.unreadable) == 2 and loaded.test.size == 7
    with pytest.raises(ValueError, match="Received: 2 of 9 unreadable, the first .*ant/000.png: no image .* Replace"):
        data.evaluation_batches(loaded.test, batch_size=4, image_size=32)


def test_image_that_breaks_later_is_found(tmp_path):
    write_folder(tmp_path, 10, height=80, width=70)
    loaded = data.load("folder", data_dir=tmp_path, validation=0)
    (tmp_path / "bee" / "001.png").write_bytes(b"")
    with pytest.raises(tf.errors.InvalidArgumentError):
        for split in (loaded.train, loaded.test):
            list(data.evaluation_batches(split, batch_size=8, image_size=32))
    assert loaded.diagnose().startswith(f"{tmp_path / 'bee' / '001.png'}: empty. Replace the file, or start again")
    assert len(data.load("folder", data_dir=tmp_path).train.unreadable) == 1


def test_folder_of_test_images_only(tmp_path):
    write_folder(tmp_path / "val", 3, height=80)
    loaded = data.load("folder", data_dir=tmp_path)
    assert (loaded.train.size, loaded.validation.size, loaded.test.size) == (0, 0, 9)
    evaluation = data.evaluation_batches(loaded.test, batch_size=4, image_size=32)
    assert sum(mask.sum() for *_, mask in evaluation.as_numpy_iterator()) == 9
    cached = data.load("folder", data_dir=tmp_path, cache="memory")
    assert not list(loaded.train.epoch(SEED)) and not list(cached.train.epoch(None))
    with pytest.raises(ValueError, match="Expected batch_size"):
        batches(loaded.train)


def test_names_that_lie_are_noted(tmp_path):
    root = write_folder(tmp_path, 4, height=80)
    for name in ("000", "001"):
        (root / "ant" / f"{name}.png").rename(root / "ant" / f"{name}.JPEG")
    loaded = data.load("folder", data_dir=root)
    assert loaded.notes[0] == "2 PNG named as JPEG" and not loaded.train.unreadable
    assert loaded.train.size + loaded.validation.size + loaded.test.size == 12


def test_folder_errors(tmp_path):
    def message(error, root):
        with pytest.raises(error) as raised:
            data.load("folder", data_dir=root)
        return str(raised.value)

    assert "Received: data_dir=None" in message(ValueError, None)
    assert f"no folder {tmp_path / 'nowhere'}" in message(FileNotFoundError, tmp_path / "nowhere")
    assert f"no class folder in {tmp_path}" in message(FileNotFoundError, tmp_path)
    write_folder(tmp_path / "one", 3, classes=["ant"])
    assert "two or more class folders" in message(ValueError, tmp_path / "one")
    (tmp_path / "one" / "bee").mkdir()
    assert f"none in {tmp_path / 'one' / 'bee'}" in message(ValueError, tmp_path / "one")
    write_folder(tmp_path / "two" / "train", 3)
    write_folder(tmp_path / "two" / "val", 3, classes=["ant", "bee", "dog"])
    assert "only in one of them cat, dog" in message(ValueError, tmp_path / "two")
