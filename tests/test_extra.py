"""Extra images of an .npz: what is read, how it is mixed in, and one sentence for everything that is wrong with it."""

import dataclasses
import os
import signal
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from sat_tf import assembly, data, experiment, hparams, pointers
from sat_tf.data import extra
from sat_tf.data.splits import from_arrays
from sat_tf.experiment import run as run_of

RNG = np.random.default_rng(0)
SIDE, CLASSES = 8, 3
IMAGES = RNG.integers(0, 256, (20, SIDE, SIDE, 3), np.uint8)
LABELS = np.arange(20) % CLASSES


def write(path, save=np.savez, **arrays):
    save(path, **{"image": IMAGES, "label": LABELS, **arrays})
    return path


def read(path, classes=CLASSES, side=SIDE):
    return data.extra_images(path, classes=classes, side=side, of="stripes")


def contents(split):
    images, labels = zip(*[(image, label) for image, label, _ in split.epoch(None).as_numpy_iterator()], strict=True)
    return np.stack(images), np.stack(labels)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_images_are_read_stored_or_compressed(tmp_path, save, order):
    path = write(tmp_path / "more.npz", save, image=np.asarray(IMAGES, order=order), other=np.zeros(3))
    split = read(path)
    assert split.size == 20
    images, labels = contents(split)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)
    np.testing.assert_array_equal(split.digests(), from_arrays(IMAGES, LABELS).digests())


def test_a_stored_file_is_not_read_into_memory_and_a_compressed_one_has_to_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(extra, "free_memory", lambda: 1000)
    assert read(write(tmp_path / "stored.npz")).size == 20
    with pytest.raises(ValueError, match=r"fit into 0.0 GiB of free memory. Received: .*numpy.savez, without"):
        read(write(tmp_path / "packed.npz", np.savez_compressed))
    monkeypatch.setattr(extra, "free_memory", lambda: None)  # a system that does not say
    assert read(tmp_path / "packed.npz").size == 20


def test_free_memory_is_a_number_of_bytes():
    assert extra.free_memory() is None or extra.free_memory() > 10**6


WRONG = {
    "float images": ({"image": IMAGES / 255}, r"uint8 images \[n, 8, 8, 3\], as those of stripes"),
    "grey": ({"image": IMAGES[..., 0]}, r"Received: image=uint8 \[20, 8, 8\]"),
    "another size": ({"image": IMAGES[:, :4]}, r"Received: image=uint8 \[20, 4, 8, 3\]"),
    "channels first": ({"image": IMAGES.transpose(0, 3, 1, 2)}, r"\[20, 3, 8, 8\]"),
    "fewer labels": ({"label": LABELS[:-1]}, r"for each of the 20 images .*Received: label=int64 \[19\]"),
    "one-hot": ({"label": np.eye(CLASSES)[LABELS]}, r"label=float64 \[20, 3\]"),
    "float labels": ({"label": LABELS.astype(float)}, r"label=float64 \[20\]"),
    "a label too many": ({"label": LABELS + 1}, "labels from 0 to 2, the classes of stripes, .*from 1 to 3"),
    "a negative label": ({"label": LABELS - 1}, "Received: labels from -1 to 1"),
    "fewer classes": ({"label": LABELS % 2}, "images of all 3 classes of stripes .*Received: images of 2 classes"),
    "no image": ({"image": IMAGES[:0], "label": LABELS[:0]}, "Received: none"),
    "objects": ({"image": np.array([None] * 20)}, r"image=object \[20\]"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_does_not_fit_the_data_set_is_refused_in_a_sentence(tmp_path, name, save):
    arrays, says = WRONG[name]
    with pytest.raises(ValueError, match=says) as error:
        read(write(tmp_path / "more.npz", save, **arrays))
    assert "\n" not in str(error.value)


def test_files_of_another_kind_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read(tmp_path / "none.npz")
    text = tmp_path / "text.npz"
    text.write_text("not a zip file")
    np.save(tmp_path / "one.npy", IMAGES)
    with zipfile.ZipFile(tmp_path / "texts.npz", "w") as file:
        file.writestr("image.npy", "no array")
        file.writestr("label.npy", "no array")
    whole = write(tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for path in (text, tmp_path / "one.npy", tmp_path / "texts.npz", tmp_path / "cut.npz"):
        with pytest.raises(ValueError, match=r"Expected an .*Received: ") as error:
            read(path)
        assert "\n" not in str(error.value)
    np.savez(tmp_path / "keys.npz", images=IMAGES, labels=LABELS)
    with pytest.raises(ValueError, match=r"Expected the keys image and label .*Received: images, labels"):
        read(tmp_path / "keys.npz")


OWN = from_arrays(np.repeat(np.arange(50, dtype=np.uint8), SIDE * SIDE * 3).reshape(50, SIDE, SIDE, 3), np.zeros(50))


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    """Return extra images whose values are above those of the own ones."""
    images = np.repeat(np.arange(200, 240, dtype=np.uint8), SIDE * SIDE * 3).reshape(40, SIDE, SIDE, 3)
    return read(write(tmp_path_factory.mktemp("extra") / "more.npz", image=images, label=np.arange(40) % CLASSES))


def composed(more, share=0.7, steps=12, **changes):
    settings = {"batch_size": 10, "image_size": SIDE, "augment": "none", "seed": 4, "classes": CLASSES}
    batches = data.composed_batches(OWN, extra=more, extra_share=share, **{**settings, **changes})
    return [tuple(part.numpy() for part in batch) for batch in batches.take(steps)]


def levels(batch):
    return np.round(batch[0][:, 0, 0, 0] * 255).astype(int)


@pytest.mark.parametrize("share,count", [(0.7, 7), (0.25, 2), (0.99, None)])
def test_every_batch_has_its_share_evenly_spread(more, share, count):
    if count is None:
        with pytest.raises(ValueError, match="Received: extra_share=0.99, 10 extra images"):
            composed(more, share)
        return
    for batch in composed(more, share):
        are_extra = levels(batch) >= 200
        assert are_extra.sum() == count
        assert abs(int(are_extra[:5].sum()) - int(are_extra[5:].sum())) <= 1  # of two replicas


def test_both_sources_are_permuted_epoch_by_epoch(more):
    seen = np.concatenate([levels(batch) for batch in composed(more, 0.5, steps=10)])
    assert sorted(seen[seen < 200]) == list(range(50))  # ten steps of five are all fifty own images
    assert sorted(seen[seen >= 200][:40]) == list(range(200, 240))


@pytest.mark.parametrize("alphas", [{}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
def test_batches_are_a_function_of_seed_and_step(more, alphas):
    whole, late = composed(more, alphas=alphas), composed(more, alphas=alphas, start_step=7, steps=5)
    for one, other in zip(whole[7:], late, strict=True):
        for first, second in zip(one, other, strict=True):
            np.testing.assert_array_equal(first, second)
    other = composed(more, alphas=alphas, seed=5)
    assert not np.array_equal(other[0][0], whole[0][0])
    assert whole[0][1].shape == ((10, CLASSES) if alphas else (10,))


def test_hosts_share_the_images_of_both_sources(more):
    parts = [composed(more, 0.6, batch_size=5, host=host, hosts=2, steps=4) for host in (0, 1)]
    for one, other in zip(*parts, strict=True):
        assert (levels(one) >= 200).sum() == (levels(other) >= 200).sum() == 3
        assert not set(levels(one)) & set(levels(other))


def test_without_extra_and_mixing_batches_are_those_of_before():
    settings = {"batch_size": 10, "image_size": SIDE, "augment": "pad_crop_flip", "seed": 4}
    for one, other in zip(
        data.composed_batches(OWN, **settings).take(3), data.train_batches(OWN, **settings).take(3), strict=True
    ):
        for first, second in zip(one, other, strict=True):
            np.testing.assert_array_equal(first, second)


def test_images_that_are_asked_for_by_number_are_refused(more):
    with pytest.raises(ValueError, match="need not know which images"):
        composed(more, ids=True)


def test_extra_images_count_as_seen(more):
    dataset = data.load("synthetic", validation=40)
    with_extra = dataclasses.replace(dataset, extra=more)
    assert len(data.seen(with_extra).train) == len(data.seen(dataset).train) + more.size


def test_static_shapes(more):
    batches = data.composed_batches(
        OWN,
        extra=more,
        extra_share=0.5,
        batch_size=10,
        image_size=SIDE,
        augment="none",
        seed=0,
        classes=CLASSES,
        alphas={"mixup": 1.0},
    )
    images, labels = batches.element_spec
    assert images.shape == (10, SIDE, SIDE, 3) and labels.shape == (10, CLASSES) and labels.dtype == tf.float32


MIXED = {
    "model": "resnet8-w8",
    "dataset": "synthetic",
    "epochs": 1,
    "batch_size": 64,
    "validation": 40,
    "eval_attacks": "clean",
    "eval_images": 20,
    "validation_attack": "pgd-1",
    "steps_per_call": 2,
    "extra_share": 0.4,
    "cutmix": 1.0,
    "mixup": 0.8,
    "optimizer": "adamw",
    "learning_rate": 0.004,
    "weight_decay": 0.05,
    "schedule": "cyclic",
    "label_smoothing": 0.1,
    "average_decay": 0.995,
    "validation_weights": "averaged",
}


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Return the path of extra images of the synthetic set's shape and classes."""
    images = RNG.integers(0, 256, (60, 32, 32, 3), np.uint8)
    return write(tmp_path_factory.mktemp("many") / "many.npz", image=images, label=np.arange(60) % 10)


def variables(model_dir):
    reader = tf.train.load_checkpoint(str(pointers.find(model_dir, "latest") / "variables"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if name[0] != "_"}


def trained(folder, extra_data):
    """Train to the end, or go on; return the run."""
    recipe = hparams.choose(MIXED)
    assembly.make_deterministic(recipe.seed)
    run = run_of.Run(recipe, assembly.load_data(recipe, None, extra_data), tf.distribute.get_strategy(), folder)
    run.restore()
    run.train()
    return run


def test_a_run_with_extra_and_mixed_images_goes_on_to_the_same_bits(many, tmp_path, monkeypatch):
    """AdamW, the cyclic schedule, averages and soft labels, all at once; then the same command after Ctrl-C."""
    run = trained(tmp_path / "whole", many)
    assert any("26 images of each batch of 64 are from 60 extra ones" in note for note in run.dataset.notes)
    take = run_of.Run._take

    def interrupt(self, step, metrics, progress):
        take(self, step, metrics, progress)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(run_of.Run, "_take", interrupt)
    with pytest.raises(KeyboardInterrupt, match="Stopped at step 2"):
        trained(tmp_path / "stopped", many)
    monkeypatch.undo()
    with np.load(many) as arrays:
        other = write(tmp_path / "many.npz", image=255 - arrays["image"], label=arrays["label"])
    with pytest.raises(ValueError, match="extra: many.npz: .* there, many.npz: .* here"):
        trained(tmp_path / "stopped", other)
    trained(tmp_path / "stopped", many)
    one, two = variables(tmp_path / "whole"), variables(tmp_path / "stopped")
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name], err_msg=name)


@pytest.mark.parametrize(
    ("share", "given", "says"),
    [
        (0.0, True, "such as --set extra_share=0.7, with --extra_data=.*Received: extra_share=0"),
        (0.4, False, "Expected --extra_data=FILE.npz.*extra_share=0.4"),
        (0.001, True, "leaves images of both sources in a batch of 64. Received: extra_share=0.001, 0 extra"),
    ],
)
def test_a_share_without_images_and_images_without_a_share_are_refused(many, tmp_path, share, given, says):
    recipe = hparams.choose({**MIXED, "extra_share": share})
    with pytest.raises(ValueError, match=says):
        experiment.train(recipe, tmp_path / "run", extra_data=many if given else None)
    assert not (tmp_path / "run").exists()
