"""--mode=convert: a checkpoint as one .keras file with its recipe beside it."""

import pathlib

from sat_tf.runs import checkpoints, converted, overlap


def convert(
    changes: dict,
    *,
    model_dir: str | pathlib.Path | None = None,
    checkpoint: str | pathlib.Path | None = None,
    checkpoint_dir: str | pathlib.Path | None = None,
    data_dir: str | pathlib.Path | None = None,
    command: str = "",
) -> pathlib.Path:
    """Write a checkpoint as NAME.keras with its recipe in NAME.json, which `checkpoint` takes from then on.

    They lie in `model_dir` where that is named beside a checkpoint, else in the folder of the checkpoint's run.

    Returns:
      The path of the .keras file.
    """
    found = checkpoints.open_checkpoint(checkpoint or model_dir, changes, checkpoint_dir)
    file = pathlib.Path(model_dir or found.folder) / f"{found.name}.keras"
    path = converted.write(found, found.load(), file)
    overlap.carry(found, path)
    print(
        f"model: {path}\nrecipe: {path.with_suffix('.json')}\nweights: {found.weights}\n"
        f"evaluate it: python main.py --mode=eval --checkpoint={path}"
    )
    return path
