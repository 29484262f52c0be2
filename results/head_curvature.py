"""H-SAT's difficulty against the whole Hessian: python results/head_curvature.py

Trains small networks for a few epochs on the embedded images and asks, for images on their way through PGD, how the
curvature of the last layer ranks them beside the largest eigenvalue of the loss' Hessian to *all* weights, which power
iteration on Hessian-vector products finds image by image. Prints Spearman's rank correlation, that of P-SAT's gap
beside it.
"""

import argparse
import time

import keras
import numpy as np
import tensorflow as tf

from sat_tf import attacks, data, losses, methods, models, optim, train
from sat_tf.methods import difficulty

ATTACK = attacks.PGD(epsilon=8 / 255, step_size=2 / 255, steps=10)


def trained(model, split, method, steps):
    """Train a model for some steps of 128 images."""
    optimizer = optim.OPTIMIZERS["sgd"](lambda step: 0.1 * tf.ones([]), momentum=0.9)
    optimizer.build(model.trainable_variables)
    loop = train.Loop(
        state=train.TrainState(model=model, optimizer=optimizer),
        method=method,
        strategy=tf.distribute.get_strategy(),
        batch_size=128,
    )
    batches = data.train_batches(split, batch_size=128, image_size=32, augment="none", seed=0)
    for _ in loop.run(batches, until=steps):
        pass
    return model


def top_eigenvalue_of_all_weights(model, image, label, iterations, tolerance=1e-3):
    """Return the spectral norm of one image's Hessian, by power iteration in inference mode.

    Args:
      model: images to logits.
      image: `[1, h, w, 3]`.
      label: int32 `[1]`.
      iterations: at most.
      tolerance: stop where the eigenvalue changes by less than this share.
    """
    variables = [variable.value for variable in model.trainable_variables]

    def product(direction):
        with tf.autodiff.ForwardAccumulator(variables, direction) as forward:
            with tf.GradientTape() as tape:
                tape.watch(variables)
                loss = tf.reduce_sum(losses.cross_entropy(model(image, training=False), label))
            gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
        products = forward.jvp(gradients)
        return [tf.zeros_like(v) if p is None else p for p, v in zip(products, variables, strict=True)]

    def inner(one, two):
        return tf.add_n([tf.reduce_sum(a * b) for a, b in zip(one, two, strict=True)])

    def unit(vector):
        length = tf.sqrt(inner(vector, vector)) + 1e-30
        return [part / length for part in vector]

    start = unit([tf.random.stateless_normal(v.shape, [1, n]) for n, v in enumerate(variables)])

    def body(i, value, old, vector):
        new = product(vector)
        return i + 1, inner(vector, new), value, unit(new)

    def go_on(i, value, old, _):
        return (i < 3) | ((i < iterations) & (tf.abs(value - old) > tolerance * tf.abs(value)))

    first = (0, tf.constant(0.0), tf.constant(1.0), start)
    return tf.abs(tf.while_loop(go_on, body, first, parallel_iterations=1)[1])


def ranks(values):
    """Return the ranks of values, `[n]`."""
    return np.argsort(np.argsort(values)).astype(float)


def rank_correlation(one, two):
    """Return Spearman's rank correlation."""
    return float(np.corrcoef(ranks(one), ranks(two))[0, 1])


def looked_at(model, images, labels, steps):
    """Return points after some steps of PGD, and three difficulties of each: whole Hessian, last layer, gap."""
    attack = attacks.PGD(epsilon=ATTACK.epsilon, step_size=ATTACK.step_size, steps=steps)
    points = attack(lambda x: losses.cross_entropy(model(x, training=False), labels), images, 0)
    logits, features = difficulty.with_features(model)(points, training=False)
    probabilities = tf.nn.softmax(logits)
    head = difficulty.top_eigenvalue(probabilities) * difficulty.lengths(features)
    one_hot = tf.one_hot(labels, logits.shape[-1])
    gap = tf.reduce_max(probabilities - 2 * one_hot, -1) - tf.reduce_sum(probabilities * one_hot, -1)
    return points, head.numpy(), gap.numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="resnet8-w8,resnet14", help="comma-separated names")
    parser.add_argument("--steps", type=int, default=200, help="updates before the measurement")
    parser.add_argument("--images", type=int, default=100, help="test images of each measurement")
    parser.add_argument("--iterations", type=int, default=50, help="products of a power iteration, at most")
    flags = parser.parse_args()
    dataset = data.load("fashion_mnist_12k")
    images, labels, _ = next(iter(data.evaluation_batches(dataset.test, batch_size=flags.images, image_size=32)))
    print(
        "network, training, steps of PGD: rank correlation with the whole Hessian of head curvature, of the gap; mean"
    )
    for name in flags.models.split(","):
        for kind in ("standard", "sat"):
            keras.utils.set_random_seed(0)
            method = methods.METHODS[kind](attacks.PGD(epsilon=8 / 255, step_size=8 / 255, steps=1))
            model = trained(models.build(name, "swish", 10), dataset.train, method, flags.steps)
            find = tf.function(lambda i, y, m=model: top_eigenvalue_of_all_weights(m, i, y, flags.iterations))
            for steps in (0, 3, 10):
                began = time.perf_counter()
                points, head, gap = looked_at(model, images, labels, steps)
                whole = np.array([float(find(points[i : i + 1], labels[i : i + 1])) for i in range(len(points))])
                ranked = f"{rank_correlation(head, whole):.3f}, {rank_correlation(gap, whole):.3f}"
                print(
                    f"{name}, {kind}, {steps}: {ranked}; "
                    f"whole {whole.mean():.3g}, head {head.mean():.3g} ({time.perf_counter() - began:.0f} s)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
