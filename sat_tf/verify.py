"""Adversarial images on disk, read and checked by code that shares nothing with what wrote them: NumPy alone.

One .npz file, uncompressed, holds n attacked images twice, in float32 and in 8 bits (level k stands for k / 255):

    format          1
    ids             int64 [n], each image's place in the test split
    labels          int32 [n]
    float32         float32 [n, h, w, 3] in [0, 1]
    uint8           uint8 [n, h, w, 3]
    clean_sha256    str [n], hexadecimal SHA-256 of the clean image's float32 values in C order
    float32_sha256  str [n], the same of its image in `float32`
    uint8_sha256    str [n], the same of its image in `uint8`
    norm            "linf" or "l2"
    epsilon         float64, the radius of the ball around each clean image
    dataset, image_size, preprocess, source    where the clean images come from, and what wrote the file
"""

import dataclasses
import hashlib
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable

import numpy as np

FORMAT = 1
NORMS = ("linf", "l2")
ARRAYS = {  # name: type ("" for whole numbers of any width), dimensions
    "format": ("", 0),
    "ids": ("int64", 1),
    "labels": ("int32", 1),
    "float32": ("float32", 4),
    "uint8": ("uint8", 4),
    "clean_sha256": ("str", 1),
    "float32_sha256": ("str", 1),
    "uint8_sha256": ("str", 1),
    "norm": ("str", 0),
    "epsilon": ("float64", 0),
    "dataset": ("str", 0),
    "image_size": ("", 0),
    "preprocess": ("str", 0),
    "source": ("str", 0),
}
LEVEL = 1 / 255  # one grey level
ROUNDING = 2**-25  # the most by which a float32 value below 1 is rounded
ROUNDED = 1e-7  # three of these: the sum of a clean value and a step is rounded, and so may each of the two be
SUMMED = 1e-6  # of an L2 norm: projections sum its squares in float32
ON_GRID = 1e-4  # grey levels: float32(k / 255) is off by 8e-6 of a level, a resized photograph by anything
GRID_ROUNDED = 1e-6  # what float32(k / 255) and a radius such as 0.031373 leave open


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was checked: what, whether it holds, and the figures that say so."""

    name: str
    passed: bool
    figure: str


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Return what the file at `path` holds, `{name: array}` of `ARRAYS`.

    Raises:
      OSError: there is no such file, or it is damaged, or it does not hold what the format asks for.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a file of adversarial images. Received: path={path}, which is no file.")
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            raise OSError(f"Expected adversarial images as .npz. Received: path={path}, which is no zip file.")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in ARRAYS if name not in file]
            content = {name: np.asarray(file[name]) for name in ARRAYS if name in file}
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError) as error:
        raise OSError(
            f"Expected a whole .npz file. Received: path={path}, which is cut off or damaged ({error}); copy it again."
        ) from error
    if not np.array_equal(content.get("format", FORMAT), FORMAT):
        raise OSError(f"Expected a file of format {FORMAT}. Received: path={path} of format={content['format']}.")
    if missing:
        raise OSError(f"Expected the arrays {', '.join(ARRAYS)}. Received: path={path} without {', '.join(missing)}.")
    fault = _fault(content)
    if fault:
        raise OSError(f"{fault} (path={path}).")
    return content


def _fault(content):
    """Return what does not fit in a file's arrays, as a sentence without its full stop; None where all does."""
    for name, (kind, dimensions) in ARRAYS.items():
        array = content[name]
        fits = {"": array.dtype.kind in "iu", "str": array.dtype.kind == "U"}.get(kind, array.dtype.name == kind)
        if not fits or array.ndim != dimensions:
            return (
                f"Expected {name} as {kind or 'int'} of {dimensions} dimensions. "
                f"Received: dtype={array.dtype.name}, shape={list(array.shape)}"
            )
    if content["norm"] not in NORMS:
        return f"Expected a norm of {', '.join(NORMS)}. Received: norm={content['norm']}"
    if not 0 < content["epsilon"] < np.inf:
        return f"Expected a radius above 0. Received: epsilon={content['epsilon']}"
    n, size = len(content["ids"]), int(content["image_size"])
    for name, (_, dimensions) in ARRAYS.items():
        wanted = {0: (), 1: (n,), 4: (n, size, size, 3)}[dimensions]
        if content[name].shape != wanted or not n:
            return (
                f"Expected {name} of shape {list(wanted)} beside {n} ids. Received: shape={list(content[name].shape)}"
            )
    return None


def check(
    content: dict[str, np.ndarray],
    clean: Iterable[np.ndarray],
    labels: np.ndarray,
    ids: np.ndarray,
    *,
    norm: str | None = None,
    epsilon: float | None = None,
) -> list[Finding]:
    """Compare a file with the data set that it was made from; images pass one by one, in float64.

    A float32 image may leave its ball by what rounding explains: `ROUNDED` in L-infinity; in L2 `SUMMED` times
    epsilon, and `ROUNDING` times sqrt(h * w * 3), 0.00001 at 224 pixels, should every value be rounded outwards (steps
    of one size everywhere come near that). An 8-bit image may not leave it at all (`GRID_ROUNDED`) where its clean
    image has 8 bits too, since rounding each value towards the clean one stays inside. The values of a resized
    photograph lie between two levels, the nearest of which is up to half a level away: there the ball is half a level a
    value wider, in L2 half a level times sqrt(h * w * 3), which at 224 pixels is more than most radii; `figure` says
    how far the images went.

    Args:
      content: what `read` returns.
      clean: the clean images of the data set, float32 `[n, h, w, 3]`, or an iterable of n images `[h, w, 3]`.
      labels: theirs, int `[n]`.
      ids: their places in the test split, int `[n]`.
      norm: "linf" or "l2", where the reader knows which it should be; None to take the file's word.
      epsilon: the radius, likewise. Without it a radius written too large goes unnoticed: all images lie inside.

    Returns:
      A list of `Finding`; where the file holds another number of images, that finding alone.

    Raises:
      ValueError: clean images, labels and ids do not fit one another, or the images are of another size or type.
    """
    written, ids, labels = content["ids"], np.asarray(ids), np.asarray(labels)
    if len(labels) != len(ids):
        raise ValueError(f"Expected one label an id. Received: {len(labels)} labels, {len(ids)} ids.")
    if len(written) != len(ids):
        return [Finding(name="ids", passed=False, figure=f"{len(written)} images, in the data set {len(ids)}")]
    repeated = len(written) - len(np.unique(written))
    other = int(np.sum(written != ids))
    findings = [
        Finding(
            name="ids",
            passed=not other and not repeated,
            figure=f"{other} of {len(ids)} not in their place, {repeated} repeated",
        ),
        _none("labels", content["labels"] != labels, "differ from the data set's"),
    ]
    if norm or epsilon:
        findings.append(_same_ball(content, norm, epsilon))
    measured = [_measure(content, i, image) for i, image in zip(range(len(ids)), clean, strict=False)]
    if len(measured) != len(ids):
        raise ValueError(f"Expected one clean image an id. Received: {len(measured)} images, {len(ids)} ids.")
    return findings + _evaluate({name: np.array([row[name] for row in measured]) for name in measured[0]}, content)


def _measure(content, i, clean):
    """Return the figures of image `i` beside its clean image."""
    if clean.dtype != np.float32 or clean.shape != content["float32"][i].shape:
        raise ValueError(
            f"Expected clean images as float32 of shape {list(content['float32'][i].shape)}. "
            f"Received: dtype={clean.dtype}, shape={list(clean.shape)}."
        )
    exact, levels = content["float32"][i], content["uint8"][i]
    wide, grid, origin = np.float64(exact), np.float64(levels) / 255, np.float64(clean)
    on_grid = np.all(np.abs(origin * 255 - np.round(origin * 255)) <= ON_GRID)
    return {
        "clean_sha256": _sha256(clean) != content["clean_sha256"][i],
        "float32_sha256": _sha256(exact) != content["float32_sha256"][i],
        "uint8_sha256": _sha256(levels) != content["uint8_sha256"][i],
        "outside": not np.all((wide >= 0) & (wide <= 1)),  # a NaN compares as False
        "float32": _length(wide - origin, content["norm"]),
        "uint8": _length(grid - origin, content["norm"]),
        "slack": 0.0 if on_grid else _length(np.full_like(origin, LEVEL / 2), content["norm"]),
        "apart": np.max(np.abs(grid - wide)),
    }


def _evaluate(measured, content):
    """Return the findings about figures `[n]` of all images; a NaN among them fails."""
    epsilon = float(content["epsilon"])
    values = np.prod(content["float32"].shape[1:])
    allowed = epsilon + (ROUNDED if content["norm"] == "linf" else SUMMED * epsilon + ROUNDING * np.sqrt(values))
    allowed_8_bit = epsilon + GRID_ROUNDED + measured["slack"]
    off_grid = int(np.sum(measured["slack"] > 0))
    return [
        _none("clean sha256", measured["clean_sha256"], "clean images differ from those attacked"),
        _none("float32 sha256", measured["float32_sha256"], "differ from what was written"),
        _none("uint8 sha256", measured["uint8_sha256"], "differ from what was written"),
        _none("range", measured["outside"], "have values outside [0, 1] or not finite"),
        _none(
            "float32 radius",
            ~(measured["float32"] <= allowed),
            f"beyond {content['norm']} {epsilon:.8g}; the farthest is at {np.max(measured['float32']):.8g}",
        ),
        _none(
            "uint8 radius",
            ~(measured["uint8"] <= allowed_8_bit),
            f"beyond {content['norm']} {epsilon:.8g}; the farthest is at {np.max(measured['uint8']):.8g}; "
            f"{off_grid} clean images lie between grey levels",
        ),
        _none(
            "uint8 beside float32",
            ~(measured["apart"] <= LEVEL + GRID_ROUNDED),
            f"more than a grey level apart; the most is {np.max(measured['apart']) * 255:.4g} levels",
        ),
    ]


def _none(name, faults, what):
    """Return a finding that passes where none of the images `[n]` has the fault."""
    return Finding(name=name, passed=not np.any(faults), figure=f"{int(np.sum(faults))} of {len(faults)} {what}")


def _same_ball(content, norm, epsilon):
    written, radius = str(content["norm"]), float(content["epsilon"])
    same = norm in (None, written) and (epsilon is None or abs(radius - epsilon) <= ROUNDED)
    return Finding(
        name="ball",
        passed=bool(same),
        figure=f"the file says {written} {radius:.8g}, the reader {norm or 'any norm'} {epsilon or 'of any radius'}",
    )


def _length(difference, norm):
    return np.max(np.abs(difference)) if norm == "linf" else np.sqrt(np.sum(difference**2))


def _sha256(image):
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def rescore(
    content: dict[str, np.ndarray], predict: Callable[[np.ndarray], np.ndarray], batch_size: int
) -> dict[str, int]:
    """Return how many of a file's images a model still gets right, `{"float32": count, "uint8": count}`.

    Args:
      content: what `read` returns.
      predict: float32 images `[batch_size, h, w, 3]` in [0, 1] -> logits `[batch_size, classes]`; the last batch is
        filled up with black images, so its shape never changes.
      batch_size: images a call.
    """
    return {
        name: sum(
            _correct(content, name, start, predict, batch_size) for start in range(0, len(content["ids"]), batch_size)
        )
        for name in ("float32", "uint8")
    }


def _correct(content, name, start, predict, batch_size):
    images, labels = (content[key][start : start + batch_size] for key in (name, "labels"))
    batch = np.zeros([batch_size, *images.shape[1:]], np.float32)
    batch[: len(images)] = images if name == "float32" else images / np.float32(255)
    classes = np.argmax(np.asarray(predict(batch))[: len(images)], -1)
    return int(np.sum(classes == labels))
