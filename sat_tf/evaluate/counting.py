"""Clean and robust accuracy: every image once, whatever the batch and the number of replicas."""

import time

import numpy as np
import tensorflow as tf


class Evaluator:
    """Count how many images a model still gets right under an attack; compiled once, used often.

    Args:
      model: images `[batch, h, w, 3]` in [0, 1] -> logits; called in inference mode.
      attack: `(loss_fn, images, seed) -> images`; where it also offers `iterates`, every iterate is counted.
      loss_fn: `(logits, labels) -> [batch]`, what the attack climbs.
      strategy: a `tf.distribute.Strategy`; batches are split over its replicas.
      seed: an int; each image's random start depends on it and on the image's place in the data set alone.
      attacked: the model as the attack sees it, with other gradients; None for the model itself.
    """

    def __init__(self, model, attack, loss_fn, *, strategy=None, seed=0, attacked=None):
        self.model = model
        self.attacked = attacked or model
        self.attack = attack
        self.loss_fn = loss_fn
        self.strategy = strategy or tf.distribute.get_strategy()
        self.seed = seed
        self.steps = []  # the iterates that are counted, known once the graph is traced
        self._count = tf.function(self._count_batch)

    def count(self, batches, progress=None):
        """Return `{steps taken: correct images}` of the iterates, the number of images, and seconds.

        Args:
          batches: data set of images, labels and a mask that is 0 where a batch is padded; its batch size must be a
            multiple of the number of replicas.
          progress: called with the number of images of every batch.
        """
        started = time.perf_counter()
        correct, total = 0, 0
        for batch in self.strategy.experimental_distribute_dataset(numbered(batches)):
            counts = self._count(batch).numpy()
            correct, total = correct + counts[:-1], total + counts[-1]
            if progress:
                progress(counts[-1])
        return dict(zip(self.steps, correct.tolist(), strict=True)), int(total), time.perf_counter() - started

    def adversarial(self, images, labels, places):
        """Return images as `count` attacks them, numpy `[batch, h, w, 3]`; `places` are theirs in the data set."""
        seeds = tf.stack([tf.fill([len(images)], self.seed), tf.constant(places, tf.int32)], 1)
        attack = tf.function(lambda x, y, s: self.attack(self._climb(y), x, s))
        return attack(tf.constant(images), tf.constant(labels), seeds).numpy()

    def predict(self, images):
        """Return the predicted classes of one batch of images, as numpy `[batch]`."""
        return np.argmax(self.model(tf.constant(images), training=False), -1)

    def _climb(self, labels):
        return lambda images: self.loss_fn(self.attacked(images, training=False), labels)

    def _count_batch(self, batch):
        return self.strategy.reduce("SUM", self.strategy.run(self._count_replica, args=batch), axis=None)

    def _count_replica(self, images, labels, mask, places):
        seeds = tf.stack([tf.fill(tf.shape(places), self.seed), places], 1)
        loss_fn = self._climb(labels)
        if hasattr(self.attack, "iterates"):
            iterates = list(self.attack.iterates(loss_fn, images, seeds))
        else:
            iterates = [(0, self.attack(loss_fn, images, seeds))]
        self.steps = [steps for steps, _ in iterates]
        counts = [tf.reduce_sum(self._correct(adversarial, labels) * mask) for _, adversarial in iterates]
        return tf.cast(tf.stack([*counts, tf.reduce_sum(mask)]), tf.int32)

    def _correct(self, images, labels):
        return tf.cast(tf.argmax(self.model(images, training=False), -1, labels.dtype) == labels, tf.float32)


def numbered(batches):
    """Add each image's place in the data set, int32 `[batch]`, to batches of images, labels and mask."""

    def number(i, batch):
        images, labels, mask = batch
        size = tf.shape(labels)[0]
        return images, labels, mask, tf.cast(i, tf.int32) * size + tf.range(size)

    return batches.enumerate().map(number)
