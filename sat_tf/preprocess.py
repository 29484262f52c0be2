"""One image on its way into a batch: -> float32 `[size, size, 3]` in [0, 1].

A source is an image, uint8 `[h, w, 3]`, or the scalar string of an image file's bytes (JPEG, PNG, plain BMP: told by
its content, not by any name). Of a JPEG only the part that is needed is decoded to pixels. Training rows of
`AUGMENTATIONS` are `(source, size, seed) -> image`, rows of `EVALUATIONS` are `(source, size) -> image`.
Files are shown as a viewer shows them: turned as their EXIF data say, CMYK and grey as RGB, of 16 bits the upper eight,
of an animated PNG the first image. Transparency is left out.
Randomness is an argument: the same int32 seed `[2]` gives the same image, whatever ran before.
"""

from collections.abc import Callable

import tensorflow as tf

_BORDER = 32  # pixels of a photograph, at the size of the result, that evaluation leaves out
_SMALL = 64  # below this side such a border would be most of the image, and nothing is left out
MOST_PIXELS = 2**26  # of one image file: 64 million
MOST_ASPECT = 100  # long side to short side; evaluation scales by the short one
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG"
_HEAD = 2**17  # bytes in which EXIF data are looked for
_UPRIGHT, _ORIENTATION = 1, 0x0112  # EXIF: the value that changes nothing, the tag


def to_unit_range(image: tf.Tensor) -> tf.Tensor:
    """Return uint8 values divided by 255, correctly rounded, as float32.

    By a product in float64: graph optimizers may turn a division in float32 into a product, which differs in the last
    bit, and a look-up in a table of 256 takes eight times as long.
    """
    return tf.cast(tf.cast(image, tf.float64) * (1.0 / 255.0), tf.float32)


def to_levels(image: tf.Tensor) -> tf.Tensor:
    """Return float32 pixels in [0, 1] as the nearest uint8 levels."""
    return tf.cast(tf.round(image * 255.0), tf.uint8)


def is_jpeg(content: tf.Tensor) -> tf.Tensor:
    """Return whether the bytes of an image file are a JPEG's."""
    return tf.strings.substr(content, 0, len(_JPEG)) == _JPEG


def is_png(content: tf.Tensor) -> tf.Tensor:
    """Return whether the bytes of an image file are a PNG's."""
    return tf.strings.substr(content, 0, len(_PNG)) == _PNG


def is_plain_bmp(content: tf.Tensor) -> tf.Tensor:
    """Return whether the bytes of an image file are those of a BMP with 24 bits a pixel, neither packed nor coded."""
    head = tf.strings.substr(content, 0, 34)

    def plain():
        marks = tf.strings.substr(head, [14, 28, 30], [4, 2, 4])  # size of the header, bits a pixel, compression
        return tf.reduce_all(marks == [b"\x28\0\0\0", b"\x18\0", b"\0\0\0\0"])

    begins = tf.strings.substr(head, 0, 2) == b"BM"
    return tf.cond(begins & (tf.strings.length(head) == 34), plain, lambda: False)


def decode(source: tf.Tensor) -> tf.Tensor:
    """Return an image as uint8 `[h, w, 3]`, as a viewer shows it.

    Raises:
      tf.errors.InvalidArgumentError: for a damaged file, and one that is neither JPEG, PNG nor plain BMP.
    """
    if source.dtype != tf.string:
        return source
    jpeg = is_jpeg(source)

    def turned():
        known = tf.cond(is_png(source), lambda: True, lambda: is_plain_bmp(source))
        check = tf.debugging.Assert(known, ["Expected the bytes of a JPEG, a PNG or a BMP of 24 bits without palette."])
        with tf.control_dependencies([check]):
            return _png_orientation(tf.identity(source))

    orientation = tf.cond(jpeg, lambda: _jpeg_orientation(source), turned)
    with tf.control_dependencies([orientation]):  # nothing else is decoded: TensorFlow reads indices for colours there
        pixels = tf.io.decode_image(source, channels=3, expand_animations=False)
    return tf.ensure_shape(_upright(pixels, orientation), [None, None, 3])


def sides_of(content: tf.Tensor) -> tf.Tensor:
    """Return height and width, int32 `[2]`, of the image of a JPEG or PNG as its head says, not turned."""
    return tf.cond(is_jpeg(content), lambda: tf.io.extract_jpeg_shape(content)[:2], lambda: _png_sides(content))


def within_limits(sides: tf.Tensor) -> tf.Tensor:
    """Return whether an image of some height and width, integers `[2]`, is neither too large nor too narrow."""
    sides = tf.cast(sides, tf.int64)
    short, long = tf.reduce_min(sides), tf.reduce_max(sides)
    return (short > 0) & (short * long <= MOST_PIXELS) & (long <= MOST_ASPECT * short)


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

    def of_jpeg():
        stored, orientation = tf.io.extract_jpeg_shape(source)[:2], _jpeg_orientation(source)
        window = window_fn(_turned_sides(stored, orientation))
        window = _stored_window(window, stored, orientation)
        return _upright(tf.io.decode_and_crop_jpeg(source, window, channels=3), orientation)

    return tf.cond(is_jpeg(source), of_jpeg, lambda: cut(decode(source), window_fn))


def turned_sides(content: tf.Tensor) -> tf.Tensor:
    """Return height and width, int32 `[2]`, of the image of a JPEG as it is shown."""
    return _turned_sides(tf.io.extract_jpeg_shape(content)[:2], _jpeg_orientation(content))


def _png_sides(content):
    """Return height and width, which a PNG has as big-endian numbers in bytes 20 and 16."""
    sides = tf.io.decode_raw(tf.strings.substr(content, 16, 8), tf.int32, little_endian=False)
    return tf.reverse(sides, [0])


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


# How an image is turned ---------------------------------------------------------------------------
# EXIF numbers the eight ways from 1; from 5 on rows and columns change places, then sides may be mirrored.


def _turns(orientation):
    """Return whether rows and columns change places, and which of top-bottom and left-right are mirrored then."""
    is_any = lambda *numbers: tf.reduce_any(orientation == tf.constant(numbers))  # noqa: E731
    return orientation >= 5, is_any(3, 4, 7, 8), is_any(2, 3, 6, 7)


def _upright(pixels, orientation):
    """Return pixels `[h, w, 3]` as they are shown."""

    def turn():
        across, rows, columns = _turns(orientation)
        image = tf.cond(across, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
        image = tf.cond(rows, lambda: tf.reverse(image, [0]), lambda: image)
        return tf.cond(columns, lambda: tf.reverse(image, [1]), lambda: image)

    return tf.cond(orientation == _UPRIGHT, lambda: pixels, turn)


def _turned_sides(sides, orientation):
    return tf.where(orientation >= 5, tf.reverse(sides, [0]), sides)


def _stored_window(window, stored, orientation):
    """Return where a rectangle (top, left, height, width) of the image as shown lies in the image as stored."""
    across, rows, columns = _turns(orientation)
    begin, extent = window[:2], window[2:]
    begin = tf.where([rows, columns], _turned_sides(stored, orientation) - begin - extent, begin)
    return tf.where(across, tf.concat([begin[::-1], extent[::-1]], 0), tf.concat([begin, extent], 0))


def _jpeg_orientation(content):
    """Return the orientation, int32 `[]` from 1 to 8, of a JPEG: EXIF data stand among its first segments."""
    marks = tf.strings.substr(content, [2, 20], [2, 2])  # the first two segments of a JPEG that says nothing of EXIF
    tables = b"\xff\xdb"
    plain = (marks[0] == tables) | ((marks[0] == b"\xff\xe0") & (marks[1] == tables))

    def search():
        head = tf.cast(tf.io.decode_raw(tf.strings.substr(content, 0, _HEAD), tf.uint8), tf.int32)
        most = tf.size(head) - 10
        exif = [ord(letter) for letter in "Exif"]

        def is_exif(place):
            return (head[place + 1] == 0xE1) & tf.reduce_all(head[place + 4 : place + 8] == exif)

        def goes_on(place):
            marker = head[tf.minimum(place + 1, most)]
            known = (marker >= 0xE0) & (marker <= 0xEF) | (marker == 0xFE)
            return tf.cond((place < most) & known, lambda: ~is_exif(place), lambda: False)

        place = tf.while_loop(goes_on, lambda place: [place + 2 + _number(head, place + 2, 2)], [tf.constant(2)])[0]
        found = tf.cond(place < most, lambda: is_exif(place), lambda: False)
        return tf.cond(found, lambda: _exif_orientation(head[place + 10 :]), lambda: _UPRIGHT)

    return tf.cond(plain, lambda: _UPRIGHT, search)


def _png_orientation(content):
    """Return the orientation, int32 `[]` from 1 to 8, of a PNG: EXIF data are a chunk before that of the pixels."""

    def search():
        head = tf.cast(tf.io.decode_raw(tf.strings.substr(content, 0, _HEAD), tf.uint8), tf.int32)
        most = tf.size(head) - 8
        name_is = lambda place, name: tf.reduce_all(head[place + 4 : place + 8] == list(name))  # noqa: E731

        def goes_on(place):
            ends = lambda: name_is(place, b"eXIf") | name_is(place, b"IDAT")  # noqa: E731
            return tf.cond((place >= 8) & (place < most), lambda: ~ends(), lambda: False)

        place = tf.while_loop(goes_on, lambda place: [place + 12 + _number(head, place, 4)], [tf.constant(8)])[0]
        found = tf.cond((place >= 8) & (place < most), lambda: name_is(place, b"eXIf"), lambda: False)
        return tf.cond(found, lambda: _exif_orientation(head[place + 8 :]), lambda: _UPRIGHT)

    first = tf.strings.substr(tf.strings.substr(content, 0, 41) + b"\0" * 41, 37, 4)
    plain = ~is_png(content) | (first == b"IDAT")
    return tf.cond(plain, lambda: _UPRIGHT, search)


def _exif_orientation(exif):
    """Return the orientation that EXIF data, int32 `[n]` of their bytes, state; 1 where they state none."""
    exif = tf.concat([exif, tf.zeros([16], tf.int32)], 0)
    size, swapped = tf.size(exif), exif[0] == ord("I")

    def number(place, length):
        digits = exif[place : place + length]
        return _number(tf.cond(swapped, lambda: digits[::-1], lambda: digits), 0, length)

    table = number(4, 4)

    def look_up():
        most = tf.minimum(number(table, 2), (size - table - 2) // 12)
        rows = tf.reshape(exif[table + 2 : table + 2 + 12 * most], [-1, 12])
        rows = tf.cond(swapped, lambda: tf.gather(rows, [1, 0, 2, 3, 4, 5, 6, 7, 9, 8], axis=1), lambda: rows[:, :10])
        values = tf.boolean_mask(rows[:, 8] * 256 + rows[:, 9], rows[:, 0] * 256 + rows[:, 1] == _ORIENTATION)
        value = tf.concat([values, [_UPRIGHT]], 0)[0]
        return tf.where((value >= 1) & (value <= 8), value, _UPRIGHT)

    return tf.cond((table >= 8) & (table < size - 14), look_up, lambda: _UPRIGHT)


def _number(values, place, length):
    """Return the big-endian number in some bytes, int32 `[]`."""
    return tf.reduce_sum(values[place : place + length] * [256**power for power in range(length)][::-1])
