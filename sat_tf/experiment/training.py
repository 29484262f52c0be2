"""A training run between its first and its last step."""

import time

import numpy as np
import tensorflow as tf
from absl import logging

import hparams
from sat_tf import data, evaluate, interruption, losses, saving, train
from sat_tf.experiment import assembly

STATE = ("recipe", "data", "history", "best", "seconds", "sums", "summed")  # what a checkpoint holds beside variables


class Training:
    """A run between its first and its last step: what is trained, what has been seen, what a checkpoint holds."""

    def __init__(self, recipe, dataset, strategy, model_dir):
        self.recipe, self.dataset, self.strategy, self.model_dir = recipe, dataset, strategy, model_dir
        self.image_size = recipe.image_size or dataset.image_size
        for part in ("held_out", "test"):
            if not getattr(dataset, part).size:
                raise ValueError(f"Expected pictures in the {part} part of {dataset.source}. Received: none.")
        self.epoch_steps = data.steps_per_epoch(dataset.train, recipe.batch_size)
        self.total_steps = recipe.epochs * self.epoch_steps
        with strategy.scope():
            model = assembly.build_model(recipe, len(dataset.classes))
            optimizer = assembly.make_optimizer(recipe, self.epoch_steps, self.total_steps)
            optimizer.build(model.trainable_variables)
        self.state = train.TrainState(model=model, optimizer=optimizer)
        self.history, self.best, self.seconds = [], None, 0.0
        self.sums = [0.0] * len(train.METRICS)  # of the steps since the last probe
        self.summed = 0
        self.probes = {name: self._evaluator(name) for name in ("clean", recipe.probe_attack)}

    def restore(self):
        """Go on from the latest checkpoint, if there is one."""
        try:
            path = saving.find(self.model_dir, "latest")
        except FileNotFoundError:
            return
        state = saving.read_state(path, STATE)
        self._must_match(state)
        saving.restore(path, self.variables())
        self.history, self.best, self.seconds = state["history"], state["best"], state["seconds"]
        self.sums, self.summed = state["sums"], state["summed"]
        logging.info("Going on from step %d of %d, checkpoint %s.", self.state.step, self.total_steps, path)

    def _must_match(self, state):
        """Refuse to go on from a checkpoint of another recipe or other data."""
        differences = hparams.Recipe.from_dict(state["recipe"]).differences(self.recipe)
        mine, theirs = self._identity(), {key: state["data"].get(key) for key in self._identity()}
        differences += [f"{key}: {theirs[key]} there, {mine[key]} here" for key in mine if mine[key] != theirs[key]]
        if differences:
            raise ValueError(f"Expected the recipe and the data of the run in {self.model_dir}. Received others: "
                             f"{'; '.join(differences)}. Name another --model_dir.")

    def _identity(self):
        """Return what tells one data set from another, as a checkpoint holds it."""
        return {"source": self.dataset.source, "train": self.dataset.train.size, "image_size": self.image_size,
                "classes": list(self.dataset.classes)}

    def train(self):
        """Run the remaining steps; probe and save at the recipe's epochs."""
        recipe = self.recipe
        loop = train.Loop(
            state=self.state, method=assembly.make_method(recipe), strategy=self.strategy, batch_size=recipe.batch_size,
            seed=recipe.seed, weight_decay=recipe.weight_decay,
        )
        writer = tf.summary.create_file_writer(str(self.model_dir / "tensorboard"))
        first, saved, started = self.state.step, time.monotonic(), time.monotonic() - self.seconds
        with (
            writer.as_default(), interruption.on_request() as requested,
            assembly.make_progress(self.total_steps, "training", "step", first) as progress,
        ):
            for step, metrics in loop.run(
                self._batches(first), until=self.total_steps, steps_per_call=recipe.steps_per_call,
                pause_every=self.epoch_steps,
            ):
                self.seconds = time.monotonic() - started
                self._take(step, metrics, progress)
                kinds = self._probe(step) if self._due(step) else ()
                if kinds or requested() or step % self.epoch_steps == 0 or time.monotonic() - saved > 600:
                    self.save(kinds)
                    saved = time.monotonic()
                if requested() and step < self.total_steps:
                    raise KeyboardInterrupt(f"Stopped at step {step} of {self.total_steps}; the checkpoint in "
                                            f"{self.model_dir} holds it, and the same command goes on from there.")

    def variables(self):
        """Return every variable of the run, as a checkpoint groups them."""
        return {"model": saving.by_path(self.state.model), "optimizer": saving.by_path(self.state.optimizer)}

    def save(self, kinds=()):
        """Write a checkpoint, the latest and whatever else `kinds` says."""
        broken = [v.path for v in self.state.model.variables if not np.isfinite(v.numpy()).all()]
        if broken:
            raise FloatingPointError(f"After step {self.state.step} {broken[0]} is not finite. A lower learning_rate "
                                     "helps most often.")
        state = {
            "step": self.state.step, "recipe": self.recipe.to_dict(), "data": self._identity(),
            "history": self.history, "best": self.best, "seconds": self.seconds,
            "sums": self.sums, "summed": self.summed, "versions": assembly.versions(),
        }
        saving.save(self.model_dir / "checkpoints", self.variables(), state, kinds=("latest", *kinds))

    def summary(self):
        """Return the report's facts about the training."""
        steps = self.state.step
        return {
            "steps": steps, "epochs": self.recipe.epochs, "wall_time_seconds": round(self.seconds, 1),
            "images_per_second": round(steps * self.recipe.batch_size / max(self.seconds, 1e-9), 1),
            "probe": self.recipe.probe_attack, "best_step": self.best["step"],
            f"best_held_out_{assembly.best_by(self.recipe)}_accuracy": self.best["score"][0],
        }

    def _batches(self, step):
        def per_host(context):
            hosts = context.num_input_pipelines
            batches = data.train_batches(
                self.dataset.train, batch_size=self.recipe.batch_size // hosts, image_size=self.image_size,
                augment=self.recipe.augment, seed=self.recipe.seed, start_step=step,
                host=context.input_pipeline_id, hosts=hosts,
            )
            return one_replica_each(batches, context.num_replicas_in_sync // hosts)

        return self.strategy.distribute_datasets_from_function(per_host)

    def _evaluator(self, name):
        attack = assembly.make_attack(name, self.recipe.epsilon, None)
        return evaluate.Evaluator(self.state.model, attack, losses.cross_entropy, strategy=self.strategy)

    def _due(self, step):
        return step % (self.epoch_steps * self.recipe.probe_every) == 0 or step == self.total_steps

    def _take(self, step, metrics, progress):
        self.sums = [total + float(value) for total, value in zip(self.sums, metrics.sum(0), strict=True)]
        self.summed += len(metrics)
        means = dict(zip(train.METRICS, self.sums, strict=True))
        progress.set_postfix({name: f"{value / self.summed:.3f}" for name, value in means.items()}, refresh=False)
        progress.update(len(metrics))
        for name, value in zip(train.METRICS, metrics.mean(0), strict=True):
            tf.summary.scalar(f"train/{name}", value, step)
        tf.summary.scalar("train/learning_rate", self.state.optimizer.learning_rate, step)

    def _probe(self, step):
        """Judge the held-out pictures, add a row to the history; return ("best",) where it is the best so far."""
        row = {"step": step, "epoch": step / self.epoch_steps,
               "learning_rate": float(self.state.optimizer.learning_rate), "seconds": self.seconds}
        row |= {f"train/{name}": total / self.summed
                for name, total in zip(train.METRICS, self.sums, strict=True)}
        batches = assembly.evaluation_batches(self.recipe, self.dataset.held_out, self.image_size, self.strategy)
        for quantity, name in (("clean_accuracy", "clean"), ("robust_accuracy", self.recipe.probe_attack)):
            with assembly.make_progress(
                self.dataset.held_out.size, f"held out, {name}", "picture", passing=True
            ) as progress:
                counts, total, _ = self.probes[name].count(batches, progress.update)
            row[f"held_out/{quantity}"] = list(counts.values())[-1] / total
            tf.summary.scalar(f"held_out/{quantity}", row[f"held_out/{quantity}"], step)
        self.history.append(row)
        self.sums, self.summed = [0.0] * len(train.METRICS), 0
        logging.info(
            "Epoch %g: loss %.3f, held-out clean %.2f %%, %s %.2f %%.", row["epoch"], row["train/loss"],
            100 * row["held_out/clean_accuracy"], self.recipe.probe_attack, 100 * row["held_out/robust_accuracy"],
        )
        first, second = ("robust", "clean") if assembly.best_by(self.recipe) == "robust" else ("clean", "robust")
        score = [row[f"held_out/{first}_accuracy"], row[f"held_out/{second}_accuracy"]]
        if self.best and score <= self.best["score"]:
            return ()
        self.best = {"step": step, "score": score}
        return ("best",)


def one_replica_each(batches, replicas):
    """Cut every batch into one for each of a host's replicas, in order."""
    if replicas == 1:
        return batches

    def cut(*batch):
        parts = [tf.reshape(part, [replicas, part.shape[0] // replicas, *part.shape[1:]]) for part in batch]
        return tf.data.Dataset.from_tensor_slices(tuple(parts))

    return batches.flat_map(cut)
