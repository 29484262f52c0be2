"""Run a signature of a SavedModel on the JSON of a REST request. What is malformed is a ValueError."""

import base64
import json

import numpy as np

_LEAVES = {"f": {int, float}, "i": {int}, "u": {int}, "b": {bool}, "O": {str, bytes}}  # NumPy's kind -> JSON's values


def predict(signatures: dict, body: bytes) -> dict:
    """Run a signature: `{"inputs" or "instances": ..}` -> `{"outputs" or "predictions": ..}`; ValueError: it can't."""
    try:
        request = json.loads(body, object_hook=_decode)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"JSON Parse error: {error if body else 'The document is empty'}") from None
    if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
        raise ValueError(
            "Expected a JSON object with either 'inputs' (columns) or 'instances' (rows). Received: another."
        )
    name = request.get("signature_name", "") or "serving_default"
    if not isinstance(name, str) or name not in signatures:
        known = ", ".join(sorted(signatures)) or "none, the SavedModel was saved without"
        raise ValueError(f'Serving signature name: "{name}" not found in signature def. Expected one of: {known}.')
    specs, rows = signatures[name].structured_input_signature[1], request.get("instances")
    if "inputs" in request:
        return {"outputs": _bare(_run(signatures[name], _named(request["inputs"], specs), specs))}
    if not isinstance(rows, list) or not rows:
        raise ValueError("Expected 'instances' to be a list of one row or more. Received: no list, or an empty one.")
    rows = [_named(row, specs) for row in rows]
    outputs = _run(signatures[name], {key: [row[key] for row in rows] for key in specs}, specs)
    if any(not isinstance(column, list) or len(column) != len(rows) for column in outputs.values()):
        raise ValueError("Expected outputs with a value for each row. Received: others. Ask by 'inputs'.")
    return {"predictions": [_bare({key: column[row] for key, column in outputs.items()}) for row in range(len(rows))]}


def _bare(outputs):
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def _run(function, inputs, specs):
    import tensorflow as tf

    outputs = function(**{key: tf.constant(_array(key, inputs[key], spec)) for key, spec in specs.items()})
    return {key: _lists(key, value.numpy()) for key, value in outputs.items()}


def _decode(found):
    """Return the bytes that `{"b64": ...}` stands for, any other object as it is."""
    if found.keys() != {"b64"} or not isinstance(found["b64"], str):
        return found
    text = "".join(found["b64"].split())
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)  # TensorFlow Serving needs no padding either


def _named(inputs, specs):
    """Return `{name: value}` of inputs, which may be the value alone where there is one."""
    if len(specs) == 1 and not isinstance(inputs, dict):
        return dict.fromkeys(specs, inputs)
    if not isinstance(inputs, dict) or inputs.keys() != specs.keys():
        found = sorted(inputs) if isinstance(inputs, dict) else type(inputs).__name__
        raise ValueError(f"Expected an object with each of the inputs {sorted(specs)}. Received: inputs={found}.")
    return inputs


def _array(name, value, spec):
    """Return the JSON value of an input as an array that its tf.TensorSpec allows."""
    leaves, dtype = np.array(value, object), np.dtype(spec.dtype.as_numpy_dtype)
    strange = {kind.__name__ for kind in set(map(type, leaves.ravel())) - _LEAVES.get(dtype.kind, set())}
    try:
        if strange:
            raise ValueError(", ".join(sorted(strange)).replace("list", "ragged lists"))
        with np.errstate(over="raise"):
            values = leaves.astype(dtype)
        if dtype.kind in "iu" and (values != leaves).any():  # NumPy 1 begins again at the other end
            raise OverflowError("numbers out of bounds")
    except (ValueError, ArithmeticError) as error:
        words = spec.dtype.name + (' (bytes as {"b64": base64})' if dtype.kind == "O" else "")
        raise ValueError(f"Expected values of {words} in the input '{name}'. Received: {error}.") from None
    if not spec.shape.is_compatible_with(values.shape):
        raise ValueError(f"Expected the input '{name}' of shape {list(spec.shape)}. Received: shape={[*values.shape]}.")
    return values


def _lists(name, output):
    """Return an output for JSON: float32 in as few digits as say it, strings of names in `_bytes` in base64."""
    if output.dtype == np.float32:
        return output.astype("U16").astype(np.float64).tolist()
    if output.dtype.kind not in "OS":
        return output.tolist()
    binary = name.endswith("_bytes")
    encode = lambda text: {"b64": base64.b64encode(text).decode()} if binary else text.decode(errors="replace")  # noqa: E731
    return np.vectorize(encode, [object])(output).tolist()
