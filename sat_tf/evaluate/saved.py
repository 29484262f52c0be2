"""Adversarial images in 8 bits, and the file that `sat_tf.verify` reads."""

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Iterable

import numpy as np

from sat_tf import files
from sat_tf.evaluate.results import Examples, Result

FORMAT = 1
SNAPPED = 1e-4  # grey levels: float32(k / 255) is off by 8e-6 of a level
SHORT = 1e-6  # of an L2 radius: clean values are float32(k / 255), not k / 255
CHUNK = 64  # images at a time, so that results larger than memory can be written


def eight_bits(adversarial: np.ndarray, clean: np.ndarray, epsilon: float, norm: str) -> np.ndarray:
    """Round adversarial images to the nearest grey levels that stay in the ball, where the levels allow it.

    L-infinity: each value to the nearest level inside. L2: each to the nearest level, and as many as it takes to the
    last one on the way to the clean value, those first whose error grows least. An image leaves its ball only where
    clean values lie between two levels, as a resized photograph's do, and no level is near enough.

    Args:
      adversarial, clean: float `[n, h, w, c]` in [0, 1].
      epsilon: radius of the ball around each clean image.
      norm: "linf" or "l2".

    Returns:
      uint8 `[n, h, w, c]`; level k stands for k / 255.
    """
    if norm not in ("linf", "l2"):
        raise ValueError(f"Expected a norm of linf, l2. Received: norm={norm}.")
    moved, origin = (_snapped(np.asarray(images, np.float64) * 255) for images in (adversarial, clean))
    levels = np.round(moved)
    if norm == "linf":
        radius = epsilon * 255 + SNAPPED
        low, high = np.ceil(origin - radius), np.floor(origin + radius)
        levels = np.where(low <= high, np.minimum(np.maximum(levels, low), high), np.round(origin))
    else:
        levels = np.array(
            [_drawn_in(*image, epsilon * 255 * (1 - SHORT)) for image in zip(levels, moved, origin, strict=True)]
        ).reshape(levels.shape)
    return np.clip(levels, 0, 255).astype(np.uint8)


def _drawn_in(levels, moved, origin, radius):
    """Return one image's levels with as many of them towards the clean image as its L2 ball asks for."""
    excess = np.square(levels - origin).sum() - radius**2
    if excess <= 0:
        return levels
    towards = np.where(moved > origin, np.floor(moved), np.ceil(moved))
    gains = (np.square(levels - origin) - np.square(towards - origin)).ravel()
    order = np.flatnonzero(gains > 0)
    order = order[np.argsort(-np.abs(levels - moved).ravel()[order], kind="stable")]
    needed = order[: np.searchsorted(np.cumsum(gains[order]), excess) + 1]
    levels = levels.copy()
    levels.ravel()[needed] = towards.ravel()[needed]
    return levels


def _snapped(levels):
    """Return grey levels without float32's rounding of whole ones."""
    whole = np.round(levels)
    return np.where(np.abs(levels - whole) <= SNAPPED / 10, whole, levels)


def write(
    path: str | os.PathLike, examples: Examples, result: Result, *, dataset: str, preprocess: str, source: str
) -> None:
    """Write every image as an attack leaves it: in float32 and in 8 bits, in the format of `sat_tf.verify`.

    The file appears under its name when it is whole.

    Args:
      path: of the .npz file.
      examples: what was attacked, as `Examples`, `[n, side, side, 3]`.
      result: of the attack on these images, as `Result`.
      dataset, preprocess, source: where the clean images come from, and what wrote the file.

    Raises:
      ValueError: the result is of other images, or images are not square and of three channels.
    """
    count, height, width, channels = examples.images.shape
    if height != width or channels != 3:
        raise ValueError(f"Expected images [n, side, side, 3]. Received: images={list(examples.images.shape)}.")
    if not np.array_equal(examples.ids, result.ids):
        raise ValueError(f"Expected a result of these {count} images. Received: ids of {len(result.ids)} others.")
    with _appearing(path) as file:
        hashes = {"clean_sha256": _hashes(clean for clean, _ in _chunks(examples, result))}
        for name, kind in (("float32", np.float32), ("uint8", np.uint8)):
            hashes[f"{name}_sha256"] = _stream(file, name, kind, examples, result)
        rest = {
            **hashes,
            "format": np.int64(FORMAT),
            "ids": np.asarray(examples.ids, np.int64),
            "labels": np.asarray(examples.labels, np.int32),
            "norm": result.norm,
            "epsilon": np.float64(result.epsilon),
            "image_size": np.int64(height),
            "dataset": dataset,
            "preprocess": preprocess,
            "source": source,
        }
        for name, value in rest.items():
            _add(file, name, value)


def join(path: str | os.PathLike, parts: Iterable[str | os.PathLike]) -> None:
    """Write one file from those of the parts of an evaluation, in the order of the ids; an array at a time in memory.

    Args:
      path: of the .npz file.
      parts: paths of files that `write` wrote, of one attack and data set.
    """
    with contextlib.ExitStack() as stack, _appearing(path) as file:
        loaded = [stack.enter_context(np.load(part, allow_pickle=False)) for part in parts]
        order = np.argsort(np.concatenate([part["ids"] for part in loaded]))
        for name in loaded[0].files:
            values = [part[name] for part in loaded]
            _add(file, name, np.concatenate(values)[order] if values[0].ndim else values[0])


@contextlib.contextmanager
def _appearing(path):
    """Yield a zip file that appears under its name when it is whole."""
    with files.replacing(path) as unfinished, zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as file:
        yield file


def _add(file, name, value):
    with file.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)


def _chunks(examples, result):
    """Give `(clean, attacked)` float32, `CHUNK` images at a time."""
    for begin in range(0, len(examples.images), CHUNK):
        part = slice(begin, begin + CHUNK)
        clean = np.asarray(examples.images[part], np.float32)
        fooled = result.changed[part]
        yield clean, np.where(fooled[:, None, None, None], result.adversarial_of(part), clean)


def _stream(file, name, kind, examples, result):
    """Write the attacked images as one array of a type; return their hashes."""
    hashes = []
    with file.open(f"{name}.npy", "w", force_zip64=True) as member:
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(kind)),
            "fortran_order": False,
            "shape": examples.images.shape,
        }
        np.lib.format.write_array_header_1_0(member, header)
        for clean, attacked in _chunks(examples, result):
            if kind == np.uint8:
                attacked = eight_bits(attacked, clean, result.epsilon, result.norm)
            hashes.append(_hashes([attacked]))
            member.write(np.ascontiguousarray(attacked).tobytes())
    return np.concatenate(hashes)


def _hashes(chunks):
    """Return each image's SHA-256 in hexadecimal, str `[n]`."""
    return np.array(
        [hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for chunk in chunks for image in chunk]
    )
