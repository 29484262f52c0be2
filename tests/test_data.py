"""Data sets and batches: every row of DATASETS through the same promises; test_data_sets has what is each one's own."""

import ast
import dataclasses
import inspect
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from data_files import assert_same, batches, indices, noise, places, write_folder, write_idx, write_tfds

from sat_tf import data
from sat_tf.data import make_shards
from sat_tf.data.splits import draw, to_arrays

CLASS_COUNT = {"cifar100": 100, "imagenet2012": 1000, "folder": 3, "shards": 3}
RECORD_SETS = ("imagenette", "imagenet2012", "shards")
SEED = tf.constant([3, 4])


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Return one folder for each name, with a small set of real files where the set needs any."""
    root = tmp_path_factory.mktemp("data")
    write_idx(root, "train", 20, compress=True)
    write_idx(root, "test", 4, compress=False)
    write_tfds(root, "cifar10", 10, {"train": [60], "test": [20]})
    write_tfds(root, "cifar100", 100, {"train": [200], "test": [20]})
    write_tfds(root, "imagenette", 10, {"train": [13, 20, 27], "validation": [9, 12]}, "160px-v2", sides=40)
    write_tfds(root, "imagenet2012", 1000, {"train": [20, 20, 30], "validation": [20]}, sides=50)
    write_folder(root / "folder" / "train", 20)
    write_folder(root / "folder" / "test", 5, seed=1)
    make_shards.make(root / "folder", root / "shards", {"train": 3, "validation": 2})
    return root


def folder_of(name, data_dir):
    """Return where the session's files of a data set are, None for the sets that have none."""
    own = {"folder": data_dir / "folder", "shards": data_dir / "shards", "fashion_mnist_12k": None, "synthetic": None}
    return own.get(name, data_dir)


@pytest.fixture(scope="session")
def load(data_dir):
    """Return `name -> Data`, each loaded once."""
    loaded = {}

    def get(name):
        if name not in loaded:
            loaded[name] = data.load(name, data_dir=folder_of(name, data_dir))
        return loaded[name]

    return get


def small(split, count=60):
    """Return the first images of a large split in memory, others as they are."""
    if split.size <= count:
        return split
    images, labels, _ = next(split.epoch(None).batch(count).as_numpy_iterator())
    return data.from_arrays(images, labels) if split.in_memory else split


# Promises of every row ----------------------------------------------------------------------------


def test_table_is_readable_without_tensorflow():
    """The flag's help lists names and first docstring lines from the source alone."""
    tree = ast.parse(pathlib.Path(data.__file__).read_text())
    table = next(node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "DATASETS")
    assert [key.value for key in table.keys] == list(data.DATASETS)
    for name, function in data.DATASETS.items():
        first = inspect.getdoc(function).splitlines()[0]
        assert first.endswith(".") and len(first) < 115, name
        assert list(inspect.signature(function).parameters) == ["data_dir", "validation", "seed"]


@pytest.mark.parametrize("name", data.DATASETS)
def test_data_says_what_it_is(load, name):
    loaded = load(name)
    assert loaded.name == name and loaded.source
    assert len(loaded.classes) == CLASS_COUNT.get(name, 10) and all(isinstance(text, str) for text in loaded.classes)
    assert loaded.image_size == {"imagenette": 160, "imagenet2012": None, "shards": None, "mnist": 28}.get(name, 32)
    total = loaded.train.size + loaded.validation.size
    assert loaded.validation.size == min(1000, total // 10) and loaded.test.size > 0
    assert loaded.diagnose() is None


@pytest.mark.parametrize("name", data.DATASETS)
@pytest.mark.parametrize("part", ["train", "validation"])
def test_epochs_are_permutations(load, name, part):
    split = getattr(load(name), part)
    split = small(split)
    natural = list(split.epoch(None).as_numpy_iterator())
    assert [int(index) for _, _, index in natural] == list(range(split.size))
    for image, label, index in natural:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] == 3
        assert label.dtype == np.int32 and 0 <= label < len(load(name).classes) and index.dtype == np.int64
    shuffled = indices(split.epoch(SEED))
    assert sorted(shuffled) == list(range(split.size))
    assert shuffled == indices(split.epoch(SEED)) == indices(split.epoch(tf.cast(SEED, tf.int64)))
    assert len({tuple(shuffled), *(tuple(indices(split.epoch(SEED + number))) for number in (1, 2))}) > 1


@pytest.mark.parametrize("name", data.DATASETS)
def test_hosts_share_an_epoch(load, name):
    split, hosts = small(load(name).train), 3
    for seed in (None, SEED):
        shares = [places(split.order(seed, host, hosts, 4, 0)) for host in range(hosts)]
        assert sorted(sum(shares, [])) == list(range(split.size))
        assert max(map(len, shares)) - min(map(len, shares)) <= 4
        rest = [places(split.order(seed, host, hosts, 4, 2)) for host in range(hosts)]
        assert rest == [share[8:] for share in shares]
    assert indices(split.epoch(SEED, 1, hosts, block=4, start=2)) == rest[1]


@pytest.mark.parametrize("name", data.DATASETS)
def test_training_batches(load, name):
    split = small(load(name).train)
    dataset = data.train_batches(split, batch_size=8, image_size=32, augment="imagenet", seed=5, epochs=2)
    images_spec, labels_spec = dataset.element_spec
    assert images_spec.shape == (8, 32, 32, 3) and labels_spec.shape == (8,)
    all_batches = list(dataset.as_numpy_iterator())
    assert len(all_batches) == 2 * data.steps_per_epoch(split, 8)
    for images, labels in all_batches:
        assert images.dtype == np.float32 and labels.dtype == np.int32
        assert images.min() >= 0 and images.max() <= 1 and images.std() > 0.05
    assert_same(all_batches, batches(split, augment="imagenet"))


@pytest.mark.parametrize("name", data.DATASETS)
def test_training_resumes_at_any_step(load, name):
    """Also in the middle of an epoch and beyond the first: the rest is the same to the last bit."""
    split = small(load(name).train)
    whole = batches(split)
    steps = data.steps_per_epoch(split, 8)
    for start in (1, steps, 2 * steps - 1):
        assert_same(batches(split, start_step=start), whole[start:])


@pytest.mark.parametrize("name", [name for name in data.DATASETS if name not in RECORD_SETS])
def test_hosts_together_are_the_single_run(load, name):
    split, hosts = small(load(name).train), 3
    single = batches(split, batch_size=4 * hosts)
    shares = [batches(split, batch_size=4, host=host, hosts=hosts) for host in range(hosts)]
    together = [tuple(map(np.concatenate, zip(*step, strict=True))) for step in zip(*shares, strict=True)]
    assert_same(together, single)


@pytest.mark.parametrize("name", RECORD_SETS)
def test_hosts_of_record_sets_share_no_image(load, name):
    split = load(name).train
    shares = [batches(split, host=host, hosts=2, augment="none", epochs=1) for host in range(2)]
    assert len(shares[0]) == len(shares[1]) == data.steps_per_epoch(split, 8, hosts=2)
    photos = [{image.tobytes() for images, _ in share for image in images} for share in shares]
    assert not photos[0] & photos[1] and len(photos[0] | photos[1]) == 16 * len(shares[0])


@pytest.mark.parametrize("name", ["synthetic", "imagenette"])
def test_only_the_seed_decides(load, name):
    """Neither the global seed, nor threads, nor whether images are handled alone or by the batch."""
    split = small(load(name).train)
    first = batches(split)
    tf.random.set_seed(99)
    assert_same(batches(split), first)
    one_thread = tf.data.Options()
    one_thread.threading.private_threadpool_size = 1
    dataset = data.train_batches(split, batch_size=8, image_size=32, augment="pad_crop_flip", seed=5, epochs=2)
    assert_same(list(dataset.with_options(one_thread).as_numpy_iterator()), first)
    assert_same(batches(dataclasses.replace(split, in_memory=not split.in_memory)), first)
    assert_same(batches(split, seed=tf.constant([0, 5])), first)
    assert not np.array_equal(batches(split, seed=6)[0][0], first[0][0])


@pytest.mark.parametrize("name", ["synthetic", "imagenette"])
def test_epochs_differ_in_order_and_augmentation(load, name):
    split = small(load(name).train)
    whole = data.train_batches(split, batch_size=split.size, image_size=32, augment="none", seed=5, epochs=3)
    orders = [tuple(image.tobytes() for image in images) for images, _ in whole.as_numpy_iterator()]
    assert len(set(orders)) == 3 and len({frozenset(order) for order in orders}) == 1
    augmented = data.train_batches(split, batch_size=split.size, image_size=32, augment="imagenet", seed=5, epochs=2)
    first, second = ({image.tobytes() for image in images} for images, _ in augmented.as_numpy_iterator())
    assert not first & second


@pytest.mark.parametrize("name", data.DATASETS)
def test_a_sample_is_the_same_images_every_time_in_their_order(load, name):
    split = small(load(name).test)
    sample = data.sampled(split, count := split.size // 2 + 1)
    chosen = indices(sample.epoch(None))
    assert sample.size == count == len(set(chosen)) and list(chosen) == sorted(chosen)
    assert set(chosen) <= set(indices(split.epoch(None)))
    np.testing.assert_array_equal(indices(data.sampled(split, count).epoch(None)), chosen)
    first = data.evaluation_batches(sample, batch_size=7, image_size=32)
    assert sum(mask.sum() for _, _, mask in first.as_numpy_iterator()) == count
    parts = [indices(sample.epoch(None, host, 2)) for host in range(2)]
    assert sorted(np.concatenate(parts)) == list(chosen)
    with pytest.raises(ValueError, match="natural order"):
        sample.epoch(SEED)
    with pytest.raises(ValueError, match="at most the"):
        data.sampled(split, split.size + 1)


def test_a_sample_holds_all_classes_of_sorted_images():
    images = np.zeros((1000, 2, 2, 3), np.uint8)
    sample = data.sampled(data.from_arrays(images, np.repeat(np.arange(10), 100)), 200)
    counts = np.bincount([label for _, label, _ in sample.epoch(None).as_numpy_iterator()])
    assert counts.sum() == 200 and counts.min() >= 8


@pytest.mark.parametrize("name", data.DATASETS)
@pytest.mark.parametrize("batch_size", [7, 64])
def test_evaluation_sees_every_image_once(load, name, batch_size):
    split = small(load(name).test)
    side = load(name).image_size if name == "mnist" else 32
    dataset = data.evaluation_batches(split, batch_size=batch_size, image_size=side)
    shapes = [spec.shape.as_list() for spec in dataset.element_spec]
    assert shapes == [[batch_size, side, side, 3], [batch_size], [batch_size]]
    images, labels, mask = map(np.concatenate, zip(*dataset.as_numpy_iterator(), strict=True))
    assert len(mask) == -(-split.size // batch_size) * batch_size
    np.testing.assert_array_equal(mask, np.arange(len(mask)) < split.size)
    assert mask.dtype == np.float32 and images.min() >= 0 and images.max() <= 1
    assert not images[split.size :].any() and not labels[split.size :].any()
    np.testing.assert_array_equal(labels[: split.size], [label for _, label, _ in split.epoch(None)])
    if name not in RECORD_SETS:  # theirs are resized
        expected = [image for image, _, _ in split.epoch(None).as_numpy_iterator()]
        np.testing.assert_array_equal(images[: split.size], np.stack(expected) / np.float32(255))


@pytest.mark.parametrize("name", data.DATASETS)
def test_splits_share_no_image(load, name):
    loaded = load(name)
    parts = [to_arrays(split)[0] for split in (loaded.train, loaded.validation, loaded.test)]
    assert len({image.tobytes() for images in parts for image in images}) == sum(map(len, parts))


@pytest.mark.parametrize("name", data.DATASETS)
def test_validation_is_fixed_in_number_and_choice(load, data_dir, name):
    folder = folder_of(name, data_dir)
    total = load(name).train.size + load(name).validation.size
    twice = [data.load(name, data_dir=folder, validation=20).validation for _ in range(2)]
    assert twice[0].size == twice[1].size == 20
    np.testing.assert_array_equal(*[to_arrays(split)[0] for split in twice])
    assert data.load(name, data_dir=folder, validation=0).train.size == total
    with pytest.raises(ValueError, match=f"Expected validation from 0 to {total - 1}, .*Received: validation={total}"):
        data.load(name, data_dir=folder, validation=total)


# Batches ------------------------------------------------------------------------------------------


def test_orders_are_uniform():
    """Over many epochs every image comes in every place about equally often, and no order comes twice."""
    split = data.from_arrays(noise(20, 1, 1), np.arange(20))
    whole = data.train_batches(split, batch_size=20, image_size=1, augment="none", seed=7, epochs=600)
    orders = np.array([labels for _, labels in whole.as_numpy_iterator()])
    counts = np.stack([np.bincount(orders[:, place], minlength=20) for place in range(20)])
    chi_square = np.sum((counts - 30) ** 2) / 30
    assert chi_square < 465  # 361 degrees of freedom: exceeded once in 5,000
    assert len(np.unique(orders, axis=0)) == 600


def test_seed_may_be_traced():
    split = data.from_arrays(noise(10, 4, 4), np.arange(10))
    epochs = tf.data.Dataset.range(3).flat_map(
        lambda number: split.epoch(tf.random.experimental.stateless_fold_in([1, 2], tf.cast(number, tf.int32)))
    )
    orders = np.reshape(indices(epochs), [3, 10])
    assert (np.sort(orders) == np.arange(10)).all() and len({tuple(order) for order in orders}) == 3


def test_endless_training_starts_far_ahead_at_once():
    split = data.from_arrays(noise(20, 8, 8), np.arange(20))
    images, _ = batches(split, 1, epochs=None, start_step=10**9, image_size=8)[0]
    assert images.shape == (8, 8, 8, 3)


def test_policy_sees_levels_after_the_crop_and_its_seed_follows_the_image(load):
    """Its place is after crop and flip; it gets uint8 of static shape, and a seed of its own for each image."""
    shapes = []

    def policy(image, seed):
        shapes.append((image.dtype, image.shape.as_list(), seed.dtype, seed.shape.as_list()))
        return tf.where(tf.range(32)[:, None, None] > 0, image, tf.cast(seed[0] % 256, tf.uint8))

    for split in (load("synthetic").train, load("shards").train):
        plain, changed = batches(split, augment="imagenet"), batches(split, augment="imagenet", policy=policy)
        marks = []
        for (images, labels), (others, same_labels) in zip(plain, changed, strict=True):
            np.testing.assert_array_equal(labels, same_labels)
            np.testing.assert_allclose(others[:, 1:], images[:, 1:], atol=0.51 / 255)
            np.testing.assert_allclose(others * 255, np.round(others * 255), atol=1e-4)
            marks += others[:, 0, 0, 0].tolist()
        assert len(set(marks)) > min(len(marks), 256) / 3
        assert_same(batches(split, augment="imagenet", policy=policy, start_step=3), changed[3:])
    assert set(map(str, shapes)) == {str((tf.uint8, [32, 32, 3], tf.int32, [2]))}


def test_policies_by_name(load):
    plain = batches(load("shards").train, augment="imagenet", image_size=40)
    for name in ("none", "autoaugment", "randaugment"):
        changed = batches(load("shards").train, augment="imagenet", image_size=40, policy=name)
        assert_same(batches(load("shards").train, augment="imagenet", image_size=40, policy=name), changed)
        differences = [np.abs(left - right).max() for (left, _), (right, _) in zip(plain, changed, strict=True)]
        assert max(differences) < 0.51 / 255 if name == "none" else max(differences) > 0.1
    with pytest.raises(ValueError, match="Expected a known policy. Received: policy=autoaugmnt. Did you mean autoaug"):
        batches(load("shards").train, policy="autoaugmnt")


@pytest.mark.parametrize("name", data.DATASETS)
def test_cache_changes_nothing(load, data_dir, name):
    cached = data.load(name, data_dir=folder_of(name, data_dir), cache="memory")
    for part in ("train", "validation", "test"):
        plain, other = small(getattr(load(name), part)), small(getattr(cached, part))
        assert indices(other.epoch(SEED)) == indices(plain.epoch(SEED))
    assert_same(batches(small(cached.train), 3), batches(small(load(name).train), 3))


def test_evaluation_preprocessing_is_chosen_by_name(load):
    ways = [
        next(iter(data.evaluation_batches(load("shards").test, batch_size=5, image_size=64, **arguments)))[0]
        for arguments in ({}, {"preprocess": "resize_crop"}, {"preprocess": "crop_resize"})
    ]
    np.testing.assert_array_equal(ways[0], ways[1])
    assert np.abs(ways[1] - ways[2]).mean() > 0.001
    with pytest.raises(
        ValueError, match="Expected a known preprocess. Received: preprocess=crop. Did you mean crop_resize"
    ):
        data.evaluation_batches(load("shards").test, batch_size=5, image_size=64, preprocess="crop")


BITS = """
import hashlib
from sat_tf import data
loaded = data.load("shards", data_dir={folder!r})
arguments = dict(batch_size=8, image_size=40, augment="imagenet", policy="autoaugment", seed=5, epochs=1)
pipelines = [data.train_batches(loaded.train, **arguments)]
arguments = dict(batch_size=8, image_size=32, augment="pad_crop_flip", seed=5, epochs=1)
pipelines += [data.train_batches(data.load("synthetic").validation, **arguments)]
for preprocess in ("resize_crop", "crop_resize"):
    pipelines += [data.evaluation_batches(loaded.test, batch_size=7, image_size=70, preprocess=preprocess)]
digest = hashlib.sha256()
for batches in pipelines:
    for batch in batches.as_numpy_iterator():
        digest.update(b"".join(part.tobytes() for part in batch))
digest = digest.hexdigest()
"""


def test_optimizers_of_graphs_change_no_bit(load, data_dir):
    """The suite's pipelines do without them, a user's have them; see conftest."""
    load("shards")
    code = BITS.format(folder=str(data_dir / "shards"))
    environment = os.environ | {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    optimized = subprocess.run(
        [sys.executable, "-c", f"{code}print(digest)"], stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    exec(code, unoptimized := {})
    assert optimized.stdout.strip() == unoptimized["digest"]


def test_augment_may_be_a_function():
    split = data.from_arrays(noise(8, 4, 4), np.arange(8))
    images, _ = batches(split, augment=lambda image, size, seed: tf.fill([size, size, 3], 0.25), image_size=4)[0]
    np.testing.assert_array_equal(images, np.full((8, 4, 4, 3), 0.25, np.float32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 11}, "Expected batch_size . hosts from 1 to the 10 .*batch_size=11, hosts=1. Choose a smaller"),
        ({"batch_size": 6, "hosts": 2}, "Received: batch_size=6, hosts=2"),
        ({"batch_size": 0}, "Received: batch_size=0"),
        ({"host": 1}, "Expected 0 <= host < hosts.* Received: host=1, hosts=1"),
        ({"start_step": -1}, "Received: .*start_step=-1"),
        ({"augment": "pad_crop"}, "Expected a known augment. Received: augment=pad_crop. Did you mean pad_crop_flip"),
    ],
)
def test_wrong_arguments_of_batches(arguments, message):
    split = data.from_arrays(noise(10, 4, 4), np.arange(10))
    with pytest.raises(ValueError, match=message):
        batches(split, **arguments)


def test_wrong_arrays():
    with pytest.raises(ValueError, match="Expected uint8 images .*Received: images=float32"):
        data.from_arrays(np.zeros((4, 8, 8, 3), np.float32), np.zeros(4))
    with pytest.raises(ValueError, match="Expected one label an image"):
        data.from_arrays(noise(4, 8, 8), np.zeros(3))
    with pytest.raises(ValueError, match="Received: batch_size=0"):
        data.evaluation_batches(data.from_arrays(noise(4, 8, 8), np.zeros(4)), batch_size=0, image_size=8)


def test_no_image_is_no_batch():
    split = data.from_arrays(np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0))
    assert not list(data.evaluation_batches(split, batch_size=4, image_size=8))


@pytest.mark.parametrize(
    ("name", "says"),
    [("fashion_mnist_12", "Did you mean fashion_mnist_12k"), ("cifar", "Did you mean cifar10"), ("", "--")],
)
def test_unknown_name(name, says):
    with pytest.raises(ValueError, match=f"Expected a known data set. Received: name={name}. {says}"):
        data.load(name)


# Held out and drawn -------------------------------------------------------------------------------


def test_draw_is_stratified_and_frozen():
    labels = np.repeat([0, 1, 2], [40, 40, 20])
    chosen = draw(labels, 10, seed=0)
    np.testing.assert_array_equal(np.bincount(labels[chosen]), [4, 4, 2])
    assert np.flatnonzero(chosen).tolist() == [2, 13, 16, 26, 54, 55, 73, 75, 86, 93]
    assert not np.array_equal(chosen, draw(labels, 10, seed=1))
    assert draw(labels, 100, seed=0).all() and not draw(labels, 0, seed=0).any()
    assert draw([4, 2, 2, 4], 2, seed=0).sum() == 2


def test_validation_images_are_balanced(load):
    for name, each in (("fashion_mnist_12k", 100), ("fashion_mnist", 2), ("synthetic", 4), ("folder", 2)):
        _, labels = to_arrays(load(name).validation)
        assert set(np.bincount(labels)) == {each}


@pytest.mark.parametrize("name", ["fashion_mnist_12k", "synthetic"])
def test_a_folder_for_a_set_that_needs_none_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="Expected no data_dir .*--dataset=folder"):
        data.load(name, data_dir=tmp_path)


def test_names_of_before_version_0_2_are_read():
    loaded = data.load("synthetic", held_out=30)
    assert loaded.validation.size == data.load("synthetic", validation=30).validation.size == 30
    assert loaded.test.broken == loaded.test.unreadable == ()
