"""Corruptions: every kind and severity, seeds, the global generator, and what is said where the library is missing."""

import importlib
import importlib.metadata
import warnings

import numpy as np
import pytest

from sat_tf import corruptions

SIDE = 32
PLACES = [7, 0, 123_456, 3]


def photos(side=SIDE, count=4):
    """Return smooth images, so that blurs and noise both change them."""
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(side) / side * rng.uniform(2, 12, [count, 3, 1]) + rng.uniform(0, 6, [count, 3, 1]))
    return np.float32(0.5 + 0.45 * np.einsum("nch,ncw->nhwc", wave, wave[:, ::-1]))


@pytest.fixture(scope="module")
def library():
    """Skip where the library is not installed or the system lacks what its OpenCV links to; fail where it is broken."""
    try:
        return corruptions.check()
    except OSError as error:
        if "cannot open shared object file" in str(error) or "has it" in str(error):
            pytest.skip(str(error))
        raise


def test_check_names_the_library(library):
    assert library == f"{corruptions.LIBRARY} {importlib.metadata.version(corruptions.LIBRARY)}"


@pytest.mark.parametrize("kind", corruptions.KINDS)
def test_every_severity(library, kind):
    images = photos()
    kept = images.copy()
    changes = []
    for severity in corruptions.SEVERITIES:
        corrupted = corruptions.corrupt(images, kind, severity, 5, PLACES)
        assert corrupted.dtype == np.float32 and corrupted.shape == images.shape
        assert corrupted.min() >= 0 and corrupted.max() <= 1
        levels = np.round(corrupted * np.float32(255)).astype(np.uint8)
        np.testing.assert_array_equal(corrupted, np.float32(levels / 255))
        changes.append(np.mean(np.abs(corrupted - images)))
    assert 0 < changes[0] < changes[-1]
    np.testing.assert_array_equal(images, kept)


@pytest.mark.parametrize("kind", corruptions.KINDS)
def test_randomness_depends_on_seed_and_place_alone(library, kind):
    images = np.tile(photos(count=1), [4, 1, 1, 1])
    np.random.seed(1)
    together = corruptions.corrupt(images, kind, 3, 5, PLACES)
    np.random.seed(2)
    np.testing.assert_array_equal(corruptions.corrupt(images, kind, 3, 5, PLACES[::-1])[::-1], together)
    for i, place in enumerate(PLACES):
        np.testing.assert_array_equal(corruptions.corrupt(images[i : i + 1], kind, 3, 5, [place])[0], together[i])
    unseeded = ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
    same = all(np.array_equal(together[0], other) for other in together[1:])
    assert same == (kind in unseeded)
    assert np.array_equal(corruptions.corrupt(images, kind, 3, 6, PLACES), together) == (kind in unseeded)


@pytest.mark.parametrize("kind", corruptions.KINDS)
def test_the_global_generator_stays_and_nothing_is_said(library, kind, capfd):
    np.random.seed(3)
    wanted = np.random.get_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        corruptions.corrupt(photos(count=1), kind, 1, 0, [0])
        corruptions.corrupt(np.zeros([1, SIDE, SIDE, 3], np.float32), kind, 5, 0, [0])
    for value, then in zip(np.random.get_state(), wanted, strict=True):
        np.testing.assert_array_equal(value, then)
    assert capfd.readouterr() == ("", "")


def test_the_global_generator_stays_where_the_library_fails(library, monkeypatch):
    def fail(*args, **kwargs):
        np.random.normal()
        raise RuntimeError("unreadable")

    monkeypatch.setattr(importlib.import_module(corruptions.MODULE), "corrupt", fail)
    np.random.seed(3)
    wanted = np.random.get_state()[1]
    with pytest.raises(RuntimeError, match="unreadable"):
        corruptions.corrupt(photos(), "fog", 1, 0, PLACES)
    np.testing.assert_array_equal(np.random.get_state()[1], wanted)


@pytest.mark.parametrize("kind", corruptions.KINDS)
def test_images_of_imagenets_size_and_of_no_square(library, kind):
    for shape in ((1, 224, 224, 3), (1, 40, 56, 3), (0, 32, 32, 3)):
        images = np.full(shape, 0.25, np.float32)
        assert corruptions.corrupt(images, kind, 5, 0, list(range(shape[0]))).shape == shape


def test_the_kinds_are_the_librarys(library):
    assert list(corruptions.KINDS) == importlib.import_module(corruptions.MODULE).get_corruption_names()


def test_contrast_by_hand(library):
    images = np.float32(np.stack([np.full([SIDE, SIDE, 3], 51), np.full([SIDE, SIDE, 3], 204)])) / np.float32(255)
    images[0, :16] = 1  # 51 and 255 in halves: mean 153, contrast 0.4 of severity 1 leaves 112.2 and 193.8
    corrupted = corruptions.corrupt(images, "contrast", 1, 0, [0, 1]) * 255
    np.testing.assert_allclose(corrupted[0, :16], 193, atol=1e-3)
    np.testing.assert_allclose(corrupted[0, 16:], 112, atol=1e-3)
    np.testing.assert_allclose(corrupted[1], 204, atol=1.001)


def test_gaussian_noise():
    images = np.full([3, 64, 64, 3], 0.5, np.float32)
    np.random.seed(3)
    wanted = np.random.get_state()[1]
    noisy = corruptions.gaussian_noise(images, 0.1, 5, [0, 1, 0])
    np.testing.assert_array_equal(np.random.get_state()[1], wanted)
    assert noisy.dtype == np.float32 and noisy.shape == images.shape
    np.testing.assert_array_equal(noisy[0], noisy[2])
    assert not np.array_equal(noisy[0], noisy[1])
    assert abs(np.mean(noisy) - 0.5) < 0.003 and abs(np.std(noisy) - 0.1) < 0.003
    np.testing.assert_array_equal(corruptions.gaussian_noise(images[1:2], 0.1, 5, [1])[0], noisy[1])
    assert not np.array_equal(corruptions.gaussian_noise(images, 0.1, 6, [0, 1, 0]), noisy)
    strong = corruptions.gaussian_noise(images, 2.0, 5, [0, 1, 2])
    assert strong.min() == 0 and strong.max() == 1


REFUSED = {
    "Received: kind=mist": {"kind": "mist"},
    "Expected a severity from 1 to 5. Received: severity=6": {"severity": 6},
    "Received: dtype=uint8": {"images": np.zeros([4, SIDE, SIDE, 3], np.uint8)},
    r"Received: dtype=float32, shape=\[4, 32, 32, 1\]": {"images": np.zeros([4, SIDE, SIDE, 1], np.float32)},
    "Received: min=0.0, max=2.0": {"images": np.linspace(0, 2, 4 * 32 * 32 * 3, dtype="f4").reshape(4, 32, 32, 3)},
    "Received: min=nan": {"images": np.full([4, SIDE, SIDE, 3], np.nan, np.float32)},
    "at least 32 x 32 pixels": {"images": np.zeros([4, 28, 28, 3], np.float32)},
    "Received: seed=-1": {"seed": -1},
    "Expected a seed and 4 places": {"places": [1, 2, 3]},
    r"places=\[0, 1, 2, -3\]": {"places": [0, 1, 2, -3]},
}


@pytest.mark.parametrize("message", REFUSED)
def test_refusals(message):
    arguments = {"images": photos(), "kind": "fog", "severity": 1, "seed": 0, "places": PLACES}
    with pytest.raises(ValueError, match=message):
        corruptions.corrupt(**arguments | REFUSED[message])


def test_noise_without_a_deviation_is_refused():
    with pytest.raises(ValueError, match="Received: sigma=0"):
        corruptions.gaussian_noise(photos(), 0, 0, PLACES)


def test_without_the_library(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(OSError, match=r'imagecorruptions-imaug: pip install -e "\.\[corruptions\]" has it\.'):
        corruptions.check()
    with pytest.raises(OSError, match="imagecorruptions-imaug"):
        corruptions.corrupt(photos(), "fog", 1, 0, PLACES)


def test_a_machine_without_a_screens_libraries(monkeypatch):
    def fail(name):
        raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.1.5")
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(OSError, match="libGL.so.1.*--force-reinstall --no-deps opencv-python-headless does without"):
        corruptions.check()
