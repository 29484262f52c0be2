"""Smooth Adversarial Training: everything between a recipe and a number, one noun a file.

Importing the package costs nothing: TensorFlow is loaded with the first module that needs it.
"""

import importlib
import os
import platform

__version__ = "0.1.0"

# Keras 3 chooses its backend when it is first imported; every layer and loop here is TensorFlow.
os.environ["KERAS_BACKEND"] = "tensorflow"

# TensorFlow reads this when it is first imported. It has oneDNN's kernels in its x86 builds, but leaves them off on
# processors without AVX512-VNNI, where its own take up to twice as long for convolutions on small images.
if platform.machine().lower() in ("x86_64", "amd64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

_OFFERED = {  # what is for everybody, and where it lies
    "AdversarialModel": "sat_tf.fit",
    "benchmark": "sat_tf.fit",
    "load": "sat_tf.runs.load",
    "smooth": "sat_tf.fit",
}


def __getattr__(name: str) -> object:
    if name in _OFFERED:
        return getattr(importlib.import_module(_OFFERED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_OFFERED})
