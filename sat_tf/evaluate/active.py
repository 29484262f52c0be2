"""An attack on a queue of images: what is fooled leaves its place in the batch, and the next image takes it.

Batches keep a static shape, that of a ladder of sizes which fits what there is to do: at most two places in seven are
free at first, and none where the attack is so long that they would cost as much as a trace. A batch shrinks once a
smaller one of a quarter does, or one whose places less save more evaluations than a trace costs: few sizes are traced,
once each, and the last images do not pay for a whole batch.
"""

import collections
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from sat_tf import attacks, graphs, losses, replicas
from sat_tf.evaluate.work import Ended, Work

FREED = 8  # a turn ends when one place in so many is free
SMALLEST = 4  # images a replica
SHRINK = 4  # a batch takes the place of one so many times as large, or where it
SAVED = 2500  # evaluates so many images less: a trace's time with ResNet-20 at 32 px; larger networks gain sooner
MARKS = 32  # numbers of steps, at most, at which one program looks; `attacks.marks` has 25 of 10^8
TOLD = ("step", "fooled", "adversarial", "margin", "wrong")  # of a state, when its image is done; the rest is dropped
NEARLY = 1.1  # times the fewest places that are no reason for smaller batches
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
      side_by_side: fill places that no image of the queue takes with further runs of those at work; else a run begins
        when the one before it has ended. Both give the same.
      turns: where what is compiled is kept by the size of its batch, for all stages of one `program`.
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
        side_by_side: bool = True,
        turns: dict[int, Callable] | None = None,
    ) -> None:
        self.predict, self.attacked = predict, attacked or predict
        self.stage, self.ball, self.side_by_side = stage, attacks.BALLS[norm], side_by_side
        self.strategy = strategy or tf.distribute.get_strategy()
        self.replicas = replicas.here(self.strategy)
        most = max(batch_size // self.replicas, 1)
        self.sizes = [self.replicas * part for part in ladder(most)]
        self.traces = 0
        self._turns = {} if turns is None else turns
        attack = stage.attack(self.ball(epsilon=1.0), 1.0)
        self.evaluations = attack.evaluations
        self._parts = self.predict, self.attacked, attack

    def run(
        self, examples: Any, epsilon: float, step_size: float, work: Work, report: Callable[[Work, list[Ended]], None]
    ) -> None:
        """Attack images until every one is fooled or has withstood all runs.

        Args:
          examples: has `images` float32 `[n, h, w, 3]`, `labels` `[n]`, `targets` `[n, runs]` and
            `seeds` `[n, runs, ...]`.
          epsilon, step_size: numbers.
          work: a `Work`; it is changed, and holds at every moment between two reports all that is left to do.
          report: `(work, ended) -> None` after every turn; `ended` lists `Ended` runs, an image's in their order.
        """
        radius = attacks.rounded_down(epsilon)
        while work.queue or work.busy:
            if work.busy <= work.limit:
                self._fill(examples, work)
                work.limit = self._limit(work)
            work.state = self._advance(examples, work, radius, step_size)
            work.fresh[:] = False
            report(work, work.settle(self._collect(work), self.stage.runs))

    def _limit(self, work):
        """Return how many runs may still be at work when places are filled again."""
        size = len(work.places)
        if work.queue or self._early(work):
            return work.busy - max(1, size // FREED)
        smaller = [other for other in self.sizes if other < size and self._pays(other, work, waiting=False)]
        return min(smaller[-1] if smaller else 0, work.busy - 1)

    def _first(self, runs):
        """Return the size of a first batch for some runs: of the ladder, or theirs where free places cost as much."""
        size, fewest = fitting(self.sizes, runs), self.replicas * math.ceil(runs / self.replicas)
        return fewest if (size - fewest) * self.evaluations >= SAVED else size

    def _pays(self, size, work, *, waiting):
        """Say whether a smaller batch is worth its trace; some runs have not begun where they are `waiting`."""
        now, taken = len(work.places), work.places >= 0
        done = 0 if waiting else int(np.where(work.fresh, 0, work.state["step"])[taken].min())
        return size <= now // SHRINK or (now - size) * (self.evaluations - done) >= SAVED

    def _early(self, work):
        """Return `(place, run)` of runs that may begin before earlier ones of their image end; at most a batch."""
        if not self.side_by_side or len(work.queue) >= self.sizes[-1]:
            return []
        unbegun = work.unbegun(self.stage.runs).items()
        pairs = sorted((run, place) for place, first in unbegun for run in range(first, self.stage.runs))
        return [(place, run) for run, place in pairs[: self.sizes[-1]]]

    def _fill(self, examples, work):
        """Give every free place to the next run, in a batch no larger than it need be."""
        early = collections.deque(self._early(work))
        now, wanted = len(work.places), min(work.busy + len(work.queue) + len(early), self.sizes[-1])
        size = next(size for size in self.sizes if size >= wanted)
        if not now:
            size = self._first(len(work.queue) * (self.stage.runs if self.side_by_side else 1))
            work.resize(size, self._blank(examples, size))
        elif size < now and self._pays(size, work, waiting=bool(work.queue or early)):
            work.resize(size, self._blank(examples, size))
        for slot in np.flatnonzero(work.places < 0):
            if not work.queue and not early:
                break
            work.places[slot], work.runs[slot] = (work.queue or early).popleft()
            work.fresh[slot] = True

    def _blank(self, examples, size):
        """Return the state of `size` free places."""
        images = tf.zeros([1, *examples.images.shape[1:]])
        attack = self._attack(tf.constant(0.0), 0.0, self._settings())
        state = attack.begin(images, tf.zeros([1, 2] if self.stage.paired else [1], tf.int32))
        state = {name: np.repeat(value.numpy(), size, 0) for name, value in state.items()}
        return {**state, "step": np.full(size, self.evaluations, np.int32)}

    def _settings(self):
        """Return what stages of one program differ in, as tensors by name; of a stage by itself nothing."""
        if not self.stage.program:
            return {}
        marks = np.full(MARKS, -1, np.int32)
        marks[: len(self.stage.marks)] = self.stage.marks
        return {
            "steps": tf.constant(self.evaluations - 1),
            "final": tf.constant(self.stage.final),
            "marks": tf.constant(marks),
        }

    def _attack(self, epsilon, step_size, settings):
        attack = self.stage.attack(self.ball(epsilon=epsilon), step_size)
        return dataclasses.replace(attack, **settings) if settings else attack

    def _done(self, state):
        return state["fooled"] | (state["step"] >= self.evaluations)

    def _advance(self, examples, work, epsilon, step_size):
        """Return the state after some iterations: until as many runs are done as have to be, or `LONGEST`."""
        places, runs = np.maximum(work.places, 0), np.maximum(work.runs, 0)
        batch = {
            "images": examples.images[places],
            "labels": examples.labels[places],
            "targets": examples.targets[places, runs],
            "seeds": examples.seeds[places, runs],
            "fresh": work.fresh,
        }
        spread = replicas.spread(self.strategy, (batch, work.state))
        limit, most = tf.constant(work.limit // self.replicas, tf.int32), tf.constant(LONGEST)
        numbers = limit, most, tf.constant(epsilon), tf.constant(step_size, tf.float32)
        if len(places) not in self._turns:
            self._turns[len(places)] = graphs.compiled(self._turn_of_all, *self._parts)
        result = self._turns[len(places)](*spread, *numbers, self._settings())
        gathered = {name: self.strategy.experimental_local_results(value) for name, value in result.items()}
        return {name: np.concatenate([part.numpy() for part in values]) for name, values in gathered.items()}

    def _turn_of_all(self, *arguments):
        self.traces += 1
        return self.strategy.run(self._turn_of_one, args=arguments)

    def _turn_of_one(self, batch, state, limit, most, epsilon, step_size, settings):
        """Advance until at most `limit` images are at work, at most `most` times; who is done stays as it is."""
        attack = self._attack(epsilon, step_size, settings)
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
            new = attack.advance(objective, images, state)
            return count + 1, {
                **new,
                **choose(working(state), {name: new[name] for name in TOLD if name in new}, state),
            }

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

    def _collect(self, work):
        """Free the places of runs that are done; return these."""
        ends, state = [], work.state
        for slot in np.flatnonzero(self._done(state) & (work.places >= 0)):
            fooled = bool(state["fooled"][slot])
            ends.append(
                Ended(
                    int(work.places[slot]),
                    int(work.runs[slot]),
                    int(state["step"][slot]) - 1,
                    fooled,
                    float(state["margin"][slot]),
                    state["adversarial"][slot].copy() if fooled or self.stage.final else None,
                    state["wrong"][slot, : len(self.stage.marks)].copy() if self.stage.marks else None,
                )
            )
            work.places[slot] = work.runs[slot] = -1
        return ends


def ladder(most: int) -> list[int]:
    """Return batch sizes, the smallest first: `most`, and each of the others half of the next but one."""
    sizes = {most}
    while (size := math.ceil(most / 2 ** (len(sizes) / 2))) >= min(SMALLEST, most) and size not in sizes:
        sizes.add(size)
    return sorted(sizes)


def fitting(sizes: list[int], runs: int) -> int:
    """Return the largest size of batches that leaves next to no more places free than any; half of the most, at least.

    Args:
      sizes: the smallest first.
      runs: that all take as long.
    """
    taken = {size: math.ceil(runs / size) * size for size in sizes if size >= min(runs, sizes[-1] / 2)}
    return max(size for size, places in taken.items() if places <= NEARLY * min(taken.values()))


def choose(flags: tf.Tensor, new: attacks.State, old: attacks.State) -> attacks.State:
    """Return what `new` holds with the new values of the images that `flags`, `[batch]`, names, else the old ones."""
    return {name: attacks.pick(flags, value, old[name]) for name, value in new.items()}


def wrong(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Say which images are not classified as their label: `[batch]`; no class is what NaN is."""
    unread = tf.reduce_any(tf.math.is_nan(logits), -1)
    return unread | (tf.argmax(logits, -1, labels.dtype) != labels)


def margin_of(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return the label's logit minus the largest other one: `[batch]`, negative where wrong."""
    return -losses.margin(logits, labels)
