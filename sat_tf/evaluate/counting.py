"""A small counter for validation: how many images a model still gets right under one attack of a whole batch."""

from collections.abc import Callable

import keras
import tensorflow as tf


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
        self._count = tf.function(self._count_batch)
        self._batches, self._numbered = None, None

    def count(self, batches: tf.data.Dataset, progress: Callable[[int], None] | None = None) -> tuple[int, int]:
        """Return the number of correct images, and of all.

        Args:
          batches: data set of images, labels and a mask that is 0 where a batch is padded; its batch size must be a
            multiple of the number of replicas.
          progress: called with the number of images of every batch.
        """
        correct = total = 0
        if batches is not self._batches:  # else they are numbered, which takes a trace
            self._batches = batches
            self._numbered = self.strategy.experimental_distribute_dataset(numbered(batches))
        for batch in self._numbered:
            right, count = self._count(batch).numpy().tolist()
            correct, total = correct + right, total + count
            if progress:
                progress(count)
        return correct, total

    def _count_batch(self, batch):
        return self.strategy.reduce("SUM", self.strategy.run(self._count_replica, args=batch), axis=None)

    def _count_replica(self, images, labels, mask, places):
        seeds = tf.stack([tf.fill(tf.shape(places), self.seed), places], 1)
        moved = self.attack(lambda x: self.loss_fn(self.model(x, training=False), labels), images, seeds)
        logits = self.model(moved, training=False)
        read = tf.argmax(logits, -1, labels.dtype) == labels  # which takes what is no number for the largest
        right = tf.cast(read & ~tf.reduce_any(tf.math.is_nan(logits), -1), tf.float32)
        return tf.cast(tf.stack([tf.reduce_sum(right * mask), tf.reduce_sum(mask)]), tf.int32)


def numbered(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Add each image's place in the data set, int32 `[batch]`, to batches of images, labels and mask."""

    def number(i, batch):
        images, labels, mask = batch
        size = tf.shape(labels)[0]
        return images, labels, mask, tf.cast(i, tf.int32) * size + tf.range(size)

    return batches.enumerate().map(number)
