"""The REST protocol from both ends: client and server in processes of their own, and answers of other servers."""

import concurrent.futures
import http.client
import http.server
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf

from sat_tf.serving import client as serving_client
from sat_tf.serving import server
from sat_tf.serving.client import Client, ServingError

SIZE = 4
MATRIX = np.arange(9, dtype=np.float32).reshape(3, 3) / 9
IMAGES = np.random.default_rng(0).random((2, SIZE, SIZE, 3), np.float32)
PNG = tf.io.encode_png(np.full((6, 5, 3), (0, 51, 255), np.uint8)).numpy()
IMAGE_SPEC = tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32, "images")


class Tiny(tf.Module):
    """Mean colour times a matrix, behind the signatures of an export, and two more for the corners of the protocol."""

    def __init__(self):
        super().__init__()
        self.matrix = tf.Variable(MATRIX)

    def answer(self, images):
        tf.debugging.assert_all_finite(images, "Expected finite pixels.")
        tf.debugging.assert_less_equal(images, 1.0, message="Expected pixels up to 1.")
        logits = tf.reduce_mean(images, [1, 2]) @ self.matrix
        return {"logits": logits, "probabilities": tf.nn.softmax(logits), "classes": tf.argmax(logits, -1, tf.int32)}

    @tf.function(input_signature=[IMAGE_SPEC])
    def serving_default(self, images):
        return self.answer(images)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    def image_bytes(self, image_bytes):
        def decode(content):
            image = tf.ensure_shape(tf.io.decode_image(content, 3, expand_animations=False), [None, None, 3])
            return tf.image.resize(image, [SIZE, SIZE]) / 255

        return self.answer(tf.map_fn(decode, image_bytes, fn_output_signature=tf.TensorSpec([SIZE, SIZE, 3])))

    @tf.function(input_signature=[IMAGE_SPEC, tf.TensorSpec([None], tf.int32, "labels")])
    def input_gradient(self, images, labels):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, self.answer(images)["logits"])
        return {"loss": loss, "gradient": tape.gradient(loss, images)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def invert(self, x):
        return {"y": 1 / x}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text"), tf.TensorSpec([None], tf.bool, "twice")])
    def words(self, text, twice):
        joined = tf.where(twice, text + text, text)
        return {"text": joined, "text_bytes": joined, "count": tf.size(text, tf.int64)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the versions 2 and 10 of a SavedModel, and what is no version."""
    folder, tiny = tmp_path_factory.mktemp("serving") / "saved_model", Tiny()
    names = ("serving_default", "image_bytes", "input_gradient", "invert", "words")
    functions = (tiny.serving_default, tiny.image_bytes, tiny.input_gradient, tiny.invert, tiny.words)
    tf.saved_model.save(tiny, str(folder / "10"), signatures=dict(zip(names, functions, strict=True)))
    shutil.copytree(folder / "10", folder / "2")
    (folder / "11").mkdir()  # an export that was cut short
    return folder


def start(*arguments, stderr):
    return subprocess.Popen(
        [sys.executable, "-m", "sat_tf.serving.server", *arguments], text=True, stderr=stderr, stdout=subprocess.PIPE
    )


@pytest.fixture(scope="module")
def url(folder, tmp_path_factory):
    """Return the URL of the model at a running server; end it as Ctrl-C does."""
    log = tmp_path_factory.mktemp("log") / "stderr"
    with open(log, "w", encoding="utf-8") as stderr:
        process = start(f"--model={folder}", "--port=0", stderr=stderr)
    ready = process.stdout.readline()
    assert ready.startswith("Serving classifier (version 10) at http://localhost:"), log.read_text(encoding="utf-8")
    yield ready.split()[-1]
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[0] == "Stopped.\n" and process.returncode == 0
    assert "Traceback" not in log.read_text(encoding="utf-8")


def is_well(client):
    """Return whether a good request gets the right answer."""
    logits = IMAGES.mean((1, 2)) @ MATRIX
    outputs = client.predict({"images": IMAGES})
    return np.allclose(outputs["logits"], logits) and outputs["classes"] == logits.argmax(-1).tolist()


def test_columns_rows_bytes_and_gradients(url):
    client = Client(url + "/")
    assert is_well(client) and is_well(Client(url + "/versions/10"))
    outputs = client.predict({"images": IMAGES})
    assert client.predict(IMAGES) == outputs  # one input: its name may be left out
    rows = [{name: outputs[name][row] for name in outputs} for row in range(2)]
    assert client.predict_rows(IMAGES) == client.predict_rows([{"images": image} for image in IMAGES]) == rows
    images = client.classify([PNG, PNG])
    np.testing.assert_allclose(images["logits"], [np.float32([0, 0.2, 1]) @ MATRIX] * 2, rtol=1e-5)
    assert client.predict_rows([PNG], "image_bytes")[0]["classes"] == images["classes"][0]
    assert client.classify([])["logits"] == []
    tiny, labels = Tiny(), np.int32([0, 2])
    found, exact = client.gradient(IMAGES, labels), tiny.input_gradient(IMAGES, labels)
    for name in ("loss", "gradient"):
        np.testing.assert_allclose(found[name], exact[name], rtol=1e-5)


def test_one_output_is_bare_and_numbers_are_short_and_may_be_infinite(url):
    client = Client(url)
    assert client.predict({"x": [5.0, 0, float("inf"), -1]}, "invert") == [0.2, float("inf"), 0.0, -1.0]
    assert client.predict_rows([5], "invert") == [0.2]
    assert np.isnan(client.predict([float("nan")], "invert")).all()
    words = client.predict({"text": ["é", b"\xff"], "twice": [True, False]}, "words")
    assert words == {"text": ["éé", "\ufffd"], "text_bytes": ["éé".encode(), b"\xff"], "count": 2}


def test_status_and_metadata(url):
    client = Client(url)
    state = {"version": "10", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert client.status() == Client(url + "/versions/10").status() == {"model_version_status": [state]}
    metadata = client.metadata()
    assert metadata["model_spec"] == {"name": "classifier", "signature_name": "", "version": "10"}
    signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["images"]["dtype"] == "DT_FLOAT"
    assert signature["outputs"]["classes"]["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}],
        "unknown_rank": False,
    }
    assert [dim["size"] for dim in signature["inputs"]["images"]["tensor_shape"]["dim"]] == ["-1", "4", "4", "3"]


IMAGE = IMAGES[:1].tolist()
MALFORMED = [  # status, a part of the words, body (an object is sent as JSON)
    (400, "JSON Parse error", b"images=1"),
    (400, "document is empty", b""),
    (400, "JSON Parse error", b'{"inputs": "\xff'),
    (400, "JSON Parse error", b"[" * 100000),
    (400, "JSON Parse error", b'{"inputs": ' + b"1" * 5000 + b"}"),
    (400, "JSON object", []),
    (400, "either 'inputs'", {}),
    (400, "either 'inputs'", {"inputs": IMAGE, "instances": IMAGE}),
    (400, "not found in signature def", {"signature_name": "train", "inputs": IMAGE}),
    (400, "not found in signature def", {"signature_name": ["train"], "inputs": IMAGE}),
    (400, "inputs=['image']", {"inputs": {"image": IMAGE}}),
    (400, "inputs=['images', 'labels']", {"inputs": {"images": IMAGE, "labels": [1]}}),
    (400, "['images', 'labels']", {"signature_name": "input_gradient", "inputs": {"images": IMAGE}}),
    (400, "['images', 'labels']", {"signature_name": "input_gradient", "instances": IMAGE}),
    (400, "one row or more", {"instances": []}),
    (400, "one row or more", {"instances": {"images": IMAGE}}),
    (400, "shape=[4, 4, 3]", {"inputs": IMAGE[0]}),
    (400, "shape=[1, 4, 3, 3]", {"inputs": [[row[:3] for row in IMAGE[0]]]}),
    (400, "shape=[0]", {"inputs": []}),
    (400, "ragged", {"inputs": [[*IMAGE[0][:3], IMAGE[0][0][:2]]]}),
    (400, "ragged", {"inputs": [*IMAGE, 1]}),
    (400, "Received: str", {"inputs": [[[["0"] * 3] * 4] * 4]}),
    (400, "Received: NoneType, bool", {"inputs": [[[[True, None, 0.5]] * 4] * 4]}),
    (400, "ragged", {"inputs": [[[[1, [1], 1]] * 4] * 4]}),
    (400, "overflow", {"inputs": [[[[1e39] * 3] * 4] * 4]}),
    (400, "Received: int too large", {"inputs": [[[[10**400] * 3] * 4] * 4]}),
    (400, "Received: float", {"signature_name": "input_gradient", "inputs": {"images": IMAGE, "labels": [1.0]}}),
    (400, "out of bounds", {"signature_name": "input_gradient", "inputs": {"images": IMAGE, "labels": [2**31]}}),
    (400, "Expected finite pixels.", {"inputs": [[[[float("nan")] * 3] * 4] * 4]}),
    (400, "Expected pixels up to 1.", {"inputs": [[[[255] * 3] * 4] * 4]}),
    (400, "Unknown image file format", {"signature_name": "image_bytes", "inputs": ["no image"]}),
    (400, "Input is empty", {"signature_name": "image_bytes", "inputs": [""]}),
    (400, "shape=[]", {"signature_name": "image_bytes", "inputs": {"b64": ""}}),
    (400, "base64", {"signature_name": "image_bytes", "inputs": [{"b64": "a?=="}]}),
    (400, "base64", {"signature_name": "image_bytes", "inputs": [{"b64": 1}]}),
    (400, "base64", {"signature_name": "image_bytes", "inputs": [{"b65": ""}]}),
    (400, "Received: str", {"signature_name": "words", "inputs": {"text": ["a"], "twice": ["yes"]}}),
    (400, "a value for each row", {"signature_name": "words", "instances": [{"text": "a", "twice": True}]}),
    (413, "67108864 bytes at most", b" " * (64 * 2**20 + 1)),
]


@pytest.mark.parametrize(("status", "words", "body"), MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_request_is_refused_and_the_next_is_answered(url, status, words, body):
    client = Client(url, timeout=20)
    with pytest.raises(ServingError) as caught:
        client._ask(":predict", body if isinstance(body, bytes) else json.dumps(body).encode())
    assert words in str(caught.value) and caught.value.status == status
    assert "{{node" not in str(caught.value) and "\n" not in str(caught.value) and is_well(client)


@pytest.mark.parametrize(
    ("suffix", "status"),
    [
        ("/versions/2:predict", 404),
        ("s:predict", 404),
        ("", 405),
        ("/:predict", 404),
        ("/versions/x:predict", 404),
        ("/labels/stable:predict", 404),
        (":classify", 404),
        ("/metadata", 405),
    ],
)
def test_other_urls_are_refused_and_the_connection_stays(url, suffix, status):
    path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(path[0], timeout=20)
    for target, body, expected in ((suffix, b"{}", status), (":predict", json.dumps({"inputs": IMAGE}).encode(), 200)):
        connection.request("POST", f"/{path[2]}{target}", body)
        answer = connection.getresponse()
        assert answer.status == expected and ("error" in json.load(answer)) == (expected != 200)
    connection.close()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("POST {path}:predict HTTP/1.1\r\nContent-Length: 900\r\n\r\n{{", b""),  # hangs up in mid-request
        ("POST {path}:predict HTTP/1.1\r\nContent-Le", b""),
        ("POST {path}:predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (
            "POST {path}:predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n",
            b"either 'inputs'",
        ),
        ("POST {path}:predict HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n", b"413"),
        ("PUT {path}:predict HTTP/1.1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}", b"405"),
        ("JUMP {path} HTTP/1.1\r\n\r\n", b"405"),
        ("hello\r\n\r\n", b"400 Bad Request"),
        ("\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400 Bad Request"),  # somebody tries https
    ],
)
def test_what_is_no_http_is_survived(url, text, answer):
    host, port = url.split("/")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(text.format(path="/v1/models/classifier").encode("latin-1"))
        if answer:
            connection.shutdown(socket.SHUT_WR)
            assert answer in b"".join(iter(lambda: connection.recv(4096), b""))
    assert is_well(Client(url))


def test_requests_at_the_same_time(url):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda _: is_well(Client(url)), range(64)))


@pytest.mark.parametrize("case", ["no_folder", "no_saved_model", "port_in_use", "port"])
def test_a_server_that_cannot_start_says_why_in_a_line(case, tmp_path, folder):
    (tmp_path / "1").mkdir()
    with socket.create_server(("localhost", 0)) as taken:
        arguments, words = {
            "no_folder": ([f"--model={tmp_path}/none"], "Export one first"),
            "no_saved_model": ([f"--model={tmp_path}"], "Export one first"),
            "port_in_use": ([f"--model={folder}", f"--port={taken.getsockname()[1]}"], "--port=0"),
            "port": ([f"--model={folder}", "--port=70000"], "from 0 to 65535"),
        }[case]
        process = start(*arguments, stderr=subprocess.PIPE)
        out, error = process.communicate(timeout=30)
    assert process.returncode == 1 and out == "" and words in error and error.count("\n") == 1


@pytest.mark.parametrize("package", ["flask", "waitress"])
def test_without_the_extra_the_server_says_how_to_install_it(package, tmp_path, folder):
    code = f"import sys; sys.modules[{package!r}] = None; from sat_tf.serving import server; server.main()"
    command = [sys.executable, "-c", code, f"--model={folder}", "--port=0"]
    done = subprocess.run(command, text=True, capture_output=True, timeout=30)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert f"Expected the package {package}." in done.stderr and 'pip install "sat-tf[serve]"' in done.stderr


def test_an_unreadable_model_is_named(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"cut short")
    with pytest.raises(ValueError, match=f"Expected a whole SavedModel. Received: {tmp_path}.* Export it again"):
        server.application(tmp_path, "classifier", "1")


def test_the_command_line_goes_on_after_a_refused_image(url, folder, tmp_path):
    (tmp_path / "blue.png").write_bytes(PNG)
    (tmp_path / "text.png").write_bytes(b"no image")
    (tmp_path / "classes.txt").write_text("cat\ndog\nbird\n", encoding="utf-8")
    shutil.copy(serving_client.__file__, tmp_path / "copied.py")
    images = [tmp_path / name for name in ("none.png", "text.png", "blue.png")]

    def run(*arguments):  # -I -S: nothing but the standard library
        return subprocess.run(
            [sys.executable, "-I", "-S", tmp_path / "copied.py", f"--url={url}", *arguments],
            capture_output=True,
            text=True,
            timeout=20,
        )

    done = run("--classes", tmp_path / "classes.txt", "--top=2", *images)
    probabilities = tf.nn.softmax(np.float32([0, 0.2, 1]) @ MATRIX).numpy()
    assert done.stdout == f"{images[2]}: bird {probabilities[2]:.2%}, dog {probabilities[1]:.2%}\n"
    missing, refused = done.stderr.splitlines()
    assert "none.png: No such file" in missing and "Unknown image file format" in refused and done.returncode == 1
    numbered = run(images[2])
    assert numbered.stdout.startswith(f"{images[2]}: 2 ") and numbered.returncode == 0
    (tmp_path / "classes.txt").write_text("cat\n", encoding="utf-8")
    assert "3 class names" in run("--classes", tmp_path / "classes.txt", images[2]).stderr
    assert run(f"--url={url}s", *images).stderr.count("\n") == 1  # said once, not for every image


class Other(http.server.BaseHTTPRequestHandler):
    """Answer as the name of the model in the URL says."""

    ANSWERS = {
        "bare": (200, b'{"predictions": [3.5, NaN], "outputs": {"a_bytes": [{"b64": "/w=="}]}}'),
        "error": (400, b'{ "error": "Could not parse" }'),
        "html": (502, b"<html>Bad\n gateway</html>"),
        "page": (200, b"<html>Welcome</html>"),
        "list": (200, b"[1]"),
        "empty": (200, b"{}"),
        "cut": (200, b"{"),
    }

    def do_POST(self):  # noqa: N802
        name = self.path.removeprefix("/v1/models/").removesuffix(":predict")
        if name == "silent":
            return self.server.end.wait(20)
        if name == "hangup":
            return None
        status, content = self.ANSWERS[name]
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) + 5 * (name == "cut")))
        self.end_headers()
        return self.wfile.write(content)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def other():
    """Return the URL before the model's name at a server that answers as others do."""
    with http.server.ThreadingHTTPServer(("localhost", 0), Other) as server:
        server.end = threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/v1/models/"
        server.end.set()
        server.shutdown()


def test_answers_of_tensorflow_serving(other):
    client = Client(other + "bare")
    predictions = client.predict_rows([1.0, 2.0])
    assert predictions[0] == 3.5 and np.isnan(predictions[1])
    assert client.predict([1.0]) == {"a_bytes": [b"\xff"]}


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("error", 400, "Could not parse (HTTP 400)"),
        ("html", 502, "'<html>Bad gateway</html>'"),
        ("page", 200, "mend the URL"),
        ("list", 200, "Expected a JSON object"),
        ("empty", 200, "Expected 'outputs'"),
        ("cut", None, "No answer"),
        ("silent", None, "longer timeout"),
        ("hangup", None, "hung up"),
    ],
)
def test_an_answer_that_is_none_is_one_sentence(other, name, status, words):
    with pytest.raises(ServingError) as caught:
        Client(other + name, timeout=0.5).predict({"images": [0.0]})
    assert words in str(caught.value) and caught.value.status == status and "\n" not in str(caught.value)


def test_no_server_and_wrong_arguments(capsys, tmp_path):
    with socket.create_server(("localhost", 0)) as closed:
        nowhere = f"http://localhost:{closed.getsockname()[1]}/v1/models/classifier"
    with pytest.raises(ServingError, match="Connection refused.*Start the server"):
        Client(nowhere).status()
    for wrong in ("localhost:8501/v1/models/a", "http://localhost:8501", "ftp://localhost/v1/models/a"):
        with pytest.raises(ValueError, match="Expected the URL of a model"):
            Client(wrong)
    with pytest.raises(ValueError, match="Received: object"):
        Client(nowhere).predict({"images": object()})
    assert serving_client.main([f"--url={nowhere}", "a.png", "b.png"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
