"""The optimizers, what decays, and the moving average of a model."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator

import keras
import tensorflow as tf

Step = int | tf.Tensor


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of ours where Keras wants one of its own."""

    def __init__(self, schedule: Callable[[Step], tf.Tensor]) -> None:
        self.schedule = schedule

    def __call__(self, step: Step) -> tf.Tensor:
        """Return the learning rate of a step, float32 `[]`."""
        return self.schedule(step)


def sgd(
    schedule: Callable[[Step], tf.Tensor], *, momentum: float, nesterov: bool = False
) -> keras.optimizers.Optimizer:
    """Return stochastic gradient descent with momentum.

    Differs from source: Keras' velocity holds the learning rate (v = m v - rate g), the release's does not; the two
    part for some 1 / (1 - momentum) steps after a drop of the rate.
    """
    return keras.optimizers.SGD(Schedule(schedule), momentum=momentum, nesterov=nesterov, name="sgd")


def rmsprop(
    schedule: Callable[[Step], tf.Tensor], *, momentum: float, nesterov: bool = False
) -> keras.optimizers.Optimizer:
    """Return RMSProp as EfficientNet's release has it: decay 0.9, 0.001 under the root, averages that start at one.

    a = 0.9 a + 0.1 g^2;  v = momentum v + rate g / sqrt(a + 0.001);  w = w - v  (Tieleman & Hinton 2012)
    """
    if nesterov:
        raise ValueError(f"Expected nesterov=false with the optimizer rmsprop. Received: nesterov={nesterov}.")
    return RMSProp(Schedule(schedule), rho=0.9, momentum=momentum, epsilon=1e-3, name="rmsprop")


class RMSProp(keras.optimizers.RMSprop):
    """Keras' RMSProp with squared gradients that start at one, as TF1's do: the first steps are no leaps."""

    def build(self, variables: list[keras.Variable]) -> None:
        super().build(variables)
        for average in self._velocities:
            average.assign(tf.ones_like(average))


def adamw(
    schedule: Callable[[Step], tf.Tensor], *, momentum: float, nesterov: bool = False, weight_decay: float = 0.0
) -> keras.optimizers.Optimizer:
    """Return Adam with decoupled weight decay, beta_1 = momentum, beta_2 = 0.999, epsilon 1e-8.

    w = w - rate (m / (sqrt(v) + epsilon) + weight_decay w), the last term of kernels only, see `decays`; m and v are
    the bias-corrected averages of gradient and square. Source: Loshchilov & Hutter 2019, "Decoupled Weight Decay
    Regularization", Algorithm 2, with the rate as the multiplier of both terms.
    """
    if nesterov:
        raise ValueError(f"Expected nesterov=false with the optimizer adamw. Received: nesterov={nesterov}.")
    return AdamW(Schedule(schedule), beta_1=momentum, epsilon=1e-8, weight_decay=weight_decay, name="adamw")


class AdamW(keras.optimizers.AdamW):
    """Keras' AdamW whose decay acts on kernels only, and whose update is one operation a variable instead of ten."""

    def build(self, variables: list[keras.Variable]) -> None:
        if not self.built:
            self.exclude_from_weight_decay([variable for variable in variables if not decays(variable)])
            self.weight_decay = self.weight_decay or None  # none costs nothing
        super().build(variables)

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        place, step = self._get_variable_index(variable), tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].value.handle,
            v=self._velocities[place].value.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )


OPTIMIZERS = {"sgd": sgd, "rmsprop": rmsprop, "adamw": adamw}
DECOUPLED = ("adamw",)  # they take `weight_decay` and decay themselves; for all others the loop adds it to gradients


def scale_rates(optimizer: keras.optimizers.Optimizer, factors: Iterable[float]) -> None:
    """Let an optimizer's rate of each variable be a multiple of its own, from the first update on.

    A decay that the optimizer itself makes keeps the optimizer's rate.

    Args:
      optimizer: built.
      factors: of the variables that it was built with, in their order.
    """
    own, factors = optimizer.update_step, list(factors)

    def update_step(gradient, variable, learning_rate):
        factor = factors[optimizer._get_variable_index(variable)]
        return own(gradient, variable, learning_rate if factor == 1 else learning_rate * factor)

    optimizer.update_step = update_step


def slots(optimizer: keras.optimizers.Optimizer) -> float:
    """Return how many values a new optimizer keeps beside each weight, counted on one kernel of 64 x 64."""
    weight = keras.Variable(tf.zeros([64, 64]), name="kernel")
    optimizer.build([weight])
    kept = sum(math.prod(variable.shape) for variable in optimizer.variables if len(variable.shape))  # no counters
    return kept / math.prod(weight.shape)


def decays(variable: keras.Variable) -> bool:
    """Say whether weight decay acts on a variable: kernels do, biases, normalisation and activations do not."""
    return variable.name == "kernel"


def add_weight_decay(
    gradients: list[tf.Tensor], variables: list[keras.Variable], weight_decay: float | tf.Tensor
) -> list[tf.Tensor]:
    """Add the gradient of weight_decay / 2 * |w|^2 to that of each kernel (L2 in the loss, as the release has it)."""
    if isinstance(weight_decay, float) and not weight_decay:
        return gradients
    return [
        gradient + weight_decay * tf.cast(variable, gradient.dtype) if decays(variable) else gradient
        for gradient, variable in zip(gradients, variables, strict=True)
    ]


class MovingAverage:
    """An exponential moving average of everything a model holds, statistics of batch normalisation included.

    After update t = 1, 2, ...:  average = d average + (1 - d) value  with d = min(decay, (1 + t) / (10 + t)), so that
    the first updates are not outweighed by the random start (tf.train.ExponentialMovingAverage with `num_updates`,
    as the release uses it).

    Whole numbers, the states of random generators, are the model's own. Create it in the strategy's scope.

    Args:
      model: that is followed.
      decay: between 0 and 1.
      names: of the averages, one a variable of the model; None for the variables' paths.

    Attributes:
      variables: `{name: tf.Variable}`, in the order of the model's variables.
    """

    def __init__(self, model: keras.Model, decay: float, names: Iterable[str] | None = None) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"Expected a decay between 0 and 1. Received: decay={decay}.")
        self.model, self.decay = model, decay
        names = [variable.path for variable in model.variables] if names is None else names
        self.variables = {
            name: tf.Variable(
                variable.value, trainable=False, name="average", aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
            )
            for name, variable in zip(names, model.variables, strict=True)
        }

    def update(self, count: int | tf.Tensor) -> None:
        """Follow the model, whose `count`-th update was just made; in replica context, part of the compiled step."""
        count = tf.cast(count, tf.float32)
        share = 1.0 - tf.minimum(tf.constant(self.decay, tf.float32), (1.0 + count) / (10.0 + count))
        for average, variable in zip(self.variables.values(), self.model.variables, strict=True):
            value = tf.convert_to_tensor(variable)
            average.assign(average + share * (value - average) if value.dtype.is_floating else value)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model hold the averages for a while, and its own values again afterwards, to the bit."""
        kept = [variable.numpy() for variable in self.model.variables]
        try:
            for variable, average in zip(self.model.variables, self.variables.values(), strict=True):
                variable.assign(average.numpy())
            yield
        finally:
            for variable, value in zip(self.model.variables, kept, strict=True):
                variable.assign(value)
