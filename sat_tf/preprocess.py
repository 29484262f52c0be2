"""One picture on its way into a batch: uint8 [h, w, 3] -> float32 [size, size, 3] in [0, 1].

Training rows of `AUGMENTATIONS` are `(image, size, seed) -> image`; evaluation is `center_crop(image, size)`.
Randomness is an argument: the same int32 seed [2] gives the same picture, whatever ran before.
"""

import tensorflow as tf

# A table instead of a division: graph optimizers may turn x / 255 into x * (1 / 255), which differs in the last bit.
_LEVELS = [level / 255 for level in range(256)]
_SMALL = 64  # below this side a border of 32 pixels would be most of the picture


def to_unit_range(image):
    """Return uint8 values divided by 255, correctly rounded, as float32."""
    return tf.gather(tf.constant(_LEVELS, tf.float32), tf.cast(image, tf.int32))


def center_crop(image, size):
    """Bring a picture to `size` as evaluation does.

    A picture that is `size` x `size` already keeps every value. Any other is resized (shortest side to `size` + 32, or
    to `size` itself where that is below 64 pixels) and its centre is cut out.

    Args:
        image: uint8 [h, w, 3], also with unknown sides.
        size: Side of the result in pixels.

    Returns:
        float32 [size, size, 3] in [0, 1].

    Differs from source: the resize is antialiased bicubic, TF1 releases sampled without antialiasing.
    """
    if None in image.shape[:2]:
        fits = tf.reduce_all(tf.shape(image)[:2] == size)
        image = tf.cond(fits, lambda: to_unit_range(image), lambda: _resize_and_cut(image, size))
    elif tuple(image.shape[:2]) == (size, size):
        image = to_unit_range(image)
    else:
        image = _resize_and_cut(image, size)
    return tf.ensure_shape(image, [size, size, 3])


def pad_crop_flip(image, size, seed):
    """Pad with `size` // 8 black pixels (4 at 32), cut out at a random place, flip every second picture.

    Source: He et al. 2015, "Deep Residual Learning for Image Recognition", Section 4.2.
    """
    border = size // 8
    padded = tf.pad(center_crop(image, size), [[border, border], [border, border], [0, 0]])
    draw = tf.random.stateless_uniform([3], seed)
    top, left, coin = tf.unstack(tf.cast(draw * [2 * border + 1, 2 * border + 1, 2], tf.int32))
    return tf.ensure_shape(_flip(tf.slice(padded, [top, left, 0], [size, size, 3]), coin), [size, size, 3])


def random_resized_crop_flip(image, size, seed):
    """Cut out 8 to 100 % of the area at aspect 3/4 to 4/3, resize (bicubic), flip every second picture.

    Where ten tries find no such rectangle the whole picture is taken.

    Source: Szegedy et al. 2014, "Going Deeper with Convolutions", Section 6.
    """
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        tf.zeros([1, 0, 4]),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    crop = _resize(tf.slice(image, begin, extent), [size, size])
    flip_seed = tf.random.experimental.stateless_fold_in(seed, 1)
    coin = tf.random.stateless_uniform([], flip_seed, minval=0, maxval=2, dtype=tf.int32)
    return tf.ensure_shape(_flip(crop, coin), [size, size, 3])


def unchanged(image, size, seed):
    """Return the picture as evaluation sees it; the seed is not used."""
    return center_crop(image, size)


AUGMENTATIONS = {"none": unchanged, "pad_crop_flip": pad_crop_flip, "imagenet": random_resized_crop_flip}


def _flip(image, coin):
    """Mirror left and right where `coin` is 1."""
    return image[:, :: 1 - 2 * coin]


def _resize(image, shape):
    """Resize uint8 pixels to float32 in [0, 1]; bicubic overshoots, hence the clip."""
    resized = tf.image.resize(image, shape, method="bicubic", antialias=True)
    return tf.clip_by_value(resized / 255.0, 0.0, 1.0)


def _resize_and_cut(image, size):
    """Resize the shortest side, keep the aspect, cut out the centre."""
    shortest = size if size < _SMALL else size + 32
    sides = tf.shape(image)[:2]
    least = tf.reduce_min(sides)
    sides = (sides * shortest + least // 2) // least  # the shortest side exactly, the other to the nearest pixel
    top, left = tf.unstack((sides - size) // 2)
    return tf.slice(_resize(image, sides), [top, left, 0], [size, size, 3])
