"""Signals as requests."""

import os
import signal
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


def test_a_second_ctrl_c_stops_at_once():
    with pytest.raises(KeyboardInterrupt), interruption.on_request():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_other_threads_leave_signals_alone():
    seen = []

    def work():
        with interruption.on_request() as requested:
            seen.append(requested())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
