"""One image on its way into a batch: -> float32 `[size, size, 3]` in [0, 1].

A source is an image, uint8 `[h, w, 3]`, or the scalar string of an image file's bytes (JPEG, PNG, plain BMP: told by
its content, not by any name). Of a JPEG only the part that is needed is decoded to pixels. Training rows of
`AUGMENTATIONS` are `(source, size, seed) -> image`, rows of `EVALUATIONS` are `(source, size) -> image`.
Randomness is an argument: the same int32 seed `[2]` gives the same image, whatever ran before.
"""

from collections.abc import Callable

import tensorflow as tf

from sat_tf.decoding import (
    MOST_ASPECT,
    decode,
    is_jpeg,
    is_usual_jpeg,
    jpeg_orientation,
    stored_window,
    turned_sides,
    upright,
)

_BORDER = 32  # pixels of a photograph, at the size of the result, that evaluation leaves out
_SMALL = 64  # below this side such a border would be most of the image, and nothing is left out


def to_unit_range(image: tf.Tensor) -> tf.Tensor:
    """Return uint8 values divided by 255, correctly rounded, as float32.

    By a product in float64: graph optimizers may turn a division in float32 into a product, which differs in the last
    bit, and a look-up in a table of 256 takes eight times as long.
    """
    return tf.cast(tf.cast(image, tf.float64) * (1.0 / 255.0), tf.float32)


def to_levels(image: tf.Tensor) -> tf.Tensor:
    """Return float32 pixels in [0, 1] as the nearest uint8 levels."""
    return tf.cast(tf.round(image * 255.0), tf.uint8)


def resize_crop(source: tf.Tensor, size: int) -> tf.Tensor:
    """Bring an image to `size` as the ResNets' evaluation does: resize, then cut out the centre.

    The shortest side becomes `size` + 32 (below 64 pixels: `size`) by bicubic interpolation, and the centre is cut out.
    An image that is `size` x `size` already keeps every value.

    Args:
      source: uint8 `[h, w, 3]`, also with unknown sides, or the bytes of an image file.
      size: side of the result in pixels.

    Returns:
      float32 `[size, size, 3]` in [0, 1].

    Source: evaluation of the ResNets in the release of Xie et al. 2020, "Smooth Adversarial Training".
    """
    image = decode(source)
    return _unless_it_fits(image, size, lambda: _resize_and_cut(image, size))


def crop_resize(source: tf.Tensor, size: int) -> tf.Tensor:
    """Bring an image to `size` as the EfficientNets' evaluation does: cut out the centre, then resize.

    The square of `size` / (`size` + 32) of the shortest side (below 64 pixels: all of it) in the centre is resized by
    bicubic interpolation. An image that is `size` x `size` already keeps every value.

    Args, Returns: as `resize_crop`.

    Source: evaluation of the EfficientNets in the release; pixel (0, 0) stays in its corner and cubics have a = -0.75,
    as in TensorFlow 1.
    """

    def cut_and_resize():
        crop = cut(source, lambda sides: _centre(sides, size))
        if size < _SMALL:
            return _resize(crop, [size, size], size)
        return _to_image(tf.raw_ops.ResizeBicubic(images=crop[tf.newaxis], size=[size, size])[0])

    if source.dtype == tf.string:
        sides = tf.cond(
            is_jpeg(source), lambda: tf.io.extract_jpeg_shape(source)[:2], lambda: tf.shape(decode(source))[:2]
        )
        fits = tf.reduce_all(sides == size)
        image = tf.cond(fits, lambda: to_unit_range(decode(source)), cut_and_resize)
        return tf.ensure_shape(image, [size, size, 3])
    return _unless_it_fits(source, size, cut_and_resize)


def pad_crop_flip(source: tf.Tensor, size: int, seed: tf.Tensor) -> tf.Tensor:
    """Pad with `size` // 8 black pixels (4 at 32), cut out at a random place, flip every second image.

    Source: He et al. 2015, "Deep Residual Learning for Image Recognition", Section 4.2.
    """
    border = size // 8
    padded = tf.pad(resize_crop(source, size), [[border, border], [border, border], [0, 0]])
    draw = tf.random.stateless_uniform([3], seed)
    top, left, coin = tf.unstack(tf.cast(draw * [2 * border + 1, 2 * border + 1, 2], tf.int32))
    return tf.ensure_shape(_flip(tf.slice(padded, [top, left, 0], [size, size, 3]), coin), [size, size, 3])


def random_resized_crop_flip(source: tf.Tensor, size: int, seed: tf.Tensor) -> tf.Tensor:
    """Cut out 8 to 100 % of the area at aspect 3/4 to 4/3, resize (bicubic), flip every second image.

    Where ten tries find no such rectangle the part that `crop_resize` evaluates is taken.

    Source: Szegedy et al. 2014, "Going Deeper with Convolutions", Section 6; the tries and what follows them are the
    release's.
    """
    crop = cut(source, lambda sides: _random_window(sides, size, seed))
    crop = _resize(crop, [size, size], size)
    flip_seed = tf.random.experimental.stateless_fold_in(seed, 1)
    coin = tf.random.stateless_uniform([], flip_seed, minval=0, maxval=2, dtype=tf.int32)
    return tf.ensure_shape(_flip(crop, coin), [size, size, 3])


def unchanged(source: tf.Tensor, size: int, seed: tf.Tensor) -> tf.Tensor:
    """Return the image as evaluation by `resize_crop` sees it; the seed is not used."""
    return resize_crop(source, size)


EVALUATIONS = {"resize_crop": resize_crop, "crop_resize": crop_resize}
AUGMENTATIONS = {"none": unchanged, "pad_crop_flip": pad_crop_flip, "imagenet": random_resized_crop_flip}


def cut(source: tf.Tensor, window_fn: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Return a rectangle of an image, uint8 `[h, w, 3]`; of a JPEG only that is decoded to pixels.

    Args:
      source: uint8 `[h, w, 3]`, or the bytes of an image file.
      window_fn: `sides int32 [2] -> int32 [4]`, the rectangle's top, left, height and width.
    """
    if source.dtype != tf.string:
        top, left, height, width = tf.unstack(window_fn(tf.shape(source)[:2]))
        return tf.slice(source, [top, left, 0], [height, width, 3])

    def of_usual_jpeg():
        window = window_fn(tf.io.extract_jpeg_shape(source)[:2])
        return tf.io.decode_and_crop_jpeg(source, window, channels=3)

    def of_jpeg():
        stored, orientation = tf.io.extract_jpeg_shape(source)[:2], jpeg_orientation(source)
        window = stored_window(window_fn(turned_sides(stored, orientation)), stored, orientation)
        return upright(tf.io.decode_and_crop_jpeg(source, window, channels=3), orientation)

    def of_another():
        return tf.cond(is_jpeg(source), of_jpeg, lambda: cut(decode(source), window_fn))

    return tf.cond(is_usual_jpeg(source), of_usual_jpeg, of_another)


def _centre(sides, size):
    """Return the window of the square in the centre that `crop_resize` evaluates."""
    least = tf.reduce_min(sides)
    if size >= _SMALL:
        least = tf.cast(size / (size + _BORDER) * tf.cast(least, tf.float32), tf.int32)
    least = tf.maximum(least, 1)
    return tf.concat([(sides - least + 1) // 2, [least, least]], axis=0)


def _random_window(sides, size, seed):
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.concat([sides, [3]], axis=0),
        tf.zeros([1, 0, 4]),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    found = tf.reduce_any(extent[:2] != sides)
    return tf.where(found, tf.concat([begin[:2], extent[:2]], axis=0), _centre(sides, size))


def _flip(image, coin):
    """Mirror left and right where `coin` is 1."""
    return tf.cond(coin == 1, lambda: tf.reverse(image, [1]), lambda: image)  # a negative stride takes 15 times as long


def _resize(image, shape, size):
    """Resize by bicubic interpolation, antialiased where a photograph becomes a small image.

    Differs from source: cubics have a = -0.5 and pixels their place at the half; the release's ResNets use OpenCV's
    (a = -0.75), its EfficientNets train by TensorFlow 1's (a = -0.75, pixel 0 in its corner).
    """
    return _to_image(tf.image.resize(image, shape, method="bicubic", antialias=size < _SMALL))


def _to_image(levels):
    """Return resized levels, float32, as an image; bicubic overshoots, hence the clip."""
    return tf.clip_by_value(levels / 255.0, 0.0, 1.0)


def _unless_it_fits(image, size, make_fn):
    """Return uint8 `[h, w, 3]` to the bit where it has the size already, otherwise what `make_fn` makes of it."""
    if None in image.shape[:2]:
        fits = tf.reduce_all(tf.shape(image)[:2] == size)
        image = tf.cond(fits, lambda: to_unit_range(image), make_fn)
    elif tuple(image.shape[:2]) == (size, size):
        image = to_unit_range(image)
    else:
        image = make_fn()
    return tf.ensure_shape(image, [size, size, 3])


def _resize_and_cut(image, size):
    """Resize the shortest side, keep the aspect, cut out the centre."""
    shortest = size if size < _SMALL else size + _BORDER
    image = _without_far_ends(image)
    sides = tf.shape(image)[:2]
    least = tf.reduce_min(sides)
    sides = (sides * shortest + least // 2) // least  # the shortest side exactly, the other to the nearest pixel
    top, left = tf.unstack((sides - size) // 2)
    return tf.slice(_resize(image, sides, size), [top, left, 0], [size, size, 3])


def _without_far_ends(image):
    """Return the middle of a strip longer than `MOST_ASPECT` times its width: the rest is cut away after resizing."""
    sides = tf.shape(image)[:2]
    kept = tf.minimum(sides, MOST_ASPECT * tf.reduce_min(sides))
    kept -= (sides - kept) % 2  # so that the centre stays where it is
    top, left = tf.unstack((sides - kept) // 2)
    return tf.cond(
        tf.reduce_all(kept == sides), lambda: image, lambda: tf.slice(image, [top, left, 0], tf.concat([kept, [3]], 0))
    )
