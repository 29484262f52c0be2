"""Smooth Adversarial Training: everything between a recipe and a number, one noun a file.

Importing the package costs nothing: TensorFlow is loaded with the first module that needs it.
"""

import os

__version__ = "0.1.0"

# Keras 3 chooses its backend when it is first imported; every layer and loop here is TensorFlow.
os.environ["KERAS_BACKEND"] = "tensorflow"
