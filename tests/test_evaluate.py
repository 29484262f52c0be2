"""Every image once, whatever the batch and the replicas; the iterates; predictions."""

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
    evaluator = evaluate.Evaluator(model, attacks.clean(epsilon=0, step_size=0, steps=0), losses.cross_entropy)
    seen = []
    counts, total, seconds = evaluator.count(padded(images, labels, size), seen.append)
    assert (counts, total, sum(seen)) == ({0: clean_correct(images, labels)}, 37, 37)
    assert seconds > 0


def test_the_result_depends_neither_on_batch_nor_on_replicas(two_replicas):
    images, labels = photos()
    attack = attacks.PGD(epsilon=2 / 255, step_size=1 / 255, steps=3)
    results = []
    for size, strategy in ((37, None), (8, None), (8, two_replicas), (10, two_replicas)):
        evaluator = evaluate.Evaluator(model, attack, losses.cross_entropy, strategy=strategy, seed=3)
        counts, total, _ = evaluator.count(padded(images, labels, size))
        results.append((counts, total))
    assert all(result == results[0] for result in results)
    assert results[0][1] == 37 and list(results[0][0]) == [1, 2, 3]


def test_a_linear_model_under_pgd_has_its_closed_form():
    images, labels = photos(200)
    epsilon = 4 / 255
    evaluator = evaluate.Evaluator(
        two_classes := (lambda x, training: model(x, training)[:, :2]),
        attacks.PGD(epsilon=epsilon, step_size=epsilon, steps=2, random_start=False),
        losses.cross_entropy,
    )
    labels = labels % 2
    counts, _, _ = evaluator.count(padded(images, labels, 50))
    direction = np.sign((WEIGHTS[:, 1] - WEIGHTS[:, 0]).numpy().reshape(8, 8, 3))
    worst = np.clip(images + epsilon * direction * np.where(labels == 0, 1, -1)[:, None, None, None], 0, 1).astype("f")
    expected = int((two_classes(worst, training=False).numpy().argmax(-1) == labels).sum())
    assert counts[2] == expected


def test_any_callable_is_an_attack():
    images, labels = photos()
    evaluator = evaluate.Evaluator(model, lambda loss_fn, x, seed: 1 - x, losses.cross_entropy)
    counts, total, _ = evaluator.count(padded(images, labels, 10))
    assert counts == {0: clean_correct(1 - images, labels)} and total == 37


def test_one_trace_for_all_batches():
    images, labels = photos()
    evaluator = evaluate.Evaluator(model, lambda loss_fn, x, seed: x, losses.cross_entropy)
    for _ in range(2):
        evaluator.count(padded(images, labels, 8))
    assert evaluator._count.experimental_get_tracing_count() == 1


def test_adversarial_images_and_predictions():
    images, labels = photos(6)
    attack = attacks.PGD(epsilon=8 / 255, step_size=2 / 255, steps=5)
    evaluator = evaluate.Evaluator(model, attack, losses.cross_entropy, seed=1)
    adversarial = evaluator.adversarial(images, labels, np.arange(6))
    assert adversarial.shape == images.shape and 0 < np.abs(adversarial - images).max() <= np.float32(8 / 255)
    np.testing.assert_array_equal(evaluator.predict(images), model(images, False).numpy().argmax(-1))
