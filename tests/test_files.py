"""Files that are whole or not there, and locks that end with their process."""

import errno
import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from sat_tf import files

ROOT = pathlib.Path(__file__).parents[1]
HOLD = """
import sys, time
from sat_tf import files
with files.locked(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_makes_folders_replaces_and_returns_the_path(tmp_path):
    path = tmp_path / "a" / "b.txt"
    assert files.write(path, "old") == str(path)
    assert files.write(str(path), "n\u00e9w\n") == str(path) and path.read_bytes() == b"n\xc3\xa9w\n"
    files.write(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff" and names(path.parent) == ["b.txt"]


def test_the_temporary_file_is_hidden_beside_it_with_its_suffix_and_the_process(tmp_path):
    with files.replacing(tmp_path / "model.keras") as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".keras"
        assert temporary.name.startswith(".model.") and str(os.getpid()) in temporary.name
        temporary.touch()
    assert names(tmp_path) == ["model.keras"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_a_failure_all_is_as_it_was(tmp_path, error):
    path, folder = tmp_path / "state.json", tmp_path / "export"
    files.write(path, "old")
    with pytest.raises(error), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    with pytest.raises(error), files.replacing(folder) as temporary:
        temporary.mkdir()
        (temporary / "half").touch()
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["state.json"]


def test_nothing_written_is_an_error_and_keeps_the_file(tmp_path):
    files.write(tmp_path / "a", "old")
    with pytest.raises(FileNotFoundError), files.replacing(tmp_path / "a"):
        pass
    assert (tmp_path / "a").read_text() == "old"


def test_a_folder_appears_whole_also_over_an_empty_one(tmp_path):
    (tmp_path / "new").mkdir()
    with files.replacing(tmp_path / "new") as temporary:
        (temporary / "inner").mkdir(parents=True)
        (temporary / "inner" / "file").write_text("x")
        assert not list((tmp_path / "new").iterdir())
    assert names(tmp_path) == ["new"] and (tmp_path / "new" / "inner" / "file").read_text() == "x"


def test_everything_is_on_the_disk_before_it_is_moved(tmp_path, monkeypatch):
    events, fsync, replace = [], os.fsync, os.replace

    def inode(path):
        return os.stat(path).st_ino

    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(os.fstat(fd).st_ino), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("moved"), replace(*paths))[1])
    with files.replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
        for name in ("a", "b"):
            (temporary / name).write_text(name)
    moved = events.index("moved")
    assert {inode(tmp_path / "folder" / name) for name in ("a", "b")} <= set(events[:moved])
    assert inode(tmp_path / "folder") in events[:moved] and events[moved + 1 :] == [inode(tmp_path)]


def test_a_full_disk_on_the_way_out_keeps_the_old_file(tmp_path, monkeypatch):
    files.write(tmp_path / "a", "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == ["a"]


def test_what_killed_processes_left_is_removed_once_it_is_old(tmp_path):
    old, young, foreign = (tmp_path / name for name in (".a.1.partial.csv", ".a.2.partial.csv", ".a.x.partial.csv"))
    folder = tmp_path / ".a.3.partial.csv"
    folder.mkdir()
    (folder / "still_written").touch()
    for path in (old, young, foreign):
        path.touch()
    for path in (old, foreign, folder):
        os.utime(path, (0, time.time() - 2 * files.STALE))
    files.write(tmp_path / "a.csv", "x")
    assert names(tmp_path) == sorted([young.name, foreign.name, folder.name, "a.csv"])


def test_one_at_a_time(tmp_path):
    assert not files.is_locked(tmp_path) and names(tmp_path) == []
    with files.locked(tmp_path):
        assert files.is_locked(tmp_path)
        says = r"Another process \(.*\) is merging in .*Wait for it, or name another --model_dir"
        with pytest.raises(BlockingIOError, match=says), files.locked(tmp_path, "merging"):
            pass
        assert files.is_locked(tmp_path)
    assert not files.is_locked(tmp_path)
    with files.locked(tmp_path):
        pass


def test_a_lock_ends_with_an_exception_but_is_no_matter_of_a_failed_try(tmp_path):
    with pytest.raises(KeyError), files.locked(tmp_path):
        raise KeyError
    assert not files.is_locked(tmp_path)


def test_a_lock_waits_for_one_who_only_looks(tmp_path):
    """`is_locked` holds the lock for an instant: a run that begins in it must not take that for another run."""
    import threading

    stop, found = threading.Event(), []

    def look():
        while not stop.is_set():
            found.append(files.is_locked(tmp_path))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(50):
            with files.locked(tmp_path):
                pass
    finally:
        stop.set()
        thread.join()
    assert found


def test_a_lock_ends_with_its_process_however_it_ends(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert child.stdout.readline() == "locked\n"
        assert files.is_locked(tmp_path)
        with pytest.raises(BlockingIOError, match=rf"process {child.pid} on \S+\) is training"), files.locked(tmp_path):
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
        with files.locked(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_no_other_file_renames_or_locks():
    """One way to replace a file, and one lock; the downloads, which go on where they stopped, have their own."""
    own = {"sat_tf/files.py", "sat_tf/released/fetch.py"}
    for file in (ROOT / "sat_tf").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        found = [word for word in ("os.replace(", "os.rename(", ".rename(", "import fcntl", "flock(") if word in text]
        assert not found or str(file.relative_to(ROOT)) in own, f"{file}: {found}"


def test_a_folder_is_replaced_with_all_that_is_in_it_only_where_that_is_asked_for(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with pytest.raises(OSError), files.replacing(tmp_path / "out") as temporary:
        temporary.mkdir()
    assert (tmp_path / "out" / "old").read_text() == "old"
    with files.replacing(tmp_path / "out", whole=True) as temporary:
        temporary.mkdir()
        (temporary / "new").write_text("new")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_digest_is_that_of_the_whole_file(tmp_path):
    content = bytes(range(256)) * 5000  # more than is read at once
    (tmp_path / "file").write_bytes(content)
    assert files.sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
