"""Write the package's Fashion-MNIST subset from the original IDX files.

    python -m sat_tf.data.make_fashion_mnist_12k --idx_dir=DIR --output=FILE

Of each class the first 1,200 training and the first 200 test images in file order; the file order is kept. Fixed zip
timestamps and attributes make the file the same to the byte wherever zlib is the same.
"""

import argparse
import io
import os
import zipfile

import numpy as np

from sat_tf import files
from sat_tf.data.fashion import FASHION_MNIST_CLASSES, read_idx_pair

PER_CLASS = {"train": 1200, "test": 200}


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Return the places of the first `count` of each class, in file order."""
    classes = range(len(FASHION_MNIST_CLASSES))
    places = [np.flatnonzero(labels == label)[:count] for label in classes]
    short = [label for label in classes if len(places[label]) < count]
    if short:
        raise ValueError(f"Expected at least {count} images of each class. Received: fewer of classes {short}.")
    return np.sort(np.concatenate(places))


def write_npz(path: str | os.PathLike, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as a compressed .npz whose bytes depend on nothing but them: no time, no platform."""
    with files.replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(name + ".npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3
            content = io.BytesIO()
            np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
            archive.writestr(entry, content.getvalue(), compresslevel=9)


def make(idx_dir: str | os.PathLike, output: str | os.PathLike, per_class: dict[str, int] | None = None) -> str:
    """Read the IDX files in `idx_dir`, write `output`, return its SHA-256."""
    arrays = {}
    for part, count in (per_class or PER_CLASS).items():
        images, labels = read_idx_pair(idx_dir, part)
        chosen = first_of_each_class(labels, count)
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = images[chosen], labels[chosen]
    write_npz(output, arrays | {"classes": np.array(FASHION_MNIST_CLASSES)})
    return files.sha256(output)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--idx_dir", required=True, help="folder of the four IDX files, plain or .gz")
    parser.add_argument("--output", required=True, help="the .npz to write")
    arguments = parser.parse_args()
    print(make(arguments.idx_dir, arguments.output), arguments.output)


if __name__ == "__main__":
    main()
