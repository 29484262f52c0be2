"""A small counter for validation: how many images a model still gets right under one attack of a whole batch."""

from collections.abc import Callable

import keras
import tensorflow as tf

from sat_tf import graphs, replicas
from sat_tf.half import in_half_precision, keeping_gradients


class Counter:
    """Count correct images, every one once, whatever the batch and the number of replicas; compiled once, used often.

    Args:
      model: images `[batch, h, w, 3]` in [0, 1] -> logits; called in inference mode.
      attack: `(loss_fn, images, seed) -> images`.
      loss_fn: `(logits, labels) -> [batch]`, what the attack climbs.
      strategy: a `tf.distribute.Strategy`; batches are split over its replicas.
      seed: an int; each image's random start depends on it and on the image's place in the data set alone.
    """

    def __init__(
        self,
        model: keras.Model,
        attack: Callable,
        loss_fn: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        *,
        strategy: tf.distribute.Strategy | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.attack, self.loss_fn, self.seed = model, attack, loss_fn, seed
        self.strategy = strategy or tf.distribute.get_strategy()
        self._count = graphs.compiled(self._count_batch, model, attack, loss_fn)
        self._batches, self._numbered = None, None

    def count(
        self, batches: tf.data.Dataset, progress: Callable[[int], None] | None = None, first: int = 0, every: int = 1
    ) -> tuple[int, int]:
        """Return the number of correct images, and of all.

        Args:
          batches: data set of images, labels and a mask that is 0 where a batch is padded; its batch size must be a
            multiple of the number of replicas.
          progress: called with the number of images of every batch.
          first, every: the batches hold the images first, first + every, ... of the data set: a process' part.
        """
        correct = total = 0
        if (batches, first, every) != self._batches:  # else they are numbered, which takes a trace
            self._batches = batches, first, every
            self._numbered = self._spread(numbered(batches, first, every))
        for batch in self._numbered():
            right, count = self._count(batch).numpy().tolist()
            correct, total = correct + right, total + count
            if progress:
                progress(count)
        return correct, total

    def _spread(self, batches):
        """Return a function that gives the batches over this process' replicas, which need not wait for others'."""
        if replicas.here(self.strategy) == self.strategy.num_replicas_in_sync:
            spread = self.strategy.experimental_distribute_dataset(batches)
            return lambda: spread
        return lambda: (replicas.spread(self.strategy, batch) for batch in batches)

    def _count_batch(self, batch):
        counted = self.strategy.run(self._count_replica, args=batch)
        return tf.add_n(self.strategy.experimental_local_results(counted))

    def _count_replica(self, images, labels, mask, places):
        seeds = tf.stack([tf.fill(tf.shape(places), self.seed), places], 1)
        model = lambda x: self.model(x, training=False)  # noqa: E731
        attacked = keeping_gradients(model) if in_half_precision(self.model) else model
        moved = self.attack(lambda x: self.loss_fn(attacked(x), labels), images, seeds)
        logits = self.model(moved, training=False)
        read = tf.argmax(logits, -1, labels.dtype) == labels  # which takes what is no number for the largest
        right = tf.cast(read & ~tf.reduce_any(tf.math.is_nan(logits), -1), tf.float32)
        return tf.cast(tf.stack([tf.reduce_sum(right * mask), tf.reduce_sum(mask)]), tf.int32)


def numbered(batches: tf.data.Dataset, first: int = 0, every: int = 1) -> tf.data.Dataset:
    """Add each image's place in the data set, int32 `[batch]`, to batches of images, labels and mask.

    Args:
      batches: of the images first, first + every, ...
      first, every: see there.
    """

    def number(i, batch):
        images, labels, mask = batch
        size = tf.shape(labels)[0]
        return images, labels, mask, first + every * (tf.cast(i, tf.int32) * size + tf.range(size))

    return batches.enumerate().map(number)
