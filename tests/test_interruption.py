"""Signals as requests."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from sat_tf import interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with interruption.on_request() as requested:
        assert not requested()
        os.kill(os.getpid(), number)
        assert requested()
    assert signal.getsignal(number) is before


def test_what_the_process_ignores_is_not_heard():
    """A grid's run ignores Ctrl-C, which reaches the whole group, and listens to the grid."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruption.on_request() as requested:
            os.kill(os.getpid(), signal.SIGINT)
            assert not requested()
            os.kill(os.getpid(), signal.SIGTERM)
            assert requested() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process(second):
    code = (
        "import os, signal; from sat_tf import interruption\n"
        "with interruption.on_request():\n"
        f"    os.kill(os.getpid(), signal.SIGTERM); print('asked', flush=True); os.kill(os.getpid(), {int(second)})"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == "asked\n" and ended.returncode == -second


def test_sigterm_does_what_ctrl_c_does():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interruption.terminating_as_ctrl_c():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_leave_signals_alone():
    seen = []

    def work():
        with interruption.on_request() as requested:
            seen.append(requested())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
