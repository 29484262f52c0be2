"""Serve a SavedModel on this machine, for trying out, by the REST protocol of TensorFlow Serving.

    python -m sat_tf.serving.server --model=FOLDER [--port=8501] [--name=classifier]

FOLDER is a SavedModel, or holds versions of one in folders named by numbers, of which the highest is served:

    GET  /v1/models/NAME[/versions/NUMBER][/metadata]   status; signatures
    POST /v1/models/NAME[/versions/NUMBER]:predict      {"signature_name": ..., "inputs" or "instances": ...}

For production take TensorFlow Serving itself. Source: https://www.tensorflow.org/tfx/serving/api_rest.
"""

import argparse
import logging
import os
import pathlib
import re
import signal
import socket
import sys
from typing import Any

from sat_tf.serving import signatures  # other packages are imported where they are needed: --help answers at once

MAX_BODY = 64 * 2**20  # bytes
_STATUS = {3: 400, 8: 429, 9: 400, 11: 400, 12: 501}  # TensorFlow's error code -> HTTP status; else 500


def application(folder: pathlib.Path, name: str, version: str) -> Any:
    """Return the `flask.Flask` that answers for a SavedModel by JSON, whatever it is asked."""
    import flask
    import tensorflow as tf
    from google.protobuf import json_format
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        model = tf.saved_model.load(str(folder))
    except Exception as error:  # TensorFlow has many names for an unreadable file
        words = " ".join(str(error).split())
        raise ValueError(f"Expected a whole SavedModel. Received: {folder} ({words}). Export it again.") from None
    app, url = flask.Flask("server"), f"/v1/models/{name}"
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    words = dict.fromkeys((404, 405), f"Malformed request. Expected GET {url}[/metadata] or POST {url}:predict.")
    words[413] = f"Expected {MAX_BODY} bytes at most. Received: more. Send fewer images, or encoded ones (image_bytes)."

    def status():
        state = {"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return {"model_version_status": [state]}

    def metadata():
        graphs = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs
        form = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
        found = {key: json_format.MessageToDict(one, **form) for key, one in graphs[0].signature_def.items()}
        spec = {"name": name, "signature_name": "", "version": version}
        return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": found}}}

    def predicted():
        return signatures.predict(model.signatures, flask.request.data)

    for prefix in (url, f"{url}/versions/{version}"):
        app.get(prefix)(status)
        app.get(f"{prefix}/metadata")(metadata)
        app.post(f"{prefix}:predict")(predicted)

    @app.errorhandler(Exception)  # a model may raise anything; the others want to go on asking
    def refuse(error):
        if isinstance(error, tf.errors.OpError):  # without TensorFlow's decoration of what went wrong
            text = re.split(r"\s+\[\[|\s\[Op:", error.message.split("<stack traces unavailable>")[-1])[0]
            return {"error": " ".join(text.split())}, _STATUS.get(error.error_code, 500)
        code = getattr(error, "code", 400 if isinstance(error, ValueError) else 500)
        return {"error": words.get(code) or str(error) or type(error).__name__}, code

    return app


def find(folder: str) -> tuple[pathlib.Path, str]:
    """Return the folder of the SavedModel to serve and its version."""
    folder = pathlib.Path(folder).expanduser().resolve()
    found = {
        int(path.parent.name): path.parent for path in folder.glob("*/saved_model.pb") if path.parent.name.isdecimal()
    }
    if (folder / "saved_model.pb").is_file():
        return folder, str(int(folder.name)) if folder.name.isdecimal() else "1"
    if not found:
        raise ValueError(
            "Expected a folder with saved_model.pb, or with versions of it such as 1/saved_model.pb. "
            f"Received: model={folder}. Export one first, or mend --model."
        )
    return found[max(found)], str(max(found))


def serve(model_dir: str, host: str, port: int, name: str) -> None:
    """Serve until Ctrl-C; print one line when it is ready."""
    import waitress

    folder, version = find(model_dir)
    with socket.socket() as listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ValueError(
                f"Expected a free port from 0 to 65535. Received: host={host}, port={port} "
                f"({getattr(error, 'strerror', error)}). Give another --port, or --port=0 for any free one."
            ) from None
        app = application(folder, name, version)
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a request that waits is no news
        server = waitress.create_server(app, sockets=[listener])
        print(
            f"Serving {name} (version {version}) at http://{host}:{server.effective_port}/v1/models/{name}", flush=True
        )
        server.run()


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an error ends it with status 1."""
    parser = argparse.ArgumentParser(description="Serve a SavedModel on this machine as TensorFlow Serving does.")
    parser.add_argument("--model", required=True, help="SavedModel, or a folder with numbered versions of one")
    parser.add_argument("--port", type=int, default=8501, help="0 for any free one; default: 8501")
    parser.add_argument("--name", default="classifier", help="of the model, in URLs; default: classifier")
    parser.add_argument("--host", default="localhost", help="0.0.0.0 to be reached from elsewhere; default: localhost")
    found = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a script started this in the background
        signal.signal(number, signal.default_int_handler)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        serve(found.model, found.host, found.port, found.name)
    except KeyboardInterrupt:  # while it loads; waitress ends by itself
        pass
    except ImportError as error:
        sys.exit(f'server: Expected the package {error.name}. Received: none. pip install "sat-tf[serve]"')
    except (ValueError, OSError) as error:
        sys.exit(f"server: {error}")
    print("Stopped.", flush=True)


if __name__ == "__main__":
    main()
