"""How far a long job is: a bar with ETA on a terminal, plain lines with ETA where nobody watches."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

EVERY = 30.0  # seconds between two lines
SILENT = False  # whether nothing is shown, as where another process tells the same
LISTENERS: list[Callable[[str], None]] = []  # what else gets the lines: log.txt of a run


def make_progress(total: float, what: str, unit: str, done: float = 0, *, passing: bool = False, **options: Any) -> Any:
    """Return a progress bar of tqdm on a terminal, else an object that is used in the same way and writes `Lines`.

    Args:
      total: what there is to do.
      what: it is called.
      unit: of `total`.
      done: of it at the start.
      passing: it disappears when it is done, and is not worth a line where it took less than `EVERY` seconds.
      options: of tqdm.
    """
    if SILENT or not sys.stderr.isatty():
        return Lines(total, what, unit, done, passing=passing)
    from tqdm import tqdm

    usual = {"dynamic_ncols": True, "mininterval": 0.5, "smoothing": 0.1, "leave": not passing}
    return tqdm(total=total, initial=done, desc=what, unit=unit, **{**usual, **options})


def over(items: Iterable, total: int, what: str, unit: str) -> Iterator:
    """Yield items, and show how many of them are done, in passing."""
    with make_progress(total, what, unit, passing=True, delay=3) as progress:
        for item in items:
            yield item
            progress.update(1)


class Lines:
    """Progress as lines on stderr: one at the start, one every `EVERY` seconds, one at the end.

    It has what is used here of tqdm's bars: `n`, `update`, `set_postfix`, `set_postfix_str`, `refresh`, `close`.

    Args:
      total, what, unit, done, passing: as for `make_progress`.
    """

    def __init__(self, total: float, what: str, unit: str, done: float = 0, *, passing: bool = False) -> None:
        self.total, self.what, self.unit, self.n = total, what, unit, done
        self.first, self.passing, self.postfix = done, passing, ""
        self.begun = self.shown = time.monotonic()
        self.closed = False
        if not passing:
            self._write(f"{what}: {self._done()}")

    def update(self, count: float = 1) -> None:
        """Add to what is done."""
        self.n += count
        self.refresh()

    def refresh(self) -> None:
        """Write a line where the last one is long ago."""
        if time.monotonic() - self.shown >= EVERY and self.n < self.total:
            self.shown = time.monotonic()
            self._write(f"{self.what}: {self._done()}, {self._left()}{self.postfix}")

    def set_postfix(self, values: dict[str, Any], refresh: bool = True) -> None:
        """Say what stands at the end of the next line, by names."""
        self.set_postfix_str(", ".join(f"{name} {value}" for name, value in values.items()), refresh)

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """Say what stands at the end of the next line."""
        self.postfix = f"; {text}" if text else ""
        if refresh:
            self.refresh()

    def close(self) -> None:
        """Write how it ended."""
        if self.closed:
            return
        self.closed = True
        seconds = time.monotonic() - self.begun
        if not self.passing or seconds >= EVERY:
            self._write(f"{self.what}: {self._done()} in {in_words(seconds)}{self.postfix}")

    def __enter__(self) -> "Lines":
        """Return itself."""
        return self

    def __exit__(self, *_: Any) -> None:
        """Write how it ended."""
        self.close()

    def _done(self):
        share = f"{100 * self.n / self.total:.0f} %" if self.total else ""
        if self.unit == "%":
            return share
        scale, unit = (1e6, "MB") if self.unit == "B" else (1, f"{self.unit}s")
        done, total = (f"{value / scale:,.2f}".rstrip("0").rstrip(".") for value in (self.n, self.total))
        return f"{done} of {total} {unit}" + (f" ({share})" if share else "")

    def _left(self):
        """Return how long the rest takes at the pace so far."""
        made, seconds = self.n - self.first, time.monotonic() - self.begun
        if made <= 0:
            return f"{in_words(seconds)} so far"
        return f"about {in_words((self.total - self.n) * seconds / made)} left"

    def _write(self, line):
        if SILENT:
            return
        print(line, file=sys.stderr, flush=True)
        for listen in LISTENERS:
            listen(line)


def in_words(seconds: float) -> str:
    """Return a time for people: 12 s, 3 min 20 s, 2 h 5 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    big, small, units = (*divmod(seconds, 60), ("min", "s"))
    if big >= 60:
        big, small, units = (*divmod(big, 60), ("h", "min"))
    return f"{big} {units[0]} {small} {units[1]}" if small else f"{big} {units[0]}"
