"""Serve a SavedModel on this machine, for trying out, by the REST protocol of TensorFlow Serving.

    python -m sat_tf.serving.server --model=FOLDER [--port=8501] [--name=classifier]

FOLDER is a SavedModel, or holds versions of one in folders named by numbers, of which the highest is served:

    GET  /v1/models/NAME[/versions/NUMBER][/metadata]   status; signatures
    POST /v1/models/NAME[/versions/NUMBER]:predict      {"signature_name": ..., "inputs" or "instances": ...}

For production take TensorFlow Serving itself: it batches, takes up new versions and stands load. This one answers
alike, but refuses inputs that a signature doesn't have, and knows no :classify, :regress, labels or chunked bodies.
Source: https://www.tensorflow.org/tfx/serving/api_rest.
"""

import argparse
import base64
import http.server
import itertools
import json
import os
import pathlib
import re
import signal
import socket
import sys
import urllib.parse

import numpy as np  # TensorFlow is imported where it is needed: --help and a wrong folder answer at once

MAX_BODY = 64 * 2**20  # bytes
_PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?(:predict|/metadata)?")
_STATUS = {3: 400, 5: 404, 8: 429, 9: 400, 11: 400, 12: 501}  # TensorFlow's error code -> HTTP status; else 500
_DECORATION = re.compile(  # what TensorFlow writes around the words of an error
    r"Graph execution error:\s+|Detected at node .* defined at \(most recent call last\):\n<stack traces unavailable>\n"
    r"|\n\s*\[\[.*?\]\](?=\s|$)| \[Op:\S*\]$"
)


class Refusal(Exception):
    """Words to answer with, and an HTTP status other than 200."""

    def __init__(self, words, status=400):
        super().__init__(words)
        self.status = status


class Model:
    """The signatures of a SavedModel, answering requests by `name` and `version` (a string)."""

    def __init__(self, folder, name, version):
        import tensorflow as tf
        from tensorflow.core.protobuf import saved_model_pb2

        self.name, self.version = name, version
        self._loaded = tf.saved_model.load(str(folder))  # kept: signatures alone don't keep the variables alive
        self._signatures = dict(self._loaded.signatures)
        graphs = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs
        self._definitions = graphs[0].signature_def

    def status(self):
        """Return the answer to the question for the status."""
        state = {"version": self.version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return {"model_version_status": [state]}

    def metadata(self):
        """Return the answer to the question for the signatures."""
        signatures = {
            name: {
                "inputs": {key: _describe(info) for key, info in signature.inputs.items()},
                "outputs": {key: _describe(info) for key, info in signature.outputs.items()},
                "method_name": signature.method_name,
                "defaults": {},
            }
            for name, signature in self._definitions.items()
        }
        return {
            "model_spec": {"name": self.name, "signature_name": "", "version": self.version},
            "metadata": {"signature_def": {"signature_def": signatures}},
        }

    def predict(self, request):
        """Run a signature: `{"inputs" or "instances": ..}` -> `{"outputs" or "predictions": ..}`, or raise Refusal."""
        name = request.get("signature_name", "") or "serving_default"
        if not isinstance(name, str) or name not in self._signatures:
            raise Refusal(
                f'Serving signature name: "{name}" not found in signature def. Expected one of: '
                f"{', '.join(sorted(self._signatures)) or 'none, the SavedModel was saved without'}."
            )
        rows = "instances" in request
        if rows == ("inputs" in request):
            raise Refusal(f"Expected either 'inputs' (columns) or 'instances' (rows). Received: {sorted(request)}.")
        specs = self._signatures[name].structured_input_signature[1]
        columns = _columns_of_rows(request["instances"], specs) if rows else _columns(request["inputs"], specs)
        outputs = self._run(self._signatures[name], {key: _array(key, columns[key], specs[key]) for key in specs})
        return {"predictions": _rows(outputs)} if rows else {"outputs": _bare(outputs)}

    def _run(self, function, arrays):
        import tensorflow as tf

        try:
            outputs = function(**{key: tf.constant(array) for key, array in arrays.items()})
        except tf.errors.OpError as error:
            words = " ".join(_DECORATION.sub("", error.message).split())
            raise Refusal(words, _STATUS.get(error.error_code, 500)) from None
        return {key: _nested_lists(key, value.numpy()) for key, value in outputs.items()}


def _describe(info):
    """Return type, shape and name of a tensor as protobuf's JSON has them: whole numbers of 64 bits are strings."""
    from tensorflow.core.framework import types_pb2

    dims = [{"size": str(dim.size), "name": dim.name} for dim in info.tensor_shape.dim]
    return {
        "dtype": types_pb2.DataType.Name(info.dtype),
        "name": info.name,
        "tensor_shape": {"dim": dims, "unknown_rank": info.tensor_shape.unknown_rank},
    }


def _columns(inputs, specs):
    """Return `{name: value}` of "inputs", which may be the value alone where there is one input."""
    if len(specs) == 1 and (not isinstance(inputs, dict) or inputs.keys() == {"b64"}):
        return dict.fromkeys(specs, inputs)
    if not isinstance(inputs, dict) or inputs.keys() != specs.keys():
        found = f"inputs={sorted(inputs)}" if isinstance(inputs, dict) else f"a {type(inputs).__name__}"
        raise Refusal(f"Expected an object with one value for each of the inputs {sorted(specs)}. Received: {found}.")
    return inputs


def _columns_of_rows(instances, specs):
    """Return `{name: list of values}` of "instances"."""
    if not isinstance(instances, list) or not instances:
        raise Refusal("Expected 'instances' to be a list of one row or more. Received: no list, or an empty one.")
    rows = [_columns(row, specs) for row in instances]
    return {key: [row[key] for row in rows] for key in specs}


def _numbers(items, dtype):
    with np.errstate(over="raise"):
        return np.array(items, np.float64).astype(dtype)


def _whole_numbers(items, dtype):
    if items and not np.iinfo(dtype).min <= min(items) <= max(items) <= np.iinfo(dtype).max:
        raise OverflowError("a value out of range")
    return np.array(items, dtype)


def _strings(items, dtype):
    return np.array([_string(item) for item in items], dtype)


def _string(item):
    if isinstance(item, str):
        return item.encode()
    if item.keys() != {"b64"} or not isinstance(item["b64"], str):
        raise ValueError("an object of another form")
    text = "".join(item["b64"].split())
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)  # TensorFlow Serving needs no padding either


_LEAVES = {  # kind of a NumPy type: the JSON values it takes, what they are called, what makes an array of them
    "f": ((int, float), "numbers", _numbers),
    "i": ((int,), "whole numbers", _whole_numbers),
    "u": ((int,), "whole numbers from 0", _whole_numbers),
    "b": ((bool,), "true or false", np.array),
    "O": ((str, dict), 'strings or {"b64": bytes in base64}', _strings),
}


def _array(name, value, spec):
    """Return the JSON value of an input as an array that its tf.TensorSpec allows, or raise Refusal."""
    items, shape = [value], []
    while items and isinstance(items[0], list):
        if any(not isinstance(item, list) or len(item) != len(items[0]) for item in items):
            raise Refusal(
                f"Expected lists of equal length in the input '{name}'. Received: ragged lists at level "
                f"{len(shape) + 1}, the first of length {len(items[0])}."
            )
        shape.append(len(items[0]))
        items = list(itertools.chain.from_iterable(items))
    if not spec.shape.is_compatible_with(shape):
        raise Refusal(f"Expected the input '{name}' of shape {list(spec.shape)}. Received: shape={shape}.")
    dtype = np.dtype(spec.dtype.as_numpy_dtype)
    types, words, make = _LEAVES.get(dtype.kind, ((), "what JSON can't say", None))
    strange = sorted(kind.__name__ for kind in set(map(type, items)) - set(types))
    try:
        if strange:
            raise ValueError(", ".join(strange))
        return make(items, dtype).reshape(shape)
    except (ValueError, ArithmeticError) as error:
        raise Refusal(f"Expected {words} ({spec.dtype.name}) in the input '{name}'. Received: {error}.") from None


def _nested_lists(name, array):
    """Return an output for JSON: float32 in as few digits as say it, binary strings in base64."""
    if array.dtype == np.float32:
        return array.astype("U16").astype(np.float64).tolist()
    if array.dtype.kind not in "OS":
        return array.tolist()
    binary = name.endswith("_bytes")
    encode = np.vectorize(
        lambda text: {"b64": base64.b64encode(text).decode()} if binary else text.decode(errors="replace"),
        otypes=[object],
    )
    return encode(array).tolist()


def _bare(outputs):
    """Return the value alone where there is one."""
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def _rows(outputs):
    try:
        return [_bare(dict(zip(outputs, row, strict=True))) for row in zip(*outputs.values(), strict=True)]
    except (TypeError, ValueError):  # a scalar; other lengths
        raise Refusal("Expected outputs with a value for each row. Received: others. Ask by 'inputs'.") from None


class Handler(http.server.BaseHTTPRequestHandler):
    """Answer every request by JSON, whatever it is, and go on."""

    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a client may be silent
    disable_nagle_algorithm = True

    def do_GET(self):  # noqa: N802 (the name that http.server calls)
        """Answer a request of any method."""
        try:
            body = self._body()
            self._send(200, self._answer(body))
        except Refusal as refusal:
            self._send(refusal.status, {"error": str(refusal)})
            if refusal.status in (411, 413):
                self._read_on()
        except (ConnectionError, TimeoutError):
            raise  # nobody is there to be answered
        except Exception as error:  # a model may raise anything; the others want to go on asking
            self._send(500, {"error": f"{type(error).__name__}: {error}"})

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET  # noqa: N815

    def _body(self):
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not re.fullmatch("[0-9]{1,18}", length):
            self.close_connection = True
            raise Refusal("Expected a body with its Content-Length. Received: none, or a chunked one.", 411)
        if int(length) > MAX_BODY:
            self.close_connection = True
            raise Refusal(
                f"Expected a body of {MAX_BODY} bytes at most. Received: {length} bytes. Send fewer images "
                "in a request, or encoded ones to the signature image_bytes.",
                413,
            )
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise ConnectionAbortedError(f"hung up after {len(body)} of {length} bytes")
        return body

    def _read_on(self):
        """Throw away what still comes, up to 1 GiB: a client that is cut off while it sends never sees the answer."""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(2)
        for _ in range(2**14):
            if not self.rfile.read1(2**16):
                break

    def _answer(self, body):
        model = self.server.model
        found = _PATH.fullmatch(urllib.parse.unquote(self.path.partition("?")[0]))
        asked = {"POST": (":predict",), "GET": (None, "/metadata")}
        if not found or found[3] not in asked.get(self.command, ()):
            raise Refusal(
                f"Malformed request: {self.command} {self.path}. Expected GET /v1/models/{model.name}, GET "
                f"/v1/models/{model.name}/metadata or POST /v1/models/{model.name}:predict."
            )
        if found[1] != model.name or found[2] not in (None, model.version):
            wanted = f"Specific({found[1]}, {found[2]})" if found[2] else f"Latest({found[1]})"
            raise Refusal(f"Servable not found for request: {wanted}. Served: {model.name}, {model.version}.", 404)
        if found[3] != ":predict":
            return model.metadata() if found[3] else model.status()
        try:
            request = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refusal(f"JSON Parse error: {error if body else 'The document is empty'}") from None
        if not isinstance(request, dict):
            raise Refusal(f"Expected a JSON object with 'inputs' or 'instances'. Received: {type(request).__name__}.")
        return model.predict(request)

    def _send(self, status, answer):
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def send_error(self, code, message=None, explain=None):
        """Answer what is no HTTP request, for http.server."""
        self.close_connection = True
        self._send(code, {"error": f"Malformed request: {message or explain or code}"})


class Server(http.server.ThreadingHTTPServer):
    """A thread a connection; one that breaks is one line."""

    request_queue_size = 128

    def handle_error(self, request, client_address):
        """Print why a connection ended."""
        print(f"{client_address[0]}: {sys.exc_info()[1]}", file=sys.stderr)


def find(folder):
    """Return the folder of the SavedModel to serve and its version; raise ValueError where there is none."""
    folder = pathlib.Path(folder).expanduser().resolve()
    numbered = [path for path in folder.glob("*") if path.name.isdecimal()] if folder.is_dir() else []
    versions = [path for path in (folder, *numbered) if (path / "saved_model.pb").is_file()]
    if not versions:
        raise ValueError(
            f"Expected a folder with saved_model.pb, or with versions of it such as 1/saved_model.pb. "
            f"Received: model={folder}. Export one first, or mend --model."
        )
    best = max(versions, key=lambda path: int(path.name) if path.name.isdecimal() else -1)
    return best, str(int(best.name)) if best.name.isdecimal() else "1"


def serve(model_dir, host, port, name):
    """Serve until Ctrl-C; print one line when it is ready."""
    folder, version = find(model_dir)
    try:
        server = Server((host, port), Handler, bind_and_activate=False)
        server.server_bind()
    except OSError as error:
        raise ValueError(
            f"Expected a free port. Received: host={host}, port={port} ({error.strerror}). Give another "
            "--port, or --port=0 for any free one."
        ) from None
    with server:
        try:
            server.model = Model(folder, name, version)
        except Exception as error:  # TensorFlow has many names for an unreadable file
            words = " ".join(str(error).split())
            raise ValueError(f"Expected a whole SavedModel. Received: {folder} ({words}). Export it again.") from None
        server.server_activate()
        print(f"Serving {name} (version {version}) at http://{host}:{server.server_port}/v1/models/{name}", flush=True)
        server.serve_forever()


def main(arguments=None):
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description="Serve a SavedModel on this machine as TensorFlow Serving does.")
    parser.add_argument("--model", required=True, help="SavedModel, or a folder with numbered versions of one")
    parser.add_argument("--port", type=int, default=8501, help="0 for any free one; default: 8501")
    parser.add_argument("--name", default="classifier", help="of the model, in URLs; default: classifier")
    parser.add_argument("--host", default="localhost", help="0.0.0.0 to be reached from elsewhere; default: localhost")
    found = parser.parse_args(arguments)
    if not re.fullmatch("[^/:]+", found.name) or not 0 <= found.port < 2**16:
        parser.error(
            f"Expected a name without / and :, and a port from 0 to 65535. Received: name={found.name}, "
            f"port={found.port}."
        )
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a script started this in the background
        signal.signal(number, signal.default_int_handler)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        serve(found.model, found.host, found.port, found.name)
    except (ValueError, OSError) as error:
        print(f"server: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
