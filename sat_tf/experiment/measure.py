"""What an evaluation measures: each attack image by image, accuracy by steps and by radius, corruptions, a panel."""

import os
import pathlib
import time

import keras
import numpy as np
from absl import logging

from sat_tf import console, corruptions, evaluate, report
from sat_tf.distribute import strategies
from sat_tf.evaluate import rows, sanity, saved
from sat_tf.evaluate.results import classes
from sat_tf.experiment import record
from sat_tf.experiment.subject import Subject
from sat_tf.progress import in_words

CORRUPTED = 2000  # images at most that are corrupted, by 15 kinds in 5 severities
TRACED = 2.0  # seconds that a check takes before it computes, about
KEPT = 2**26  # bytes of images up to which every adversarial one is kept anyway


class Measurement:
    """A `Subject` under its recipe's attacks; what is found is kept in a folder as it goes.

    Args:
      subject: what is evaluated.
      work: the folder of the state.
      keep_all: keep every adversarial image, not only those of the panel.
    """

    def __init__(self, subject: Subject, work: pathlib.Path, *, keep_all: bool) -> None:
        self.subject, self.recipe, self.work = subject, subject.recipe, pathlib.Path(work)
        self.attacker = evaluate.SharedAttacker(
            subject.model,
            team=strategies.team(),
            norm=self.recipe.eval_norm,
            batch_size=subject.batch_size,
            strategy=subject.strategy,
            seed=self.recipe.seed,
            attacked=subject.attacked,
            side_by_side=self.recipe.eval_side_by_side,
        )
        with console.make_progress(subject.count, "reading", "image", passing=True) as progress:
            self.examples = evaluate.read_examples(
                subject.batches, subject.count, subject.dataset.test.places, self.work, progress.update
            )
        with console.make_progress(subject.count, "clean", "image") as progress:
            self.logits = self.attacker.logits(self.examples.images, progress.update)
        self.shown = rows.shown_of(self.examples.labels)
        keep_all = keep_all or self.examples.images.nbytes <= KEPT
        self.kept = None if keep_all or self.recipe.eval_radii else self.shown
        self.results = {}

    @property
    def correct(self) -> int:
        """How many images are right as they are."""
        return int((self.logits.argmax(-1) == self.examples.labels).sum())

    def rows(self) -> list[dict]:
        """Return the report's rows, one an attack."""
        found = []
        for name in self.recipe.eval_attacks:
            if name == "clean":
                found.append(record.clean_row(self.correct, len(self.logits), self.recipe))
                continue
            self.results[name] = self.attack(name, self.recipe.evaluated_epsilon, name)
            found.append(record.row_of(self.results[name], self.recipe))
        return found

    def attack(
        self, name: str, epsilon: float, label: str, before: evaluate.Result | None = None, words: str | None = None
    ) -> evaluate.Result:
        """Return the `Result` of one attack; `label` names its folder."""
        with console.make_progress(len(self.logits), words or name, "image") as progress:
            return self.attacker.attack(
                self.examples,
                name,
                epsilon=epsilon,
                step_size=self.recipe.eval_step_size,
                restarts=self.recipe.eval_restarts,
                final=not self.recipe.eval_active_set,
                logits=self.logits,
                before=before,
                kept=self.kept,
                store=evaluate.Store(self.work / label),
                progress=console.whole_steps(progress),
            )

    def curve(self) -> dict | None:
        """Return accuracy by steps of the longest attack, for the report; None without one of several."""
        return rows.curve(self.results, self.correct)

    def by_class(self) -> dict:
        """Return accuracies and confusions class by class, for the report."""
        labels, count = self.examples.labels, len(self.subject.dataset.classes)
        predicted = {"clean": classes(self.logits)}
        right = {"clean": predicted["clean"] == labels, **{name: each.robust for name, each in self.results.items()}}
        strongest = min(self.results, key=lambda name: self.results[name].robust_accuracy, default=None)
        if strongest and self.kept is None:
            predicted[strongest] = self._attacked_classes(self.results[strongest])
        return report.by_class.counted(labels, right, predicted, count)

    def _attacked_classes(self, result):
        """Return the class that the model says of every image as an attack leaves it: that of fooled ones is read."""
        said = np.where(result.robust, result.labels, result.predictions)
        size = min(self.attacker.batch_size, len(self.logits))
        places = np.flatnonzero(result.stage >= 0)
        with console.make_progress(len(places), "reading adversarial images", "image", passing=True) as progress:
            for begin in range(0, len(places), size):
                some = places[begin : begin + size]
                filled = np.resize(some, size)  # one shape for every batch
                said[some] = classes(self.attacker.read(result.adversarial_of(filled)))[: len(some)]
                progress.update(len(some))
        return said

    def radii(self) -> dict | None:
        """Return accuracy against the radius under the last attack, for the report; None where none is asked for."""
        if not self.recipe.eval_radii:
            return None
        name, before, correct = self.recipe.eval_attacks[-1], None, []
        radii = sorted(set(self.recipe.eval_radii))
        for epsilon in radii:
            if not epsilon:
                correct.append(self.correct)
                continue
            words = f"{name}, radius {report.format_radius(epsilon, self.recipe.eval_norm)}"
            before = self.attack(name, epsilon, f"{name}-radius-{epsilon:.9g}", before, words)
            correct.append(int(before.robust.sum()))
        return {
            "attack": name,
            "norm": self.recipe.eval_norm,
            "radii": radii,
            "correct": correct,
            "accuracy": [count / len(self.logits) for count in correct],
            "count": len(self.logits),
        }

    def extras(self) -> dict | None:
        """Return accuracies under corruptions and Gaussian noise, for the report; None where none is asked for."""
        recipe = self.recipe
        if not (recipe.eval_corruptions or recipe.eval_noise):
            return None
        examples = self.examples.take(evaluate.evenly(len(self.logits), CORRUPTED))
        kinds = corruptions.KINDS if recipe.eval_corruptions else ()
        settings = len(kinds) * len(corruptions.SEVERITIES) + len(recipe.eval_noise)
        with console.make_progress(settings, "corruptions and noise", "setting") as progress:
            return corruptions.measure(
                lambda images: self.attacker.accuracy(images, examples.labels),
                examples.images,
                examples.ids,
                kinds=kinds,
                sigmas=recipe.eval_noise,
                seed=recipe.seed,
                progress=progress.update,
            )

    def panel(self) -> dict:
        """Return an image of each of the first classes, clean and under the strongest attack."""
        return rows.panel(self.attacker, self.examples, self.results, self.shown, self.subject.dataset.classes)

    def checks_before(self, recorded: tuple[float | None, int | None]) -> list:
        """Return the sanity checks of model and images, none where the recipe asks for none; warn of failures."""
        if not self.recipe.eval_checks:
            return []
        self._announce("model and images", sanity.BEFORE)
        found = evaluate.before(
            self.attacker,
            self.examples,
            self.logits,
            recorded=recorded[0],
            recorded_images=recorded[1],
            sample=self.recipe.eval_checks,
        )
        for check in found:
            if check.passed is False:
                logging.warning("Check %s failed: %s.", check.name, check.figure)
        return found

    def checks_after(self, sibling: keras.Model | None) -> list:
        """Return the sanity checks of what the attacks found, none where the recipe asks for none."""
        if not self.recipe.eval_checks:
            return []
        self._announce("what the attacks found", sanity.AFTER, sibling)
        with console.make_progress(100, "checks", "%") as progress:
            add = console.whole_steps(progress)
            return evaluate.after(
                self.attacker,
                self.examples,
                self.logits,
                self.results,
                sibling=sibling,
                sample=self.recipe.eval_checks,
                progress=lambda share: add(100 * share),
            )

    def _announce(self, what, checks, sibling=None):
        """Say what is checked, and about how long it takes by a forward pass of one batch, which is compiled by now."""
        count, batch = min(self.recipe.eval_checks, len(self.logits)), self.attacker.batch_size
        few = self.examples.images[: batch * self.attacker.team.size]  # a whole batch of every process
        begun = time.monotonic()
        self.attacker.read(few)
        each = (time.monotonic() - begun) / len(few)
        seconds = sum(sanity.passes_of(checks, sibling).values()) * count * each + TRACED * len(checks)
        logging.info(
            "Sanity checks of %s: %d checks on %d images, about %s.", what, len(checks), count, in_words(seconds)
        )

    def table(self) -> list[dict]:
        """Return a dict for each attack and image, as images.csv has its lines."""
        test = self.subject.dataset.test
        names = test.names() if test.names and test.random_access else None
        known = test.digests() if test.digests and test.random_access else None
        return [
            {
                "attack": attack,
                **row,
                **({"name": names[place]} if names is not None else {}),
                **({"image": f"{int(known[place]) & (2**64 - 1):016x}"} if known is not None else {}),
            }
            for attack, result in self.results.items()
            for place, row in enumerate(result.table())
        ]

    def write_adversarial(self, folder: pathlib.Path, preprocess: str) -> list[str]:
        """Write adversarial-ATTACK.npz for each attack; return their names."""
        dataset = self.subject.dataset
        for name, result in self.results.items():
            saved.write(
                os.path.join(folder, f"adversarial-{name}.npz"),
                self.examples,
                result,
                dataset=dataset.name,
                preprocess=preprocess,
                source=dataset.source,
            )
        return [f"adversarial-{name}.npz" for name in self.results]
