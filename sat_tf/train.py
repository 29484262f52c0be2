"""The training loop: N compiled steps a call, each of which perturbs first and then updates, on every replica."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from sat_tf import inputs, optim
from sat_tf.layers import drawing_from


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """What an update changes: the model's variables, the optimizer's, whose `iterations` is the step, and averages."""

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    average: optim.MovingAverage | None = None

    @property
    def step(self) -> int:
        """The number of updates made, a Python int."""
        return int(self.optimizer.iterations.numpy())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update:
    """What a method made of a batch on one replica.

    Attributes:
      adversarial: what `perturb` returned, `[b, h, w, c]`.
      loss: the scalar that was differentiated. gradients: of it, one a variable.
      report: `{quantity: [b]}`, as the method's `loss` returns it.
    """

    adversarial: tf.Tensor
    loss: tf.Tensor
    gradients: list
    report: dict[str, tf.Tensor]


def differentiate(
    method: Any,
    model: Callable,
    images: tf.Tensor,
    labels: tf.Tensor,
    *,
    step: tf.Tensor,
    seed: int,
    variables: list,
    total: Callable[[tf.Tensor], tf.Tensor],
    attacked: Callable | None = None,
) -> Update:
    """Perturb a replica's batch, and differentiate the method's loss to the weights; everyone's step.

    Args:
      method: as `methods` describes them.
      model: `(images, training) -> logits`.
      images, labels: float32 `[b, h, w, c]` in [0, 1], int32 `[b]`.
      step: of the update, int32; randomness is the seed folded with it and the replica.
      seed: an int.
      variables: that the gradients are of.
      total: `losses [b] -> scalar`, what is differentiated.
      attacked: the model as `perturb` sees it; None for the model itself.
    """
    replica = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int32)
    folded = tf.constant([0, seed])
    for number in (step, replica):
        folded = tf.random.experimental.stateless_fold_in(folded, number)
    adversarial = tf.stop_gradient(method.perturb(attacked or model, images, labels, step, folded))
    draws = tf.random.experimental.stateless_fold_in(folded, 1)
    with drawing_from(draws), tf.GradientTape() as tape:
        losses, report = method.loss(model, images, adversarial, labels)
        loss = total(losses)
    return Update(adversarial=adversarial, loss=loss, gradients=tape.gradient(loss, variables), report=report)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop:
    """A method at work on a model: call `run` and look at what it yields.

    Attributes:
      state: the model and its optimizer, built in the strategy's scope.
      method: how to perturb and what to minimise, see `methods`.
      strategy: a `tf.distribute.Strategy`.
      batch_size: images an update, over all replicas; losses are summed and divided by it.
      seed: an int; each step's randomness is the seed folded with step and replica.
      weight_decay: of the kernels.
    """

    state: TrainState
    method: Any
    strategy: tf.distribute.Strategy
    batch_size: int
    seed: int = 0
    weight_decay: float = 0.0

    def step(self, images: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        """Perturb and update on one replica: float32 `[b, h, w, 3]`, int32 `[b]` -> its share of `{quantity: mean}`."""
        images, labels = tf.cast(images, tf.float32), labels_of(labels)
        model, optimizer = self.state.model, self.state.optimizer
        step = tf.cast(tf.convert_to_tensor(optimizer.iterations), tf.int32)
        variables = model.trainable_variables

        def total(losses):
            loss = tf.reduce_sum(losses) / self.batch_size  # the optimizer sums gradients over the replicas
            if penalties := getattr(model, "losses", ()):  # a model's own regularisation, once over all replicas
                loss += tf.add_n(penalties) / self.strategy.num_replicas_in_sync
            return loss

        made = differentiate(
            self.method, model, images, labels, step=step, seed=self.seed, variables=variables, total=total
        )
        gradients, loss, report = made.gradients, made.loss, made.report
        decay = self.weight_decay / self.strategy.num_replicas_in_sync
        optimizer.apply(optim.add_weight_decay(gradients, variables, decay), variables)
        if self.state.average:
            self.state.average.update(step + 1)
        return {"loss": loss, **{name: tf.reduce_sum(each) / self.batch_size for name, each in report.items()}}

    def compile(self) -> Callable[[Iterator, tf.Tensor], dict[str, np.ndarray]]:
        """Return `steps(iterator, count) -> {quantity: numpy [count]}`, one graph for every count."""
        names = []  # known once the graph is traced: loss, and whatever the method reports

        @tf.function
        def steps(iterator, count):
            rows = tf.TensorArray(tf.float32, size=count)
            for i in tf.range(count):
                per_replica = self.strategy.run(self.step, next(iterator))
                means = {name: self.strategy.reduce("SUM", each, axis=None) for name, each in per_replica.items()}
                names.clear()
                names.extend(means)
                rows = rows.write(i, tf.stack(list(means.values())))
            return rows.stack()

        def call(iterator, count):
            return dict(zip(names, steps(iterator, count).numpy().T, strict=True))

        call.traces = steps.experimental_get_tracing_count
        return call

    def check(self, batches: Iterable) -> None:
        """Refuse a data set whose first batch holds no images in [0, 1], or no label of the model for each."""
        first = next(iter(batches))
        if not isinstance(first, (tuple, list)) or len(first) != 2:
            raise ValueError(f"Expected batches of images and labels. Received: batches of {type(first).__name__}.")
        local = self.strategy.experimental_local_results
        images, labels = (np.concatenate([part.numpy() for part in local(values)]) for values in first)
        inputs.classes_of(labels, len(inputs.in_unit_range(images)), self.state.model.output_shape[-1])

    def run(
        self,
        batches: Iterable,
        *,
        until: int,
        steps_per_call: int = 10,
        pauses: Iterable[int] = (),
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
            metrics = steps(iterator, tf.constant(stop - done))
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


def labels_of(labels: tf.Tensor) -> tf.Tensor:
    """Return labels `[b]`, `[b, 1]` or one-hot as int32 `[b]`."""
    if labels.shape.rank == 2:
        labels = labels[:, 0] if labels.shape[1] == 1 else tf.argmax(labels, -1)
    return tf.cast(labels, tf.int32)
