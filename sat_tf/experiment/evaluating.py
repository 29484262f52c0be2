"""The evaluation of a checkpoint on the test images: resumable, checked, image by image."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil

import numpy as np
from absl import logging

from sat_tf import corruptions, data, evaluate, files, report
from sat_tf.evaluate import sanity, saved
from sat_tf.experiment import assembly, places, reporting

IN_MEMORY = 2 * 2**30  # bytes of images; more than that lie on the disk
PROBES = 2000  # images that corruptions are evaluated on at most, 15 kinds in 5 severities


class Evaluation:
    """A model on the test images under the recipe's attacks, with everything that it finds kept in a folder.

    Args:
      recipe: says which attacks.
      model: images -> logits.
      dataset: whose test part is evaluated.
      batches: of that part.
      strategy: a `tf.distribute.Strategy`.
      folder: where the state is kept as it goes, in `work/`.
    """

    def __init__(self, recipe, model, dataset, batches, strategy, folder):
        self.recipe, self.dataset, self.folder = recipe, dataset, pathlib.Path(folder)
        self.work = self.folder / "work"
        self.epsilon = recipe.evaluated_epsilon
        attacked = assembly.attacked_view(recipe, model) if recipe.eval_backward else None
        size = batches.element_spec[1].shape[0]
        self.attacker = evaluate.Attacker(
            model, norm=recipe.eval_norm, batch_size=size, strategy=strategy, seed=recipe.seed, attacked=attacked
        )
        self.examples = load_images(batches, dataset.test, self.work)
        with assembly.make_progress(dataset.test.size, "clean", "image") as progress:
            self.logits = self.attacker.logits(self.examples.images, progress.update)
        self.results = {}

    @property
    def correct(self):
        """How many images are read right as they are."""
        return int((self.logits.argmax(-1) == self.examples.labels).sum())

    def run(self):
        """Return the report's rows, one an attack, and accuracy by steps of the longest attack (None without one)."""
        rows = []
        for name in self.recipe.eval_attacks:
            if name == "clean":
                rows.append(clean_row(self.correct, len(self.logits), self.recipe))
                continue
            result = self.attack(name, self.epsilon, name)
            self.results[name] = result
            rows.append(row_of(result, self.recipe))
        return rows, self._curve()

    def attack(self, name, epsilon, label, before=None, words=None):
        """Return the `Result` of one attack; `label` names its folder."""
        recipe = self.recipe
        with assembly.make_progress(len(self.logits), words or name, "image") as progress:
            return self.attacker.attack(
                self.examples,
                name,
                epsilon=epsilon,
                step_size=recipe.eval_step_size,
                restarts=recipe.eval_restarts,
                final=not recipe.eval_active_set,
                logits=self.logits,
                before=before,
                store=evaluate.Store(self.work / label),
                progress=assembly.whole_steps(progress),
            )

    def radii(self):
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

    def _curve(self):
        found = [result for result in self.results.values() if len(result.by_step) > 1]
        if not found:
            return None
        longest = max(found, key=lambda result: result.marks[-1])
        steps, count = longest.by_step, len(self.logits)
        return {
            "attack": longest.attack,
            "norm": longest.norm,
            "epsilon": longest.epsilon,
            "step_size": longest.step_size,
            "count": count,
            "steps": [0, *steps],
            "accuracy": [self.correct / count, *steps.values()],
        }

    def panel(self, classes, most=8):
        """Return the first image of each of the first classes, clean and under the strongest attack."""
        labels = self.examples.labels
        first = [np.flatnonzero(labels == label)[0] for label in np.unique(labels)[:most]]
        chosen = self.examples.take(np.array(first))
        strongest = min(self.results.values(), key=lambda result: result.robust_accuracy, default=None)
        attacked, name, epsilon = chosen.images, "clean", 0.0
        if strongest:
            changed = strongest.changed[first]
            attacked = np.where(changed[:, None, None, None], strongest.adversarial[first], chosen.images)
            name, epsilon = strongest.attack, strongest.epsilon
        predictions = [self.attacker.logits(images).argmax(-1) for images in (chosen.images, attacked)]
        return {
            "clean": chosen.images,
            "adversarial": attacked,
            "labels": chosen.labels,
            "clean_predictions": predictions[0],
            "adversarial_predictions": predictions[1],
            "classes": list(classes),
            "attack": name,
            "epsilon": epsilon,
            "norm": self.recipe.eval_norm,
        }

    def extras(self):
        """Return accuracies under corruptions and Gaussian noise, for the report; None where none is asked for."""
        recipe = self.recipe
        if not (recipe.eval_corruptions or recipe.eval_noise):
            return None
        chosen = evaluate.evenly(len(self.logits), PROBES)
        examples = self.examples.take(chosen)
        kinds = corruptions.KINDS if recipe.eval_corruptions else ()
        steps = len(kinds) * len(corruptions.SEVERITIES) + len(recipe.eval_noise)

        def accuracy(changed):
            return self.attacker.accuracy(changed, examples.labels)

        with assembly.make_progress(steps, "corruptions and noise", "setting") as progress:
            found = {
                "count": len(chosen),
                "clean": accuracy(examples.images),
                "corruptions": {},
                "noise": {},
                "library": corruptions.check() if kinds else None,
            }
            for kind in kinds:
                found["corruptions"][kind] = []
                for severity in corruptions.SEVERITIES:
                    changed = corruptions.corrupt(examples.images, kind, severity, recipe.seed, examples.ids)
                    found["corruptions"][kind].append(accuracy(changed))
                    progress.update()
            for sigma in recipe.eval_noise:
                changed = corruptions.gaussian_noise(examples.images, sigma, recipe.seed, examples.ids)
                found["noise"][f"{sigma:g}"] = accuracy(changed)
                progress.update()
        return found

    def checks_before(self, recorded):
        """Return the sanity `Check`s of model and images, none where the recipe asks for none; warn of failures."""
        if not self.recipe.eval_checks:
            return []
        found = sanity.before(
            self.attacker, self.examples, self.logits, recorded=recorded, sample=self.recipe.eval_checks
        )
        for check in found:
            if check.passed is False:
                logging.warning("Check %s failed: %s.", check.name, check.figure)
        return found

    def checks_after(self, sibling):
        """Return the sanity checks' `Check`s of what the attacks found."""
        if not self.recipe.eval_checks:
            return []
        with assembly.make_progress(100, "checks", "%", passing=True) as progress:
            add = assembly.whole_steps(progress)
            return sanity.after(
                self.attacker,
                self.examples,
                self.logits,
                self.results,
                sibling=sibling,
                sample=self.recipe.eval_checks,
                progress=lambda share: add(100 * share),
            )

    def write_images(self, names):
        """Write images.csv, a line for each image and attack; `names` of the images, None without."""
        rows = [
            {"attack": attack, **row, **({"name": names[place]} if names is not None else {})}
            for attack, result in self.results.items()
            for place, row in enumerate(result.table())
        ]
        if not rows:
            return None
        return files.write(self.folder / "images.csv", report.csv_text(rows))

    def write_adversarial(self, preprocess):
        """Write adversarial-ATTACK.npz for each attack; return their paths."""
        paths = []
        for name, result in self.results.items():
            path = self.folder / f"adversarial-{name}.npz"
            saved.write(
                path,
                self.examples,
                result,
                dataset=self.dataset.name,
                preprocess=preprocess,
                source=self.dataset.source,
            )
            paths.append(str(path))
        return paths


def clean_row(correct, count, recipe):
    """Return the report's row of the images as they are."""
    return {
        "attack": "clean",
        **dict.fromkeys(("norm", "epsilon", "step_size", "steps", "random_start")),
        **reporting.counted(correct, count, recipe, None),
    }


def row_of(result, recipe):
    """Return the report's row of an attack."""
    facts = list(result.facts.values())
    alone = facts[0] if len(facts) == 1 else {}
    sized = "iterates" in alone and result.attack != "fgsm"
    stages = [{"attack": stage, "correct": result.left(stage), **result.facts[stage]} for stage in result.stages]
    backward = {"backward": recipe.eval_backward} if recipe.eval_backward else {}
    return {
        "attack": result.attack,
        "norm": result.norm,
        "epsilon": result.epsilon,
        "step_size": result.step_size if sized else result.epsilon if result.attack == "fgsm" else None,
        "steps": alone.get("steps"),
        "random_start": alone.get("random_start"),
        **backward,
        "iterates": alone.get("iterates", "worst"),
        "restarts": alone.get("restarts"),
        "stages": stages,
        **reporting.counted(int(result.robust.sum()), len(result.stage), recipe, result.seconds),
    }


def load_images(batches, split, folder):
    """Return the `Examples` of a split; where they are many, in a file of `folder`."""
    images_spec = batches.element_spec[0]
    shape = (split.size, *images_spec.shape[1:])
    if np.prod(shape, dtype=np.int64) * 4 > IN_MEMORY:
        folder.mkdir(parents=True, exist_ok=True)
        images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.float32, shape)
    else:
        images = np.empty(shape, np.float32)
    labels, place = np.empty(split.size, np.int32), 0
    with assembly.make_progress(split.size, "reading", "image", passing=True) as progress:
        for batch, batch_labels, mask in batches.as_numpy_iterator():
            real = mask > 0
            count = int(real.sum())
            images[place : place + count], labels[place : place + count] = batch[real], batch_labels[real]
            place += count
            progress.update(count)
    ids = np.arange(split.size) if split.places is None else split.places
    return evaluate.Examples(images=images, labels=labels, ids=ids)


def fingerprint(model):
    """Return the SHA-256 of a model's variables."""
    digest = hashlib.sha256()
    for variable in model.variables:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def work_folder(parent, request):
    """Yield the folder of an evaluation: that of the same one that was stopped, else a new one; locked meanwhile.

    Args:
      parent: folder of evaluations.
      request: everything that decides what is computed, as JSON holds it.
    """
    parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(request, indent=1) + "\n"
    with contextlib.ExitStack() as stack:
        for folder in sorted(parent.glob("*/request.json"), reverse=True):
            folder = folder.parent
            if (folder / "report.json").exists() or (folder / "request.json").read_text() != text:
                continue
            try:
                stack.enter_context(files.locked(folder))
            except BlockingIOError:  # another process is at it
                continue
            if not (folder / "report.json").exists():
                logging.info("Going on with the evaluation in %s, which was stopped.", folder)
                break
        else:
            folder = places.next_folder(parent)
            stack.enter_context(files.locked(folder))
            files.write(folder / "request.json", text)
        try:
            yield folder
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(f"Stopped in {folder}. The same command goes on there.") from error


def evaluate_checkpoint(
    found,
    model,
    dataset,
    batches,
    strategy,
    *,
    home,
    facts,
    subset=None,
    shard=None,
    recorded=None,
    save_adversarial=False,
    sibling=None,
    force=False,
):
    """Evaluate a checkpoint, go on where the same evaluation was stopped, and report into a folder of its own.

    Returns:
      The report; `trusted` says whether no hard check failed.
    """
    recipe = found.recipe
    request = {
        "recipe": {name: recipe.to_dict()[name] for name in found.known} | evaluated_by(recipe),
        "weights": fingerprint(model),
        "data": [dataset.source, dataset.test.size, list(dataset.notes)],
        "subset": subset,
        "shard": shard,
        "versions": assembly.versions(),
    }
    with work_folder(home / "evaluations", request) as folder:
        run = Evaluation(recipe, model, dataset, batches, strategy, folder)
        checks = run.checks_before(recorded)
        rows, curve = run.run()
        radii, extras = run.radii(), run.extras()
        checks += run.checks_after(sibling)
        full = reporting.header(recipe, model, dataset, batches, strategy) | {
            "evaluations": rows,
            "curve": curve,
            "radii": radii,
            "extras": extras,
            "checks": [dataclasses.asdict(check) for check in checks],
            "checked": bool(recipe.eval_checks),
            "trusted": sanity.trusted(checks),
            "forced": force,
            "subset": subset,
            "shard": shard,
            **facts,
        }
        full["robustbench"] = reporting.robustbench(full, found.label)
        names = dataset.test.names() if dataset.test.names and dataset.test.random_access else None
        table = run.write_images(names)
        adversarial = run.write_adversarial(full["dataset"]["preprocess"]) if save_adversarial else []
        full["files"] = {
            "images": table and os.path.basename(table),
            "adversarial": [os.path.basename(path) for path in adversarial],
        }
        reporting.conclude(
            full,
            found.state["history"],
            run.panel(dataset.classes),
            folder,
            home,
            {"per image": table or "", "adversarial images": ", ".join(adversarial)},
        )
        del run
        shutil.rmtree(folder / "work", ignore_errors=True)
        return full


def evaluated_by(recipe):
    """Return the fields of a recipe that say how it is evaluated."""
    values = recipe.to_dict()
    return {name: value for name, value in values.items() if name.startswith("eval_")} | {"seed": values["seed"]}


def chosen(dataset, subset, shard):
    """Return the data set with the test images that are to be evaluated, and facts about the subset for the report.

    Args:
      dataset: a `data.Data`.
      subset: a file of ids, None for all.
      shard: (i, n), the i-th of n parts, from 1; None for the whole.
    """
    facts, test, notes = None, dataset.test, dataset.notes
    if subset:
        where, digest = data.read_subset(subset, test)
        facts = {"file": os.path.basename(subset), "images": len(where), "sha256": digest}
        test = data.selected(test, where)
        notes = (*notes, f"evaluated on the {len(where)} test images of {facts['file']}, SHA-256 {digest}")
    if shard:
        test = data.part(test, shard[0] - 1, shard[1])
        notes = (*notes, f"evaluated on part {shard[0]} of {shard[1]}: {test.size} images")
    return dataclasses.replace(dataset, test=test, notes=notes), facts
