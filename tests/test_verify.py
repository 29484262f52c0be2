"""Files of adversarial images: a good one passes every check, and each kind of tampering fails those meant for it."""

import hashlib
import zipfile

import numpy as np
import pytest

from sat_tf import verify

N, SIDE = 6, 8
RADII = {"linf": 8 / 255, "l2": 0.5}


def sha256(photos):
    return np.array([hashlib.sha256(photo.tobytes()).hexdigest() for photo in photos])


def make(norm="linf", on_grid=True, epsilon=None):
    """Return what a file holds, and the data set that it was made from: content, clean images, labels, ids."""
    rng = np.random.default_rng(0)
    epsilon = epsilon or RADII[norm]
    edge = 0 if norm == "linf" else 20  # levels, so that no clipping shortens an L2 step
    clean = rng.integers(edge, 256 - edge, [N, SIDE, SIDE, 3]).astype("u1") / np.float32(255)
    if not on_grid:
        clean = rng.uniform(edge / 255, 1 - edge / 255, clean.shape).astype("f4")
    step = rng.choice([-1.0, 1.0], clean.shape)
    if norm == "l2":
        step /= np.sqrt(np.sum(step**2, (1, 2, 3), keepdims=True))
    exact = np.clip(np.float64(clean) + epsilon * step, 0, 1).astype("f4")
    exact = exact if norm == "l2" else np.clip(exact, clean - np.float32(epsilon), clean + np.float32(epsilon))
    towards = np.where(exact >= clean, np.floor(exact * 255 + 1e-4), np.ceil(exact * 255 - 1e-4))  # the clean value
    levels = (towards if on_grid else np.round(exact * 255)).astype("u1")
    labels, ids = rng.integers(0, 10, N).astype("i4"), np.arange(0, 5 * N, 5)
    content = {
        "format": 1,
        "ids": ids.copy(),
        "labels": labels.copy(),
        "float32": exact,
        "uint8": levels,
        "clean_sha256": sha256(clean),
        "float32_sha256": sha256(exact),
        "uint8_sha256": sha256(levels),
        "norm": norm,
        "epsilon": np.float64(epsilon),
        "dataset": "synthetic",
        "image_size": SIDE,
        "preprocess": "none",
        "source": "a test",
    }
    return content, clean, labels, ids


def hashed(content):
    """Bring the hashes of both versions up to date, as someone would who tampers and knows the format."""
    return content | {f"{name}_sha256": sha256(content[name]) for name in ("float32", "uint8")}


def reread(tmp_path, content):
    np.savez(tmp_path / "a.npz", **content)
    return verify.read(tmp_path / "a.npz")


def failed(findings):
    return {finding.name for finding in findings if not finding.passed}


CHECKS = [
    "ids",
    "labels",
    "clean sha256",
    "float32 sha256",
    "uint8 sha256",
    "range",
    "float32 radius",
    "uint8 radius",
    "uint8 beside float32",
]


@pytest.mark.parametrize("on_grid", [True, False])
@pytest.mark.parametrize("norm", verify.NORMS)
def test_a_good_file_passes_every_check(tmp_path, norm, on_grid):
    content, clean, labels, ids = make(norm, on_grid)
    read = reread(tmp_path, content)
    assert list(read) == list(verify.ARRAYS)
    for name, array in read.items():
        np.testing.assert_array_equal(array, content[name])
    findings = verify.check(read, clean, labels, ids)
    assert [finding.name for finding in findings] == CHECKS and not failed(findings)
    figure = {finding.name: finding.figure for finding in findings}
    assert figure["labels"] == "0 of 6 differ from the data set's"
    assert figure["float32 radius"].startswith(f"0 of 6 beyond {norm} {RADII[norm]:.8g}; the farthest is at 0.")
    assert figure["uint8 radius"].endswith(f"; {0 if on_grid else 6} clean images lie between grey levels")
    assert verify.check(read, iter(clean), labels, ids, norm=norm, epsilon=RADII[norm])[2].passed


@pytest.mark.parametrize("norm", verify.NORMS)
def test_the_figure_of_the_farthest_image(norm):
    content, clean, labels, ids = make(norm)
    far = np.float64(content["float32"]) - clean
    far = np.abs(far).max() if norm == "linf" else np.sqrt(np.sum(far**2, (1, 2, 3))).max()
    figure = {finding.name: finding.figure for finding in verify.check(content, clean, labels, ids)}["float32 radius"]
    assert float(figure.rpartition(" ")[2]) == pytest.approx(far, rel=1e-7)


def one_pixel_beyond(content, data):
    content["float32"][2, 3, 4, 1] = data["clean"][2, 3, 4, 1] + np.float32(8 / 255 + 2e-7)
    content["uint8"][2, 3, 4, 1] = np.round(content["float32"][2, 3, 4, 1] * 255)
    return hashed(content)


def one_level_beyond(content, data):
    level = np.round(data["clean"][2, 3, 4, 1] * 255) + 9
    content["uint8"][2, 3, 4, 1] = level
    content["float32"][2, 3, 4, 1] = (level - 1) / 255
    return hashed(content)


def not_a_number(content, data):
    content["float32"][1, 0, 0, 0] = np.nan
    return hashed(content)


def below_zero(content, data):
    data["clean"][0, 0, 0, 0] = 0
    content["float32"][0, 0, 0, 0], content["uint8"][0, 0, 0, 0] = -0.001, 0
    return hashed(content) | {"clean_sha256": sha256(data["clean"])}


def swapped_ids(content, data):
    content["ids"][[0, 1]] = content["ids"][[1, 0]]


def repeated_id(content, data):
    content["ids"][1] = data["ids"][1] = content["ids"][0]


def swapped_images(content, data):
    for name in ("float32", "uint8", "float32_sha256", "uint8_sha256"):
        content[name][[0, 1]] = content[name][[1, 0]]


def wrong_label(content, data):
    content["labels"][3] += 1


def other_clean_data(content, data):
    data["clean"][4, 0, 0, 0] = np.nextafter(data["clean"][4, 0, 0, 0], np.float32(0.5))


def other_bytes(content, data):
    content["float32"][5, 0, 0, 0] = np.nextafter(content["float32"][5, 0, 0, 0], data["clean"][5, 0, 0, 0])


def other_level(content, data):
    content["uint8"][5, 2, 2, 0] = np.round(data["clean"][5, 2, 2, 0] * 255 * 0.5 + content["uint8"][5, 2, 2, 0] * 0.5)
    content["float32"][5, 2, 2, 0] = content["uint8"][5, 2, 2, 0] / np.float32(255)
    return content | {"float32_sha256": sha256(content["float32"])}


def apart(content, data):
    content["uint8"][0] = np.round(data["clean"][0] * 255)
    return hashed(content)


def small_radius(content, data):
    return content | {"epsilon": np.float64(7.9 / 255)}


TAMPERING = {  # -> the checks that fail, no more and no fewer
    one_pixel_beyond: {"float32 radius"},
    one_level_beyond: {"uint8 radius"},
    not_a_number: {"range", "float32 radius", "uint8 beside float32"},  # a NaN is within nothing
    below_zero: {"range"},
    swapped_ids: {"ids"},
    repeated_id: {"ids"},
    swapped_images: {"float32 radius", "uint8 radius"},
    wrong_label: {"labels"},
    other_clean_data: {"clean sha256"},
    other_bytes: {"float32 sha256"},
    other_level: {"uint8 sha256"},
    apart: {"uint8 beside float32"},
    small_radius: {"float32 radius", "uint8 radius"},
}


@pytest.mark.parametrize("tamper", TAMPERING, ids=lambda tamper: tamper.__name__)
def test_tampering_fails_the_checks_meant_for_it(tmp_path, tamper):
    content, clean, labels, ids = make()
    data = {"clean": clean, "labels": labels, "ids": ids}
    if tamper in (one_pixel_beyond, one_level_beyond):  # room above
        clean[2, 3, 4, 1] = np.float32(100 / 255)
        content["clean_sha256"] = sha256(clean)
    content = tamper(content, data) or content
    assert failed(verify.check(reread(tmp_path, content), **data)) == TAMPERING[tamper]


@pytest.mark.parametrize("norm", verify.NORMS)
@pytest.mark.parametrize(
    ("factor", "wanted"), [(1, set()), (0.98, {"ball", "float32 radius", "uint8 radius"}), (2, {"ball"})]
)
def test_a_radius_that_is_not_the_readers(norm, factor, wanted):
    content, clean, labels, ids = make(norm)
    content["epsilon"] = content["epsilon"] * factor
    found = failed(verify.check(content, clean, labels, ids, norm=norm, epsilon=RADII[norm]))
    assert found in (wanted, wanted - {"uint8 radius"})  # rounded towards the clean image, L2 images have room
    other = {"linf": "l2", "l2": "linf"}[norm]
    assert "ball" in failed(verify.check(content, clean, labels, ids, norm=other))


def test_l2_beyond_the_radius():
    content, clean, labels, ids = make("l2")
    content["float32"][0] = clean[0] + (content["float32"][0] - clean[0]) * np.float32(1.01)
    assert failed(verify.check(hashed(content), clean, labels, ids)) == {"float32 radius"}


def test_l2_steps_of_one_size_at_224_pixels_stay_within_what_rounding_explains():
    clean = np.random.default_rng(0).integers(1, 255, [1, 224, 224, 3]).astype("u1") / np.float32(255)
    content = {name: value[:1] if getattr(value, "ndim", 0) else value for name, value in make("l2")[0].items()}
    content |= {"image_size": 224, "uint8": np.round(clean * 255).astype("u1"), "clean_sha256": sha256(clean)}
    for epsilon in (0.05, 0.5):
        step = np.float32(epsilon / np.sqrt(clean.size))
        for sign in (1, -1):
            content |= {"epsilon": np.float64(epsilon), "float32": clean + sign * step}
            assert not failed(verify.check(hashed(content), clean, content["labels"], content["ids"]))
            content["float32"] = clean + sign * step * np.float32(1.0005)
            assert failed(verify.check(hashed(content), clean, content["labels"], content["ids"])) == {"float32 radius"}


@pytest.mark.parametrize("norm", verify.NORMS)
def test_images_between_levels_may_be_half_a_level_farther_and_no_more(norm):
    content, clean, labels, ids = make(norm, on_grid=False)
    more = (0.9 * 0.5 / 255) * (1 if norm == "linf" else np.sqrt(3 * SIDE**2))
    content["epsilon"] = np.float64(max(distances(content, clean, norm)) - more)
    assert "uint8 radius" not in failed(verify.check(content, clean, labels, ids))
    content["epsilon"] -= 0.2 * more
    assert "uint8 radius" in failed(verify.check(content, clean, labels, ids))


def distances(content, clean, norm):
    away = (content["uint8"] / 255 - clean).reshape(N, -1)
    return np.linalg.norm(away, np.inf if norm == "linf" else 2, axis=1)


def test_another_number_of_images():
    content, clean, labels, ids = make()
    (finding,) = verify.check(content, clean[1:], labels[1:], ids[1:])
    assert (finding.name, finding.passed, finding.figure) == ("ids", False, "6 images, in the data set 5")


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("one label an id. Received: 5 labels", {"labels": np.zeros(5, int)}),
        ("one clean image an id. Received: 5 images", {"clean": np.zeros([5, SIDE, SIDE, 3], "f4")}),
        ("Received: dtype=float64", {"clean": np.zeros([N, SIDE, SIDE, 3])}),
        (r"shape=\[4, 4, 3\]", {"clean": np.zeros([N, 4, 4, 3], "f4")}),
    ],
)
def test_data_that_do_not_fit_are_refused(message, change):
    content, clean, labels, ids = make()
    with pytest.raises(ValueError, match=message):
        verify.check(content, **{"clean": clean, "labels": labels, "ids": ids} | change)


REFUSED = {
    "format 1. Received: .* of format=2": {"format": 2},
    "format 1. Received: .* of format=one": {"format": "one"},
    "Expected ids as int64 of 1 dimensions. Received: dtype=int32": {"ids": np.arange(N, dtype="i4")},
    r"Expected labels of shape \[6\] beside 6 ids. Received: shape=\[5\]": {"labels": np.zeros(5, "i4")},
    "Expected float32 as float32 of 4 dimensions. Received: dtype=float64": {"float32": np.zeros([N, SIDE, SIDE, 3])},
    r"Expected uint8 of shape \[6, 8, 8, 3\]": {"uint8": np.zeros([N, SIDE, SIDE, 1], "u1")},
    r"Expected float32 of shape \[6, 9, 9, 3\]": {"image_size": 9},
    "Expected clean_sha256 as str": {"clean_sha256": np.zeros(N)},
    "Expected a norm of linf, l2. Received: norm=l1": {"norm": "l1"},
    "Expected a radius above 0. Received: epsilon=nan": {"epsilon": np.nan},
    "Expected epsilon as float64 of 0 dimensions. Received: dtype=float32": {"epsilon": np.float32(0.1)},
    "Object arrays cannot be loaded": {"source": np.array([None])},
}


@pytest.mark.parametrize("message", REFUSED)
def test_files_of_other_content_are_refused(tmp_path, message):
    with pytest.raises(OSError, match=message):
        reread(tmp_path, make()[0] | REFUSED[message])


@pytest.mark.parametrize("name", verify.ARRAYS)
def test_a_missing_array(tmp_path, name):
    content = make()[0]
    del content[name]
    with pytest.raises(OSError, match=rf"path=.*a.npz without {name}\.$"):
        reread(tmp_path, content)


def test_an_empty_file_of_images(tmp_path):
    content = {name: value[:0] if getattr(value, "ndim", 0) else value for name, value in make()[0].items()}
    with pytest.raises(OSError, match="beside 0 ids"):
        reread(tmp_path, content)


def test_what_is_no_file_of_images(tmp_path):
    with pytest.raises(FileNotFoundError, match="which is no file"):
        verify.read(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError, match="which is no file"):
        verify.read(tmp_path)
    for content in (b"", b"accuracy 50 %", b"\x93NUMPY"):
        (tmp_path / "b.npz").write_bytes(content)
        with pytest.raises(OSError, match=r"b\.npz, which is no zip file"):
            verify.read(tmp_path / "b.npz")
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(OSError, match="without format, ids"):
        verify.read(tmp_path / "c.npz")


def test_a_file_cut_off_anywhere(tmp_path):
    np.savez(tmp_path / "a.npz", **make()[0])
    whole = (tmp_path / "a.npz").read_bytes()
    for end in (2, 50, 1000, len(whole) // 2, len(whole) - 100, len(whole) - 1):
        (tmp_path / "a.npz").write_bytes(whole[:end])
        with pytest.raises(OSError, match="cut off or damaged"):
            verify.read(tmp_path / "a.npz")


def test_bytes_changed_on_disk(tmp_path):
    content = make()[0]
    np.savez(tmp_path / "a.npz", **content)
    whole = bytearray((tmp_path / "a.npz").read_bytes())
    for name in ("float32", "uint8"):
        start = whole.index(content[name].tobytes())
        for place in (start, start + content[name].nbytes - 1):
            damaged = whole.copy()
            damaged[place] ^= 1
            (tmp_path / "a.npz").write_bytes(damaged)
            with pytest.raises(OSError, match="cut off or damaged"):
                verify.read(tmp_path / "a.npz")


@pytest.mark.parametrize("batch_size", [1, 4, 6, 100])
def test_rescore(batch_size):
    content, _, _, _ = make()
    shapes, seen = set(), []

    def predict(images):
        """Class 1 where the first value is below one half, of 8-bit images class 0 always."""
        shapes.add((images.shape, images.dtype.name))
        seen.append(images)
        low = images[:, 0, 0, 0] < 0.5
        return np.stack([~low, low], 1).astype("f4")

    content["labels"] = np.int32([0, 1, 1, 0, 1, 0])
    content["float32"][:, 0, 0, 0] = [0.9, 0.1, 0.2, 0.7, 0.3, 0.4]  # the last is wrong
    content["uint8"][:, 0, 0, 0] = [255, 0, 128, 200, 127, 10]  # the third and the last are wrong
    assert verify.rescore(content, predict, batch_size) == {"float32": 5, "uint8": 4}
    assert shapes == {((batch_size, SIDE, SIDE, 3), "float32")}
    photos = np.concatenate(seen[len(seen) // 2 :])[:N]
    np.testing.assert_array_equal(photos, np.float32(content["uint8"] / 255))
