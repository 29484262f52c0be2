"""A training run between its first and its last step."""

import pathlib
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import logging

from sat_tf import assembly, console, data, files, hparams, interruption, machine, report, saving, stopping, train
from sat_tf.assembly import devices, validation
from sat_tf.distribute import strategies
from sat_tf.profiler import Profiler
from sat_tf.runs import checkpoints, folders, overlap, starting
from sat_tf.runs.journal import Journal

CALL_SECONDS = 5.0  # so that progress moves, and Ctrl-C is heard
SLOW_INPUT = 0.25  # the share of its time that a training may wait for images without a warning
SAVE_SECONDS, RETRY_SECONDS = 600, 60  # between two checkpoints; after one that could not be written


class Run:
    """A run between its first and its last step: what is trained, what has been seen, what a checkpoint holds."""

    def __init__(
        self,
        recipe: hparams.Recipe,
        dataset: data.Data,
        strategy: tf.distribute.Strategy,
        model_dir: pathlib.Path,
        data_dir: str | None = None,
        checkpoint_dir: str | pathlib.Path | None = None,
    ) -> None:
        self.recipe, self.dataset, self.strategy, self.model_dir = recipe, dataset, strategy, model_dir
        self.data_dir = data_dir  # remembered with the weights
        self.team = strategies.team()
        self.found = self._find()
        self.image_size = self._image_size()
        for part in ("validation", "test"):
            if not getattr(dataset, part).size:
                raise ValueError(f"Expected images in the {part} part of {dataset.source}. Received: none.")
        self.warnings = data.left_out(dataset, recipe.unreadable_limit)
        self.epoch_steps = data.steps_per_epoch(dataset.train, recipe.batch_size)
        self.total_steps = recipe.epochs * self.epoch_steps
        self.validation_steps = max(1, round(recipe.validation_every * self.epoch_steps))
        self.method = assembly.make_method(recipe, self.epoch_steps)
        updates = self.method.updates  # which the optimizer's schedule counts
        if self.found is not None and self.team.is_chief:
            self._must_match(self.found[1])
        with strategy.scope():
            self.start = self._start(checkpoint_dir)
            model = devices.prepared(recipe, self.start.model)
            optimizer = assembly.make_optimizer(recipe, self.epoch_steps * updates, self.total_steps * updates)
            optimizer.build(model.trainable_variables)
            if self.start.new_head:
                assembly.rate_of_head(recipe, optimizer, model)
            average = assembly.make_average(recipe, model)
            memory = assembly.make_memory(recipe, self.method, dataset, self.image_size)
        self.state = train.TrainState(model=model, optimizer=optimizer, average=average, updates=updates, memory=memory)
        self.history, self.best, self.seconds = [], None, 0.0
        self.stopped = None  # why training ended early
        self.sums, self.summed = {}, 0  # of the steps since the last validation
        self.validation = validation.Validation(recipe, self.method, self.state, dataset, self.image_size, strategy)
        self.restored = None  # the checkpoint that it goes on from
        self.journal, self.told = None, False
        self.writer, self.written, self.save_at = saving.Writer(), (), time.monotonic() + SAVE_SECONDS

    def restore(self) -> None:
        """Go on from the latest whole checkpoint, if there is one; the chief reads it for all."""
        if self.found is None:
            self._share()
            return
        path, state = self.found
        if state["step"] > self.total_steps:
            raise ValueError(
                f"Expected at least the {state['step'] / self.epoch_steps:.4g} epochs that the run in {self.model_dir} "
                f"has. Received: epochs={self.recipe.epochs}. Name another --model_dir for fewer."
            )
        if self.team.is_chief:
            saving.restore(path, self.variables(), checked=True)
        self._share()
        self.history, self.best, self.seconds = state["history"], state["best"], state["seconds"]
        self.sums, self.summed = state["sums"], state["summed"]
        self.stopped = state.get("stopped")
        self.restored = path

    def _share(self):
        self.team.share(variable for group in self.variables().values() for variable in group.values())

    def _find(self):
        """Return path and state of the latest whole checkpoint, None where there is none."""

        def look():
            path = saving.find_whole(self.model_dir)
            return None if path is None else (str(path), checkpoints.read_state(path))

        found = self.team.from_chief(look)
        return found and (pathlib.Path(found[0]), found[1])

    def _image_size(self):
        """Return the side of the images; that of a user's own network as its run has it, also without its file."""
        if self.found is not None and hparams.kind(self.recipe.model):
            return self.found[1]["data"]["image_size"]
        return assembly.image_size(self.recipe, self.dataset)

    def _start(self, checkpoint_dir):
        """Return the network: that of the checkpoint, which has all of it, or a new one."""
        if self.found is None:
            return starting.begun(self.recipe, self.dataset, self.image_size, checkpoint_dir)
        kept = self.found[1].get("network") or {}
        return starting.resumed(self.recipe, self.dataset.classes, self.image_size, kept)

    def _must_match(self, state):
        """Refuse to go on from a checkpoint of another recipe or other data."""
        differences = folders.differences(hparams.Recipe.from_dict(state["recipe"]), self.recipe)
        mine, theirs = self._identity(), {key: state["data"].get(key) for key in self._identity()}
        unequal = [key for key in mine if mine[key] != theirs[key]]
        if "source" in unequal and overlap.same(self.model_dir, self.dataset):
            unequal.remove("source")  # it was moved
        differences += [f"{key}: {theirs[key]} there, {mine[key]} here" for key in unequal]
        if differences:
            raise ValueError(
                f"Expected the recipe and the data of the run in {self.model_dir}. Received others: "
                f"{'; '.join(differences)}. Name another --model_dir."
            )

    def _identity(self):
        """Return what tells one data set from another, as a checkpoint holds it."""
        return {
            "source": self.dataset.source,
            "train": self.dataset.train.size,
            "image_size": self.image_size,
            "classes": list(self.dataset.classes),
            **({"extra": self.dataset.extra_source} if self.dataset.extra_source else {}),
        }

    def train(
        self, on_progress: Callable | None = None, journal: Journal | None = None, profile: range = range(0)
    ) -> None:
        """Run the remaining steps; validate and save at the recipe's epochs; stop early where a validation says so.

        Args:
          on_progress: is called with the share of the steps that are done, in [0, 1].
          journal: is told the time of each phase, and the metrics.
          profile: steps that TensorFlow's profiler records, into `tensorboard/`.
        """
        journal = journal or Journal(self.model_dir, "", self.recipe, self.strategy, self.state.step, self.method)
        self.journal = journal
        if self.stopped:
            logging.info("Training had ended: %s.", self.stopped)
            return
        recipe = self.recipe
        loop = train.Loop(
            state=self.state,
            method=self.method,
            strategy=self.strategy,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            weight_decay=assembly.added_weight_decay(recipe),
            soft_labels=bool(assembly.mixed(recipe)),
            accumulate_steps=recipe.accumulate_steps,
            jit_compile=devices.compiles(recipe, self.strategy),
            remat=recipe.remat,
        )
        writer = tf.summary.create_file_writer(str(self.model_dir / "tensorboard"))
        first, started = self.state.step, time.monotonic() - self.seconds
        self.save_at = time.monotonic() + SAVE_SECONDS
        profiler = Profiler(self.model_dir / "tensorboard", profile)
        with (
            writer.as_default(),
            profiler,
            self.writer,
            interruption.on_request() as requested,
            console.make_progress(self.total_steps, "training", "step", first) as progress,
        ):
            for step, metrics in loop.run(
                self._batches(first),
                until=self.total_steps,
                steps_per_call=recipe.steps_per_call,
                pauses=(self.epoch_steps, self.validation_steps),
                stops=profiler.stops,
                on_call=journal.steps,
                seconds_per_call=CALL_SECONDS if self.team.size == 1 else None,  # all make the same calls
                check=False,
            ):
                self.seconds = time.monotonic() - started
                self._take(step, metrics, progress)
                profiler.at(step)
                if on_progress:
                    on_progress(step / self.total_steps)
                kinds, due = (), self._due(step)
                if due:
                    self._settle()  # what could not be written is not the best any more
                    with journal.phase("validation"):
                        kinds = self._validate(step)
                    self._tell_of_input()
                asked, late = self._agreed(requested())
                ends = self.stopped or asked or step == self.total_steps
                if due or ends or step % self.epoch_steps == 0 or late:
                    self._save_meanwhile(kinds, must=ends)
                    journal.write()
                if self.stopped:
                    logging.warning(
                        "%s. Training ends at step %d of %d; the best checkpoint is that of step %d.",
                        self.stopped,
                        step,
                        self.total_steps,
                        self.best["step"],
                    )
                    return
                if asked and step < self.total_steps:
                    where = self.model_dir if self.team.is_chief else "the first worker's folder"
                    raise KeyboardInterrupt(
                        f"Stopped at step {step} of {self.total_steps}; the checkpoint in "
                        f"{where} holds it, and the same command goes on from there."
                    )

    def _tell_of_input(self):
        """Say so, once, where training waits for images for much of its time."""
        waited = self.journal.seconds["input"]
        whole = max(waited + self.journal.seconds["training"], 1.0)
        if not self.told and waited > SLOW_INPUT * whole:
            self.told = True
            logging.warning(
                "Images are the bottleneck: training has waited for them for %.0f %% of its time. More cores for "
                "reading, --set cache=memory, smaller files or a smaller policy help.",
                100 * waited / whole,
            )

    def _agreed(self, requested):
        """Return whether any process was asked to stop, and whether the chief finds it time to save.

        All hear meanwhile of a checkpoint that the chief could not write.
        """
        fault = self.writer.fault()
        said = self.team.all_of([requested, time.monotonic() > self.save_at, fault and str(fault)])
        self._regret(said[0][2])
        return any(one for one, *_ in said), said[0][1]

    def _save_meanwhile(self, kinds, must):
        """Save while training goes on; where it `must`, wait for it, and a full disk ends the run."""
        self._settle()
        with self.journal.phase("saving"):
            self.team.from_chief(lambda: self._begin_to_save(kinds))
        self.written, self.save_at = tuple(kinds), time.monotonic() + SAVE_SECONDS
        if must:
            self._settle(must=True)

    def _settle(self, must=False):
        """Wait for what is being written."""

        def wait():
            fault = self.writer.fault(wait=True)
            if fault and must:
                raise fault
            return fault and str(fault)

        with self.journal.phase("saving"):
            fault = self.team.from_chief(wait)
        self._regret(fault)

    def _regret(self, fault):
        """Go on without a checkpoint that could not be written, if there is such a `fault`, and soon try again."""
        if fault is None:
            return
        self.save_at = time.monotonic() + RETRY_SECONDS
        logging.warning(
            "%s The run goes on, and tries again in %d seconds; until then it can only be resumed from before.",
            fault,
            RETRY_SECONDS,
        )
        if "best" in self.written:  # nothing holds these weights
            self.history[-1]["lost"] = True
            self.best = stopping.best_of(self._rows(), self.method.best_by, self.validation.size)

    def _rows(self):
        """Return the rows of the history whose weights could be saved where they were the best."""
        return [row for row in self.history if not row.get("lost")]

    def variables(self) -> dict[str, dict]:
        """Return every variable of the run, as a checkpoint groups them."""
        owners = {"model": self.state.model, "optimizer": self.state.optimizer}
        groups = {name: assembly.variables(self.recipe, owner) for name, owner in owners.items()}
        kept = {"average": self.state.average.variables} if self.state.average else {}
        return groups | kept | ({"memory": self.state.memory} if self.state.memory else {})

    def _begin_to_save(self, kinds):
        """Have a checkpoint written, the latest and whatever else `kinds` says."""
        values = saving.copied(self.variables())
        not_finite = [path for path, (_, value) in values["model"].items() if not np.isfinite(value).all()]
        if not_finite:
            raise FloatingPointError(
                f"After step {self.state.step} {not_finite[0]} is not finite. A lower learning_rate helps most often."
            )
        state = {
            "step": self.state.step,
            "recipe": self.recipe.to_dict(),
            "data": self._identity() | {"data_dir": self.data_dir},
            "history": self.history,
            "best": self.best,
            "seconds": self.seconds,
            "sums": self.sums,
            "summed": self.summed,
            "stopped": self.stopped,
            "network": self.start.kept,
            "versions": machine.versions(),
        }
        self.writer.begin(
            self.model_dir / "checkpoints", values, state, kinds=("latest", *kinds), keep=self.recipe.keep_checkpoints
        )

    def _batches(self, step):
        def per_host(context):
            hosts = context.num_input_pipelines
            batches = assembly.train_batches(
                self.recipe,
                self.dataset,
                self.image_size,
                batch_size=self.recipe.batch_size // hosts,
                start_step=step,
                host=context.input_pipeline_id,
                hosts=hosts,
                ids=self.method.wants_ids,
            )
            return data.one_replica_each(batches, context.num_replicas_in_sync // hosts)

        return self.strategy.distribute_datasets_from_function(per_host)

    def write_history(self) -> None:
        """Write history.csv, a line a validation."""
        columns = dict.fromkeys(name for row in self.history for name in row)
        rows = [{name: row.get(name, "") for name in columns} for row in self.history]
        if rows:
            files.write(self.model_dir / "history.csv", report.csv_text(rows))

    def _due(self, step):
        return step % self.validation_steps == 0 or step == self.total_steps

    def _take(self, step, metrics, progress):
        count = len(metrics["loss"])
        for name, values in metrics.items():
            for value in values:  # one by one: how many steps a call holds depends on the clock, a sum must not
                self.sums[name] = self.sums.get(name, 0.0) + float(value)
            tf.summary.scalar(f"train/{name}", values.mean(), step)
        self.summed += count
        self.journal.metrics(step, {f"train/{name}": float(values.mean()) for name, values in metrics.items()})
        progress.set_postfix({name: f"{total / self.summed:.3f}" for name, total in self.sums.items()}, refresh=False)
        progress.update(count)
        tf.summary.scalar("train/learning_rate", self.state.optimizer.learning_rate, step)

    def _validate(self, step):
        """Evaluate the validation images, add a row to the history; return ("best",) where it is the best so far."""
        row = {
            "step": step,
            "epoch": step / self.epoch_steps,
            "learning_rate": float(self.state.optimizer.learning_rate),
            "seconds": self.seconds,
        }
        row |= {f"train/{name}": total / self.summed for name, total in self.sums.items()}
        row |= self.validation.measure()
        for name, value in row.items():
            if name.startswith("validation/"):
                tf.summary.scalar(name, value, step)
        self.history.append(row)
        self.journal.metrics(step, row)
        self.write_history()
        self.sums, self.summed = {}, 0
        validation.log(row, self.recipe)
        self.best = stopping.better(self._rows(), self.best, self.method.best_by, self.validation.size)
        self.stopped = stopping.reason_to_stop(
            self._rows(),
            self.method.best_by,
            patience=self.recipe.patience,
            on_overfitting=self.recipe.stop_on_overfitting,
            attack=self.recipe.validation_attack,
            at_end=step == self.total_steps,
        )
        return ("best",) if self.best["step"] == step else ()
