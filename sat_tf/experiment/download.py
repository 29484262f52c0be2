"""--mode=download: the authors' checkpoints."""

import pathlib

from sat_tf import hparams
from sat_tf.released import fetch


def download(name: str, checkpoint_dir: str | pathlib.Path) -> list[pathlib.Path]:
    """Fetch the three files of a released checkpoint into a folder, or check those that are there."""
    release = hparams.release(name)
    paths = fetch.fetch(name, release.ids, checkpoint_dir)
    print("\n".join(f"{path.stat().st_size:>12,} bytes  {path}" for path in map(pathlib.Path, paths)))
    print(
        f"evaluate it: python main.py --mode=eval --checkpoint=released:{name} --checkpoint_dir={checkpoint_dir} "
        "--data_dir=DIR"
    )
    return paths
