"""SavedModels for serving."""

import os
import pathlib
import shutil

import numpy as np
import tensorflow as tf


class Serving(tf.Module):
    """A model behind one signature: float32 pictures `[n, size, size, 3]` in [0, 1] -> logits `[n, classes]`."""

    def __init__(self, model, image_size):
        super().__init__()
        self.values = [variable.value for variable in model.variables]  # what the graph reads, tracked
        spec = tf.TensorSpec([None, image_size, image_size, 3], tf.float32, "images")
        self.serve = tf.function(lambda images: {"logits": model(images, training=False)}, input_signature=[spec])


def saved_model(model, directory, image_size, images):
    """Write a SavedModel, load it again and compare.

    Args:
      model: the model to export.
      directory: where to; must not exist.
      image_size: height and width of the pictures it will be given.
      images: float32 `[n, size, size, 3]` to compare on.

    Returns:
      The largest difference of the logits relative to their largest magnitude.

    Raises:
      FileExistsError: the directory exists.
      ValueError: the reloaded model differs from the model by more than 1e-5.
    """
    directory = pathlib.Path(directory)
    if directory.exists():
        raise FileExistsError(f"Expected a new folder for the export. Received: {directory}, which exists. Remove it "
                              "first, or export to another --model_dir with --checkpoint.")
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    serving = Serving(model, image_size)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)  # so that it can still be attacked
    tf.saved_model.save(serving, str(partial), signatures={"serving_default": serving.serve}, options=options)
    reloaded = tf.saved_model.load(str(partial)).signatures["serving_default"](images=tf.constant(images))["logits"]
    expected = np.asarray(model(tf.constant(images), training=False))
    difference = float(np.max(np.abs(reloaded - expected)) / np.max(np.abs(expected)))
    if not difference <= 1e-5:
        raise ValueError(f"Expected the logits of the model itself. Received: difference={difference:.2g}.")
    os.replace(partial, directory)
    return difference
