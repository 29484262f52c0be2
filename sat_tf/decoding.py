"""Image files to pixels within TensorFlow's graph, as a viewer shows them.

They are turned as their EXIF data say; CMYK and grey become RGB; of 16 bits the upper eight are seen, of an animated
PNG the first image; transparency is left out. JPEG, PNG and plain BMP are read, told by their content, not by any name.
"""

import tensorflow as tf

MOST_PIXELS = 2**26  # of one image file: 64 million
MOST_ASPECT = 100  # long side to short side; evaluation scales by the short one
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG"
_HEAD = 2**17  # bytes in which EXIF data are looked for
_UPRIGHT, _ORIENTATION = 1, 0x0112  # EXIF: the value that changes nothing, the tag
# Functions of one file are traced once for all graphs that use them: tracing takes longer than many small sets.
_of_a_file = tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


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
    """Return an image as uint8 [h, w, 3], as a viewer shows it.

    Raises:
        tf.errors.InvalidArgumentError: for a damaged file, and one that is neither JPEG, PNG nor plain BMP.
    """
    if source.dtype != tf.string:
        return source
    image = tf.cond(_is_usual(source), lambda: _pixels(source), lambda: _decode_unusual(source))
    return tf.ensure_shape(image, [None, None, 3])


@_of_a_file
def _decode_unusual(source):
    def turned():
        known = tf.cond(is_png(source), lambda: True, lambda: is_plain_bmp(source))
        check = tf.debugging.Assert(known, ["Expected the bytes of a JPEG, a PNG or a BMP of 24 bits without palette."])
        with tf.control_dependencies([check]):
            return _png_orientation(tf.identity(source))

    orientation = tf.cond(is_jpeg(source), lambda: jpeg_orientation(source), turned)
    with tf.control_dependencies([orientation]):  # nothing else is decoded: TensorFlow reads indices for colours there
        return upright(_pixels(source), orientation)


def _pixels(content):
    return tf.io.decode_image(content, channels=3, expand_animations=False)


def _is_usual(content):
    """Return whether bytes begin as those of most JPEG and PNG files, which hold no EXIF data: told at little cost."""
    png = tf.strings.reduce_join(tf.strings.substr(content, [0, 37], [4, 4])) == _PNG + b"IDAT"
    return is_usual_jpeg(content) | png


def is_usual_jpeg(content: tf.Tensor) -> tf.Tensor:
    """Return whether bytes begin as those of most JPEG files, with a JFIF head and then no EXIF data."""
    marks = tf.strings.substr(content, [0, 2, 20], [2, 2, 2])
    return tf.strings.reduce_join(marks) == b"\xff\xd8\xff\xe0\xff\xdb"  # the head, JFIF, tables


def sides_of(content: tf.Tensor) -> tf.Tensor:
    """Return height and width, int32 [2], of the image of a JPEG or PNG as its head says, not turned."""
    return tf.cond(is_jpeg(content), lambda: tf.io.extract_jpeg_shape(content)[:2], lambda: _png_sides(content))


def _png_sides(content):
    """Return height and width, which a PNG has as big-endian numbers in bytes 20 and 16."""
    sides = tf.io.decode_raw(tf.strings.substr(content, 16, 8), tf.int32, little_endian=False)
    return tf.reverse(sides, [0])


def within_limits(sides: tf.Tensor) -> tf.Tensor:
    """Return whether an image of some height and width, integers [2], is neither too large nor too narrow."""
    sides = tf.cast(sides, tf.int64)
    short, long = tf.reduce_min(sides), tf.reduce_max(sides)
    return (short > 0) & (short * long <= MOST_PIXELS) & (long <= MOST_ASPECT * short)


# How an image is turned ---------------------------------------------------------------------------
# EXIF numbers the eight ways from 1; from 5 on rows and columns change places, then sides may be mirrored.


def _turns(orientation):
    """Return whether rows and columns change places, and which of top-bottom and left-right are mirrored then."""
    is_any = lambda *numbers: tf.reduce_any(orientation == tf.constant(numbers))  # noqa: E731
    return orientation >= 5, is_any(3, 4, 7, 8), is_any(2, 3, 6, 7)


def upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Return pixels [h, w, 3] as they are shown."""

    def turn():
        across, rows, columns = _turns(orientation)
        image = tf.cond(across, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
        image = tf.cond(rows, lambda: tf.reverse(image, [0]), lambda: image)
        return tf.cond(columns, lambda: tf.reverse(image, [1]), lambda: image)

    return tf.cond(orientation == _UPRIGHT, lambda: pixels, turn)


def turned_sides(sides: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Return height and width, int32 [2], of an image as it is shown from those that are stored."""
    return tf.where(orientation >= 5, tf.reverse(sides, [0]), sides)


def stored_window(window: tf.Tensor, stored: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Return where a rectangle (top, left, height, width) of the image as shown lies in the image as stored."""
    across, rows, columns = _turns(orientation)
    begin, extent = window[:2], window[2:]
    begin = tf.where([rows, columns], turned_sides(stored, orientation) - begin - extent, begin)
    return tf.where(across, tf.concat([begin[::-1], extent[::-1]], 0), tf.concat([begin, extent], 0))


def jpeg_orientation(content: tf.Tensor) -> tf.Tensor:
    """Return the orientation, int32 [] from 1 to 8, of a JPEG: EXIF data stand among the segments at its beginning."""
    return tf.cond(is_usual_jpeg(content), lambda: _UPRIGHT, lambda: _exif_of_jpeg(content))


@_of_a_file
def _exif_of_jpeg(content):
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


@_of_a_file
def _png_orientation(content):
    """Return the orientation, int32 [] from 1 to 8, of a PNG: EXIF data are a chunk before that of the pixels."""
    head = tf.cast(tf.io.decode_raw(tf.strings.substr(content, 0, _HEAD), tf.uint8), tf.int32)
    most = tf.size(head) - 8

    def name_is(place, name):
        return tf.reduce_all(head[place + 4 : place + 8] == list(name))

    def goes_on(place):
        ends = lambda: name_is(place, b"eXIf") | name_is(place, b"IDAT")  # noqa: E731
        return tf.cond((place >= 8) & (place < most), lambda: ~ends(), lambda: False)

    place = tf.while_loop(goes_on, lambda place: [place + 12 + _number(head, place, 4)], [tf.constant(8)])[0]
    found = tf.cond((place >= 8) & (place < most), lambda: name_is(place, b"eXIf"), lambda: False)
    found &= is_png(content)
    return tf.cond(found, lambda: _exif_orientation(head[place + 8 :]), lambda: _UPRIGHT)


def _exif_orientation(exif):
    """Return the orientation that EXIF data, int32 [n] of their bytes, state; 1 where they state none."""
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
    """Return the big-endian number in some bytes, int32 []."""
    return tf.reduce_sum(values[place : place + length] * [256**power for power in range(length)][::-1])
