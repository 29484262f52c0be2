"""Ask a model behind TensorFlow Serving's REST interface, or behind `sat_tf.serving.server`.

    python -m sat_tf.serving.client --url=http://localhost:8501/v1/models/classifier IMAGE [IMAGE ...]

prints the likeliest classes of each image. From Python:

    client = Client("http://localhost:8501/v1/models/classifier")
    client.classify([open("cat.jpg", "rb").read()])["probabilities"]

Standard library only: copy this file to any machine. Source: https://www.tensorflow.org/tfx/serving/api_rest.
"""

import argparse
import base64
import http.client
import json
import math
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence
from typing import Any

_EXAMPLE = "http://localhost:8501/v1/models/classifier"


class ServingError(RuntimeError):
    """A request without a usable answer.

    Attributes:
      status: HTTP status of the answer, such as 400; None where none came.
    """

    def __init__(self, words: str, status: int | None = None) -> None:
        super().__init__(words)
        self.status = status


class Client:
    """Talk to one served model.

    Args:
      url: of the model, http://HOST:PORT/v1/models/NAME, with /versions/NUMBER for a certain version.
      timeout: seconds that the server may be silent.

    Raises:
      ValueError: for a URL of another form.
    """

    def __init__(self, url: str, timeout: float = 60) -> None:
        parts = urllib.parse.urlsplit(url.strip().rstrip("/"))
        if parts.scheme not in ("http", "https") or not parts.netloc or "/models/" not in parts.path:
            raise ValueError(f"Expected the URL of a model, such as {_EXAMPLE}. Received: url={url}.")
        if not 0 < timeout < math.inf:
            raise ValueError(f"Expected a timeout above 0 seconds. Received: timeout={timeout}.")
        self.url = parts.geturl().removesuffix(":predict").removesuffix("/metadata")
        self.timeout = timeout

    def status(self) -> dict[str, Any]:
        """Return the versions of the model and their states: `{"model_version_status": [...]}`."""
        return self._ask("")

    def metadata(self) -> dict[str, Any]:
        """Return the signatures with the type and shape of every input and output, as the server writes them."""
        return self._ask("/metadata")

    def predict(self, inputs: Any, signature: str = "serving_default") -> Any:
        """Run one signature, by columns.

        Args:
          inputs: `{input name: value}`; a value is a number, string, bytes, array, or nested lists of those. For a
            signature with one input, the value alone will do, where it is no dictionary.
          signature: name of the signature.

        Returns:
          `{output name: nested lists}`, numbers and strings, bytes for outputs whose names end in `_bytes`;
          the lists alone where the signature has one output.

        Raises:
          ServingError: the server refuses the request, or gives no usable answer.
          ValueError: `inputs` has something that JSON can't say.
        """
        return self._predict("inputs", inputs, signature, "outputs")

    def predict_rows(self, instances: Sequence, signature: str = "serving_default") -> list:
        """Run one signature, by rows: as `predict`, with a list of `{input name: value}`, answered by a list."""
        return self._predict("instances", instances, signature, "predictions")

    def classify(self, images: Iterable[bytes]) -> dict[str, list]:
        """Return logits, probabilities and classes of images.

        Args:
          images: list of bytes, each a whole JPEG or PNG file.

        Returns:
          `{"logits": [n, classes], "probabilities": [n, classes], "classes": [n]}` as nested lists.

        Raises:
          ServingError: as `predict`.
        """
        return self.predict({"image_bytes": [bytes(image) for image in images]}, "image_bytes")

    def gradient(self, images: Any, labels: Any) -> dict[str, list]:
        """Return the loss of each image and its gradient with respect to the image.

        Args:
          images: array or nested lists `[n, size, size, 3]` in [0, 1].
          labels: `[n]` whole numbers.

        Returns:
          `{"loss": [n], "gradient": [n, size, size, 3]}` as nested lists.

        Raises:
          ServingError: as `predict`.
        """
        return self.predict({"images": images, "labels": labels}, "input_gradient")

    def _predict(self, key, value, signature, answer_key):
        try:
            body = json.dumps({"signature_name": signature, key: value}, default=_encode)
        except (TypeError, RecursionError) as error:
            raise ValueError(f"Expected numbers, strings, bytes, arrays or lists. Received: {error}.") from None
        answer = self._ask(":predict", body.encode())
        if answer_key not in answer:
            raise ServingError(
                f"Expected '{answer_key}' in the answer of {self.url}. Received: {sorted(answer)}. "
                "Is it TensorFlow Serving that answers there?",
                200,
            )
        return answer[answer_key]

    def _ask(self, suffix, body=None):
        request = urllib.request.Request(self.url + suffix, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                return self._read(response.status, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return self._read(error.code, error.read())
        except (OSError, http.client.HTTPException) as error:
            raise ServingError(self._silence(getattr(error, "reason", error))) from None

    def _read(self, status, content):
        """Return the object that an answer holds; raise what it says where it is an error."""
        try:
            answer = json.loads(content, object_hook=_decode)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            start = " ".join(content[:200].decode(errors="replace").split())
            raise ServingError(
                f"Expected a JSON object from {self.url}. Received: HTTP {status}, '{start}'. Another "
                "program or a proxy may answer there: mend the URL, or set no_proxy.",
                status,
            )
        if "error" in answer or status >= 400:
            raise ServingError(f"{answer.get('error', answer)} (HTTP {status})", status)
        return answer

    def _silence(self, reason):
        """Say in one sentence why there is no answer, and what to do."""
        if isinstance(reason, TimeoutError):
            return (
                f"No answer from {self.url} within {self.timeout:g} s. Give it a longer timeout, or fewer images "
                "in a request."
            )
        if isinstance(reason, (BrokenPipeError, ConnectionResetError, ConnectionAbortedError)):
            return (
                f"{self.url} hung up ({_words(reason)}). Was the request too large, or is that not the REST port "
                "(usually 8501; gRPC's is 8500)?"
            )
        return (
            f"No answer from {self.url} ({_words(reason)}). Start the server, or mend the URL: the REST port is "
            "usually 8501, gRPC's 8500."
        )


def _words(reason):
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__


def _encode(value):
    """Return what JSON can say for bytes and for arrays of any library."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"b64": base64.b64encode(value).decode()}
    for method in ("tolist", "numpy"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise TypeError(f"{type(value).__name__}")


def _decode(found):
    """Return the bytes that an object `{"b64": ...}` stands for, any other object as it is."""
    if found.keys() == {"b64"} and isinstance(found["b64"], str):
        return base64.b64decode(found["b64"])
    return found


def describe(client: Client, path: str, classes: Sequence[str] | None, top: int) -> str:
    """Return one line: an image file and its likeliest classes.

    Args:
      client: Client.
      path: image file.
      classes: list of class names; None to print the numbers of the classes.
      top: how many classes to print.

    Returns:
      The line.

    Raises:
      OSError: the file can't be read.
      ServingError: the server refuses the image, or gives no usable answer.
      ValueError: the number of names is not the number of classes.
    """
    with open(path, "rb") as file:
        outputs = client.classify([file.read()])
    try:
        probabilities = [float(value) for value in outputs["probabilities"][0]]
    except (TypeError, KeyError, IndexError, ValueError):
        raise ServingError(
            "Expected an output 'probabilities' [n, classes] of the signature image_bytes. Received: "
            f"{json.dumps(outputs, default=_encode)[:100]}. See the model's metadata."
        ) from None
    if classes is not None and len(classes) != len(probabilities):
        raise ValueError(
            f"Expected a file of {len(probabilities)} class names, one a line. Received: {len(classes)}. "
            "Give --classes the model's own assets/classes.txt."
        )
    order = sorted(range(len(probabilities)), key=lambda place: -probabilities[place])[:top]
    names = classes or range(len(probabilities))
    return f"{path}: " + ", ".join(f"{names[place]} {probabilities[place]:.2%}" for place in order)


def _arguments(arguments):
    parser = argparse.ArgumentParser(description="Print the likeliest classes of image files, from a served model.")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="JPEG or PNG file")
    parser.add_argument("--url", required=True, help=f"of the model, such as {_EXAMPLE}")
    parser.add_argument("--classes", metavar="FILE", help="class names, one a line: the export's assets/classes.txt")
    parser.add_argument("--top", type=int, default=5, help="how many classes to print; default: 5")
    parser.add_argument("--timeout", type=float, default=60, help="seconds to wait for an answer; default: 60")
    found = parser.parse_args(arguments)
    if found.top < 1:
        parser.error(f"Expected --top from 1. Received: top={found.top}.")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status: 0, or 1 where an image failed or nothing could be asked."""
    found = _arguments(arguments)
    try:
        classes = None
        if found.classes:
            with open(found.classes, encoding="utf-8") as file:
                classes = file.read().splitlines()
        client = Client(found.url, found.timeout)
        client.status()  # a server that is not there is said once, not for every image
    except (OSError, ValueError, ServingError) as error:
        print(f"client: {error}", file=sys.stderr)
        return 1
    failed = 0
    for path in found.images:
        try:
            print(describe(client, path, classes, found.top), flush=True)
        except (OSError, ValueError, ServingError) as error:
            failed += 1
            print(f"{path}: {getattr(error, 'strerror', None) or error}", file=sys.stderr, flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("client: Stopped.")
