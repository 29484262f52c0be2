"""The training loop: N compiled steps a call, each of which perturbs first and then updates, on every replica."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from sat_tf import graphs, inputs, memory, methods, onednn, optim
from sat_tf.layers import drawing_from
from sat_tf.recomputed import Recomputed, learning

CLOCK = time.perf_counter  # of waiting for images


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """What a step changes: the model's variables, the optimizer's, whose `iterations` count updates, and averages.

    Attributes:
      updates: of the weights in one step, what the method says.
      memory: `{name: variable}` that the method keeps from step to step, see `make_memory`.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    average: optim.MovingAverage | None = None
    updates: int = 1
    memory: Mapping[str, tf.Variable] = dataclasses.field(default_factory=dict)

    @property
    def step(self) -> int:
        """The number of batches trained on, a Python int."""
        return int(self.optimizer.iterations.numpy()) // self.updates


def make_memory(
    method: methods.Standard, *, batch_size: int, image_shape: tuple[int, ...], images: int
) -> dict[str, tf.Variable]:
    """Return the variables that a method keeps from step to step; call it in the strategy's scope.

    Args:
      method: of training.
      batch_size: over all replicas.
      image_shape: `(h, w, 3)`.
      images: in the training set.
    """
    return {
        name: tf.Variable(
            tf.zeros(shape), trainable=False, name=name, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )
        for name, shape in method.memory(batch_size, image_shape, images).items()
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop:
    """A method at work on a model: call `run` and look at what it yields.

    Attributes:
      state: the model and its optimizer, built in the strategy's scope.
      method: how to perturb and what to minimise, see `methods`.
      strategy: a `tf.distribute.Strategy`.
      batch_size: images an update, over all replicas; losses are summed and divided by it.
      seed: an int; each step's randomness is the seed folded with the step, and an image's with its place in the batch.
      weight_decay: of the kernels.
      soft_labels: whether labels are probabilities `[b, classes]`, as mixed images have them.
      accumulate_steps: parts that a step takes its images in, one after the other; their gradients are added.
      jit_compile: whether XLA compiles a step, attack and update; one replica alone can have that.
      remat: whether backward passes compute activations again, as `Recomputed` does, instead of keeping them.

    An optimizer that scales the loss, as float16 wants it, is asked for the scale by Keras' `scale_loss`.
    """

    state: TrainState
    method: Any
    strategy: tf.distribute.Strategy
    batch_size: int
    seed: int = 0
    weight_decay: float = 0.0
    soft_labels: bool = False
    accumulate_steps: int = 1
    jit_compile: bool = False
    remat: bool = False

    @functools.cached_property
    def _called(self):
        """The model as the method calls it."""
        return Recomputed(self.state.model) if self.remat else self.state.model

    def step(self, images: tf.Tensor, labels: tf.Tensor, ids: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Let the method learn from a batch on one replica, and return its share of `{quantity: mean}`.

        Args:
          images: float `[b, h, w, 3]`.
          labels: int `[b]`, `[b, 1]` or one-hot; with `soft_labels` probabilities `[b, classes]`.
          ids: int `[b]`, the images' numbers in the training set, for methods that ask for them.
        """
        images, labels = tf.cast(images, tf.float32), labels if self.soft_labels else labels_of(labels)
        step = tf.cast(tf.convert_to_tensor(self.state.optimizer.iterations), tf.int32) // self.state.updates
        seed = seed_of_step(self.seed, step)
        batch = methods.Batch(images=images, labels=labels, step=step, seed=seed, ids=ids, memory=self.state.memory)
        if self.accumulate_steps > 1:
            return self._accumulated(batch)
        return self.method.learn(self._called, batch, self._updates(seed, self._apply))

    def _updates(self, seed, apply):
        return Updates(
            model=self.state.model,
            seed=seed,
            total=self._total,
            apply=apply,
            mean=self._share_of_mean,
            scale=self._scale,
        )

    def _accumulated(self, batch):
        """Learn from parts of a batch in turn, so that one alone is in memory, and update the weights once."""
        model, count = self.state.model, self.accumulate_steps
        size = batch.images.shape[0] // count

        def of_part(number, values):
            return None if values is None else values[number * size : (number + 1) * size]

        def learn(number, sums, means):
            found = []
            seed = tf.random.experimental.stateless_fold_in(batch.seed, number)
            parts = {name: of_part(number, getattr(batch, name)) for name in ("images", "labels", "ids")}
            parts["images"].set_shape([size, *batch.images.shape[1:]])
            part = dataclasses.replace(batch, **parts, seed=seed)
            report = self.method.learn(self._called, part, self._updates(seed, found.extend))
            added = [total if each is None else total + each for total, each in zip(sums, found, strict=True)]
            return number + 1, added, {name: means[name] + report[name] for name in means}

        zeros = [tf.zeros_like(variable) for variable in model.trainable_variables]
        means = dict.fromkeys(("loss", *self.method.quantities), tf.zeros([]))
        start = (tf.constant(0), zeros, means)
        _, gradients, means = tf.while_loop(lambda number, *_: number < count, learn, start, parallel_iterations=1)
        self._apply(gradients)
        return means

    def _total(self, losses, penalties):
        loss = tf.reduce_sum(losses) / self.batch_size  # the optimizer sums gradients over the replicas
        if penalties:  # a model's own regularisation, once over all replicas
            loss += tf.add_n(penalties) / (self.strategy.num_replicas_in_sync * self.accumulate_steps)
        return loss

    @property
    def _scale(self):
        """`(loss) -> loss` of an optimizer that divides the gradients by the same again; None of any other."""
        return self.state.optimizer.scale_loss if hasattr(self.state.optimizer, "inner_optimizer") else None

    def _apply(self, gradients):
        model, optimizer = self.state.model, self.state.optimizer
        decay = self.weight_decay / self.strategy.num_replicas_in_sync
        if self._scale and decay:
            decay = self._scale(tf.constant(decay))
        gradients = optim.add_weight_decay(gradients, model.trainable_variables, decay)
        optimizer.apply(gradients, model.trainable_variables)
        if self.state.average:
            self.state.average.update(tf.cast(tf.convert_to_tensor(optimizer.iterations), tf.int32))

    def _share_of_mean(self, values):
        return tf.reduce_sum(values) / self.batch_size

    def compile(self) -> Callable[[Iterator, tf.Tensor], dict[str, np.ndarray]]:
        """Return `steps(iterator, count) -> {quantity: numpy [count]}`, one graph for every count."""
        onednn.check(self.state.model)
        names = []  # known once the graph is traced: loss, and whatever the method reports
        _ = self._called  # made outside of any graph
        memory.keep_freed()
        step = self.step
        if self.jit_compile or not graphs.written(self.method):
            step = graphs.compiled(step, self.method, jit_compile=self.jit_compile or None)

        def advance(iterator, number, rows, waited):
            batch, seconds = self._next(iterator, rows.flow)
            per_replica = self.strategy.run(step, batch)
            means = {name: self.strategy.reduce("SUM", each, axis=None) for name, each in per_replica.items()}
            names[:] = means
            return number + 1, rows.write(number, tf.stack(list(means.values()))), waited + seconds

        def loop(iterator, count):
            start = tf.constant(0), tf.TensorArray(tf.float32, size=count), tf.zeros([], tf.float64)
            body = functools.partial(advance, iterator)
            _, rows, waited = tf.while_loop(lambda number, *_: number < count, body, start)
            return rows.stack(), waited

        steps = graphs.compiled(loop)

        def call(iterator, count):
            rows, call.waited = (each.numpy() for each in steps(iterator, count))
            return dict(zip(names, rows.T, strict=True))

        call.traces = steps.experimental_get_tracing_count
        return call

    def _next(self, iterator, before):
        """Return the next batch, and how many seconds it was waited for after `before`, a result of the last step."""
        if isinstance(self.strategy, tf.distribute.TPUStrategy):  # whose host may be another one than this process's
            return next(iterator), tf.zeros([], tf.float64)
        with tf.control_dependencies([before]):
            begun = _now()
        with tf.control_dependencies([begun]):
            batch = next(iterator)
        parts = [part for value in batch for part in self.strategy.experimental_local_results(value)]
        with tf.control_dependencies(parts):
            ended = _now()
        with tf.control_dependencies([ended]):  # with one thread it would have to wait for the step itself
            return tf.nest.map_structure(tf.identity, batch, expand_composites=True), ended - begun

    def check(self, batches: Iterable) -> None:
        """Refuse a data set whose first batch holds no images in [0, 1], or no label of the model for each."""
        first = next(iter(batches))
        if not isinstance(first, (tuple, list)) or len(first) not in (2, 3):
            raise ValueError(f"Expected batches of images and labels. Received: batches of {type(first).__name__}.")
        local = self.strategy.experimental_local_results
        images, labels = (np.concatenate([part.numpy() for part in local(values)]) for values in first[:2])
        inputs.classes_of(labels, len(inputs.in_unit_range(images)), self.state.model.output_shape[-1])

    def run(
        self,
        batches: Iterable,
        *,
        until: int,
        steps_per_call: int = 10,
        pauses: Iterable[int] = (),
        stops: Iterable[int] = (),
        on_call: Callable[[float, float], None] | None = None,
        seconds_per_call: float | None = None,
        check: bool = True,
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Train from the state's step until `until`; yield `(step, {quantity: [n]})` after every call.

        Args:
          batches: a (distributed) data set that starts with the batch of the state's step: images of floats in [0, 1],
            and labels `[n]`, `[n, 1]` or one-hot.
          until: the step to stop at.
          steps_per_call: the largest n.
          pauses: no call runs past a multiple of any of these, so that the caller can act there.
          stops: steps that no call runs past, either.
          on_call: is called after every call with its seconds, and how many of them it waited for batches.
          seconds_per_call: begin with calls of two steps, and take no more than fit into this time, as far as the last
            call tells; None for always `steps_per_call`. The number of steps in a call changes no bit of the result.

        Raises:
          ValueError: `check` finds a fault.
          FloatingPointError: the loss is not finite; the message names the step.
        """
        if check and self.state.step < until:
            self.check(batches)
        steps = self.compile()
        iterator = iter(batches)
        done, most = self.state.step, min(2, steps_per_call) if seconds_per_call else steps_per_call
        while done < until:
            started = time.perf_counter()
            stop = min([done + most, until, *((done // pause + 1) * pause for pause in pauses)])
            stop = min([stop, *(each for each in stops if each > done)])
            metrics = steps(iterator, tf.constant(stop - done))
            if on_call:
                on_call(time.perf_counter() - started, float(steps.waited))
            bad = np.flatnonzero(~np.isfinite(metrics["loss"]))
            if bad.size:
                raise FloatingPointError(
                    f"The loss of step {done + bad[0] + 1} is not finite ({metrics['loss'][bad[0]]}). A lower "
                    "learning_rate or a longer warm-up helps most often."
                )
            if seconds_per_call:
                fitting = int((stop - done) * seconds_per_call / (time.perf_counter() - started))
                most = min(max(fitting, 1), steps_per_call)
            done = stop
            yield done, metrics


@dataclasses.dataclass(kw_only=True)
class Updates:
    """The updates of one step on one replica, as a method asks for them: a `methods.Updater`.

    Attributes:
      model: whose trainable variables they change, and whose own regularisation counts.
      seed: int32 `[2]`, the step's, see `seed_of_step`.
      total: `(losses [b], [penalty]) -> loss`, this replica's share of what is differentiated.
      apply: `(gradients) -> None`, one a trainable variable.
      mean: `(values [b]) -> []`, this replica's share of a mean.
      scale: `(loss) -> loss`, by which `apply` divides the gradients again; None where they are not scaled.
      made: how many there were.
    """

    model: keras.Model
    seed: tf.Tensor
    total: Callable[[tf.Tensor, list], tf.Tensor]
    apply: Callable[[list], None]
    mean: Callable[[tf.Tensor], tf.Tensor]
    scale: Callable[[tf.Tensor], tf.Tensor] | None = None
    made: int = 0

    @property
    def variables(self) -> list[keras.Variable]:
        """The trainable variables of the model."""
        return self.model.trainable_variables

    def __call__(
        self, update: methods.Update, *, watched: tf.Tensor | None = None, weights: list[tf.Tensor] | None = None
    ) -> tuple[methods.Report, tf.Tensor | None]:
        """Make one update of the weights, as `methods.Updater` says."""
        sources = [*(self.variables if weights is None else weights), *([] if watched is None else [watched])]
        loss, report, gradients = self._differentiated(update, sources, weights)
        self.apply(gradients[: len(self.variables)])
        self.made += 1
        means = {name: self.mean(each) for name, each in report.items()}
        return {"loss": loss, **means}, None if watched is None else self._unscaled(gradients[-1])

    def gradients(self, update: methods.Update) -> list[tf.Tensor | None]:
        """Return the gradients of the mean loss over all replicas; statistics and weights stay as they are."""
        weights = [tf.convert_to_tensor(variable.value) for variable in self.variables]
        gradients = [self._unscaled(each) for each in self._differentiated(update, weights, weights, keep=False)[2]]
        summed = iter(methods.added([each for each in gradients if each is not None]))
        return [None if each is None else next(summed) for each in gradients]

    def _differentiated(self, update, sources, weights, keep=True):
        """Return the loss, the report, and the loss' gradients to `sources`.

        `weights` stand in for the trainable variables; statistics that a pass moves are kept only if `keep` says so.
        """
        draws = tf.random.experimental.stateless_fold_in(self.seed, 1)
        for _ in range(self.made):
            draws = tf.random.experimental.stateless_fold_in(draws, 1)
        with drawing_from(draws), learning(), tf.GradientTape() as tape:
            for tensor in sources[len(self.variables) :] if weights is None else sources:
                tape.watch(tensor)
            with _standing_in(self.model, weights, keep) as added:
                losses, report = update()
                loss = self.total(losses, [*getattr(self.model, "losses", ()), *added])
                scaled = self.scale(loss) if self.scale else loss
        return loss, report, tape.gradient(scaled, sources)

    def _unscaled(self, gradient):
        return gradient / self.scale(tf.constant(1.0)) if self.scale and gradient is not None else gradient


@contextlib.contextmanager
def _standing_in(model, weights, keep):
    """Let tensors stand in for a model's trainable variables; None: for none. Yield losses that its layers add.

    Whatever a pass assigns to other variables, statistics above all, is theirs afterwards only if `keep` says so.
    """
    if weights is None:
        yield []
        return
    mapping = list(zip(model.trainable_variables, weights, strict=True))
    with keras.StatelessScope(mapping, collect_losses=True, initialize_variables=False) as scope:
        yield scope.losses
    trained = {id(variable) for variable in model.trainable_variables}
    for variable in model.variables if keep else ():
        value = scope.get_current_value(variable)
        if value is not None and id(variable) not in trained:
            variable.assign(value)


def _now():
    """Return the time, float64 []: TensorFlow's own refuses to run where results are to be the same every time."""
    return tf.ensure_shape(tf.numpy_function(lambda: np.float64(CLOCK()), [], tf.float64), [])


def seed_of_step(seed: int, step: tf.Tensor) -> tf.Tensor:
    """Return the seed of a step, int32 `[2]`: `seed` folded with step, int32 `[]`.

    It is the same on all replicas: `replicas.uniform` and its like draw the numbers of a replica's own images.
    """
    folded = tf.constant([0, seed])
    for number in (step, 0):  # the 0 was a replica's number once: one device draws what it always drew
        folded = tf.random.experimental.stateless_fold_in(folded, number)
    return folded


def labels_of(labels: tf.Tensor) -> tf.Tensor:
    """Return labels `[b]`, `[b, 1]` or one-hot as int32 `[b]`."""
    if labels.shape.rank == 2:
        labels = labels[:, 0] if labels.shape[1] == 1 else tf.argmax(labels, -1)
    return tf.cast(labels, tf.int32)
