"""Curriculum-based adversarial training: the attack on an image ends where it becomes too difficult."""

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf

from sat_tf import attacks
from sat_tf.methods.adversarial import AdversarialTraining, climber
from sat_tf.methods.difficulty import Difficulty, Seen, with_features
from sat_tf.methods.standard import Batch, Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curriculum(AdversarialTraining):
    """Maximise the loss in the ball under psi(x') <= lambda, lambda a schedule (Sitawarin et al. 2021).

    Before each step of PGD the metric looks at every image where it is: an image with psi <= lambda takes the step, one
    above lambda stays where it is from then on. The last step may lead above lambda and is not taken back. The random
    start is not part of the test. Once all images of a batch (of a replica) have stopped, no more steps are made. With
    lambda >= 1 nothing is tested and this is adversarial training by PGD, bit for bit.

    Source: "SAT: Improving Adversarial Training via Curriculum-Based Loss Smoothing", Section 4. The loop is that of
    the authors' code for the paper's first versions, where the method is called ATES.

    Attributes:
      metric: psi.
      schedule: `step -> lambda`, traceable.
    """

    metric: Difficulty
    schedule: Callable[[tf.Tensor], tf.Tensor]
    words: str = "by a curriculum of adversarial images (Sitawarin et al. 2021)"

    quantities = ("accuracy", "lambda", "stopped", "image_steps", "batch_steps")
    ends_early = True
    takes_mixed = False

    def __post_init__(self):
        climber(self.attack, "a curriculum")

    @property
    def attack_equivalents(self) -> int:
        """Cost of the attack in forward passes, if no image stops."""
        return self.attack.forward_equivalents + self.metric.extra_passes

    def perturb(
        self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Return adversarial images, `[batch, h, w, 3]`."""
        return self.attacked(model, Batch(images=images, labels=labels, step=step, seed=seed))[0]

    def attacked(self, model: keras.Model, batch: Batch) -> tuple[tf.Tensor, Report]:
        """Return adversarial images, and lambda, who stopped, and the steps of each image and of its batch."""
        bound = tf.cast(self.schedule(batch.step), tf.float32)
        start = self.attack.start(batch.images, batch.seed)
        points, active, steps, taken = self.climb(model, batch.images, batch.labels, start, bound)
        every = tf.ones_like(steps)
        report = {
            "lambda": bound * every,
            "stopped": 1.0 - tf.cast(active, tf.float32),
            "image_steps": steps,
            "batch_steps": tf.cast(taken, tf.float32) * every,
        }
        return tf.stop_gradient(points), report

    def climb(
        self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, start: tf.Tensor, bound: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Climb from a start under a bound on the difficulty.

        Args:
          model: as the update sees it.
          images: `[batch, h, w, 3]`, the centres of the ball.
          labels: int32 `[batch]`.
          start: `[batch, h, w, 3]`.
          bound: lambda, float32 `[]`.

        Returns:
          `(points [batch, h, w, 3], active bool [batch], steps float32 [batch], rounds int32 [])`: where the images
          ended, which took every step, how many each took, and how often the model was looked at.
        """
        look = self._look(model)
        images = tf.stop_gradient(images)
        ball = attacks.linf_ball(images, self.attack.epsilon)
        scale = self.metric.begin(look, images)

        def body(i, points, active, steps):
            logits, features, gradient = self._climbing(look, points, labels)
            seen = Seen(
                images=images,
                points=points,
                labels=labels,
                logits=logits,
                features=features,
                gradient=gradient,
                epsilon=self.attack.epsilon,
                steps=tf.cast(i, tf.float32),
                scale=scale,
            )
            active &= (self.metric(seen) <= bound) | (bound >= 1.0)
            moved = self.attack.moved(points, gradient, ball)
            return i + 1, attacks.pick(active, moved, points), active, steps + tf.cast(active, tf.float32)

        ones = tf.ones_like(images[:, 0, 0, 0])
        rounds, points, active, steps = tf.while_loop(
            lambda i, _, active, __: (i < self.attack.steps) & tf.reduce_any(active),
            body,
            (0, tf.stop_gradient(start), ones > 0, tf.zeros_like(ones)),
            parallel_iterations=1,
            maximum_iterations=self.attack.steps,
        )
        return points, active, steps, rounds

    def _look(self, model):
        """Return `images -> (logits, features)` in inference mode, features None where the metric asks for none."""
        if not self.metric.features:
            attacked = self.backward.view(model, "attack")
            return lambda points: (attacked(points, training=False), None)
        attacked = self.backward.view(with_features(model), "attack", of=model)
        return lambda points: tuple(attacked(points, training=False))

    def _climbing(self, look, points, labels):
        """Return logits and features at some points, and the gradient of the summed losses to the points."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(points)
            logits, features = look(points)
            loss = tf.reduce_sum(self.climb_fn(logits, labels))
        return logits, features, tape.gradient(loss, points, unconnected_gradients="zero")
