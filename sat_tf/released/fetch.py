"""The files of a published TF1 checkpoint: from Google Drive or by hand, checked, their SHA-256 kept in a lock file.

<directory>/NAME.index, NAME.meta, NAME.data-00000-of-00001
            released.lock.json    what arrived: {"format": 1, "releases": {NAME: {suffix: {"file", "sha256", ...}}}}
            .NAME.partial.*       what has arrived so far; the next try goes on there
            .released.lock.json.lock   held by the process that fetches
            NAME.index.bad        what came in place of an index, to look at
"""

import contextlib
import errno
import functools
import json
import math
import os
import pathlib
import sys
from collections.abc import Callable

import filelock

from sat_tf import files

SUFFIXES = ("index", "meta", "data-00000-of-00001")  # the order matters: small ones first, and data need the index
LOCK = "released.lock.json"
FORMAT = 1
URL = "https://drive.google.com/uc?id="
RETRIES = 3  # of a download that breaks off, after 1, 2 and 4 seconds at most
TIMEOUT = 60  # seconds in which Google Drive must send something
_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")  # the end of every table of TensorFlow's sstable format
_GDOWN = 'Expected the package gdown, 6.3 or later: pip install "sat-tf[download]" or pip install gdown'

REASONS = {  # name of an error's class, or of one it derives from: what to tell; the error itself otherwise
    **dict.fromkeys(("ImportError", "TypeError"), _GDOWN),  # older ones know fewer arguments
    "FileURLRetrievalError": "Google Drive shows a page in place of the file: it was downloaded too often of late (try "
    "again tomorrow) or is not public any more; the page says: {error}",
    "SSLError": "The certificate of drive.google.com is refused: {error}",
    "HTTPError": "Google Drive refuses: {error}",
    **dict.fromkeys(
        ("ConnectionError", "Timeout", "TimeoutError", "gaierror"),
        "no network: drive.google.com can't be reached ({kind}). Repeat the command when there is one",
    ),
    "DownloadError": "The download broke off, and the same command goes on: {error}",
}


def fetch(
    name: str,
    ids: dict[str, str],
    directory: str | os.PathLike,
    download: Callable | None = None,
    progress: Callable | None = None,
) -> list[pathlib.Path]:
    """Return the three files of a checkpoint; those that `directory` lacks are downloaded, the others verified.

    Files that were put there by hand are checked and recorded like those that were downloaded: with all three in place
    neither network nor gdown is needed.

    Args:
      name: the checkpoint's; its files are `directory/name.<suffix>`.
      ids: `{suffix: Google Drive id}` of all `SUFFIXES`.
      directory: folder, made if it is not there.
      download: `(drive_id, path)`, writes a file to `path`, where it may find what a try that was cut has left; None
        for gdown.
      progress: `(line)`, told what happens; None for lines, and gdown's bar on a terminal, on stderr.

    Returns:
      Paths in the order of `SUFFIXES`.

    Raises:
      ValueError: `ids` lacks a file, or TensorFlow could not read a checkpoint in a folder of that name.
      OSError: no network, no gdown, something else than the checkpoint arrived or lies there, a damaged lock file. The
        message is one sentence that says what to do.
    """
    directory = pathlib.Path(directory).expanduser()
    _check(ids, directory)
    directory.mkdir(parents=True, exist_ok=True)
    tell = progress or functools.partial(print, file=sys.stderr, flush=True)
    bar = progress is None and sys.stderr.isatty()
    download = download or functools.partial(_gdown, tell=None if bar else tell)
    paths = {suffix: directory / f"{name}.{suffix}" for suffix in SUFFIXES}
    with _alone(directory, tell):
        for suffix, path in paths.items():
            if path.exists():
                _accept(name, suffix, path, ids, tell)
            else:
                tell(f"fetching {path} from Google Drive")
                _bring(name, suffix, path, ids, download)
    return list(paths.values())


def verify(name: str, directory: str | os.PathLike) -> bool:
    """Return whether the lock file of a directory knows a checkpoint, after comparing the files with it.

    Raises:
      OSError: a file is missing or differs, or the lock file is damaged.
    """
    directory = pathlib.Path(directory).expanduser()
    recorded = _read_lock(directory)["releases"].get(name, {})
    for suffix, entry in recorded.items():
        path = directory / f"{name}.{suffix}"
        if not path.is_file():
            raise FileNotFoundError(f"Expected the file {path}, which {LOCK} records. It is not there: fetch it again.")
        _refuse(path, path, _difference(entry, files.sha256(path)), "Remove it and fetch it again.")
    return bool(recorded)


def _check(ids, directory):
    if set(ids) != set(SUFFIXES):
        raise ValueError(f"Expected Google Drive ids of {', '.join(SUFFIXES)}. Received: ids={', '.join(ids)}.")
    if "[" in str(directory):  # TensorFlow takes a checkpoint's name for a pattern
        raise ValueError(
            "Expected a folder without '[' in its path, where TensorFlow finds checkpoints. Received: "
            f"directory={directory}. Name another one."
        )


def _accept(name, suffix, path, ids, tell):
    """Verify a file that is there; one that the lock file doesn't know is checked and recorded."""
    entry = _read_lock(path.parent)["releases"].get(name, {}).get(suffix)
    phrase = _difference(entry, files.sha256(path)) if entry else _fault(suffix, path, path.parent / f"{name}.index")
    _refuse(path, path, phrase, f"Remove it and repeat the command, or download it by hand from {URL}{ids[suffix]}.")
    if not entry:
        try:
            _record(name, suffix, path, files.sha256(path), ids[suffix])
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            tell(f"{path.parent / LOCK} can't be written ({error.strerror}): the SHA-256 of {path} is not recorded")


def _bring(name, suffix, path, ids, download):
    """Download one file under a temporary name, check it, and give it its own name."""
    partial = path.with_name(f".{name}.partial.{suffix}")
    entry = _read_lock(path.parent)["releases"].get(name, {}).get(suffix)
    try:
        download(ids[suffix], partial)
    except Exception as error:  # whatever a downloader throws, a user wants to know what to do
        raise OSError(_advice(error, name, ids, path.parent)) from error
    phrase = _fault(suffix, partial, path.with_name(f"{name}.index"))
    digest = None if phrase else files.sha256(partial)
    remedy = f"Repeat the command, or download it by hand in a browser from {URL}{ids[suffix]} as {path}."
    if entry and not phrase:
        phrase = _difference(entry, digest)
        remedy = f"If you trust what is published now, remove {name} from {path.parent / LOCK} and repeat the command."
    place = path.with_name(f"{path.name}.bad") if phrase else path
    if partial.exists():
        os.replace(partial, place)
    _refuse(path, place, phrase, remedy)
    _record(name, suffix, path, digest, ids[suffix])


def _refuse(path, place, phrase, remedy):
    if phrase:
        raise OSError(f"Expected a checkpoint's {path.name}. Received: {place}, which {phrase}. {remedy}")


def _advice(error, name, ids, directory):
    """Return one line that says why a download failed and how to do without it."""
    kinds = [kind.__name__ for one in (error.__cause__, error) for kind in type(one).__mro__]
    reason = REASONS.get(next((kind for kind in kinds if kind in REASONS), None), "{error}")
    page = "FileURLRetrievalError" in kinds
    parts = str(error).split("\n\n" if page else "\n")
    text = parts[min(page, len(parts) - 1)]  # gdown puts words of its own around what Google Drive's page says
    text = getattr(error, "strerror", None) or " ".join(text.split())[:300]
    missing = [suffix for suffix in SUFFIXES if not (directory / f"{name}.{suffix}").exists()]
    links = ", ".join(f"{URL}{ids[suffix]} as {name}.{suffix}" for suffix in missing)
    return (
        f"{reason.format(error=text.rstrip('.'), kind=kinds[0])}. Or download the files by hand in a browser into "
        f"{directory} and repeat the command: {links}."
    )


def _gdown(drive_id, path, tell):
    """Download with gdown, which goes on where an earlier try stopped; `tell` None for its bar."""
    if path.is_file():  # gdown gives a file this name when it is whole: the run ended before it was checked
        return
    import gdown

    part = path.with_name(f"{path.name}.resumed.part")  # a name that gdown goes on with
    for again in (False, True):
        part.touch()  # with the usual permissions; gdown's own temporary files can be read by their owner only
        try:
            gdown.download(
                id=drive_id,
                output=str(path),
                resume=True,
                retries=RETRIES,
                quiet=tell is not None,
                timeout=TIMEOUT,
                log_messages={"start": "", "output": ""},
                progress=_tenths(path.name[1:].replace(".partial", ""), tell) if tell else None,
            )
            return
        except Exception as error:  # a part that is as long as the file, or longer, or one of two
            if again or not any(words in str(error) for words in ("byte range", "multiple temporary")):
                raise
            for file in path.parent.glob(f"{path.name}*.part"):
                file.unlink()


def _tenths(name, tell):
    """Return gdown's progress function, which tells every tenth of a file."""
    told = {0}

    def progress(done, total):
        tenth = 10 * done // total if total else 0
        if tenth not in told:
            told.add(tenth)
            tell(f"{name}: {10 * tenth} % of {total / 1e6:.1f} MB")

    return progress


def _fault(suffix, path, index):
    """Return what is wrong with a file as the end of a sentence, or None; `index` is the checkpoint's .index."""
    if not path.is_file() or not path.stat().st_size:
        return "is empty"
    with open(path, "rb") as file:
        head = file.read(1024)
    head = head.replace(b"\0", b"") if head[:2] in (b"\xff\xfe", b"\xfe\xff") else head  # UTF-16
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip(b"\xff\xfe \t\r\n\f\v").lower()
    if head.startswith(b"<") and (b"<!doctype html" in head or b"<html" in head):
        return "is an HTML page in place of data"
    return _FAULTS[suffix](path, index)


def _index_fault(path, _):
    with open(path, "rb") as file:
        file.seek(-min(len(_MAGIC), path.stat().st_size), os.SEEK_END)
        if file.read() != _MAGIC:
            return "doesn't end as an index of TensorFlow does: it is cut, or another file"
    try:
        needed = _bytes_needed(path)
    except Exception as error:  # TensorFlow's reader throws another class for every kind of damage
        return f"TensorFlow can't read: {' '.join(str(error).split()).rstrip('.')}"
    return None if needed else "names no variable"


def _data_fault(path, index):
    needed, found = _bytes_needed(index), path.stat().st_size
    return None if found >= needed else f"has {found} bytes of at least {needed} that {index.name} describes"


def _meta_fault(path, _):
    import tensorflow as tf
    from google.protobuf import message

    try:
        graph = tf.compat.v1.MetaGraphDef.FromString(path.read_bytes())
    except message.DecodeError as error:
        return f"is no MetaGraphDef: {error}"
    return None if graph.HasField("graph_def") else "is a MetaGraphDef without a graph"


_FAULTS = {"index": _index_fault, "meta": _meta_fault, "data-00000-of-00001": _data_fault}


def _bytes_needed(index):
    """Return how many bytes the variables of an .index take, texts (whose size TensorFlow gives as 0) aside."""
    import tensorflow as tf

    reader = tf.compat.v1.train.NewCheckpointReader(str(index).removesuffix(".index"))
    shapes, kinds = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    return sum(math.prod(shape) * kinds[name].size for name, shape in shapes.items())


def _difference(entry, digest):
    return None if digest == entry["sha256"] else f"has SHA-256 {digest}, where {LOCK} records {entry['sha256']}"


def _read_lock(directory):
    """Return what the lock file of a directory holds, or an empty one."""
    file = directory / LOCK
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] > FORMAT:
            raise ValueError(f"it has format {content['format']}, this version reads {FORMAT}")
        for suffixes in content["releases"].values():
            if not all(isinstance(entry["sha256"], str) for entry in suffixes.values()):
                raise ValueError("a sha256 is no text")
        return content
    except FileNotFoundError:
        return {"format": FORMAT, "releases": {}}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OSError(
            f"The lock file {file} is damaged: {error}. Remove it, and the next fetch checks the files and "
            "records them anew."
        ) from error


def _record(name, suffix, path, digest, drive_id):
    """Write a file's entry into the lock file, beside all that is there."""
    content = _read_lock(path.parent)
    content["releases"].setdefault(name, {})[suffix] = {
        "file": path.name,
        "sha256": digest,
        "bytes": path.stat().st_size,
        "google_drive_id": drive_id,
    }
    temporary = path.with_name(f".{LOCK}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path.parent / LOCK)


@contextlib.contextmanager
def _alone(directory, tell):
    """Wait until no other process fetches into a directory."""
    lock = filelock.FileLock(directory / f".{LOCK}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        tell(f"waiting for another process that fetches into {directory}")
        lock.acquire()
    except (OSError, NotImplementedError):  # a folder that can't be written, or has no locks, may have all files
        pass
    try:
        yield
    finally:
        lock.release()
