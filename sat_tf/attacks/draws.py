"""Random numbers that depend on an image and a count alone, for whole batches at once.

`tf.random.stateless_uniform` takes one seed a call; these take one an image, without a loop: a hash of 32 bits in two
rounds of xor, shift and multiply (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"; constants
of C. Wellons' search for hashes of low bias).
"""

import tensorflow as tf


def hashed(*words: tf.Tensor | int) -> tf.Tensor:
    """Return uint32 of the broadcast shape of some integer tensors: a hash of them all."""
    state = tf.constant(0x9E3779B9, tf.uint32)
    for word in words:
        state = _mix(tf.bitwise.bitwise_xor(state * tf.constant(0x85EBCA6B, tf.uint32), tf.cast(word, tf.uint32)))
    return state


def _mix(x):
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(shift, tf.uint32)))
        x = x * tf.constant(factor, tf.uint32)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(16, tf.uint32)))


def uniform(bits: tf.Tensor) -> tf.Tensor:
    """Return numbers in [0, 1) of the upper 24 of 32 bits."""
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24


def sign(bits: tf.Tensor) -> tf.Tensor:
    """Return -1.0 or 1.0 of the lowest bit."""
    return 2.0 * tf.cast(tf.bitwise.bitwise_and(bits, tf.constant(1, tf.uint32)), tf.float32) - 1.0


def noise(seeds: tf.Tensor, shape: tf.Tensor, count: tf.Tensor | int = 0, normal: bool = False) -> tf.Tensor:
    """Return one image of noise a seed: uniform in [-1, 1), or normal.

    Args:
      seeds: int32 `[batch]`.
      shape: of an image, `[h, w, c]`.
      count: which noise of an image, int or int32 `[batch]`.
    """
    size = tf.reduce_prod(shape)
    count = tf.reshape(tf.convert_to_tensor(count), [-1, 1])
    bits = [hashed(seeds[:, None], count, tf.range(size)[None], part) for part in ((0, 1) if normal else (0,))]
    if normal:  # Box and Muller
        radius = tf.sqrt(-2.0 * tf.math.log(1.0 - uniform(bits[0])))
        values = radius * tf.cos(6.283185307179586 * uniform(bits[1]))
    else:
        values = 2.0 * uniform(bits[0]) - 1.0
    return tf.reshape(values, tf.concat([tf.shape(seeds), shape], 0))
