"""An attack on a queue of images: what is fooled leaves its place in the batch, and the next image takes it.

Batches keep a static shape, that of a ladder of sizes which fits what there is to do: at most two places in seven are
free at first. A batch shrinks once a smaller one of a quarter does, so that a few sizes are traced once each (a trace
costs as much as hundreds of iterations) and the last images do not pay for a whole batch.
"""

import collections
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from sat_tf import attacks, losses, replicas

Arrays = dict[str, np.ndarray]

FREED = 8  # a turn ends when one place in so many is free
SMALLEST = 4  # images a replica
SHRINK = 4  # a batch takes the place of one so many times as large
LONGEST = 20  # iterations a turn: progress is shown and a signal answered in between


class ActiveSet:
    """A stage's attack on any number of images, compiled once for each batch size.

    Args:
      predict: images `[batch, h, w, 3]` in [0, 1] -> logits, whose errors count.
      stage: of a plan, see `attacks.table`.
      norm: key of `attacks.BALLS`.
      batch_size: images at a time over all replicas, the most.
      strategy: a `tf.distribute.Strategy`.
      attacked: the model as the attack sees it, with other gradients; None for the model itself.
    """

    def __init__(
        self,
        predict: Callable[[tf.Tensor], tf.Tensor],
        stage: attacks.Stage,
        norm: str,
        batch_size: int,
        *,
        strategy: tf.distribute.Strategy | None = None,
        attacked: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ) -> None:
        self.predict, self.attacked = predict, attacked or predict
        self.stage, self.ball = stage, attacks.BALLS[norm]
        self.strategy = strategy or tf.distribute.get_strategy()
        self.replicas = replicas.here(self.strategy)
        most = max(batch_size // self.replicas, 1)
        self.sizes = [self.replicas * part for part in ladder(most)]
        self.traces = 0
        self._turns = {size: tf.function(self._turn_of_all) for size in self.sizes}
        self.evaluations = stage.attack(self.ball(epsilon=1.0), 1.0).evaluations

    def run(
        self,
        examples: Any,
        epsilon: float,
        step_size: float,
        work: "Work",
        report: Callable[["Work", list["Ended"]], None],
    ) -> None:
        """Attack images until every one is fooled or has withstood all runs.

        Args:
          examples: has `images` float32 `[n, h, w, 3]`, `labels` `[n]`, `targets` `[n, runs]` and
            `seeds` `[n, runs, ...]`.
          epsilon, step_size: numbers.
          work: a `Work`; it is changed, and holds at every moment between two reports all that is left to do.
          report: `(work, ended) -> None` after every turn; `ended` lists `Ended` images.
        """
        radius = attacks.rounded_down(epsilon)
        while work.queue or work.busy:
            self._fill(examples, work)
            state, most = work.state, tf.constant(LONGEST)
            limit = self._limit(work)
            while True:
                state = self._advance(examples, work, state, limit, most, radius, step_size)
                work.fresh[:] = False
                if int((~self._done(state)).sum()) <= limit:
                    break
                work.state = state
                report(work, [])
            work.state = state
            report(work, self._collect(examples, work))

    def _limit(self, work):
        """Return how many images may still be at work when a turn ends."""
        size = len(work.places)
        if work.queue:
            return work.busy - max(1, size // FREED)
        smaller = [other for other in self.sizes if other <= size // SHRINK]
        return min(smaller[-1] if smaller else 0, work.busy - 1)

    def _fill(self, examples, work):
        """Give every free place to the next image of the queue, in a batch no larger than it need be."""
        wanted = min(work.busy + len(work.queue), self.sizes[-1])
        size, now = next(size for size in self.sizes if size >= wanted), len(work.places)
        if size > now or size <= now // SHRINK:
            work.resize(size, self._blank(examples, size))
        for slot in np.flatnonzero(work.places < 0):
            if not work.queue:
                break
            work.places[slot], work.runs[slot] = work.queue.popleft()
            work.fresh[slot] = True

    def _blank(self, examples, size):
        """Return the state of `size` free places."""
        images = tf.zeros([1, *examples.images.shape[1:]])
        state = self.stage.attack(self.ball(epsilon=tf.constant(0.0)), 0.0).begin(
            images, tf.zeros([1, 2] if self.stage.paired else [1], tf.int32)
        )
        state = {name: np.repeat(value.numpy(), size, 0) for name, value in state.items()}
        return {**state, "step": np.full(size, self.evaluations, np.int32)}

    def _done(self, state):
        return state["fooled"] | (state["step"] >= self.evaluations)

    def _advance(self, examples, work, state, limit, most, epsilon, step_size):
        places, runs = np.maximum(work.places, 0), np.maximum(work.runs, 0)
        batch = {
            "images": examples.images[places],
            "labels": examples.labels[places],
            "targets": examples.targets[places, runs],
            "seeds": examples.seeds[places, runs],
            "fresh": work.fresh,
        }
        spread = replicas.spread(self.strategy, (batch, state))
        limit = tf.constant(limit // self.replicas, tf.int32)
        result = self._turns[len(places)](
            *spread, limit, most, tf.constant(epsilon), tf.constant(step_size, tf.float32)
        )
        gathered = {name: self.strategy.experimental_local_results(value) for name, value in result.items()}
        return {name: np.concatenate([part.numpy() for part in values]) for name, values in gathered.items()}

    def _turn_of_all(self, batch, state, limit, most, epsilon, step_size):
        self.traces += 1
        return self.strategy.run(self._turn_of_one, args=(batch, state, limit, most, epsilon, step_size))

    def _turn_of_one(self, batch, state, limit, most, epsilon, step_size):
        """Advance until at most `limit` images are at work, at most `most` times; who is done stays as it is."""
        attack = self.stage.attack(self.ball(epsilon=epsilon), step_size)
        images, labels = batch["images"], batch["labels"]
        objective = self.objective(labels, batch["targets"])
        state = tf.cond(
            tf.reduce_any(batch["fresh"]),
            lambda: choose(batch["fresh"], attack.begin(images, batch["seeds"]), state),
            lambda: dict(state),
        )

        def working(state):
            return ~(state["fooled"] | (state["step"] >= attack.evaluations))

        def wanted(count, state):
            return (count < most) & (tf.reduce_sum(tf.cast(working(state), tf.int32)) > limit)

        def body(count, state):
            return count + 1, choose(working(state), attack.advance(objective, images, state), state)

        _, state = tf.while_loop(wanted, body, (0, state), parallel_iterations=1)
        return state

    def objective(self, labels: tf.Tensor, targets: tf.Tensor) -> attacks.Objective:
        """Return `images -> (values, fooled, margin)`; see `attacks.states`."""

        def evaluate(images):
            logits = tf.cast(self.attacked(images), tf.float32)
            values = self.stage.loss(logits, labels, targets)
            evaluated = logits if self.attacked is self.predict else tf.cast(self.predict(images), tf.float32)
            return values, wrong(evaluated, labels), tf.stop_gradient(margin_of(evaluated, labels))

        return evaluate

    def _collect(self, examples, work):
        """Free the places of images that are done; those with runs left go to the end of the queue."""
        ended, final = [], self.stage.final
        for slot in np.flatnonzero(self._done(work.state) & (work.places >= 0)):
            place, run = int(work.places[slot]), int(work.runs[slot])
            fooled, margin = bool(work.state["fooled"][slot]), float(work.state["margin"][slot])
            work.places[slot] = work.runs[slot] = -1
            if not fooled and run + 1 < self.stage.runs:
                work.queue.append((place, run + 1))
            ended.append(
                Ended(
                    place,
                    run,
                    int(work.state["step"][slot]) - 1,
                    fooled,
                    margin,
                    work.state["adversarial"][slot].copy() if fooled or final else None,
                    work.state["wrong"][slot].copy() if self.stage.marks else None,
                )
            )
        return ended


def ladder(most: int) -> list[int]:
    """Return batch sizes, the smallest first: `most`, and each of the others half of the next but one."""
    sizes = {most}
    while (size := math.ceil(most / 2 ** (len(sizes) / 2))) >= min(SMALLEST, most) and size not in sizes:
        sizes.add(size)
    return sorted(sizes)


Ended = collections.namedtuple("Ended", "place run step fooled margin adversarial wrong")


class Work:
    """What is left of a stage: the queue of `(place, run)`, and the batch that is being attacked.

    Args:
      queue: pairs.
    """

    def __init__(self, queue: Iterable[tuple[int, int]] = ()) -> None:
        self.queue = collections.deque(queue)
        self.places, self.runs = np.zeros(0, np.int64), np.zeros(0, np.int64)  # -1: a free place
        self.fresh, self.state = np.zeros(0, bool), {}

    @property
    def busy(self) -> int:
        """How many places are taken."""
        return int((self.places >= 0).sum())

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
            **{f"state/{name}": value for name, value in self.state.items()},
        }

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> "Work":
        """Return the work that `arrays` gave."""
        work = cls(map(tuple, arrays["queue"].tolist()))
        work.places, work.runs, work.fresh = (np.array(arrays[name]) for name in ("places", "runs", "fresh"))
        work.state = {
            name.removeprefix("state/"): np.array(value) for name, value in arrays.items() if name.startswith("state/")
        }
        return work


def choose(flags: tf.Tensor, new: attacks.State, old: attacks.State) -> attacks.State:
    """Return a state with the new values of the images that `flags`, `[batch]`, names."""
    return {name: attacks.pick(flags, new[name], old[name]) for name in old}


def wrong(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Say which images are not classified as their label: `[batch]`; no class is what NaN is."""
    unread = tf.reduce_any(tf.math.is_nan(logits), -1)
    return unread | (tf.argmax(logits, -1, labels.dtype) != labels)


def margin_of(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return the label's logit minus the largest other one: `[batch]`, negative where wrong."""
    return -losses.margin(logits, labels)
