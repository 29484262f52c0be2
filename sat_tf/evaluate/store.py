"""Where an evaluation keeps what it has found so far, so that a killed one goes on instead of beginning again."""

import os
import pathlib
import zipfile
from typing import Any

import numpy as np

from sat_tf import files


class Store:
    """The state of one attack in a folder: `state.npz`, replaced in one move, and the adversarial images beside it.

    Args:
      folder: is made when the first thing is written.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = pathlib.Path(folder)
        self._images = None

    def load(self, identity: str | None = None) -> dict[str, Any] | None:
        """Return what was saved last, None where nothing was.

        Args:
          identity: words that tell one attack from another; what was saved must have the same.

        Raises:
          ValueError: it was another attack.
          OSError: the file is damaged.
        """
        file = self.folder / "state.npz"
        if not file.exists():
            return None
        try:
            with np.load(file, allow_pickle=False) as saved:
                arrays = {name: saved[name] for name in saved.files}
        except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise OSError(f"{file} is damaged: {error}. Remove {self.folder} to begin this attack again.") from error
        if identity is not None and str(arrays.get("identity")) != identity:
            raise ValueError(
                f"Expected the state of this attack ({identity}) in {self.folder}. Received that of "
                f"another ({arrays.get('identity')}). Name another folder."
            )
        work = {name.removeprefix("work/"): value for name, value in arrays.items() if name.startswith("work/")}
        return {**arrays, "work": work}

    def save(self, arrays: dict[str, Any], work: dict[str, np.ndarray]) -> None:
        """Replace what was saved; the adversarial images are on the disk before."""
        if self._images is not None:
            self._images.flush()
        with files.replacing(self.folder / "state.npz") as partial:
            np.savez(partial, **arrays, **{f"work/{name}": value for name, value in work.items()})

    def array(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """Return the adversarial images, an array on the disk: as they were left, else zeros.

        Raises:
          OSError: a state was saved with them, and they are damaged, of another shape, or gone.
        """
        file = self.folder / "adversarial.npy"
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            np.load(file, mmap_mode="r")  # "r+" would fill up a file that is cut short
            self._images = np.load(file, mmap_mode="r+")
            if self._images.shape == tuple(shape) and self._images.dtype == dtype:
                return self._images
            problem = f"holds {list(self._images.shape)} instead of {list(shape)}"
        except FileNotFoundError:
            problem = "is missing"
        except (ValueError, EOFError) as error:
            problem = f"is damaged: {error}"
        if (self.folder / "state.npz").exists():
            raise OSError(f"{file} {problem}. Remove {self.folder} to begin this attack again.")
        self._images = np.lib.format.open_memmap(file, "w+", dtype, tuple(shape))
        return self._images
