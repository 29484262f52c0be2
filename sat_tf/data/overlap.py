"""Which images a run has seen, kept in eight bytes each, and which images of a split are among them.

Images are told apart by the digests of their Splits: copies are found whatever they are called and wherever they lie,
as files of any folder, in shards or in memory. A JPEG is known by its file, every other image by its pixels; one that
was changed, or a JPEG that was saved anew, is another image.
"""

import dataclasses
import io
import os
import zipfile
import zlib

import numpy as np

from sat_tf import files
from sat_tf.data.splits import Data, Split


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """The digests, int64 [n] each, of the images of a run.

    Attributes:
      train: images it is trained on.
      validation: images that choose its best checkpoint.
      doubles: images of its own test part that are among these: of a set that holds them twice.
    """

    train: np.ndarray
    validation: np.ndarray
    doubles: np.ndarray

    def new(self, other: "Seen") -> int:
        """Return how many training images of another Seen are not among these."""
        return int((~np.isin(other.train, self.train)).sum())


def seen(dataset: Data) -> Seen | None:
    """Return the Seen of a run on a data set, None where its images have no digests."""
    if any(getattr(dataset, part).digests is None for part in ("train", "validation", "test")):
        return None
    train, held, test = (np.sort(getattr(dataset, part).digests()) for part in ("train", "validation", "test"))
    if dataset.extra is not None:
        train = np.sort(np.concatenate([train, dataset.extra.digests()]))
    known = np.concatenate([train, held])
    return Seen(train=train, validation=held, doubles=np.unique(test[np.isin(test, known)]))


def overlap(split: Split, seen: Seen, *, doubles: bool = False) -> np.ndarray:
    """Return which images of a Split are among those that a run has seen, bool [size].

    Args:
      split: A Split.
      seen: of the run.
      doubles: whether those count that its own test part held twice from the start.
    """
    if split.digests is None:
        return np.zeros(split.size, bool)
    digests = split.digests()
    found = np.isin(digests, np.concatenate([seen.train, seen.validation]))
    return found if doubles else found & ~np.isin(digests, seen.doubles)


def write_seen(path: str | os.PathLike, seen: Seen) -> None:
    """Replace a file by one of a Seen."""
    content = io.BytesIO()
    np.savez_compressed(content, **dataclasses.asdict(seen))
    files.write(path, content.getvalue())


def read_seen(path: str | os.PathLike) -> Seen | None:
    """Return the Seen in a file, None where there is no file.

    Raises:
      OSError: if the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Seen(**{field.name: arrays[field.name] for field in dataclasses.fields(Seen)})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise OSError(f"{path}, which says what images the run has seen, is damaged: {error}.") from error
