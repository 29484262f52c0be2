"""Chosen images of a Split, to evaluate by: at some places, drawn, every n-th, or those that a file of ids names."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from sat_tf.data.splits import Split, draw, expand

_PLACE = re.compile(r"-?[0-9]{1,18}")
_FOLDER = re.compile(r"(val|validation|test)/")


def selected(split: Split, places: Sequence[int] | np.ndarray) -> Split:
    """Return the Split of the images at some places of a Split, in their natural order.

    Where there is random access the other images are not even read; streamed ones are read, up to the last chosen
    one, and not decoded. `index` and `places` stay those of the whole part, however often one selects.

    Places count the images that can be used, and only these. So no chosen image is unreadable, `unreadable` is empty,
    and the selection can be evaluated though others of its part are unreadable. But behind an unreadable image a place
    is another image than in a whole copy: choose by name there, as `read_subset` does.

    Args:
      split: A Split.
      places: integers [n], increasing, each from 0 to split.size - 1.

    Raises:
      ValueError: for other places; of the Split's `order`, for any but the natural one.
    """
    places = _checked(places, split.size)
    in_part = _places_in_part(split)[places]

    def order(seed, host, hosts, block, start):
        if seed is not None:
            raise ValueError("Expected the natural order of chosen images, seed=None: they are there to evaluate by.")
        if split.random_access:
            items = tf.data.Dataset.from_tensor_slices({"index": in_part})
        else:
            items = _streamed(split, places)
        return items.batch(block).shard(hosts, host).skip(start).unbatch()

    names = None if split.names is None else lambda: split.names()[places]
    digests = None if split.digests is None else lambda: split.digests()[places]
    return dataclasses.replace(
        split, size=len(places), order=order, unreadable=(), cached=None, names=names, digests=digests, places=in_part
    )


def sampled(split: Split, count: int) -> Split:
    """Return `count` images of a Split, the same ones every time, in their natural order.

    What is unreadable in the Split stays in `unreadable`: without it others would have been drawn.

    Raises:
      ValueError: there are fewer.
    """
    if count > split.size:
        raise ValueError(f"Expected at most the {split.size} images there are. Received: {count}.")
    chosen = selected(split, np.flatnonzero(draw(np.zeros(split.size, int), count, seed=0)))
    return dataclasses.replace(chosen, unreadable=split.unreadable)


def part(split: Split, number: int, count: int) -> Split:
    """Return one of `count` parts of a Split, to evaluate them apart: places number, number + count, ...

    They share no image, together they are the Split, and their sizes differ by one at most. What is unreadable in the
    Split stays in the `unreadable` of each part, so that none is evaluated: together they would not be the whole.

    Args:
      split: A Split.
      number: which part, from 0.
      count: how many there are.

    Raises:
      ValueError: for a number that is not from 0 to count - 1, or more parts than images.
    """
    if not all(isinstance(value, (int, np.integer)) and not isinstance(value, bool) for value in (number, count)):
        raise ValueError(f"Expected whole numbers. Received: {number=}, {count=}.")
    if not 0 <= number < count:
        raise ValueError(f"Expected number from 0 to count - 1. Received: {number=}, {count=}. The first part is 0.")
    if count > split.size:
        raise ValueError(
            f"Expected at most as many parts as the {split.size} images there are, or some would be empty. "
            f"Received: {count=}. Choose fewer parts."
        )
    return dataclasses.replace(selected(split, np.arange(number, split.size, count)), unreadable=split.unreadable)


def read_subset(file: str | os.PathLike, split: Split) -> tuple[np.ndarray, str]:
    """Return the places of the images that a file of ids names, and the digest of the subset.

    The file is UTF-8 text, one id a line; blank lines and lines that begin with # are left out. An id is

    - a place: a whole number from 0, in the natural order of the whole part (also where `split` is a selection);
      only in a part without unreadable images, as these are not counted;
    - or a name: "class/file", with or without val/, validation/ or test/ before it, or only the file where no other
      image has that one. Behind a name and white space a label may stand; it is not looked at.

    The digest is the SHA-256 of the chosen names in the order of their code points, as UTF-8, with a newline between
    two of them and none at the end: it is the same however the set is stored. Where an image of the split has no name,
    or two have the same, it is the SHA-256 of the chosen places in the whole part, as decimal numbers in increasing
    order, with newlines in the same manner.

    Args:
      file: path of the file.
      split: A Split.

    Returns:
      places int64 [n], increasing, of the split (for `selected`), and the digest, 64 hexadecimal digits.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: for a file that is not UTF-8 text or without ids, an image named twice, an unknown or ambiguous
        name, names in a set without names, a place that there is not, or places in a part with unreadable images.
    """
    lines = _lines(file)
    names = None if split.names is None else split.names()
    numbered = [(line, text) for line, text in lines if _PLACE.fullmatch(text)]
    named = [(line, text) for line, text in lines if not _PLACE.fullmatch(text)]
    found = _found_by_place(numbered, split, file) | _found_by_name(named, split, names, file)
    _refuse_repeated(lines, found, file)
    places = np.sort(np.array(list(found.values()), np.int64))
    return places, _digest(_places_in_part(split), names, places)


def _checked(places, size):
    """Return places as int64 [n]."""
    places = np.asarray(places)
    if places.dtype.kind not in "iu" or places.ndim != 1:
        raise ValueError(f"Expected places as integers [n]. Received: places={places.dtype} {list(places.shape)}.")
    places = places.astype(np.int64)
    if (np.diff(places, prepend=-1, append=size) <= 0).any():
        raise ValueError(
            f"Expected places from 0 to {size - 1}, increasing, each once. Received: {places=}. Sort them by np.unique."
        )
    return places


def _places_in_part(split):
    """Return the place of each image of a Split in the whole part, int64 [size]."""
    return np.arange(split.size) if split.places is None else split.places


def _streamed(split, places):
    """Return the items at some places of a Split that can only be read in its order."""
    chosen = np.zeros(split.size, bool)
    chosen[places] = True
    items = split.order(None, 0, 1, 1, 0).enumerate().filter(lambda place, _: tf.gather(chosen, place))
    return items.map(lambda _, item: item).take(len(places))


def _lines(file):
    """Return (number from 1, text) of each line that holds an id."""
    file = expand(file)
    try:
        with open(file, encoding="utf-8-sig") as opened:
            lines = [(number, line.strip()) for number, line in enumerate(opened, 1)]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no {file}: name a text file that holds the ids, one a line.") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Expected a UTF-8 text file of ids, one a line. Received: {file} ({error.reason} at byte {error.start}). "
            "Save it as UTF-8."
        ) from error
    except OSError as error:
        raise ValueError(f"Expected a text file of ids, one a line. Received: {file} ({error.strerror}).") from error
    lines = [(number, text) for number, text in lines if text and not text.startswith("#")]
    if not lines:
        raise ValueError(f"Expected at least one id. Received: none in {file}. Write one a line.")
    return lines


def _found_by_place(lines, split, file):
    """Return `{line: place in the split}` of ids that are places."""
    if lines and split.unreadable:
        raise ValueError(
            "Expected names: beside unreadable images, which are not counted, a place may be another image than in a "
            f"whole copy. Received: {_first(lines, file)}; {len(split.unreadable)} unreadable, the first "
            f"{split.unreadable[0]}. Replace what is unreadable by whole copies, or name the images."
        )
    place_of = {in_part: place for place, in_part in enumerate(_places_in_part(split).tolist())}
    wrong = [(line, text) for line, text in lines if int(text) not in place_of]
    if wrong:
        ends = f"from {min(place_of)} to {max(place_of)}" if place_of else "in a split that has images"
        chosen = "" if split.places is None else f" among the {split.size} chosen before"
        raise ValueError(
            f"Expected places {ends}{chosen}. Received: {len(wrong)} of {len(lines)} others, {_first(wrong, file)}. "
            "Remove them, or look whether the ids are of this set."
        )
    return {line: place_of[int(text)] for line, text in lines}


def _found_by_name(lines, split, names, file):
    """Return `{line: place in the split}` of ids that are names."""
    if not lines:
        return {}
    if names is None:
        raise ValueError(
            "Expected places, whole numbers from 0, one a line: the images of this set have no names. "
            f"Received: {_first(lines, file)}. Write places instead."
        )
    full, last = {}, {}
    for place, name in enumerate(names.tolist()):
        if name:
            full.setdefault(name, []).append(place)
            last.setdefault(name.rpartition("/")[2], []).append(place)
    found = {(line, text): _matches(text, full, last) for line, text in lines}
    unknown = [where for where, places in found.items() if not places]
    if unknown:
        example = next((f", such as {name!r}" for name in full), "")
        unreadable = (
            f" {len(split.unreadable)} of the set are unreadable and not among them." if split.unreadable else ""
        )
        raise ValueError(
            f"Expected names of the {split.size} images{example}. Received: {len(unknown)} unknown of {len(lines)}, "
            f"{_first(unknown, file)}.{unreadable} Remove what is unknown, or look whether the ids are of this set."
        )
    for (line, text), places in found.items():
        if len(places) > 1:
            one, other = names[places[:2]].tolist()
            raise ValueError(
                f"Expected names that one image has. Received: {_first([(line, text)], file)}, which {len(places)} "
                f"have, {one!r} and {other!r} for two. Write the full name, or the place."
            )
    return {line: places[0] for (line, _), places in found.items()}


def _matches(text, full, last):
    """Return the places of the images that an id may mean: as it stands first, then without its last column."""
    for name in (text, text.rsplit(None, 1)[0]):
        short = _FOLDER.sub("", name, count=1) if _FOLDER.match(name) else name
        places = full.get(name) or full.get(short) or last.get(short)
        if places:
            return places
    return []


def _refuse_repeated(lines, found, file):
    first, repeated = {}, []
    for line, text in lines:
        if found[line] in first:
            repeated.append((line, text))
        first.setdefault(found[line], line)
    if repeated:
        line = repeated[0][0]
        raise ValueError(
            f"Expected every image once. Received: {len(repeated)} repeated, {_first(repeated, file)}, which line "
            f"{first[found[line]]} names. Remove the repeated lines."
        )


def _first(lines, file):
    """Return the first of some ids as a person finds it."""
    line, text = lines[0]
    shown = text if len(text) <= 100 else f"{text[:100]}..."
    return f"{'the first ' if len(lines) > 1 else ''}{shown!r} in line {line} of {file}"


def _digest(in_part, names, places):
    """Return the SHA-256 of the chosen names, of the places in the whole part where names do not tell all apart."""
    different = set() if names is None else set(names.tolist()) - {""}
    ids = sorted(names[places].tolist()) if len(different) == len(in_part) else map(str, in_part[places].tolist())
    return hashlib.sha256("\n".join(ids).encode("utf-8", "surrogateescape")).hexdigest()
