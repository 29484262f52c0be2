"""A model under attack, image by image: which attack fooled the model, when, and by how much."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from sat_tf import attacks, graphs, inputs
from sat_tf.evaluate.active import ActiveSet
from sat_tf.evaluate.predictor import predictor
from sat_tf.evaluate.results import KEPT, MISCLASSIFIED, ROBUST, Examples, Result, blank, classes, distances
from sat_tf.evaluate.store import Store
from sat_tf.evaluate.work import Work

EVERY = 10.0  # seconds at least between two times that the state is saved
SHARE = 0.05  # of the time, at most, that saving takes


class Attacker:
    """A model with everything that is compiled for attacking it.

    Args:
      model: a Keras model, a SavedModel (its folder, or as loaded), or a function, images `[batch, h, w, 3]` in
        [0, 1] -> logits. Keras models are called in inference mode.
      norm: key of `attacks.BALLS`.
      batch_size: images at a time over all replicas.
      strategy: a `tf.distribute.Strategy`.
      seed: an int; what is random depends on it and on an image's id alone.
      attacked: the model as attacks see it, with other gradients; None for the model itself.
      value_range: of the values that the model wants, such as (0, 255), instead of [0, 1]. Images whose range is not
        stated have it, too; radii, steps and adversarial images are in [0, 1] nevertheless.
      side_by_side: attack several restarts or targets of an image at a time where places of the batch are free; else
        one begins when the one before it has ended. Both find the same of every image.
    """

    def __init__(
        self,
        model: Any,
        *,
        norm: str = "linf",
        batch_size: int = 100,
        strategy: tf.distribute.Strategy | None = None,
        seed: int = 0,
        attacked: Any = None,
        value_range: tuple[float, float] | None = None,
        side_by_side: bool = True,
    ) -> None:
        if norm not in attacks.BALLS:
            raise ValueError(f"Expected a norm of {', '.join(attacks.BALLS)}. Received: norm={norm}.")
        batch_size, self.value_range = inputs.whole("batch_size", batch_size), value_range
        self.predict = predictor(model, value_range)
        self.attacked = predictor(attacked, value_range) if attacked is not None else None
        self.norm, self.batch_size, self.strategy, self.seed = norm, batch_size, strategy, seed
        self.side_by_side = side_by_side
        self._compiled = graphs.compiled(self.predict, self.predict, reduce_retracing=False)
        self._actives, self._programs = {}, {}

    def logits(self, images: np.ndarray, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Return logits float32 `[n, classes]` of images `[n, h, w, c]`, in batches of one shape."""
        return self.read(inputs.in_unit_range(images, self.value_range, stated=False), progress)

    def read(self, images: np.ndarray, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Return the logits of images float32 in [0, 1], or beyond."""
        if not len(images):
            raise ValueError("Expected one image or more. Received: none.")
        self.predict.check(images.shape)
        size, parts = min(self.batch_size, len(images)), []
        for begin in range(0, len(images), size):
            batch = np.asarray(images[begin : begin + size], np.float32)
            missing = [[0, size - len(batch)]] + [[0, 0]] * 3
            parts.append(np.asarray(self._compiled(tf.constant(np.pad(batch, missing))), np.float32)[: len(batch)])
            if progress:
                progress(len(batch))
        return np.concatenate(parts)

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Return the share of images that are read as their label."""
        images = inputs.in_unit_range(images, self.value_range, stated=False)
        labels = inputs.classes_of(labels, len(images))
        logits = self.read(images)
        return float((classes(logits) == inputs.classes_of(labels, len(images), logits.shape[1])).mean())

    def attack(
        self,
        examples: Examples,
        name: str,
        *,
        epsilon: float,
        step_size: float | None = None,
        restarts: int = 1,
        final: bool = False,
        steps: int | None = None,
        logits: np.ndarray | None = None,
        before: Result | None = None,
        kept: np.ndarray | None = None,
        store: Store | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Result:
        """Attack every image that the model reads right; where only the final iterate counts, every image.

        Args:
          examples: an `Examples`.
          name: of `attacks.ATTACKS`, with its number of steps: "pgd-20", "autoattack".
          epsilon: radius in the norm.
          step_size: of PGD in the same unit; None: `default_step_size`.
          restarts: of PGD.
          final: count PGD's final iterate only, the paper's definition, instead of the worst of all.
          steps: iterations or queries instead of the attack's own, for square and noise.
          logits: of the images as they are, where they are known.
          before: a `Result` of the same images in a smaller ball: what is fooled there stays fooled.
          kept: places of the images whose adversarial ones the result holds; None for all.
          store: where the state is saved as it goes, as `store.Store`; None: nowhere.
          progress: is called with numbers that add up to the number of images.

        Returns:
          A `Result`.
        """
        begun = time.monotonic()
        examples = inputs.examples(examples).in_unit_range(self.value_range)
        epsilon, step_size = inputs.check_ball(self.norm, examples.images.shape[1:], epsilon, step_size)
        restarts, steps = inputs.whole("restarts", restarts), steps if steps is None else inputs.whole("steps", steps)
        logits = self.read(examples.images) if logits is None else logits
        inputs.classes_of(examples.labels, len(logits), logits.shape[1])
        terms = attacks.Terms(classes=logits.shape[1], norm=self.norm, steps=steps, restarts=restarts, final=final)
        plan, name_steps = attacks.plan_of(name, terms), attacks.row_of(name)[1]
        if step_size is None:
            step_size = attacks.default_step_size(epsilon, name_steps or steps, self.norm)
        result = blank(
            examples,
            logits,
            name,
            self.norm,
            epsilon,
            _step_size(plan, self.norm, epsilon, step_size),
            plan,
            before,
            kept,
        )
        identity = (
            f"{name}, {self.norm}, {epsilon!r}, {step_size!r}, {restarts}, {final}, {steps}, seed {self.seed}, "
            f"{len(examples.ids)} images"
        )
        saved = store and store.load(identity)
        result.adversarial = (store.array if store else np.zeros)(
            (int((result.slots >= 0).sum()), *examples.images.shape[1:]), np.float32
        )
        first, work = 0, None
        if saved:
            for field in KEPT:
                getattr(result, field)[:] = saved[field]
            result.seconds, first = float(saved["seconds"]), int(saved["number"])
            work = Work.of_arrays(saved["work"]) if saved["work"] else None
        elif before is not None:
            found = np.flatnonzero(before.stage >= 0)
            result.keep(found, before.adversarial_of(found))
        report = _Reporter(result, examples, plan, store, identity, progress, begun)
        for number in range(first, len(plan)):
            attacked = result.robust | (
                plan[number].final & (result.stage == MISCLASSIFIED)
            )  # the plain attack spares no image
            work = work or Work((int(place), 0) for place in np.flatnonzero(attacked))
            chosen = _Chosen(examples, logits, plan[number], number, self.seed)
            report.at(number, self._active(plan[number]).evaluations, work)
            self._active(plan[number]).run(chosen, epsilon, step_size, work, report)
            work = None
        report.finish(save=first < len(plan))
        return result

    def _active(self, stage):
        key = (stage.name, stage.final, str(sorted(stage.facts.items())))
        if key not in self._actives:
            self._actives[key] = ActiveSet(
                self.predict,
                stage,
                self.norm,
                self.batch_size,
                strategy=self.strategy,
                attacked=self.attacked,
                side_by_side=self.side_by_side,
                turns=self._programs.setdefault(stage.program or key, {}),
            )
        return self._actives[key]


class _Chosen:
    """Images with the targets and seeds of one stage."""

    def __init__(self, examples, logits, stage, number, seed):
        self.images, self.labels = examples.images, examples.labels.astype(np.int32)
        others = logits.astype(np.float64)
        others[np.arange(len(others)), self.labels] = -np.inf
        order = np.argsort(-others, axis=1, kind="stable")
        runs = np.arange(stage.runs)
        self.targets = order[:, runs % (logits.shape[1] - 1)].astype(np.int32)
        ids = examples.ids.astype(np.int32)[:, None] + 0 * runs.astype(np.int32)[None]
        if stage.paired:  # the first run's is the seed itself, as of `attacks.PGD`
            firsts = np.where(runs == 0, seed, attacks.hashed(tf.constant(seed), number, runs).numpy().astype(np.int32))
            self.seeds = np.stack([np.broadcast_to(firsts, ids.shape), ids], -1).astype(np.int32)
        else:
            self.seeds = attacks.hashed(tf.constant(seed), number, ids, runs[None]).numpy().astype(np.int32)


class _Reporter:
    """What happens after every turn: results are taken down, the state is saved now and then, progress is told."""

    def __init__(self, result, examples, plan, store, identity, progress, begun):
        self.result, self.examples, self.plan, self.store, self.identity = result, examples, plan, store, identity
        self.progress, self.before, self.begun = progress or (lambda count: None), result.seconds, begun
        self.saved, self.saving, self.told, self.number = time.monotonic(), 0.0, 0.0, 0

    def at(self, number, evaluations, work):
        self.number, self.evaluations = number, evaluations
        self._tell(work)

    def __call__(self, work, ended):
        result = self.result
        for end in ended:
            place = end.place
            first = self.plan[self.number].final and not end.run
            result.margin[place] = end.margin if first else min(result.margin[place], end.margin)
            if end.wrong is not None:
                result.wrong[place] = end.wrong
            misclassified = result.stage[place] == MISCLASSIFIED
            if misclassified and not end.fooled:
                result.stage[place] = ROBUST
            elif end.fooled and not misclassified:
                result.stage[place], result.run[place], result.step[place] = self.number, end.run, end.step
            if misclassified != end.fooled:  # fooled, or put right by a final iterate
                result.keep([place], end.adversarial[None])
                result.distance[place] = distances(end.adversarial[None], self.examples.images[place], result.norm)[0]
        if self.store and time.monotonic() - self.saved > max(EVERY, self.saving / SHARE):
            self._save(self.number, work)
        self._tell(work)

    def finish(self, save):
        self.result.seconds = self._seconds()
        if self.store and save:
            self._save(len(self.plan), None)
        self._tell(None)

    def _seconds(self):
        return self.before + time.monotonic() - self.begun

    def _save(self, number, work):
        before = time.monotonic()
        facts = {"number": number, "identity": self.identity, "seconds": self._seconds()}
        arrays = {**{name: getattr(self.result, name) for name in KEPT}, **facts}
        self.store.save(arrays, work.arrays() if work else {})
        self.saved = time.monotonic()
        self.saving = self.saved - before

    def _tell(self, work):
        """Say how many images are done, in parts: a robust one is done after every run of every stage."""
        count, stages = len(self.result.stage), len(self.plan)
        left = int(self.result.robust.sum())
        if work is None:
            done = count
        else:
            stage, busy = self.plan[self.number], work.places >= 0
            share = work.left(stage.runs)
            if busy.any():
                share -= float(np.minimum(work.state["step"][busy] / self.evaluations, 1).sum())
            share /= max(stage.runs, 1)
            done = count - (share + (stages - self.number - 1) * left) / stages
        self.progress(done - self.told)
        self.told = done


def _step_size(plan, norm, epsilon, step_size):
    """Return the step size of an attack's one stage; None of an ensemble, and of stages that have none."""
    stages = [stage.attack(attacks.BALLS[norm](epsilon=epsilon), step_size) for stage in plan]
    return getattr(stages[0], "step_size", None) if len(stages) == 1 else None
