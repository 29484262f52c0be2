"""What is left of a stage: a queue of runs, the batch that is being attacked, and runs that ended before their turn."""

import collections
import itertools
from collections.abc import Iterable

import numpy as np

Arrays = dict[str, np.ndarray]
Ended = collections.namedtuple("Ended", "place run step fooled margin adversarial wrong")


class Work:
    """The runs of a stage that are left, pairs `(place, run)`: the run-th restart or target of the image at a place.

    Runs of an image may be attacked side by side. They count as if each had begun when the one before it had ended in
    vain: `settle` gives them in their order, and drops those that a fooled one makes needless.

    Args:
      queue: pairs that wait, of each image the next that has not begun.
    """

    def __init__(self, queue: Iterable[tuple[int, int]] = ()) -> None:
        self.queue = collections.deque(queue)
        self.places, self.runs = np.zeros(0, np.int64), np.zeros(0, np.int64)  # -1: a free place of the batch
        self.fresh, self.state = np.zeros(0, bool), {}
        self.held = {}  # (place, run): Ended, while an earlier run of the image is at work
        self.limit = 0  # free places are filled when no more than so many runs are at work

    @property
    def busy(self) -> int:
        """How many places are taken."""
        return int((self.places >= 0).sum())

    def left(self, runs: int) -> int:
        """Return how many runs are waiting, at work or may have to begin, `runs` an image."""
        return len(self.queue) + self.busy + sum(runs - run for run in self.unbegun(runs).values())

    def unbegun(self, runs: int) -> dict[int, int]:
        """Return `{place: run}`: of each image the first of its `runs` that neither waits nor has begun."""
        if runs == 1:
            return {}
        fooled = {place for (place, _), end in self.held.items() if end.fooled}
        last = self._last_runs()
        return {place: run + 1 for place, run in last.items() if run + 1 < runs and place not in fooled}

    def _last_runs(self):
        """Return the last run that waits or has begun of each image that is not done."""
        last = {}
        for place, run in itertools.chain(self.queue, self._working(), self.held):
            last[place] = max(run, last.get(place, run))
        return last

    def _working(self):
        busy = self.places >= 0
        return zip(self.places[busy].tolist(), self.runs[busy].tolist(), strict=True)

    def settle(self, ends: list[Ended], runs: int) -> list[Ended]:
        """Take down runs that have left the batch; return all whose turn it is.

        Where an image's last one that has begun ended in vain, its next goes to the end of the queue.

        Args:
          ends: what they found.
          runs: how many an image has.
        """
        if runs == 1:
            return ends
        self.held |= {(end.place, end.run): end for end in ends}
        self._drop_after({(end.place, end.run) for end in ends if end.fooled})
        last = self._last_runs()
        for end in ends:
            if not end.fooled and last.get(end.place) == end.run and end.run + 1 < runs:
                self.queue.append((end.place, end.run + 1))
        return self._in_turn(dict.fromkeys(end.place for end in ends))

    def _drop_after(self, fooled):
        """Drop the runs of images that come after one of `fooled`, pairs."""
        firsts = {}
        for place, run in fooled:
            firsts[place] = min(run, firsts.get(place, run))
        needless = lambda pair: firsts.get(pair[0], pair[1]) < pair[1]  # noqa: E731
        self.queue = collections.deque(pair for pair in self.queue if not needless(pair))
        self.held = {pair: end for pair, end in self.held.items() if not needless(pair)}
        slots = [slot for slot in np.flatnonzero(self.places >= 0) if needless((self.places[slot], self.runs[slot]))]
        self.places[slots] = self.runs[slots] = -1
        self.state["fooled"][slots] = True  # which ends the attack there

    def _in_turn(self, places):
        """Return the runs of images, in their order, that no earlier one at work keeps waiting; they are let go."""
        first = {}
        for place, run in self._working():
            first[place] = min(run, first.get(place, run))
        mine = collections.defaultdict(list)
        for place, run in sorted(self.held):
            if place in places and run < first.get(place, run + 1):
                mine[place].append(self.held.pop((place, run)))
        return [end for place in places for end in mine[place]]

    def resize(self, size: int, blank: Arrays) -> None:
        """Move the images that are at work to a batch of another size; `blank` is the state of free places."""
        old, busy = self.state, np.flatnonzero(self.places >= 0)
        places, runs, fresh = np.full(size, -1), np.full(size, -1), np.zeros(size, bool)
        places[: len(busy)], runs[: len(busy)] = self.places[busy], self.runs[busy]
        for name, values in blank.items():
            if len(busy):
                values[: len(busy)] = old[name][busy]
        self.places, self.runs, self.fresh, self.state = places, runs, fresh, blank

    def arrays(self) -> Arrays:
        """Return everything as arrays by name, as `of_arrays` takes it."""
        return {
            "queue": np.array(self.queue, np.int64).reshape(-1, 2),
            "places": self.places,
            "runs": self.runs,
            "fresh": self.fresh,
            "limit": np.int64(self.limit),
            **{f"state/{name}": value for name, value in self.state.items()},
            **{f"held/{name}": value for name, value in self._held_arrays().items()},
        }

    def _held_arrays(self):
        """Return each field of the held runs as an array of those that are not None, and which these are."""
        arrays = {}
        for name, values in zip(Ended._fields, zip(*self.held.values(), strict=True), strict=False):
            known = np.array([value is not None for value in values])
            arrays[name] = np.array([value for value in values if value is not None])
            arrays[f"{name}_known"] = known
        return arrays

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> "Work":
        """Return the work that `arrays` gave."""
        work = cls(map(tuple, arrays["queue"].tolist()))
        work.places, work.runs, work.fresh = (np.array(arrays[name]) for name in ("places", "runs", "fresh"))
        work.limit = int(arrays.get("limit", work.busy))
        state, held = (
            {name.removeprefix(kind): np.array(value) for name, value in arrays.items() if name.startswith(kind)}
            for kind in ("state/", "held/")
        )
        work.state = state
        for end in _held_of(held):
            work.held[end.place, end.run] = end
        return work


def _held_of(arrays):
    """Return the runs of `_held_arrays`."""
    if not arrays:
        return []
    columns = []
    for name in Ended._fields:
        values = iter(arrays[name])
        columns.append([next(values) if known else None for known in arrays[f"{name}_known"]])
    ends = [Ended(*row) for row in zip(*columns, strict=True)]
    return [
        end._replace(place=int(end.place), run=int(end.run), step=int(end.step), fooled=bool(end.fooled))
        for end in ends
    ]
