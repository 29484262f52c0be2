"""Progress where nobody watches: plain lines with the time that is left."""

import io
import sys

import pytest

from sat_tf import progress


@pytest.fixture
def clock(monkeypatch):
    """Return a list whose one number is what the clock says."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_say_how_much_is_done_and_how_long_the_rest_takes(clock, capsys):
    heard = []
    progress.LISTENERS.append(heard.append)
    try:
        with progress.make_progress(400, "training", "step", 100) as lines:
            lines.set_postfix({"loss": "0.700"}, refresh=False)
            for _ in range(3):
                clock[0] += 20
                lines.update(50)  # 2.5 a second
            clock[0] += 60
            lines.update(150)
    finally:
        progress.LISTENERS.remove(heard.append)
    assert capsys.readouterr().err.splitlines() == heard
    assert heard == [
        "training: 100 of 400 steps (25 %)",
        "training: 200 of 400 steps (50 %), about 1 min 20 s left; loss 0.700",
        "training: 400 of 400 steps (100 %) in 2 min; loss 0.700",
    ]


def test_what_passes_quickly_is_not_worth_a_line(clock, capsys):
    for seconds, lines in ((5, 0), (progress.EVERY, 2)):
        assert list(progress.over(range(2), 2, "reading", "image")) == [0, 1]
        with progress.make_progress(10, "validation", "image", passing=True) as one:
            clock[0] += seconds
            one.update(5)
        assert len(capsys.readouterr().err.splitlines()) == lines


def test_bytes_shares_and_parts(clock, capsys):
    for unit, total, done in (("B", 3_000_000, 1_500_000), ("%", 100, 40), ("run", 3, 0.85)):
        with progress.make_progress(total, "x", unit, done):
            pass
    first = capsys.readouterr().err.splitlines()[::2]
    assert first == ["x: 1.5 of 3 MB (50 %)", "x: 40 %", "x: 0.85 of 3 runs (28 %)"]


def test_a_terminal_has_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress.make_progress(10, "training", "step", 3) as bar:
        bar.update(2)
        assert bar.n == 5 and "training" in sys.stderr.getvalue()


@pytest.mark.parametrize(
    "seconds,words",
    [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (7200, "2 h")],
)
def test_times_in_words(seconds, words):
    assert progress.in_words(seconds) == words
