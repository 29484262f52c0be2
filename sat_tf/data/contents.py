"""What an image's bytes are, and what is wrong with those that cannot be used.

JPEG and PNG go as they are to `decoding`, which reads them within TensorFlow's graph. What else Pillow reads becomes
a plain BMP on the way there: `plain`.
"""

import io
import warnings
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from sat_tf.decoding import (
    MOST_ASPECT,
    MOST_PIXELS,
    decode,
    is_jpeg,
    is_png,
    jpeg_orientation,
    sides_of,
    turned_sides,
    within_limits,
)

KINDS = ("JPEG", "CMYK JPEG", "PNG", "GIF", "BMP", "WebP", "TIFF", "AVIF", "PPM", "JPEG 2000")  # `look` says places
NATIVE = ("JPEG", "CMYK JPEG", "PNG")  # what TensorFlow reads as viewers do
UNREADABLE = -1
_READ = "JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF, PPM and JPEG 2000 are read"
_PILLOW = {  # its name of a format: ours
    "GIF": "GIF", "BMP": "BMP", "DIB": "BMP", "WEBP": "WebP", "TIFF": "TIFF", "AVIF": "AVIF", "PPM": "PPM",
    "JPEG2000": "JPEG 2000",
}  # fmt: skip
_BEGINNINGS = {  # place and bytes: format
    (0, b"\xff\xd8\xff"): "JPEG", (0, b"\x89PNG"): "PNG", (0, b"GIF8"): "GIF", (0, b"BM"): "BMP", (8, b"WEBP"): "WebP",
    (0, b"II*\0"): "TIFF", (0, b"MM\0*"): "TIFF", (0, b"II+\0"): "TIFF", (4, b"ftypavif"): "AVIF",
    (4, b"ftypavis"): "AVIF", (0, b"P4\n"): "PPM", (0, b"P5\n"): "PPM", (0, b"P6\n"): "PPM",
    (4, b"jP  \r\n\x87\n"): "JPEG 2000", (0, b"\xff\x4f\xff\x51"): "JPEG 2000",
    (4, b"ftyphei"): "HEIC", (4, b"ftyphev"): "HEIC", (4, b"ftypmif1"): "HEIC", (0, b"8BPS"): "PSD",
    (0, b"\xff\x0a"): "JPEG XL", (4, b"JXL \r\n"): "JPEG XL", (0, b"<svg"): "SVG", (0, b"\0\0\1\0"): "ICO",
    (0, b"v/1\1"): "EXR", (4, b"ftypcrx"): "CR3",
}  # fmt: skip
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
_OF_8_BITS = ("1", "L", "P", "LA", "PA", "La", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")
_JPEG_END = b"\xff\xd9"


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)  # traced once for all sets
def look(content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Decode the bytes of an image file as cheaply as shows whether that is possible.

    A JPEG is decoded at an eighth of its size: all its data are read, and only a 64th of the pixels is computed.

    Returns:
      kind int32 [] (place in `KINDS`), sides int32 [2] as it is shown, digest int64 []: of the file of a JPEG, of the
      pixels of all others, see `digests_of`.

    Raises:
      tf.errors.OpError: if the bytes cannot be decoded, or hold an image beyond the limits of `decoding`.
    """

    def checked(sides):
        check = tf.debugging.Assert(within_limits(sides), ["beyond the limits"])
        with tf.control_dependencies([check]):
            return tf.identity(content)

    def of_jpeg():
        shape = tf.io.extract_jpeg_shape(content)
        small = tf.io.decode_jpeg(checked(shape[:2]), channels=3, ratio=8)
        kind = tf.where(shape[2] == 4, KINDS.index("CMYK JPEG"), KINDS.index("JPEG"))
        # What nothing else uses is computed only where an operation with a state needs it.
        with tf.control_dependencies([tf.debugging.Assert(tf.size(small) > 0, ["empty"])]):
            sides = turned_sides(shape[:2], jpeg_orientation(content))
            return kind, sides, _fingerprints(content[tf.newaxis])[0]

    def of_pixels(kind, content):
        pixels = decode(content)
        return kind, tf.shape(pixels)[:2], digests_of(pixels[tf.newaxis])[0]

    def of_another():
        kind, bmp = tf.numpy_function(_kind_and_bmp, [content], (tf.int32, tf.string), stateful=False)
        return of_pixels(tf.ensure_shape(kind, []), tf.ensure_shape(bmp, []))

    def of_png_or_another():
        return tf.cond(is_png(content), lambda: of_pixels(KINDS.index("PNG"), checked(sides_of(content))), of_another)

    return tf.cond(is_jpeg(content), of_jpeg, of_png_or_another)


look_in_place = look.python_function  # to be traced into a pipeline, which is made ready sooner than one with calls


def digests_of(pixels: np.ndarray | tf.Tensor) -> tf.Tensor:
    """Return what tells images of other pixels apart, int64 [n]: FarmHash's 64-bit fingerprint of sides and pixels.

    Args:
      pixels: uint8 [n, h, w, 3].
    """
    shape = tf.shape(pixels)
    sides = tf.reshape(tf.bitcast(shape[1:3], tf.uint8), [1, 8])
    return _fingerprints(tf.concat([tf.repeat(sides, shape[0], 0), tf.reshape(pixels, [shape[0], -1])], 1))


def _fingerprints(rows):
    return tf.bitcast(tf.fingerprint(rows), tf.int64)


def plain(content: tf.Tensor) -> tf.Tensor:
    """Return the bytes of an image file as ones that `decoding` reads: in a graph, where some file needs Pillow."""

    def convert():
        bmp = tf.numpy_function(lambda content: _kind_and_bmp(content)[1], [content], tf.string, stateful=False)
        return tf.ensure_shape(bmp, [])

    return tf.cond(is_jpeg(content) | is_png(content), lambda: content, convert)


def reader(kinds: np.ndarray) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return `plain` where images of some kinds, integers [n], need it, else what leaves their bytes alone."""
    native = [UNREADABLE, *map(KINDS.index, NATIVE)]
    return (lambda content: content) if np.isin(kinds, native).all() else plain


def named(head: bytes) -> str | None:
    """Return the format that the first bytes of a file show, read here or not; None for what is no image."""
    return next((kind for (place, mark), kind in _BEGINNINGS.items() if head[place : place + len(mark)] == mark), None)


def fault_of(content: bytes) -> str | None:
    """Return what is wrong with the bytes of an image file in a few words, None if they can be used."""
    if not content:
        return "empty"
    try:
        look(tf.constant(content))
        return None
    except tf.errors.OpError:
        pass
    kind = named(content)
    try:
        if kind not in NATIVE:
            _kind_and_bmp(content)
        _refuse_beyond_limits(sides_of(tf.constant(content)).numpy().tolist())
    except _Refused as error:
        return str(error)
    except tf.errors.OpError:
        pass
    if kind == "JPEG" and not content.rstrip(b"\0").endswith(_JPEG_END):
        return "truncated JPEG"  # not asked of try_recover_truncated, which in TensorFlow 2.21 may never come back
    return f"unreadable {kind}"


def _refuse_beyond_limits(sides):
    short, long = sorted(sides)
    received = f"{sides[1]} x {sides[0]} pixels"
    if short * long > MOST_PIXELS:
        raise _Refused(f"{received}, more than {MOST_PIXELS:,}")
    if long > MOST_ASPECT * short:
        raise _Refused(f"{received}, longer than {MOST_ASPECT} times its width")


class _Refused(ValueError):
    """What is wrong with a file in a few words."""


def _kind_and_bmp(content):
    """Return the place in `KINDS` of the bytes of an image file, and the image as those of a plain BMP.

    Of an animation the first frame, of several pages the first.

    Raises:
      _Refused: if that cannot be done.
    """
    import PIL.Image
    import PIL.ImageOps

    content = content if isinstance(content, bytes) else content.item()  # outside a graph it is an array of one
    kind = named(content)
    if kind not in _PILLOW.values():
        raise _Refused(f"{kind or 'no image of a known format'}: {_READ}")
    PIL.Image.init()
    formats = [name for name in _PILLOW if name in PIL.Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = PIL.Image.open(io.BytesIO(content), formats=formats)
            kind = _PILLOW[image.format]
            _refuse_beyond_limits(image.size[::-1])
            out = io.BytesIO()
            _of_8_bits(PIL.ImageOps.exif_transpose(image), kind).save(out, "BMP")
    except _Refused:
        raise
    except PIL.Image.DecompressionBombError as error:
        raise _Refused(f"more than {MOST_PIXELS:,} pixels") from error
    except PIL.UnidentifiedImageError as error:
        raise _Refused(f"{kind} of a form that Pillow does not read") from error
    except Exception as error:  # Pillow has no one error for a damaged file
        raise _Refused(f"unreadable {kind}") from error
    return np.int32(KINDS.index(kind)), out.getvalue()


def _of_8_bits(image, kind):
    """Return an image of Pillow's as RGB; of 16 bits the upper eight."""
    import PIL.Image

    if image.mode in _OF_8_BITS:
        return image.convert("RGB")
    if image.mode in _SIXTEEN_BITS or (image.mode == "I" and kind == "PPM"):
        return PIL.Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)).convert("RGB")
    raise _Refused(f"{kind} of mode {image.mode}, whose values have no agreed range")
