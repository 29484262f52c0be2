"""How the processes of a cluster meet, and what they tell each other beside what TensorFlow's collectives carry.

All connect to the chief, at its own address: first to see that every one is there and means the same training, then for
whatever only one of them knows, such as what a checkpoint holds. Standard library only.
"""

import contextlib
import json
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator

from sat_tf.distribute.cluster import Cluster

PATIENCE = 300.0  # seconds to wait for others at the start
RETRY = 0.2  # seconds between two tries to reach the chief
_LENGTH = struct.Struct("!cQ")  # kind of a message, and its bytes
_WORD, _END, _DONE = b"w", b"e", b"d"  # something told; the sender ends, and why; it has done all it had to
LOOK, GRACE = 1.0, 15.0  # seconds between two looks whether others are gone; for the process to end by itself then
HEARING = 20.0  # seconds to hear of the chief who is gone, after an error that names nobody: longer than its GRACE
STOPPED, PEEKED = "Stopped with", 4096  # begins what is said of one that is gone; bytes of its last words
# seconds of silence after which the system asks whether the other machine is there; between two more of so many times
ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
LARGEST, FIRST = 2**40, 2**20  # bytes of a message, and of the first one, which anybody may send


class Channel:
    """Connections of a cluster's processes, all through the chief: `Channel.opened` makes them.

    Attributes:
      cluster: who they are.
      peers: the sockets: of the chief one to each worker by index, of others one to the chief.
    """

    def __init__(self, cluster: Cluster, peers: dict[int, socket.socket]) -> None:
        self.cluster, self.peers = cluster, peers
        self._reading, self._closed = threading.Lock(), threading.Event()

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls, cluster: Cluster, meaning: dict | None = None, patience: float | None = None
    ) -> Iterator["Channel"]:
        """Meet all others, and hold the connections; whoever fails meanwhile tells the others why.

        Args:
          cluster: who they are.
          meaning: `{name: text}` of what must be the same everywhere: the recipe, versions.
          patience: seconds to wait for the others; None for `PATIENCE`.

        Raises:
          OSError: some are not reached in that time, or the chief's port is taken.
          ValueError: they mean different things.
        """
        deadline = time.monotonic() + (PATIENCE if patience is None else patience)
        meaning = {name: str(text) for name, text in (meaning or {}).items()}
        meet = _gather if cluster.is_chief else _join
        channel = cls(cluster, meet(cluster, meaning, deadline))
        threading.Thread(target=channel._watch, daemon=True).start()
        try:
            yield channel
        except BaseException as error:
            gone = channel._heard(error)
            channel.close(gone or str(error).strip() or type(error).__name__)
            if gone:
                raise OSError(gone) from error
            raise
        channel.close("")

    def exchange(self, word: bytes = b"") -> list[bytes]:
        """Tell the others something, and return what all say, by index; every process must call this.

        Raises:
          OSError: one of the others has ended; the message names it and says why, if it did.
        """
        if self.cluster.is_chief:
            words = [word, *(self._received(i) for i in range(1, self.cluster.size))]
            told = json.dumps([len(each) for each in words]).encode()
            for index in self.peers:
                self._send(index, told + b"\n" + b"".join(words))
            return words
        self._send(0, word)
        told, _, rest = self._received(0).partition(b"\n")
        words = []
        for length in json.loads(told):
            words.append(rest[:length])
            rest = rest[length:]
        return words

    def from_chief(self, word: bytes = b"") -> bytes:
        """Return what the chief says; every process must call this."""
        return self.exchange(word if self.cluster.is_chief else b"")[0]

    def close(self, why: str) -> None:
        """Say goodbye, and why if that is not as it should be."""
        self._closed.set()
        for peer in self.peers.values():
            with contextlib.suppress(OSError):
                peer.settimeout(1.0)
                peer.sendall(_LENGTH.pack(_END if why else _DONE, len(why.encode())) + why.encode())
                peer.close()
        self.peers = {}

    def gone(self) -> str | None:
        """Return a sentence that names a process which has ended before its time; None where all are at work."""
        if not self._reading.acquire(blocking=False):  # who reads will hear of it
            return None
        try:
            return self._seen()
        finally:
            self._reading.release()

    def _seen(self):
        """Return what `gone` does; who is gone without a word comes before who says that something is wrong."""
        ended = None
        for index, peer in sorted(self.peers.items()):
            try:
                said = peer.recv(PEEKED, socket.MSG_PEEK | socket.MSG_DONTWAIT)  # it stays to be read
            except BlockingIOError:
                continue
            except OSError:
                said = b""
            if not said:
                return f"{STOPPED} {self.cluster.name_of(index)}, which is gone."
            if said.startswith(_END):
                ended = ended or self._words_of(index, said[_LENGTH.size :])
        return ended

    def _words_of(self, index, said):
        """Return what is to be said of a process that ended with a word: the word itself, if it names another one."""
        said = said.decode(errors="replace")
        return said if said.startswith(STOPPED) else f"{STOPPED} {self.cluster.name_of(index)}, which ended: {said}"

    def _heard(self, error):
        """Return a sentence that names who is gone where an error names nobody; None where nobody is.

        What TensorFlow's collectives say does not: the chief, which alone is connected to all, says it then.
        """
        if not isinstance(error, OSError) or str(error).startswith(STOPPED):
            return None
        collective = type(error.__cause__).__module__.startswith("tensorflow")
        deadline = time.monotonic() + (HEARING if collective else 0.0)
        while (gone := self.gone()) is None and time.monotonic() < deadline:
            time.sleep(RETRY)
        return gone

    def _watch(self):
        """End this process where another one is gone and this one waits for it in a collective of TensorFlow's."""
        while not self._closed.wait(LOOK):
            gone = self.gone()
            if gone is not None and not self._closed.wait(GRACE):
                print(gone, file=sys.stderr, flush=True)
                self.close(gone)
                os._exit(1)

    def _send(self, index, word):
        try:
            self.peers[index].sendall(_LENGTH.pack(_WORD, len(word)) + word)
        except (OSError, KeyError) as error:
            self._gone(index, error)

    def _received(self, index):
        with self._reading:
            try:
                peer = self.peers[index]
                while not select.select([peer], [], [], LOOK)[0]:  # it may wait for another one itself
                    if gone := self._seen():
                        raise OSError(gone)
                kind, word = _read(peer)
            except (OSError, EOFError, KeyError) as error:
                if str(error).startswith(STOPPED):
                    raise
                self._gone(index, error)
        if kind == _DONE:
            raise OSError(f"{STOPPED} {self.cluster.name_of(index)}, which has ended.")
        if kind == _END:
            raise OSError(self._words_of(index, word))
        return word

    def _gone(self, index, error):
        """Raise for a worker that is gone, with its last words if there are any."""
        with contextlib.suppress(OSError, EOFError, KeyError):
            kind, word = _read(self.peers[index])
            if kind == _END:
                error = word.decode(errors="replace")
        raise OSError(f"{STOPPED} {self.cluster.name_of(index)}, which is gone ({error or 'it ended'}).")


def _read(peer, largest=LARGEST):
    """Return kind and content of one message."""
    kind, length = _LENGTH.unpack(_exactly(peer, _LENGTH.size))
    if kind not in (_WORD, _END, _DONE) or length > largest:
        raise OSError("it says something else")
    return kind, _exactly(peer, length)


def _exactly(peer, count):
    parts, left = [], count
    while left:
        part = peer.recv(min(left, 1 << 20))
        if not part:
            raise EOFError("the connection ended")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _gather(cluster, meaning, deadline):
    """Wait as the chief for all others; return their sockets by index."""
    peers = {}
    try:
        listener = socket.create_server(_place(cluster.workers[0], any_address=True), reuse_port=False)
    except OSError as error:
        raise OSError(
            f"Expected a free port for {cluster.name_of(0)}. Received: {error.strerror or error}. Name another port, "
            "the same for all."
        ) from error
    faults = []
    with listener:
        while len(peers) < cluster.size - 1 and not faults:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([listener], [], [], left)[0]:
                missing = ", ".join(cluster.name_of(i) for i in range(1, cluster.size) if i not in peers)
                faults.append(f"Expected all {cluster.size} workers. Received: no word of {missing}.")
                break
            peer, _ = listener.accept()
            if (met := _met(peer, deadline)) is None:  # no worker of ours
                peer.close()
                continue
            fault = _fault(cluster, meaning, met, peers)
            peers[met["index"] if fault is None else -1] = peer
            faults += [fault] if fault else []
    for peer in peers.values():
        word = (faults or [""])[0].encode()
        with contextlib.suppress(OSError):
            peer.sendall(_LENGTH.pack(_END if faults else _WORD, len(word)) + word)
    if faults:
        for peer in peers.values():
            peer.close()
        raise (OSError if "no word of" in faults[0] else ValueError)(faults[0])
    for peer in peers.values():
        _keep(peer)
    return peers


def _keep(peer):
    """Keep a connection for the whole time, and notice where the other machine vanishes."""
    peer.settimeout(None)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in ALIVE.items():
        if hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _met(peer, deadline):
    """Return what a process that connects says of itself, None where it is none of ours."""
    peer.settimeout(max(min(deadline - time.monotonic(), 10.0), 0.1))
    try:
        kind, word = _read(peer, FIRST)
        met = json.loads(word)
        return met if kind == _WORD and {"index", "workers", "meaning"} <= met.keys() else None
    except (OSError, EOFError, ValueError, AttributeError, struct.error):
        return None


def _fault(cluster, meaning, met, peers):
    """Return what keeps a worker from training with the chief, None where nothing does."""
    if met["workers"] != list(cluster.workers):
        return (
            f"Expected the same workers everywhere. Received: {','.join(met['workers'])} of worker {met['index']}, "
            f"{','.join(cluster.workers)} of worker 0."
        )
    if met["index"] in peers or not 0 < met["index"] < cluster.size:
        return f"Expected one process for each worker. Received: two with the index {met['index']}."
    theirs = met["meaning"]
    unequal = [name for name in {**meaning, **theirs} if meaning.get(name) != theirs.get(name)]
    if unequal:
        name = unequal[0]
        return (
            f"Expected the same {name} everywhere. Received: {theirs.get(name)} of {cluster.name_of(met['index'])}, "
            f"{meaning.get(name)} of worker 0."
        )
    return None


def _join(cluster, meaning, deadline):
    """Reach the chief; return its socket."""
    said = json.dumps({"index": cluster.index, "workers": list(cluster.workers), "meaning": meaning}).encode()
    why = "it does not answer"
    while time.monotonic() < deadline:
        with contextlib.ExitStack() as stack:
            try:
                peer = socket.create_connection(_place(cluster.workers[0]), timeout=5.0)
                stack.callback(peer.close)
                peer.sendall(_LENGTH.pack(_WORD, len(said)) + said)
                peer.settimeout(max(deadline - time.monotonic(), 0.1) + 5.0)
                kind, word = _read(peer)
            except (OSError, EOFError, struct.error) as error:
                why = getattr(error, "strerror", None) or str(error) or why
                time.sleep(RETRY)
                continue
            if kind == _END:
                raise ValueError(word.decode(errors="replace"))
            stack.pop_all()
            _keep(peer)
            return {0: peer}
    raise OSError(
        f"Expected an answer of {cluster.name_of(0)}, the chief. Received: none ({why}). Start all workers within "
        f"{PATIENCE:.0f} seconds, with addresses that every one of them can reach."
    )


def _place(address, any_address=False):
    """Return (host, port) of an address; the chief listens on all its own where the host is no plain loopback."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    local = host in ("localhost", "127.0.0.1", "::1")
    return ("" if any_address and not local else host), int(port)
