"""Fetching published checkpoints: what arrives, what is refused, the lock file, gdown against a server of our own."""

import concurrent.futures
import http.server
import json
import random
import re
import socket
import sys
import threading
import time
import types
import urllib.parse

import pytest
import tensorflow as tf

from sat_tf.released import fetch

DATA = "data-00000-of-00001"
IDS = {"index": "idI", "meta": "idM", DATA: "idD"}
HTML = b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>"


def written(folder, values):
    """Return `{suffix: bytes}` of a TF1 checkpoint with these variables."""
    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        for name, value in values.items():
            tf.compat.v1.get_variable(name, initializer=tf.constant(value))
        session.run(tf.compat.v1.global_variables_initializer())
        prefix = tf.compat.v1.train.Saver().save(session, str(folder / "model"))
    return {suffix: (folder / f"model.{suffix}").read_bytes() for suffix in fetch.SUFFIXES if prefix}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return written(tmp_path_factory.mktemp("one"), {"conv/kernel": [[1.0, 2.0]] * 200_000, "step": 7, "text": "words"})


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    return written(tmp_path_factory.mktemp("two"), {"conv/kernel": [3.0, 4.0, 5.0]})


class Drive:
    """A downloader that writes what it was given, and remembers for which ids it was asked."""

    def __init__(self, files, **instead):
        self.contents = {IDS[suffix]: content for suffix, content in {**files, **instead}.items()}
        self.asked = []

    def __call__(self, drive_id, path):
        self.asked.append(drive_id)
        content = self.contents[drive_id]
        if isinstance(content, Exception):
            raise content
        if content is not None:
            path.write_bytes(content)


def never(drive_id, path):
    raise AssertionError(f"downloads {drive_id}")


def put(files, directory, name="net"):
    for suffix, content in files.items():
        (directory / f"{name}.{suffix}").write_bytes(content)


def lock_of(directory):
    return json.loads((directory / fetch.LOCK).read_text())


def listed(directory):
    """Return the names in a directory, but for the empty file that a process holds while it fetches."""
    return sorted(path.name for path in directory.iterdir() if path.name != f".{fetch.LOCK}.lock")


def said(error):
    """Return an error's message, after a look at whether it is one line."""
    text = str(error.value)
    assert "\n" not in text and "Traceback" not in text
    return text


WHOLE = sorted(["net.index", "net.meta", f"net.{DATA}", fetch.LOCK])


def test_three_files_arrive_and_are_recorded(tmp_path, files):
    lines = []
    paths = fetch.fetch("net", IDS, tmp_path / "new", Drive(files), lines.append)
    assert [path.name for path in paths] == ["net.index", "net.meta", f"net.{DATA}"]
    assert listed(tmp_path / "new") == WHOLE and len(lines) == 3
    assert [path.read_bytes() for path in paths] == [files[suffix] for suffix in fetch.SUFFIXES]
    assert dict(tf.train.list_variables(str(paths[0])[: -len(".index")]))["conv/kernel"] == [200_000, 2]
    lock = lock_of(tmp_path / "new")
    assert lock["format"] == 1 and set(lock["releases"]["net"]) == set(IDS)
    entry = lock["releases"]["net"][DATA]
    assert set(entry) == {"file", "sha256", "bytes", "google_drive_id"} and len(entry["sha256"]) == 64
    assert (entry["file"], entry["bytes"], entry["google_drive_id"]) == (f"net.{DATA}", len(files[DATA]), "idD")
    assert fetch.verify("net", tmp_path / "new") and not fetch.verify("another", tmp_path / "new")


def test_the_second_time_and_by_hand_nothing_is_needed(tmp_path, files, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    monkeypatch.setattr(socket, "socket", None)
    put(files, tmp_path)
    first = fetch.fetch("net", IDS, tmp_path)
    lock = (tmp_path / fetch.LOCK).read_bytes()
    assert fetch.fetch("net", IDS, str(tmp_path)) == first and listed(tmp_path) == WHOLE
    assert (tmp_path / fetch.LOCK).read_bytes() == lock and fetch.verify("net", tmp_path)


def test_only_what_is_missing_is_downloaded(tmp_path, files):
    put({DATA: files[DATA]}, tmp_path)
    drive = Drive(files)
    fetch.fetch("net", IDS, tmp_path, drive)
    assert drive.asked == ["idI", "idM"] and listed(tmp_path) == WHOLE


BAD = {  # what lies in place of which file, and what is said about it
    "page": ("index", lambda b: HTML, "HTML page"),
    "page_after_space": (DATA, lambda b: b"\r\n \t<HTML lang=en>", "HTML page"),
    "page_with_bom": ("meta", lambda b: b"\xef\xbb\xbf  <!doctype HTML>", "HTML page"),
    "page_in_utf16": ("meta", lambda b: "<!DOCTYPE html><html>".encode("utf-16"), "HTML page"),
    "page_as_xml": (DATA, lambda b: b'<?xml version="1.0"?>\n<!DOCTYPE html>', "HTML page"),
    "empty_index": ("index", lambda b: b"", "is empty"),
    "empty_data": (DATA, lambda b: b"", "is empty"),
    "cut_index": ("index", lambda b: b[:-1], "doesn't end as an index"),
    "tiny_index": ("index", lambda b: b"abc", "doesn't end as an index"),
    "meta_as_index": ("index", lambda b: b[:40] * 30, "doesn't end as an index"),
    "noise_in_index": ("index", lambda b: random.Random(0).randbytes(300) + fetch._MAGIC, "TensorFlow can't read"),
    "cut_data": (DATA, lambda b: b[:-100], r"has \d+ bytes of at least \d+ that net.index describes"),
    "cut_meta": ("meta", lambda b: b[: len(b) // 2], "is no MetaGraphDef"),
    "text_as_meta": ("meta", lambda b: b"Too many requests", "is no MetaGraphDef"),
    "meta_without_graph": (
        "meta",
        lambda b: tf.compat.v1.MetaGraphDef(collection_def={"a": {}}).SerializeToString(),
        "without a graph",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_arrives_is_looked_at_first(tmp_path, files, case):
    suffix, damage, words = BAD[case]
    with pytest.raises(OSError, match=words) as error:
        fetch.fetch("net", IDS, tmp_path, Drive(files, **{suffix: damage(files[suffix])}))
    assert f"Received: {tmp_path}/net.{suffix}.bad, which" in said(error) and fetch.URL + IDS[suffix] in said(error)
    assert f"net.{suffix}" not in listed(tmp_path) and f"net.{suffix}.bad" in listed(tmp_path)
    fetch.fetch("net", IDS, tmp_path, Drive(files))
    assert set(WHOLE) <= set(listed(tmp_path))


@pytest.mark.parametrize("case", BAD)
def test_what_lies_there_is_looked_at_and_left_there(tmp_path, files, case):
    suffix, damage, words = BAD[case]
    put({**files, suffix: damage(files[suffix])}, tmp_path)
    with pytest.raises(OSError, match=words) as error:
        fetch.fetch("net", IDS, tmp_path, never)
    assert f"Received: {tmp_path}/net.{suffix}, which" in said(error) and "Remove it" in said(error)
    assert f"net.{suffix}" in listed(tmp_path)
    assert suffix not in fetch._read_lock(tmp_path)["releases"].get("net", {})


def test_a_downloader_that_writes_nothing(tmp_path, files):
    with pytest.raises(OSError, match="is empty") as error:
        fetch.fetch("net", IDS, tmp_path, Drive(files, index=None))
    assert "net.index" in said(error)


@pytest.mark.parametrize("suffix", fetch.SUFFIXES)
def test_a_file_that_changed_is_refused(tmp_path, files, suffix):
    fetch.fetch("net", IDS, tmp_path, Drive(files))
    file = tmp_path / f"net.{suffix}"
    file.write_bytes(files[suffix][:-1] + bytes([files[suffix][-1] ^ 1]))
    for call in (lambda: fetch.verify("net", tmp_path), lambda: fetch.fetch("net", IDS, tmp_path, never)):
        with pytest.raises(OSError, match=f"has SHA-256 \\w{{64}}, where {fetch.LOCK} records \\w{{64}}") as error:
            call()
        assert str(file) in said(error) and "Remove it" in said(error)
        assert lock_of(tmp_path)["releases"]["net"][suffix]["sha256"] in said(error)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=f"{file}.*fetch it again") as error:
        fetch.verify("net", tmp_path)
    said(error)
    fetch.fetch("net", IDS, tmp_path, Drive(files))
    assert fetch.verify("net", tmp_path)


def test_another_file_published_under_the_name_is_refused(tmp_path, files, others):
    fetch.fetch("net", IDS, tmp_path, Drive(files))
    (tmp_path / "net.meta").unlink()
    with pytest.raises(OSError, match="net.meta.bad, which has SHA-256.*If you trust what is published now"):
        fetch.fetch("net", IDS, tmp_path, Drive(files, meta=others["meta"]))
    assert "net.meta" not in listed(tmp_path)


LOCKS = {  # content of the lock file: what is said about it
    "": "is damaged",
    "{": "is damaged",
    "[]": "is damaged",
    "null": "is damaged",
    "\udcff": "is damaged",
    '{"format": 1}': "is damaged.*releases",
    '{"format": "a", "releases": {}}': "is damaged",
    '{"format": 1, "releases": []}': "is damaged",
    '{"format": 1, "releases": {"a": {"index": {}}}}': "is damaged.*sha256",
    '{"format": 1, "releases": {"a": {"index": {"sha256": 3}}}}': "is damaged.*sha256",
    '{"format": 2, "releases": {}}': "format 2, this version reads 1",
}


@pytest.mark.parametrize("content", LOCKS)
def test_a_damaged_lock_file_is_named(tmp_path, files, content):
    put(files, tmp_path)
    (tmp_path / fetch.LOCK).write_text(content, errors="surrogateescape")
    for call in (lambda: fetch.verify("net", tmp_path), lambda: fetch.fetch("net", IDS, tmp_path, never)):
        with pytest.raises(OSError, match=LOCKS[content]) as error:
            call()
        assert f"The lock file {tmp_path / fetch.LOCK}" in said(error) and "Remove it" in said(error)


def test_other_entries_of_the_lock_file_stay(tmp_path, files):
    mine = {"index": {"file": "mine.index", "sha256": "ab", "bytes": 1, "google_drive_id": None, "note": "kept"}}
    (tmp_path / fetch.LOCK).write_text(json.dumps({"format": 1, "note": "kept", "releases": {"mine": mine}}))
    fetch.fetch("net", IDS, tmp_path, Drive(files))
    lock = lock_of(tmp_path)
    assert lock["note"] == "kept" and lock["releases"]["mine"] == mine and len(lock["releases"]["net"]) == 3


def together(count, call):
    """Run `call(number)` in so many threads at once; what they throw is thrown here."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        list(pool.map(call, range(count)))


def test_names_fetched_at_once_all_stay_in_the_lock_file(tmp_path, files):
    together(8, lambda number: fetch.fetch(f"net{number}", IDS, tmp_path, Drive(files), [].append))
    lock = lock_of(tmp_path)
    assert all(len(lock["releases"][f"net{number}"]) == 3 for number in range(8)) and len(listed(tmp_path)) == 25


def test_one_name_fetched_twice_at_once_is_downloaded_once(tmp_path, files):
    drive, lines = Drive(files), []

    def slow(drive_id, path):
        time.sleep(0.1)
        drive(drive_id, path)

    together(3, lambda number: fetch.fetch("net", IDS, tmp_path, slow, lines.append))
    assert drive.asked == ["idI", "idM", "idD"] and listed(tmp_path) == WHOLE
    assert sum("waiting for another process" in line for line in lines) == 2


def test_a_folder_that_cannot_be_written_serves(tmp_path, files, monkeypatch):
    def refused(*_):
        raise PermissionError(13, "Permission denied")

    put(files, tmp_path)
    monkeypatch.setattr(fetch, "_record", refused)
    lines = []
    assert len(fetch.fetch("net", IDS, tmp_path, never, lines.append)) == 3
    assert len(lines) == 3 and "can't be written (Permission denied)" in lines[0]


class FileURLRetrievalError(Exception):
    """As gdown's."""


THROWN = {  # what a downloader throws: what the user is told
    "refused": (ConnectionRefusedError(111, "Connection refused"), "^no network: drive.google.com can't be reached"),
    "name": (socket.gaierror(-3, "Temporary failure in name resolution"), "^no network"),
    "slow": (TimeoutError("timed out"), "^no network"),
    "page": (FileURLRetrievalError("Failed:\n\n\tToo many\n\tusers\n\nYou may"), "page says: Too many users. Or"),
    "disk": (OSError(28, "No space left on device"), "^No space left on device. Or"),
    "odd": (KeyError("Content-Type"), "^'Content-Type'. Or"),
}


@pytest.mark.parametrize("case", THROWN)
def test_a_failed_download_says_what_to_do(tmp_path, files, case):
    thrown, words = THROWN[case]
    with pytest.raises(OSError, match=words) as error:
        fetch.fetch("net", IDS, tmp_path, Drive(files, meta=thrown))
    links = f"{fetch.URL}idM as net.meta, {fetch.URL}idD as net.{DATA}."
    assert f"in a browser into {tmp_path} and repeat the command: {links}" in said(error)
    drive = Drive(files)
    fetch.fetch("net", IDS, tmp_path, drive)
    assert drive.asked == ["idM", "idD"] and listed(tmp_path) == WHOLE


def test_ids_of_all_three_are_wanted(tmp_path):
    with pytest.raises(ValueError, match="Google Drive ids of index, meta, data.*Received: ids=index") as error:
        fetch.fetch("net", {"index": "a"}, tmp_path, never)
    said(error)


def test_a_folder_in_which_tensorflow_finds_nothing(tmp_path, files):
    with pytest.raises(ValueError, match=r"Expected a folder without '\['.*Received: directory=.*runs\[1\]") as error:
        fetch.fetch("net", IDS, tmp_path / "runs[1]", never)
    assert "Name another one." in said(error) and not listed(tmp_path)


@pytest.mark.parametrize("module", [None, types.SimpleNamespace(download=lambda id, output: None)], ids=["none", "old"])
def test_without_gdown_or_with_an_old_one(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, "gdown", module)
    with pytest.raises(OSError, match=r'gdown, 6.3 or later: pip install "sat-tf\[download\]"') as error:
        fetch.fetch("net", IDS, tmp_path)
    assert f"{fetch.URL}idI as net.index" in said(error)


class GoogleDrive(http.server.BaseHTTPRequestHandler):
    """Answers as Google Drive: the server's `answers` hold `{id: bytes or a kind of trouble}`."""

    def do_GET(self):
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        wanted = self.headers.get("Range")
        self.server.asked.append((query["id"], wanted))
        kind, content, *most = self.server.answers[query["id"]]
        if kind == "page" or (kind == "confirm" and "confirm" not in query):
            page = content if kind == "page" else self.form(query["id"])
            return self.answer(200, page, {"Content-Type": "text/html"})
        start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        if start and start >= len(content):
            return self.answer(416, b"", {"Content-Type": "text/html"})
        headers = {"Content-Type": "application/octet-stream", "Content-Disposition": 'attachment; filename="file"'}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.answer(206 if start else 200, content[start:], headers, *most)

    def answer(self, status, body, headers, most=None):  # most: bytes before the connection is cut
        self.send_response(status)
        for header in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body[:most])

    def form(self, drive_id):
        return (
            f'<html><form id="download-form" action="http://127.0.0.1:{self.server.server_port}/download">'
            f'<input type="hidden" name="id" value="{drive_id}"><input type="hidden" name="confirm" value="t">'
            "</form></html>"
        ).encode()

    def log_message(self, *_):
        pass


@pytest.fixture
def hasty(monkeypatch):
    """Have gdown not wait before it tries again."""
    pytest.importorskip("gdown", reason="gdown is not installed")
    monkeypatch.setattr(random, "uniform", lambda *_: 0.0)


@pytest.fixture
def drive(files, hasty, monkeypatch, tmp_path_factory):
    """Return a server to which gdown's requests for drive.google.com go."""
    import requests

    request = requests.Session.request

    def here(session, method, url, **options):
        url = re.sub("^https://(drive|docs).google.com", f"http://127.0.0.1:{server.server_port}", url)
        return request(session, method, url, **options)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), GoogleDrive)
    server.answers, server.asked = {IDS[suffix]: ("file", content) for suffix, content in files.items()}, []
    monkeypatch.setattr(requests.Session, "request", here)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(sys.modules["gdown.download"], "DEFAULT_COOKIES_FILE", str(tmp_path_factory.mktemp("c") / "c"))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


PART = ".net.partial.{}.resumed.part"


def test_gdown_fetches_without_noise_in_a_log(tmp_path, drive, capfd):
    drive.answers["idD"] = ("confirm", drive.answers["idD"][1])  # as for files too large for its virus scan
    fetch.fetch("net", IDS, tmp_path)
    assert listed(tmp_path) == WHOLE
    assert [asked for asked, _ in drive.asked] == ["idI", "idM", "idD", "idD"]
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1, "gdown's own temporary files can be read by their owner only"
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if "net." in line]
    assert out == "" and "\r" not in err and "%|" not in err
    assert lines[0] == f"fetching {tmp_path}/net.index from Google Drive" and lines[1].startswith("net.index: 100 % of")


def test_gdown_goes_on_when_the_connection_is_cut(tmp_path, drive, files):
    drive.answers["idD"] = ("file", files[DATA], 600_000)
    paths = fetch.fetch("net", IDS, tmp_path, progress=[].append)
    assert paths[2].read_bytes() == files[DATA] and listed(tmp_path) == WHOLE
    assert ("idD", "bytes=524288-") in drive.asked  # gdown writes in chunks of 512 kB


def test_gdown_goes_on_where_a_killed_run_stopped(tmp_path, drive, files):
    (tmp_path / PART.format(DATA)).write_bytes(files[DATA][:5000])
    paths = fetch.fetch("net", IDS, tmp_path, progress=[].append)
    assert paths[2].read_bytes() == files[DATA] and listed(tmp_path) == WHOLE
    assert ("idD", "bytes=5000-") in drive.asked


def test_gdown_starts_afresh_when_it_cannot_go_on(tmp_path, drive, files):
    (tmp_path / PART.format(DATA)).write_bytes(files[DATA] + b"more than there is")
    (tmp_path / PART.format("index")).write_bytes(b"a")
    (tmp_path / ".net.partial.indexabcdefgh.part").write_bytes(b"b")
    paths = fetch.fetch("net", IDS, tmp_path, progress=[].append)
    assert [path.read_bytes() for path in paths] == [files[suffix] for suffix in fetch.SUFFIXES]
    assert listed(tmp_path) == WHOLE


def test_a_whole_file_that_was_not_checked_yet_is_not_downloaded_again(tmp_path, drive, files):
    (tmp_path / f".net.partial.{DATA}").write_bytes(files[DATA])
    fetch.fetch("net", IDS, tmp_path, progress=[].append)
    assert listed(tmp_path) == WHOLE and "idD" not in dict(drive.asked)


PAGES = {  # how Google Drive answers: what is said
    "quota": (
        ("page", b'<html><p class="uc-error-subcaption">Too many users have viewed it.</p></html>'),
        "Google Drive shows a page in place of the file.*page says: Too many users have viewed it. Or",
    ),
    "private": (("page", b"<html>You need access</html>"), "page says: Cannot retrieve the public link of the file"),
    "page_as_file": (("file", HTML), "is an HTML page in place of data"),
    "nothing": (("file", b""), "is empty"),
    "cut_early": (
        ("file", b"1" * 2_000_000, 10),
        "broke off, and the same command goes on: Download is incomplete: "
        r"received 0 bytes but the server announced 2000000 bytes\. Or",
    ),
}


@pytest.mark.parametrize("case", PAGES)
def test_pages_of_google_drive(tmp_path, drive, files, case):
    drive.answers["idM"], words = PAGES[case]
    with pytest.raises(OSError, match=words) as error:
        fetch.fetch("net", IDS, tmp_path, progress=[].append)
    assert f"{fetch.URL}idM" in said(error) and "net.meta" not in listed(tmp_path)
    drive.answers["idM"] = ("file", files["meta"])
    fetch.fetch("net", IDS, tmp_path, progress=[].append)
    assert fetch.verify("net", tmp_path)


@pytest.mark.parametrize("cause", ["names", "proxy"])
def test_gdown_without_a_network(tmp_path, hasty, monkeypatch, capfd, cause):
    def unknown(*_, **__):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    if cause == "names":
        monkeypatch.setattr(socket, "getaddrinfo", unknown)
    else:
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="^no network: drive.google.com can't be reached") as error:
        fetch.fetch("net", IDS, tmp_path)
    assert all(f"{fetch.URL}{IDS[suffix]} as net.{suffix}" in said(error) for suffix in IDS)
    assert len(capfd.readouterr().err.splitlines()) == 1
