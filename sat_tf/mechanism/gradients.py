"""--experiment=mechanism: what the gradients of a run's checkpoints are worth, from its first to its last."""

import functools
import json
import math
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from sat_tf import assembly, console, evaluate, files, graphs, hparams, machine, pointers, report, saving, train
from sat_tf.distribute import precision
from sat_tf.mechanism import quantities
from sat_tf.runs import checkpoints, places

FILE, PART, WORK = "mechanism.json", "mechanism-part.json", "mechanism-work"  # in the run's folder
IMAGES, STEPS, BATCHES = 400, 50, 16  # test images that are looked at over time; steps of PGD; batches of the noise
PROBE = "pgd-1"
LENGTHS = np.linspace(0, 2, 17)  # of the way along the attack direction, in radii


@graphs.job
def gradients(
    model_dir: str | pathlib.Path,
    *,
    data_dir: str | pathlib.Path | None = None,
    images: int = IMAGES,
    batches: int = BATCHES,
    on_progress: Callable[[float], None] | None = None,
) -> dict:
    """Measure the gradients of all checkpoints that a run has kept; write mechanism.json into its folder.

    Stopped or killed, the same call goes on with the next checkpoint.

    Args:
      model_dir: folder of the run.
      data_dir: where the data set lies; None for where the run remembers it.
      images: how many test images are looked at over time; the probe takes all of them.
      batches: of training images, by which the noise of updates is told.
      on_progress: is called with the share that is done, in [0, 1].

    Returns:
      What mechanism.json holds: `points`, one a checkpoint, and `probe` and `along` of the last one, each by the
      gradient that was taken, `own` or `substitute`.

    Raises:
      OSError: there is no checkpoint, or it or the data can't be read.
    """
    model_dir = pathlib.Path(model_dir)
    pointers.find(model_dir)
    paths = saving.by_step(model_dir / "checkpoints")[::-1]
    found = checkpoints.open_checkpoint(paths[-1], {"eval_images": None})
    asked = {"images": images, "batches": batches, "steps": STEPS, "versions": machine.versions()}
    with console.naming_failures() as failing, files.locked(model_dir, "measuring"), precision.exactly():
        assembly.make_deterministic(found.recipe.seed)
        place = places.of_run(model_dir, found.recipe, data_dir)
        failing.dataset = dataset = assembly.load_data(found.recipe, place)
        look = Look(found, dataset, asked, model_dir / WORK)
        points = _known(model_dir / PART, asked)
        with console.make_progress(len(paths) + 1, "measuring gradients", "checkpoint") as progress:
            for done, path in enumerate(paths, 1):
                if path.name not in points:
                    points[path.name] = look.point(path)
                    files.write(model_dir / PART, json.dumps({"asked": asked, "points": points}))
                progress.update(1)
                if on_progress:
                    on_progress(done / (len(paths) + 1))
            content = {**asked, **look.last(paths[-1]), "points": [points[path.name] for path in paths]}
            progress.update(1)
        files.write(model_dir / FILE, json.dumps(content, indent=1) + "\n")
        (model_dir / PART).unlink(missing_ok=True)
        shutil.rmtree(model_dir / WORK, ignore_errors=True)
    return content


def _known(file, asked):
    """Return the points that were measured before, if the same was asked for."""
    try:
        content = json.loads(file.read_text())
        return content["points"] if content["asked"] == asked else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


class Look:
    """A run's network with what its gradients are measured on.

    Args:
      found: one of the run's checkpoints.
      dataset: its data.
      asked: how many images, batches and steps.
      work: a folder for images that do not fit into memory.
    """

    def __init__(self, found: checkpoints.Checkpoint, dataset: Any, asked: dict, work: pathlib.Path) -> None:
        self.recipe, self.dataset, self.asked, self.size = found.recipe, dataset, asked, found.image_size
        self.model = found.load(dataset.classes)
        self.specs = {"own": None} | ({"substitute": hparams.SUBSTITUTE} if self.recipe.act == "relu" else {})
        strategy = tf.distribute.get_strategy()
        batches = assembly.evaluation_batches(self.recipe, dataset.test, self.size, strategy)
        self.batch_size = batches.element_spec[1].shape[0]
        self.examples = evaluate.read_examples(batches, dataset.test.size, dataset.test.places, work)
        self.few = self.examples.take(evaluate.evenly(dataset.test.size, asked["images"]))
        self.epoch_steps = dataset.train.size // self.recipe.batch_size
        views = {name: self._view(spec) for name, spec in self.specs.items()}
        radius, lengths = self.recipe.epsilon, self.recipe.epsilon * LENGTHS
        self.one = {n: tf.function(functools.partial(_one, view, radius)) for n, view in views.items()}
        self.many = tf.function(functools.partial(_many, views["own"], radius, asked["steps"]))
        self.along = {n: tf.function(functools.partial(_along, view, lengths)) for n, view in views.items()}
        self.gradients = {n: tf.function(functools.partial(self._gradient, n)) for n in self.specs}
        self.methods = {n: self._method(spec) for n, spec in self.specs.items()}

    def _view(self, spec):
        return assembly.attacked_view(self.recipe.replace(eval_backward=spec), self.model)

    def _method(self, spec):
        """Return the run's method; with another gradient in the update, where one is named."""
        recipe = self.recipe if spec is None else self.recipe.replace(update_backward=spec)
        return assembly.make_method(recipe, self.epoch_steps)

    def restore(self, path: pathlib.Path) -> None:
        """Give the network the weights of a checkpoint."""
        checkpoints.restore_weights(path, self.model, self.recipe)

    def point(self, path: pathlib.Path) -> dict:
        """Return step and epoch of a checkpoint, and what each gradient is worth there."""
        self.restore(path)
        step = saving.read_state(path)["step"]
        many = np.concatenate([np.asarray(self.many(*batch)) for batch in self._batches()])
        through = {}
        for name, one in self.one.items():
            rows = [one(*batch) for batch in self._batches()]
            seen = {key: np.concatenate([np.asarray(row[key]) for row in rows]) for key in rows[0]}
            found = {
                "share": quantities.share(seen["before"], seen["after"], many),
                "cosine": float(seen["cosine"].mean()),
                "loss": float(seen["before"].mean()),
                "rise": float((seen["after"] - seen["before"]).mean()),
                "rise_of_many": float((many - seen["before"]).mean()),
                "promised": float(seen["promised"].mean()),
                **self._noise(name, step),
            }
            through[name] = {key: value if math.isfinite(value) else None for key, value in found.items()}
        return {"step": step, "epoch": step / self.epoch_steps, "through": through}

    def last(self, path: pathlib.Path) -> dict:
        """Return the probe of the last checkpoint on all test images, and the loss along its attack directions."""
        self.restore(path)
        lines = {name: self._along(name) for name in self.specs}
        return {
            "epsilon": self.recipe.epsilon,
            "method": self.recipe.method,
            "test_images": len(self.examples.labels),
            "probe": self._probe(),
            "along": {"lengths": (self.recipe.epsilon * LENGTHS).tolist(), **lines},
        }

    def _batches(self):
        for begin in range(0, len(self.few.labels), self.batch_size):
            part = slice(begin, begin + self.batch_size)
            yield tf.constant(self.few.images[part]), tf.constant(self.few.labels[part])

    def _along(self, name):
        rows = [self.along[name](*batch) for batch in self._batches()]
        losses, planes = (np.concatenate([np.asarray(row[i]) for row in rows], 1) for i in (0, 1))
        return {"loss": losses.mean(1).tolist(), "plane": planes.mean(1).tolist()}

    def _probe(self):
        """Return how many images each gradient's PGD-1 leaves right, and how many the two do together."""
        right = {}
        for name, spec in self.specs.items():
            attacker = evaluate.Attacker(
                self.model,
                batch_size=self.batch_size,
                seed=self.recipe.seed,
                attacked=None if spec is None else self._view(spec),
            )
            right[name] = attacker.attack(self.examples, PROBE, epsilon=self.recipe.epsilon, final=True).robust
        found = {name: int(each.sum()) for name, each in right.items()}
        if len(right) < 2:
            return found
        own, other = right["own"], right["substitute"]
        pairs = {"both": own & other, "first": other & ~own, "second": own & ~other, "neither": ~(own | other)}
        counts = {name: int(each.sum()) for name, each in pairs.items()}
        value, low, high = report.difference(**counts)
        facts = {"difference": value, "low": low, "high": high, "p": report.mcnemar(counts["first"], counts["second"])}
        return {**found, "pairs": counts, **facts}

    def _noise(self, name, step):
        """Return the noise of the updates that would come next, and the length of their mean gradient."""
        batches = assembly.train_batches(
            self.recipe, self.dataset, self.size, batch_size=self.recipe.batch_size, start_step=step
        )
        numbered = enumerate(batches.take(self.asked["batches"]), step)
        return quantities.noise(self.gradients[name](*batch[:2], tf.constant(number)) for number, batch in numbered)

    def _gradient(self, name, images, labels, step):
        """Return the gradient of an update's mean loss to all weights, which stay as they are."""
        method, seed = self.methods[name], train.seed_of_step(self.recipe.seed, step)
        labels = train.labels_of(labels)
        adversarial = tf.stop_gradient(method.perturb(self.model, images, labels, step, seed))
        updates = train.Updates(
            model=self.model,
            seed=seed,
            total=lambda losses, _: tf.reduce_mean(losses),
            apply=lambda gradients: None,
            mean=tf.reduce_mean,
        )
        gradients = updates.gradients(lambda: method.loss(self.model, images, adversarial, labels))
        return [each for each in gradients if each is not None]


def _one(view, epsilon, images, labels):
    return quantities.one_step(view, images, labels, epsilon)


def _many(view, epsilon, steps, images, labels):
    return quantities.many_steps(view, images, labels, epsilon, steps)


def _along(view, lengths, images, labels):
    return quantities.along(view, images, labels, lengths)
