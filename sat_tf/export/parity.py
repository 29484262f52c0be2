"""Whether an exported file answers as the model does: asked of its real consumer, in another process."""

import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from sat_tf.export import consumer

TOLERANCE = 1e-4  # of logits, relative to the largest of them


def prepare(
    model: Callable,
    folder: str | pathlib.Path,
    examples: tuple[np.ndarray, np.ndarray, Sequence[bytes]],
    attack: dict[str, Any],
) -> Iterator[int | dict[str, np.ndarray]]:
    """Write what consumers are asked, and return what the model answers.

    Args:
      model: images -> logits.
      folder: where to.
      examples: images float32 `[n, size, size, 3]`, labels int `[n]`, the same images encoded, bytes `[n]`.
      attack: epsilon, step_size, steps and count, on how many of the images, of PGD without a random start.

    Yields:
      After each batch how many images were done; at last `{"logits", "encoded", "attacked"}`, arrays of logits.
    """
    images, labels, encoded = examples
    folder = pathlib.Path(folder)
    np.save(folder / "images.npy", np.asarray(images, np.float32))
    np.save(folder / "labels.npy", np.asarray(labels, np.int32))
    (folder / "attack.json").write_text(json.dumps(attack))
    (folder / "encoded").mkdir()
    for i, content in enumerate(encoded):
        (folder / "encoded" / f"{i:04d}").write_bytes(content)

    predict = tf.function(lambda x: model(x, training=False), reduce_retracing=True)

    @tf.function(reduce_retracing=True)
    def gradient(x, y):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x, training=False)))
        return tape.gradient(loss, x)

    functions = {
        "images": lambda x: predict(tf.constant(x)).numpy(),
        "gradient": lambda x, y: gradient(tf.constant(x), tf.constant(y)).numpy(),
    }
    yield from consumer.answers(functions, folder)


def ask(
    kind: str, path: str | pathlib.Path, folder: str | pathlib.Path, progress: Callable[[int], Any]
) -> dict[str, np.ndarray]:
    """Return what the consumer of a format answers, `{name: logits}`; it runs in a process of its own.

    Args:
      kind: a key of `consumer.CONSUMERS`.
      path: of the exported file or folder.
      folder: what `prepare` wrote.
      progress: called with the number of images of every batch.

    Raises:
      OSError: the consumer failed; the message is the last line that it wrote.
    """
    command = [sys.executable, "-I", consumer.__file__, kind, str(pathlib.Path(path).resolve()), str(folder)]
    log = pathlib.Path(folder) / f"{kind}.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=folder) as process,
    ):
        for line in process.stdout:
            if line.startswith("done "):
                progress(int(line.split()[1]))
    if process.returncode:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Fail|InvalidGraph)\b", line)]
        last = (errors or lines or ["no message"])[-1]
        raise OSError(f"The consumer of {kind} could not run {path}: {last}")
    return dict(np.load(pathlib.Path(folder) / f"{kind}.npz"))


def compare(wanted: dict[str, np.ndarray], found: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, Any]:
    """Return the parity of one format as `{measure: value}`; `passed` says whether it is good enough.

    Args:
      wanted: `{"logits", "attacked"}` of the model, logits `[n, classes]`.
      found: the consumer's, with "encoded" where it takes encoded images.
      labels: int `[n]`, against which accuracy is counted.
    """
    logits = wanted["logits"]
    scale = float(np.abs(logits).max())
    result = {"images": len(logits)}
    good = []
    for name in ("logits", "encoded"):
        if name not in found:
            continue
        difference = float(np.abs(found[name] - logits).max() / scale)
        same = found[name].argmax(-1) == logits.argmax(-1)
        highest = np.sort(logits, -1)[:, -2:]
        tied = highest[:, 1] - highest[:, 0] <= TOLERANCE * scale  # which of the two wins is rounding
        prefix = "" if name == "logits" else "encoded_"
        result |= {f"{prefix}difference": difference, f"{prefix}same_classes": int(same.sum())}
        good += [difference <= TOLERANCE, bool((same | tied).all())]
    if "attacked" in found:
        mine, theirs = (
            answer["attacked"].argmax(-1) == labels[: len(answer["attacked"])] for answer in (wanted, found)
        )
        result |= {"attacked": len(mine), "robust_model": int(mine.sum()), "robust_export": int(theirs.sum())}
        good.append(mine.sum() == theirs.sum())
    return {**result, "passed": bool(all(good))}
