"""Ctrl-C and SIGTERM as a request to stop at the next safe point."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def terminating_as_ctrl_c() -> Iterator[None]:
    """Have SIGTERM, by which systems end a job, do what Ctrl-C does: raise KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def on_request() -> Iterator[Callable[[], bool]]:
    """Yield `requested() -> bool`: whether the user or the system asked to stop. A second signal ends the process.

    A signal that the process ignores is not heard: a grid's run is asked by the grid alone, not by Ctrl-C as well.
    """
    asked = []

    def ask(number, frame):
        asked.append(number)
        for each in before:  # the system ends the process then, whatever it is at: no checkpoint is ever half written
            signal.signal(each, signal.SIG_DFL)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield lambda: False
        return
    heard = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) != signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
