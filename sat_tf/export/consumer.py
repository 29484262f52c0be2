"""Run an exported model as its consumer does: in a process of its own, with nothing of this project in it.

  python -I consumer.py FORMAT MODEL FOLDER

FORMAT is a key of `CONSUMERS`. FOLDER holds images.npy float32 `[n, size, size, 3]`, labels.npy, attack.json and the
same images encoded in encoded/; the answers go to FORMAT.npz there. Prints a line "done N" after every N images.
Imports NumPy and the consumer's own library, nothing else.
"""

import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator

import numpy as np

BATCH = 16  # the last batch is smaller, so that two sizes are tried
OURS = ("sat_tf",)


def open_saved_model(path: str) -> dict[str, Callable]:
    """Return `{answer: function}` of a SavedModel under plain TensorFlow."""
    import tensorflow as tf

    model = tf.saved_model.load(path)  # kept by the functions below: signatures alone do not keep its variables alive

    def call(signature, answer, **inputs):
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        return model.signatures[signature](**tensors)[answer].numpy()

    return {
        "images": lambda images: call("serving_default", "logits", images=images),
        "encoded": lambda contents: call("image_bytes", "logits", image_bytes=contents),
        "gradient": lambda images, labels: call("input_gradient", "gradient", images=images, labels=labels),
    }


def open_keras(path: str) -> dict[str, Callable]:
    """Return `{answer: function}` of a .keras file under plain Keras."""
    import keras

    model = keras.saving.load_model(path)
    return {"images": lambda images: np.asarray(model(images, training=False))}


def open_litert(path: str) -> dict[str, Callable]:
    """Return `{answer: function}` of a .tflite file under LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(path, num_threads=os.cpu_count()).get_signature_runner("serving_default")
    return {"images": lambda images: runner(images=images)["logits"]}


def open_onnx(path: str) -> dict[str, Callable]:
    """Return `{answer: function}` of an .onnx file under ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return {"images": lambda images: session.run(["logits"], {"images": images})[0]}


CONSUMERS = {"saved_model": open_saved_model, "keras": open_keras, "litert": open_litert, "onnx": open_onnx}


def pgd(
    gradient_fn: Callable, images: np.ndarray, labels: np.ndarray, *, epsilon: float, step_size: float, steps: int
) -> np.ndarray:
    """Climb `steps` signs of the gradient from the images inside the L-infinity ball and [0, 1]."""
    low, high = np.maximum(images - np.float32(epsilon), 0), np.minimum(images + np.float32(epsilon), 1)
    adversarial = images
    for _ in range(steps):
        direction = np.sign(gradient_fn(adversarial, labels))
        adversarial = np.clip(adversarial + np.float32(step_size) * direction, low, high)
    return adversarial


def batches(number: int) -> list[slice]:
    """Return the slices of `number` images."""
    return [slice(start, min(start + BATCH, number)) for start in range(0, number, BATCH)]


def answers(functions: dict[str, Callable], folder: pathlib.Path) -> Iterator[int | dict[str, np.ndarray]]:
    """Yield after each batch how many images were done, and at last `{name: array}` of all answers."""
    images = np.load(folder / "images.npy", mmap_mode="r")
    logits = {"logits": [], "encoded": [], "attacked": []}
    for part in batches(len(images)):
        logits["logits"].append(functions["images"](np.array(images[part])))
        yield len(logits["logits"][-1])
    if "encoded" in functions:
        for part in batches(len(images)):
            contents = [(folder / "encoded" / f"{i:04d}").read_bytes() for i in range(len(images))[part]]
            logits["encoded"].append(functions["encoded"](contents))
            yield len(contents)
    if "gradient" in functions:
        labels = np.load(folder / "labels.npy")
        attack = json.loads((folder / "attack.json").read_text())
        for part in batches(attack.pop("count")):
            adversarial = pgd(functions["gradient"], np.array(images[part]), labels[part], **attack)
            logits["attacked"].append(functions["images"](adversarial))
            yield len(adversarial)
    yield {name: np.concatenate(parts) for name, parts in logits.items() if parts}


def main(kind: str, model: str, folder: str | pathlib.Path) -> None:
    """Answer for all images of a folder."""
    folder = pathlib.Path(folder)
    for answer in answers(CONSUMERS[kind](model), folder):
        if isinstance(answer, dict):
            np.savez(folder / f"{kind}.npz", **answer)
        else:
            print("done", answer, flush=True)


if __name__ == "__main__":
    sys.modules.update(dict.fromkeys(OURS))  # an import of one of them is an error from here on
    main(*sys.argv[1:])
