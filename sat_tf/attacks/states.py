"""Attacks as states: every image carries its own, so that it may enter a batch, leave it, and be stopped any time.

Such an attack has three things:

* `begin(images, seeds) -> state`: a dict of tensors `[batch, ...]`, no pass through the model;
* `advance(objective, images, state) -> state`: one more iteration of every image. Images do not touch each other;
* `evaluations`: how often that is worth doing.

`objective(images) -> (values, fooled, margin)`, each `[batch]`: what is climbed, whether the model is wrong there, and
the label's logit minus the largest other one. Every state holds `step` (iterations so far), `fooled`, `adversarial`
(the last point that fooled the model, else the image itself) and `margin` (the smallest that was seen).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from sat_tf.attacks import draws
from sat_tf.attacks.pgd import Loss, as_seed, starts_clean, uniform_noise
from sat_tf.replicas import places

State = dict[str, tf.Tensor]
Objective = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]  # images -> values, fooled, margin


def begun(images: tf.Tensor) -> State:
    """Return what every state holds, at its beginning."""
    none = tf.zeros_like(images[:, 0, 0, 0])
    return {
        "step": tf.cast(none, tf.int32),
        "fooled": tf.zeros_like(none, tf.bool),
        "adversarial": images,
        "margin": none + float("inf"),
    }


def looked(state: State, points: tf.Tensor, fooled: tf.Tensor, margin: tf.Tensor) -> State:
    """Take down in a state what a look at `points` `[batch, h, w, c]` showed: `fooled` and `margin`, `[batch]`."""
    state["adversarial"] = pick(fooled, points, state["adversarial"])
    state["fooled"] |= fooled
    state["margin"] = tf.minimum(margin, state["margin"])
    state["step"] += 1
    return state


def pick(which: tf.Tensor, these: tf.Tensor, those: tf.Tensor) -> tf.Tensor:
    """Return `these` `[batch, ...]` where `which` `[batch]` says so, else `those`; whole images are copied.

    `tf.where` does the same with a condition that broadcasts, at ten times the cost on a CPU.
    """
    return tf.raw_ops.Select(condition=which, x=these, y=those)


def each(values: tf.Tensor) -> tf.Tensor:
    """Return `[batch]` values as they broadcast over images."""
    return values[:, None, None, None]


def climbed(objective: Objective, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return values, fooled and margin, each `[batch]`, and the gradient of the values to the images."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        values, fooled, margin = objective(images)
        total = tf.reduce_sum(values)
    return values, fooled, margin, tape.gradient(total, images, unconnected_gradients="zero")


def whole(attack: Any, objective: Objective, images: tf.Tensor, seeds: tf.Tensor) -> State:
    """Return the state after all iterations of one batch, all of whose images stay to the end."""
    return finished(attack, objective, images, attack.begin(images, seeds))


def finished(attack: Any, objective: Objective, images: tf.Tensor, state: State) -> State:
    """Return the state after all iterations from a state at the start."""
    return tf.while_loop(
        lambda i, _: i < attack.evaluations,
        lambda i, state: (i + 1, attack.advance(objective, images, state)),
        (0, state),
        parallel_iterations=1,
        maximum_iterations=attack.evaluations,
    )[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ascent:
    """PGD (Madry et al. 2018) in a ball of any norm, as `states`.

    Attributes:
      ball: of `balls`.
      step_size: of each iteration, in the ball's norm; a number or a scalar tensor.
      steps: iterations; a number or a scalar tensor.
      final: an image is fooled by the last iterate only, the paper's definition; else by any, the start included. The
        state's `adversarial` is then the last iterate, whether or not it fools the model. A bool or a scalar tensor.
      random_start: begin at a random point of the ball instead of the image; where seeds are pairs, `[batch, 2]`,
        in the L-infinity ball at the very point of `PGD`.
      marks: numbers of steps after which the state's `wrong`, bool `[batch, marks]`, says whether the model was.
        A tuple or a tensor.
    """

    ball: Any
    step_size: Any
    steps: Any
    final: Any = False
    random_start: bool = True
    marks: Any = ()

    @property
    def evaluations(self) -> Any:
        """Passes an image: the start and every iterate."""
        return self.steps + 1

    def begin(self, images: tf.Tensor, seeds: tf.Tensor) -> State:
        """Return the state at the start."""
        start = images
        if self.random_start:
            if seeds.shape.rank == 2 and not self.ball.normal:
                noise = uniform_noise(tf.shape(images), seeds)
            else:
                seeds = draws.hashed(seeds[:, 0], seeds[:, 1]) if seeds.shape.rank == 2 else seeds
                noise = draws.noise(seeds, tf.shape(images)[1:], normal=self.ball.normal)
            start = self.ball.project(images + self.ball.spread(noise, seeds), images)
        wrong = tf.zeros([tf.shape(images)[0], tf.convert_to_tensor(self.marks, tf.int32).shape[0]], tf.bool)
        return {**begun(images), "current": start, "wrong": wrong}

    def advance(self, objective: Objective, images: tf.Tensor, state: State) -> State:
        """Return the state after a look at the current iterate and a step from it."""
        s = dict(state)
        _, fooled, margin, gradient = climbed(objective, s["current"])
        marks, final = tf.convert_to_tensor(self.marks, tf.int32), tf.convert_to_tensor(self.final, tf.bool)
        s["wrong"] |= fooled[:, None] & (s["step"][:, None] == marks)
        counts = (s["step"] == self.steps) | ~final
        fooled &= counts
        s["adversarial"] = pick(fooled | (counts & final), s["current"], s["adversarial"])
        s["fooled"] |= fooled
        s["margin"] = tf.where(counts, tf.minimum(margin, s["margin"]), s["margin"])
        stepped = s["current"] + self.step_size * self.ball.direction(gradient)
        s["current"] = self.ball.project(stepped, images)
        s["step"] += 1
        return s


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise:
    """Random points of the ball, one an iteration, as `states`: what no attack may be weaker than."""

    ball: Any
    steps: int

    @property
    def evaluations(self) -> int:
        """Points an image."""
        return self.steps

    def begin(self, images: tf.Tensor, seeds: tf.Tensor) -> State:
        """Return the state before the first point."""
        return {**begun(images), "seed": seeds}

    def advance(self, objective: Objective, images: tf.Tensor, state: State) -> State:
        """Return the state after one more point of every image."""
        s = dict(state)
        noise = draws.noise(s["seed"], tf.shape(images)[1:], count=s["step"], normal=self.ball.normal)
        point = self.ball.project(images + self.ball.spread(noise, s["seed"] + s["step"]), images)
        _, fooled, margin = objective(point)
        return looked(s, point, fooled, margin)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
    """A state attack as training wants it: `attack(loss_fn, images, seed) -> images`, all of one batch to the end.

    Returns the point of the highest loss. `seed` is what `PGD` takes; every image draws from its own.

    Attributes:
      attack: whose state holds `best`, such as Auto-PGD.
      clean_start: probability with which a batch begins at its images instead of at random.
    """

    attack: Any
    clean_start: float = 0.0

    @property
    def steps(self) -> int:
        """Iterations."""
        return self.attack.steps

    @property
    def epsilon(self) -> float:
        """Radius of the ball."""
        return self.attack.ball.epsilon

    @property
    def forward_equivalents(self) -> int:
        """Cost of a batch in forward passes: each look is one pass and the gradient to the images."""
        return 2 * self.attack.evaluations

    def __call__(self, loss_fn: Loss, images: tf.Tensor, seed: tf.Tensor | int) -> tf.Tensor:
        """Return the points of the highest loss, `[batch, h, w, c]`, which carry no gradient."""
        images, seed = tf.stop_gradient(images), as_seed(seed)
        words = (seed[:, 0], seed[:, 1]) if seed.shape.rank == 2 else (seed[0], seed[1], places(tf.shape(images)[0]))
        state = self.attack.begin(images, tf.cast(draws.hashed(*words), tf.int32))
        if self.clean_start:
            begin = dataclasses.replace(self.attack, random_start=False).begin
            clean = starts_clean(seed, self.clean_start)
            state = {name: tf.where(clean, value, state[name]) for name, value in begin(images, seed[..., 0]).items()}

        def objective(points):
            values = loss_fn(points)
            return values, tf.zeros_like(values, tf.bool), -values

        return tf.stop_gradient(finished(self.attack, objective, images, state)["best"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Once:
    """An attack of a whole batch, `(loss_fn, images, seed) -> images`, as `states`: one iteration is all of it.

    Attributes:
      attack: takes a seed for each image, `[batch, 2]`, as `PGD` does.
    """

    attack: Any

    @property
    def step_size(self) -> float | tf.Tensor | None:
        """Of the attack, None where it has none."""
        return getattr(self.attack, "step_size", None)

    @property
    def evaluations(self) -> int:
        """Iterations: one."""
        return 1

    def begin(self, images: tf.Tensor, seeds: tf.Tensor) -> State:
        """Return the state before the attack."""
        return {**begun(images), "seed": seeds}

    def advance(self, objective: Objective, images: tf.Tensor, state: State) -> State:
        """Return the state after the attack, whose result is what counts."""
        points = self.attack(lambda x: objective(x)[0], images, state["seed"])
        _, fooled, margin = objective(points)
        return looked(dict(state), points, fooled, margin)
