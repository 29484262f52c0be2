"""What an image's bytes are, and what is wrong with those that cannot be used."""

import tensorflow as tf

from sat_tf.preprocess import decode, is_jpeg

KINDS = ("JPEG", "CMYK JPEG", "PNG", "GIF", "BMP")  # places are what `look` returns
UNREADABLE = -1
_BEGINNINGS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP"}
_JPEG_END = b"\xff\xd9"


def look(content):
    """Decode the bytes of an image file as cheaply as shows whether that is possible.

    A JPEG is decoded at an eighth of its size: all its data are read, and only a 64th of the pixels is computed.

    Returns:
        kind int32 [] (place in `KINDS`), sides int32 [2].

    Raises:
        tf.errors.InvalidArgumentError: if the bytes cannot be decoded.
    """

    def of_jpeg():
        shape = tf.io.extract_jpeg_shape(content)
        small = tf.io.decode_jpeg(content, channels=3, ratio=8)
        sides = tf.maximum(shape[:2], tf.shape(small)[:2])  # uses `small`, or it would not be computed
        return tf.where(shape[2] == 4, KINDS.index("CMYK JPEG"), KINDS.index("JPEG")), sides

    def of_another():
        begins = [tf.strings.substr(content, 0, len(mark)) == mark for mark in _BEGINNINGS]
        places = tf.constant([KINDS.index(kind) for kind in _BEGINNINGS.values()])
        return tf.gather(places, tf.argmax(begins)), tf.shape(decode(content))[:2]

    return tf.cond(is_jpeg(content), of_jpeg, of_another)


def fault_of(content):
    """Return what is wrong with the bytes of an image file in a few words, None if they can be decoded."""
    if not content:
        return "empty"
    try:
        look(tf.constant(content))
        return None
    except tf.errors.OpError:
        pass
    kind = next((kind for mark, kind in _BEGINNINGS.items() if content.startswith(mark)), None)
    if kind is None:
        return "neither JPEG, PNG, GIF nor BMP"
    if kind == "JPEG" and not content.rstrip(b"\0").endswith(_JPEG_END):
        return "truncated JPEG"  # not asked of try_recover_truncated, which in TensorFlow 2.21 may never come back
    return f"unreadable {kind}"
