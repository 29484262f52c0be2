"""Files that are whole or not there, and folders that belong to one process at a time."""

import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import socket
import time
from collections.abc import Iterator

import filelock

LOCK, HOLDER = ".lock", ".lock-holder"  # in the folder that is locked: the system's lock, and who has it
PATIENCE = 0.5  # seconds to wait for a lock: longer than `is_locked` holds it to look
STALE = 3600  # seconds without a change after which what a killed process left behind is removed


@contextlib.contextmanager
def replacing(path: str | os.PathLike, *, whole: bool = False) -> Iterator[pathlib.Path]:
    """Yield a temporary path; the file or folder that is written there takes the place of `path` in one step.

    It lies beside `path`, is hidden, has the same suffix and the process id in its name. What was written is on the
    disk before it is moved; after an exception it is removed, and `path` is as it was.

    Args:
      path: a file, or a folder that does not exist or is empty; its parents are made.
      whole: replace a folder with all that is in it.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    _remove(temporary)
    try:
        yield temporary
        _flush(temporary)
        if temporary.is_dir() and path.is_dir():  # the system replaces no folder that holds something
            old = path.with_name(f"{temporary.name}.old")
            os.replace(path, old) if whole else path.rmdir()
            os.replace(temporary, path)
            _remove(old)
        else:
            os.replace(temporary, path)
        _flush_folder(path.parent)
    finally:
        _remove(temporary)


def write(path: str | os.PathLike, content: str | bytes) -> str:
    """Replace a file by one with this content, text in UTF-8; return its path."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    return os.fspath(path)


def sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file of any size, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(folder: str | os.PathLike, doing: str = "training") -> Iterator[None]:
    """Keep other processes out of a folder; the lock ends with this process, and its children do not have it.

    Args:
      folder: must exist.
      doing: what the error says that the other process is doing.

    Raises:
      BlockingIOError: another process has it.
    """
    lock = filelock.FileLock(pathlib.Path(folder, LOCK), timeout=PATIENCE)
    holder = pathlib.Path(folder, HOLDER)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        who = ""
        with contextlib.suppress(OSError, ValueError):
            who = f" ({holder.read_text()})"
        raise BlockingIOError(
            f"Another process{who} is {doing} in {folder}. Wait for it, or name another --model_dir."
        ) from error
    try:
        with contextlib.suppress(OSError):  # a full disk: it only tells others
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def is_locked(folder: str | os.PathLike) -> bool:
    """Say whether a process has locked a folder."""
    file = pathlib.Path(folder, LOCK)
    if not file.is_file():
        return False
    try:
        with filelock.FileLock(file, timeout=0):
            return False
    except filelock.Timeout:
        return True


def _flush(path):
    """Have the system write a file, or a folder with all that is in it, to the disk."""
    if path.is_dir():
        for inner in path.iterdir():
            _flush(inner)
        _flush_folder(path)
        return
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder):
    """Have the system write the names in a folder to the disk, where it can."""
    with contextlib.suppress(OSError):  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path):
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_stale(path):
    """Remove what killed processes left when they replaced `path`; nothing that another one may still write."""
    name = re.compile(rf"\.{re.escape(path.stem)}\.\d+\.partial{re.escape(path.suffix)}")
    for left in path.parent.iterdir():
        if name.fullmatch(left.name):
            with contextlib.suppress(OSError):  # another process was faster
                if time.time() - max(item.stat().st_mtime for item in (left, *left.rglob("*"))) > STALE:
                    _remove(left)
