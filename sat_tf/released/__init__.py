"""Weights that others trained and published, as models of ours: the authors' TF1 checkpoints, EfficientNet-Lite."""

import pathlib
from collections.abc import Callable

import keras

from sat_tf.released import lite, tf1
from sat_tf.released.tf1 import variables

__all__ = ["find", "is_released", "lite", "load", "tf1", "variables"]

WEIGHTS = ("raw", "ema")


def load(
    path: str | pathlib.Path, model: str | None = None, act: str | Callable | None = None, weights: str = "raw"
) -> keras.Model:
    """Return a model with published weights; it takes RGB images in [0, 1], whatever the weights were trained on.

    The authors' ResNets saw BGR in [-1, 1], so the input channels of their first kernel are flipped; scaling is the
    model's first layer. Every variable of the file and of the model is accounted for: one that is missing, extra or of
    another shape is an error that lists them; optimizer slots and counters are known and left out.

    Args:
      path: a TF1 checkpoint, by its prefix NAME, one of its files NAME.index, NAME.data-00000-of-00001, NAME.meta, or a
        folder that holds only it; or a PyTorch file (.pth) of EfficientNet-Lite.
      model: a key of `models.MODELS`, such as "resnet50", "efficientnet-l1"; None for what the file holds.
      act: its activation, the release's names silu and gelu (which is its tanh approximation) included. Files of ReLU
        and swish have the same variables: what contradicts the file, or the graph in a .meta file beside it, is an
        error; None takes what these tell, and swish for EfficientNets.
      weights: "raw", or "ema" for the moving averages of weights and statistics.

    Returns:
      A `keras.Model`: images `[batch, h, w, 3]` in [0, 1] -> logits `[batch, classes]`.

    Raises:
      ValueError: the file holds something else; the message says what, or how it differs.
      FileNotFoundError, OSError: it is not there, or damaged.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"Expected weights of {', '.join(WEIGHTS)}. Received: weights={weights!r}.")
    if is_torch(path):
        if weights == "ema":
            raise ValueError(f"Expected weights='raw' of a PyTorch file, which holds no averages. Received: {path}.")
        return lite.load(find(path), model, act or "relu6")
    prefix = find(path)
    held = tf1.contents(prefix)
    scopes = {scope: name for name, scope in tf1.SCOPES.items()}
    model = scopes.get(model, model) or held.model
    if model is None:
        raise ValueError(f"Expected a network of the release. Received: {prefix}, which holds {held.words}.")
    if act is None:
        act = held.act or ("swish" if model.startswith("efficientnet") else None)
    if act is None:
        raise ValueError(
            f"Expected the activation of {prefix}, such as act='swish': its variables do not tell, nor "
            "does a graph in a .meta file beside it. Received: act=None."
        )
    return tf1.load(prefix, model, tf1.ACTS.get(act, act) if isinstance(act, str) else act, weights)


def find(path: str | pathlib.Path) -> pathlib.Path:
    """Return the file, or the prefix of the files, of published weights.

    Raises:
      FileNotFoundError: there is none; the message says what was looked for.
    """
    if is_torch(path):
        file = pathlib.Path(path).expanduser()
        if not file.is_file():
            raise FileNotFoundError(f"There is no file {file}. Name one that torch.save wrote.")
        return file
    prefix = tf1.prefix_of(path)
    if prefix is None:
        several = sorted(file.name for file in pathlib.Path(path).expanduser().glob("*.index"))
        if len(several) > 1:
            raise FileNotFoundError(
                f"Expected one checkpoint in {path}, there are several: {', '.join(several)}. Name one of them."
            )
        raise FileNotFoundError(
            f"Expected a TF1 checkpoint, looked for {path}.index: not there. Name the files by "
            "what comes before .index, .data-00000-of-00001 and .meta."
        )
    return prefix


def is_torch(path: str | pathlib.Path) -> bool:
    """Say whether a name is that of a PyTorch file."""
    return str(path).endswith((".pth", ".pt"))


def is_released(path: str | pathlib.Path) -> bool:
    """Say whether a path means published weights and not a run of ours."""
    prefix = None if is_torch(path) else tf1.prefix_of(path)
    return is_torch(path) or (prefix is not None and not (prefix.parent / "state.json").is_file())
