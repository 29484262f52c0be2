"""What a SavedModel answers to: images, encoded images, and images with labels for the gradient of the loss.

A request that makes no sense is an error of that request (`tf.errors.InvalidArgumentError`, TensorFlow Serving's
INVALID_ARGUMENT), raised before anything large is decoded or computed, and the process goes on serving.
"""

import pathlib
from collections.abc import Callable, Iterable

import keras
import tensorflow as tf

MOST_PIXELS = 2**26  # of one encoded image: 64 million
MOST_ASPECT = 100  # long side to short side; evaluation scales by the short one
TOLERANCE = 1e-4  # by which pixels may leave [0, 1], so that rounding of a client does not matter
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
_LEAST = 24  # bytes: up to there a PNG says its sides


class Serving(tf.Module):
    """A model behind the signatures `serving_default`, `image_bytes` and `input_gradient`.

    Args:
      model: images `[n, size, size, 3]` in [0, 1] -> logits `[n, classes]`.
      image_size: height and width of its images.
      preprocess: `(bytes of an image file, size) -> float32 [size, size, 3]`, the model's evaluation preprocessing.
      assets: paths of files to carry along.
      attacked: the model with other gradients, which the SavedModel then has; None for its own.
    """

    def __init__(
        self,
        model: keras.Model,
        image_size: int,
        preprocess: Callable,
        assets: Iterable[str | pathlib.Path] = (),
        attacked: Callable | None = None,
    ) -> None:
        super().__init__()
        self.values = [variable.value for variable in model.variables]  # what the graph reads, tracked
        self.files = [tf.saved_model.Asset(str(path)) for path in assets]
        self._model = attacked or model
        self._image_size = image_size
        self._preprocess = preprocess
        images = tf.TensorSpec([None, image_size, image_size, 3], tf.float32, "images")
        contents = tf.TensorSpec([None], tf.string, "image_bytes")
        labels = tf.TensorSpec([None], tf.int32, "labels")
        self.classify = tf.function(self._classify, input_signature=[images])
        self.classify_bytes = tf.function(self._classify_bytes, input_signature=[contents])
        self.differentiate = tf.function(self._differentiate, input_signature=[images, labels])

    @property
    def signatures(self) -> dict[str, Callable]:
        """Name of each signature and its function."""
        return {
            "serving_default": self.classify,
            "image_bytes": self.classify_bytes,
            "input_gradient": self.differentiate,
        }

    def _classify(self, images):
        """images float32 `[n, size, size, 3]` -> logits, probabilities `[n, classes]`, classes int32 `[n]`."""
        return outputs(self._model(checked_images(images, self._image_size), training=False))

    def _classify_bytes(self, image_bytes):
        """JPEG or PNG files of any size, string `[n]` -> as `serving_default`."""
        spec = tf.TensorSpec([self._image_size, self._image_size, 3], tf.float32)
        images = tf.map_fn(self._decode, checked_number(image_bytes), fn_output_signature=spec)
        return outputs(self._model(images, training=False))

    def _decode(self, content):
        return self._preprocess(checked_content(content), self._image_size)

    def _differentiate(self, images, labels):
        """Images as `serving_default`, labels int32 `[n]` -> loss `[n]`: cross-entropy; its gradient to the images."""
        images = checked_images(images, self._image_size)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            logits = self._model(images, training=False)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(checked_labels(labels, logits), logits)
            total = tf.reduce_sum(loss)
        return {"loss": loss, "gradient": tape.gradient(total, images)}


def outputs(logits: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return what a classification answers: logits `[n, classes]`, their softmax, the class of the largest."""
    return {"logits": logits, "probabilities": tf.nn.softmax(logits), "classes": tf.argmax(logits, -1, tf.int32)}


def checked_images(images: tf.Tensor, size: int) -> tf.Tensor:
    """Return images after making sure that they are `[n, size, size, 3]`, finite and in [0, 1]."""
    images = checked_number(tf.ensure_shape(images, [None, size, size, 3]))
    inside = tf.reduce_all((images >= -TOLERANCE) & (images <= 1 + TOLERANCE))  # false for NaN, too
    check = tf.debugging.Assert(inside, ["Expected finite pixels in [0, 1]; divide 8-bit values by 255."])
    with tf.control_dependencies([check]):
        return tf.identity(images)


def checked_number(values: tf.Tensor) -> tf.Tensor:
    """Return a batch after making sure that something is in it."""
    check = tf.debugging.Assert(tf.shape(values)[0] > 0, ["Expected at least one image."])
    with tf.control_dependencies([check]):
        return tf.identity(values)


def checked_labels(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Return labels `[n]` after making sure that there is one for each row of logits, below the number of classes."""
    classes = logits.shape[-1]
    checks = [
        tf.debugging.Assert(tf.equal(tf.shape(labels)[0], tf.shape(logits)[0]), ["Expected one label an image."]),
        tf.debugging.Assert(
            tf.reduce_all((labels >= 0) & (labels < classes)), [f"Expected labels from 0 to {classes - 1}."]
        ),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(labels)


def checked_content(content: tf.Tensor) -> tf.Tensor:
    """Return the bytes of an image file after making sure that it is a JPEG or PNG of reasonable size.

    The sides are read from the file's head: an image that would not fit into memory is refused before it is decoded.
    """
    is_png = tf.strings.substr(content, 0, len(PNG)) == PNG
    is_jpeg = tf.strings.substr(content, 0, len(JPEG)) == JPEG
    known = tf.debugging.Assert(is_png | is_jpeg, ["Expected the bytes of a JPEG or PNG file."])
    with tf.control_dependencies([known]):
        whole = tf.debugging.Assert(tf.strings.length(content) >= _LEAST, ["Expected the bytes of a whole file."])
    with tf.control_dependencies([whole]):
        content = tf.identity(content)
    sides = tf.cond(
        is_jpeg, lambda: tf.cast(tf.io.extract_jpeg_shape(content)[:2], tf.int64), lambda: _png_sides(content)
    )
    short, long = tf.reduce_min(sides), tf.reduce_max(sides)
    checks = [
        tf.debugging.Assert(short > 0, ["Expected an image with pixels."]),
        tf.debugging.Assert(short * long <= MOST_PIXELS, [f"Expected at most {MOST_PIXELS} pixels an image."]),
        tf.debugging.Assert(
            long <= MOST_ASPECT * short, [f"Expected a long side of at most {MOST_ASPECT} times the short one."]
        ),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(content)


def _png_sides(content):
    """Return width and height, which a PNG has as big-endian numbers in bytes 16 to 23."""
    return tf.cast(tf.io.decode_raw(tf.strings.substr(content, 16, 8), tf.int32, little_endian=False), tf.int64)
