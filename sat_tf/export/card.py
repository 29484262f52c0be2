"""The model card: README.md of an export, for whoever finds the folder without knowing this project."""

from typing import Any

from sat_tf.names import format_radius
from sat_tf.report import describe, score, wilson_interval

_SERVE = """\
**SavedModel.** TensorFlow Serving, from this folder:

```sh
docker run --rm -p 8500:8500 -p 8501:8501 -v "$PWD/saved_model:/models/classifier" -e MODEL_NAME=classifier \\
  tensorflow/serving
python -m sat_tf.serving.client --url=http://localhost:8501/v1/models/classifier --classes=classes.txt IMAGE.jpg
```

| signature | takes | answers |
|---|---|---|
| `serving_default` | `images` float32 `[n, {size}, {size}, 3]` in [0, 1] | `logits`, `probabilities`, `classes` |
| `image_bytes` | `image_bytes`, JPEG or PNG files `[n]`, any size | the same |
| `input_gradient` | `images`, `labels` int32 `[n]` | `loss` `[n]`: cross-entropy; `gradient` of it to the images |

A request that makes no sense (no image, other sides, pixels outside [0, 1], more than 64 million pixels) is an error of
that request."""
_IMAGES = "float32 images `[n, {size}, {size}, 3]`, RGB in [0, 1]"
_USES = {
    "saved_model": _SERVE,
    "keras": '**Keras.** `keras.saving.load_model("model.keras")`, of this version of Keras or a newer one: '
    f"{_IMAGES} to logits. Its layers are Keras' own, so that it can be fine-tuned.",
    "litert": '**LiteRT.** `ai_edge_litert.interpreter.Interpreter("model.tflite").get_signature_runner()('
    f"images=images)`: {_IMAGES} to `logits`, `probabilities`, `classes`.",
    "onnx": '**ONNX.** `onnxruntime.InferenceSession("model.onnx").run(None, {{"images": images}})`: '
    f"{_IMAGES} to `classes`, `logits`, `probabilities`.",
}


def write(facts: dict[str, Any], evaluations: list[dict[str, Any]], parity: dict[str, Any]) -> str:
    """Return the text of the card.

    Args:
      facts: of the export: model, act, method, weights, checkpoint, step, image_size, classes, preprocess, formats,
        trained (how), trained_on, recipe (as text), published (None or as a report has it), created,
        command,
        versions.
      evaluations: rows of reports about these weights, each with "dataset".
      parity: `{format: measures}` of `parity.compare`, and the attack and images they were measured with.
    """
    uses = [_USES[name].format(size=facts["image_size"]) for name in facts["formats"]]
    if facts.get("backward"):
        uses.append(
            f"**Gradients** of the SavedModel are, on purpose, taken through that of "
            f"{facts['backward']}; its values are the model's own."
        )
    sections = {
        "What it is": _what(facts),
        "Accuracy": _accuracy(facts, evaluations),
        "How it was trained": _facts(facts["recipe"]),
        "Intended use": _use(facts),
        "Limits": _limits(facts, evaluations),
        "How to use it": "\n\n".join(uses),
        "Parity": _parity(facts, parity),
        "Origin": _facts(
            {name: facts[name] for name in ("checkpoint", "weights", "step", "created", "command")} | facts["versions"]
        ),
    }
    body = [f"## {heading}\n\n{text}" for heading, text in sections.items()]
    return "\n\n".join([f"# {facts['model']} with {facts['act']}", *body]) + "\n"


def _table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)


def _facts(facts):
    return _table(["what", "value"], [[name, str(value)] for name, value in facts.items()])


def _what(facts):
    names = ", ".join(facts["classes"][:10]) + (", ..." if len(facts["classes"]) > 10 else "")
    return (
        f"An image classifier, {facts['model']} with {facts['act']} activations, trained {facts['trained']}. It takes "
        f"{facts['image_size']} x {facts['image_size']} RGB images in [0, 1] and tells {len(facts['classes'])} "
        f"classes apart: {names} (`classes.txt`, in the order of the logits). Its weights: {facts['weights']}.\n\n"
        f"Encoded images are prepared as in evaluation (`{facts['preprocess']}`)."
    )


def _accuracy(facts, evaluations):
    rows = [[row["dataset"], describe(row), score(row), _interval(row)] for row in evaluations]
    text = (
        _table(["images", "measure", "correct", "95 % interval"], rows)
        if rows
        else (
            "Not measured by this project yet: `python main.py --mode=eval` does, and a new export then says it here."
        )
    )
    if facts["published"]:
        known = facts["published"]
        listed = ", ".join(f"{name} {100 * number:.1f} %" for name, number in known["accuracies"].items())
        sizes = f"epsilon {format_radius(known['epsilon'])}, step size {format_radius(known['step_size'])}"
        text += (
            f"\n\nPublished by its authors for the {known['dataset']} at {known['image_size']} pixels (attacks "
            f"with {sizes}): {listed}."
        )
    return text


def _interval(row):
    low, high = wilson_interval(row["correct"], row["count"])
    return f"{100 * low:.2f} to {100 * high:.2f} %"


def _use(facts):
    return (
        f"Images of the kind it was trained on ({facts['trained_on']}), research on robustness, and services "
        "that must not be fooled by small changes of pixels. Not for decisions about people, and not where a wrong "
        "class does harm without a person looking."
    )


def _limits(facts, evaluations):
    radii = sorted({row["epsilon"] for row in evaluations if row["epsilon"]})
    radius = " and ".join(map(format_radius, radii))
    measured = (
        f"Its robustness was measured within {radius} of the pixel range (L-infinity), by the attacks above. "
        if radii
        else "Its robustness was not measured by this project. "
    )
    return (
        f"{measured}Accuracy under attack is an upper bound, a stronger attack may find more. Nothing is said of "
        "other changes: rotation, patches, corruption, other data. It always names one of its classes, also for "
        "images of none, and its probabilities are not calibrated."
    )


def _parity(facts, parity):
    attack = parity["attack"]
    header = [
        "format",
        "images",
        "largest difference of logits",
        "same class",
        "from encoded images",
        *([f"right after PGD-{attack['steps']}: model, export"] if attack["count"] else []),
    ]
    rows = []
    for name, row in parity["formats"].items():
        encoded = (
            f"{row['encoded_difference']:.1e}, {row['encoded_same_classes']} of {row['images']}"
            if "encoded_difference" in row
            else ""
        )
        robust = f"{row['robust_model']} and {row['robust_export']} of {row['attacked']}" if "attacked" in row else ""
        rows.append(
            [
                name,
                str(row["images"]),
                f"{row['difference']:.1e}",
                f"{row['same_classes']} of {row['images']}",
                encoded,
                *([robust] if attack["count"] else []),
            ]
        )
    through = f" through the gradient of {facts['backward']}" if facts.get("backward") else ""
    pgd = (
        f" PGD: epsilon {format_radius(attack['epsilon'])}, step size {format_radius(attack['step_size'])}, no random "
        f"start, through `input_gradient`{through}."
        if attack["count"]
        else ""
    )
    return (
        f"{_table(header, rows)}\n\nEach format was loaded by its own runtime in another process, without this "
        f"project, and compared with the model; differences are relative to the largest logit, at most "
        f"{parity['tolerance']:g} is accepted. Images: {parity['images']}.{pgd} The "
        "numbers are in `parity.json`."
    )
