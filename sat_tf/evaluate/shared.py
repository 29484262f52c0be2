"""An evaluation that several processes share: each attacks a part of the images, and all of them learn everything."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from sat_tf import inputs
from sat_tf.evaluate.attacker import Attacker
from sat_tf.evaluate.results import KEPT, Examples, Result

ONE_EACH = (*KEPT, "predictions", "clean_margin")  # of a Result, one an image


class SharedAttacker(Attacker):
    """An `Attacker` that does its part of the images, every one of which is attacked once by one of the processes.

    What an image is attacked with depends on its id alone, so results are those of one process. All processes call the
    same methods in the same order.

    Args:
      model: as `Attacker` takes it.
      team: has `size` and `index` of this process, and `exchange(arrays) -> [arrays of each]`.
      **options: of `Attacker`.
    """

    def __init__(self, model: Any, *, team: Any, **options: Any) -> None:
        super().__init__(model, **options)
        self.team = team

    def _shares(self, count):
        return 1 < self.team.size <= count

    def read(self, images: np.ndarray, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Return the logits of images float32 in [0, 1], or beyond."""
        if not self._shares(len(images)):
            return super().read(images, progress)
        ends = np.linspace(0, len(images), self.team.size + 1).astype(int)
        begin, end = ends[self.team.index], ends[self.team.index + 1]
        mine = super().read(images[begin:end], progress and _scaled(progress, len(images) / max(end - begin, 1)))
        return np.concatenate([each["logits"] for each in self.team.exchange({"logits": mine})])

    def attack(
        self,
        examples: Examples,
        name: str,
        *,
        logits: np.ndarray | None = None,
        before: Result | None = None,
        kept: np.ndarray | None = None,
        progress: Callable[[float], None] | None = None,
        **options: Any,
    ) -> Result:
        """Return the `Result` of all images, as `Attacker.attack` does."""
        count, (index, size) = len(examples.labels), (self.team.index, self.team.size)
        if not self._shares(count):
            return super().attack(examples, name, logits=logits, before=before, kept=kept, progress=progress, **options)
        examples = inputs.examples(examples).in_unit_range(self.value_range)
        logits = self.read(examples.images) if logits is None else logits
        places = np.arange(index, count, size)
        part = super().attack(
            examples.take(places),
            name,
            logits=logits[places],
            before=before and _taken(before, places),
            kept=None if kept is None else np.flatnonzero(np.isin(places, kept)),
            progress=progress and _scaled(progress, count / len(places)),
            **options,
        )
        return self._joined(examples, part, kept, index, size)

    def _joined(self, examples, part, kept, index, size):
        """Return the results of all processes as one."""
        mine = {name: getattr(part, name) for name in ONE_EACH}
        parts = self.team.exchange({**mine, "adversarial": part.adversarial, "seconds": np.float64(part.seconds)})
        count = len(examples.labels)
        whole = {}
        for name in ONE_EACH:
            whole[name] = np.empty((count, *mine[name].shape[1:]), mine[name].dtype)
            for number, each in enumerate(parts):
                whole[name][number::size] = each[name]
        chosen = np.arange(count) if kept is None else np.asarray(kept)
        slots = np.full(count, -1)
        slots[chosen] = np.arange(len(chosen))
        adversarial = np.zeros((len(chosen), *part.adversarial.shape[1:]), part.adversarial.dtype)
        for number, each in enumerate(parts):
            theirs = np.arange(number, count, size)
            theirs = theirs[slots[theirs] >= 0]
            adversarial[slots[theirs]] = each["adversarial"]
        return dataclasses.replace(
            part,
            ids=examples.ids,
            labels=examples.labels.astype(np.int64),
            slots=slots,
            adversarial=adversarial,
            seconds=max(float(each["seconds"]) for each in parts),
            **whole,
        )


def _taken(result, places):
    """Return a `Result` of the images at some places alone."""
    slots = result.slots[places]
    new = np.full(len(places), -1)
    new[slots >= 0] = np.arange(int((slots >= 0).sum()))
    fields = {name: getattr(result, name)[places] for name in (*ONE_EACH, "ids", "labels")}
    return dataclasses.replace(result, adversarial=result.adversarial[slots[slots >= 0]], slots=new, **fields)


def _scaled(progress, factor):
    """Return a progress that counts each image of this process for those of all."""
    return lambda done: progress(done * factor)
