"""What is attacked, and what an attack leaves of it."""

import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow as tf

from sat_tf import attacks, inputs
from sat_tf.evaluate.active import margin_of

MISCLASSIFIED, ROBUST = -2, -1  # in `Result.stage`: wrong without an attack; still right after all of them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """What is attacked: images, labels, and each one's id, its place in the data.

    Args:
      images: `[n, h, w, 3]`: an array, tensor or list of floats, or of whole numbers where the range is given.
      labels: whole numbers `[n]` or `[n, 1]`, or one-hot rows `[n, classes]`; they become int32 `[n]`.
      ids: `[n]`; None counts from 0.
      value_range: of the images' values, such as (0, 255): they become float32 in [0, 1], in which radii are meant.
        None is the range that the attacked model wants, [0, 1] where it says nothing.

    Raises:
      ValueError: numbers do not fit, or values leave the range.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray = None
    value_range: tuple | None = None

    def __post_init__(self):
        images = inputs.array(self.images)
        ids = np.arange(len(images)) if self.ids is None else np.asarray(self.ids)
        if len(ids) != len(images):
            raise ValueError(
                f"Expected images [n, h, w, 3] with n labels and n ids. Received: {len(images)} images, {len(ids)} ids."
            )
        if self.value_range is not None:
            images = inputs.in_unit_range(images, self.value_range)
            object.__setattr__(self, "value_range", inputs.UNIT)
        labels = inputs.classes_of(self.labels, len(images))
        for name, value in (("images", images), ("labels", labels), ("ids", ids)):
            object.__setattr__(self, name, value)

    @functools.cached_property
    def extent(self) -> tuple[float, float]:
        """The smallest and the largest value of the images."""
        return inputs.extent(self.images)

    def in_unit_range(self, value_range: tuple[float, float] | None = None) -> "Examples":
        """Return examples with images float32 in [0, 1]; a model's `value_range` is theirs where they state none."""
        if self.value_range is not None:
            return self
        images = inputs.in_unit_range(self.images, value_range, stated=False, found=self.extent)
        if images is self.images:
            return self
        return Examples(images=images, labels=self.labels, ids=self.ids, value_range=inputs.UNIT)

    def take(self, chosen: np.ndarray | slice) -> "Examples":
        """Return some of the examples, by their places."""
        rest = {"labels": self.labels[chosen], "ids": self.ids[chosen], "value_range": self.value_range}
        return Examples(images=self.images[chosen], **rest)


@dataclasses.dataclass(kw_only=True)
class Result:
    """What an attack left of a model's accuracy; all arrays `[n]` in the images' order.

    Attributes:
      attack: its name. norm, epsilon: of the ball. step_size: of PGD's steps, None elsewhere. facts: of its stages.
      ids, labels, predictions: of the images as they are. clean_margin: the label's logit minus the largest other.
      stage: number of the stage that fooled the model, `ROBUST`, or `MISCLASSIFIED` without an attack. Where the final
        iterate counts, an image that is misclassified as it is and right after the attack is `ROBUST`, as the paper
        counts.
      run, step: restart or target, and iteration, at which it was fooled (0 is the start); -1 where it was not.
      margin: the smallest that was seen, negative where fooled.
      distance: of the adversarial image in the norm, computed in float64.
      adversarial, slots: float32 `[m, h, w, 3]`, and int `[n]`: the place of each image's there, -1 where it is not
        kept. Where no adversarial image was found: zeros.
      marks, wrong: numbers of steps, and bool `[n, marks]`: whether the model was wrong after them, for PGD's final
        iterates; of worst iterates `step` tells.
      seconds: of wall time.
    """

    attack: str
    norm: str
    epsilon: float
    step_size: float | None
    stages: tuple
    facts: dict
    ids: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    clean_margin: np.ndarray
    stage: np.ndarray
    run: np.ndarray
    step: np.ndarray
    margin: np.ndarray
    distance: np.ndarray
    adversarial: np.ndarray
    marks: tuple
    wrong: np.ndarray
    slots: np.ndarray
    final: bool = False
    seconds: float = 0.0

    @property
    def robust(self) -> np.ndarray:
        """Which images are right, whatever was tried: bool `[n]`."""
        return self.stage == ROBUST

    @property
    def robust_accuracy(self) -> float:
        """Share of all images that are right in every case."""
        return float(self.robust.mean())

    @property
    def clean_accuracy(self) -> float:
        """Share of the images that are right as they are."""
        return float((self.predictions == self.labels).mean())

    @property
    def fooled_by(self) -> np.ndarray:
        """For each image the stage that fooled the model; "clean" where it is misclassified as it is, else ""."""
        words = np.array([*self.stages, "clean", ""])
        return words[self.stage]  # -2 and -1 count from the end

    def left(self, stage: str) -> int:
        """Return how many images are right after a stage and those before it."""
        return int((self.robust | (self.stage > self.stages.index(stage))).sum())

    @property
    def by_step(self) -> dict[int, float]:
        """Return `{steps: share of the images that are right}`, for PGD without restarts; else nothing."""
        if self.final:
            return {mark: float((~wrong).mean()) for mark, wrong in zip(self.marks, self.wrong.T, strict=True)}
        read = self.stage != MISCLASSIFIED
        fooled = np.where(self.stage >= 0, self.step, np.iinfo(np.int32).max)
        return {mark: float((read & (fooled > mark)).mean()) for mark in self.marks}

    def table(self) -> list[dict[str, Any]]:
        """Return one dict an image, as `images.csv` holds them."""
        names = ("id", "label", "clean_prediction", "fooled_by", "run", "step", "margin", "clean_margin", "distance")
        columns = (
            self.ids,
            self.labels,
            self.predictions,
            self.fooled_by,
            self.run,
            self.step,
            self.margin,
            self.clean_margin,
            self.distance,
        )
        return [dict(zip(names, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]

    def keep(self, places: np.ndarray | list[int], adversarial: np.ndarray) -> None:
        """Store adversarial images `[m, h, w, 3]` at places `[m]`, those that are kept."""
        slots = self.slots[places]
        self.adversarial[slots[slots >= 0]] = adversarial[slots >= 0]

    def adversarial_of(self, places: np.ndarray | slice) -> np.ndarray:
        """Return the adversarial images at places `[m]`, all of them kept."""
        return np.asarray(self.adversarial[self.slots[places]])

    def attacked(self, images: np.ndarray, places: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return images at some places as the attack leaves them: adversarial where there is one, else `images`."""
        images = inputs.in_unit_range(images)
        return np.where(self.changed[places, None, None, None], self.adversarial_of(places), images)

    @property
    def changed(self) -> np.ndarray:
        """Which images have an adversarial one: those that fool the model, and those that a final iterate put right."""
        return (self.stage >= 0) | ((self.stage == ROBUST) & (self.predictions != self.labels))


def classes(logits: np.ndarray) -> np.ndarray:
    """Return the class that logits `[n, classes]` tell: `[n]`; -1 where one of them is not a number."""
    return np.where(np.isnan(logits).any(-1), -1, logits.argmax(-1))


def distances(moved: np.ndarray, clean: np.ndarray, norm: str) -> np.ndarray:
    """Return how far images are from others, computed in float64: `[n]`."""
    difference = (moved.astype(np.float64) - clean).reshape(len(moved), -1)
    return np.abs(difference).max(-1, initial=0.0) if norm == "linf" else np.sqrt(np.square(difference).sum(-1))


KEPT = ("stage", "run", "step", "margin", "distance", "wrong")


def blank(
    examples: Examples,
    logits: np.ndarray,
    name: str,
    norm: str,
    epsilon: float,
    step_size: float | None,
    plan: list[attacks.Stage],
    before: Result | None,
    kept: np.ndarray | None,
) -> Result:
    """Return the `Result` of an attack that has not begun; what was fooled `before` is fooled."""
    labels = examples.labels.astype(np.int64)
    predictions, count = classes(logits), len(logits)
    marks = plan[0].marks if plan else ()
    slots = np.arange(count) if kept is None else np.full(count, -1)
    if kept is not None:
        slots[kept] = np.arange(len(kept))
    margin = margin_of(tf.constant(logits), tf.constant(labels.astype(np.int32))).numpy()
    fresh = Result(
        attack=name,
        norm=norm,
        epsilon=epsilon,
        step_size=step_size,
        stages=tuple(stage.name for stage in plan),
        facts={stage.name: stage.facts for stage in plan},
        ids=examples.ids,
        labels=labels,
        predictions=predictions,
        clean_margin=margin,
        stage=np.where(predictions == labels, ROBUST, MISCLASSIFIED),
        run=np.full(count, -1),
        step=np.full(count, -1),
        margin=margin.copy(),
        distance=np.zeros(count),
        adversarial=None,
        marks=marks,
        wrong=np.zeros([count, len(marks)], bool),
        final=any(stage.final for stage in plan),
        slots=slots,
    )
    if before is not None:
        if before.stage.max(initial=0) >= len(plan):
            raise ValueError(f"Expected a result of the same attack before. Received: {before.attack} before {name}.")
        for field in set(KEPT) - {"wrong"}:
            getattr(fresh, field)[:] = getattr(before, field)
    return fresh
