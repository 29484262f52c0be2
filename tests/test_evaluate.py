"""The counter of validation: every image once, whatever the batch and the replicas."""

import numpy as np
import pytest
import tensorflow as tf

from sat_tf import attacks, evaluate, losses

WEIGHTS = tf.constant(np.random.default_rng(0).normal(size=[8 * 8 * 3, 5]), tf.float32)


def model(images, training):
    assert training is False
    return tf.reshape(images, [-1, 8 * 8 * 3]) @ WEIGHTS


def photos(count=37):
    rng = np.random.default_rng(1)
    return rng.random([count, 8, 8, 3]).astype(np.float32), rng.integers(0, 5, count).astype(np.int32)


def padded(images, labels, size):
    missing = -len(labels) % size
    mask = np.r_[np.ones(len(labels)), np.zeros(missing)].astype(np.float32)
    images = np.concatenate([images, np.zeros([missing, 8, 8, 3], np.float32)])
    labels = np.concatenate([labels, np.full(missing, model(images[-1:], False).numpy().argmax(), np.int32)])
    return tf.data.Dataset.from_tensor_slices((images, labels, mask)).batch(size)


def clean_correct(images, labels):
    return int((model(images, False).numpy().argmax(-1) == labels).sum())


@pytest.mark.parametrize("size", [1, 4, 10, 37, 64])
def test_clean_counts_every_image_once(size):
    images, labels = photos()
    counter = evaluate.Counter(model, attacks.for_training("clean", epsilon=0), losses.cross_entropy)
    seen = []
    assert counter.count(padded(images, labels, size), seen.append) == (clean_correct(images, labels), 37)
    assert sum(seen) == 37


def test_the_result_depends_neither_on_batch_nor_on_replicas(two_replicas):
    images, labels = photos()
    attack = attacks.PGD(epsilon=16 / 255, step_size=8 / 255, steps=3)
    results = []
    for size, strategy in ((37, None), (8, None), (8, two_replicas), (10, two_replicas)):
        counter = evaluate.Counter(model, attack, losses.cross_entropy, strategy=strategy, seed=3)
        results.append(counter.count(padded(images, labels, size)))
    assert all(result == results[0] for result in results)
    assert results[0][1] == 37 and 0 < results[0][0] < clean_correct(images, labels)


def test_a_linear_model_under_pgd_has_its_closed_form():
    images, labels = photos(200)
    epsilon = 4 / 255
    counter = evaluate.Counter(
        two_classes := (lambda x, training: model(x, training)[:, :2]),
        attacks.PGD(epsilon=epsilon, step_size=epsilon, steps=2, random_start=False),
        losses.cross_entropy,
    )
    labels = labels % 2
    correct, _ = counter.count(padded(images, labels, 50))
    direction = np.sign((WEIGHTS[:, 1] - WEIGHTS[:, 0]).numpy().reshape(8, 8, 3))
    worst = np.clip(images + epsilon * direction * np.where(labels == 0, 1, -1)[:, None, None, None], 0, 1).astype("f")
    expected = int((two_classes(worst, training=False).numpy().argmax(-1) == labels).sum())
    assert correct == expected


def test_any_callable_is_an_attack():
    images, labels = photos()
    counter = evaluate.Counter(model, lambda loss_fn, x, seed: 1 - x, losses.cross_entropy)
    assert counter.count(padded(images, labels, 10)) == (clean_correct(1 - images, labels), 37)


def test_one_trace_for_all_batches():
    images, labels = photos()
    counter = evaluate.Counter(model, lambda loss_fn, x, seed: x, losses.cross_entropy)
    for _ in range(2):
        counter.count(padded(images, labels, 8))
    assert counter._count.experimental_get_tracing_count() == 1


def test_what_is_no_number_is_never_right():
    images, labels = photos()
    poisoned = np.arange(37) < 9

    def with_nan(inputs, training):
        logits = model(inputs, training)
        return tf.where(tf.reduce_max(inputs, [1, 2, 3], keepdims=True)[:, :, 0, 0] > 1.5, np.nan, logits)

    images[poisoned] = 2.0
    counter = evaluate.Counter(with_nan, lambda loss_fn, x, seed: x, losses.cross_entropy)
    expected = int((model(images, False).numpy().argmax(-1) == labels)[~poisoned].sum())
    assert counter.count(padded(images, np.where(poisoned, 0, labels).astype(np.int32), 10)) == (expected, 37)
