"""Packaging: the rooms, the embedded data, and the extras."""

import pathlib
import re

from setuptools import setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "sat_tf" / "__init__.py").read_text(encoding="utf-8"))[1]
EXPORT = ["ai-edge-litert>=1.2", "onnx>=1.16", "onnxruntime>=1.18", "tf2onnx>=1.16"]  # what exports are compared by
DOWNLOAD = ["gdown>=6.3"]
SERVE = ["flask>=3", "protobuf>=5.26", "waitress>=3"]
CORRUPTIONS = ["imagecorruptions-imaug>=1.1.5"]  # brings OpenCV, scikit-image and numba
DOCS = ["mkdocs-material>=9.5,<10", "mkdocstrings[python]>=1.0"]  # the site of docs/

setup(
    name="sat-tf",
    version=VERSION,
    description="Smooth Adversarial Training in TensorFlow/Keras: train and evaluate robust image classifiers.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[
        "efficientnet",
        "hparams",
        "layers",
        "resnet",
        "sat_tf",
        "sat_tf.attacks",
        "sat_tf.data",
        "sat_tf.evaluate",
        "sat_tf.experiment",
        "sat_tf.export",
        "sat_tf.grid",
        "sat_tf.released",
        "sat_tf.report",
        "sat_tf.serving",
    ],
    package_data={"sat_tf.data": ["fashion_mnist_12k.npz", "fashion_mnist_12k.LICENSE"]},
    install_requires=[
        "tensorflow>=2.18",
        "keras>=3.6",
        "tensorflow-datasets>=4.9",
        "absl-py>=1.4",
        "filelock>=3.12",
        "numpy>=1.26",
        "tqdm>=4.60",
        "matplotlib>=3.7",
        "tensorboard>=2.18",
        "importlib_resources>=5",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.18"],
        "tpu": ["tensorflow-tpu>=2.18"],
        "export": EXPORT,
        "download": DOWNLOAD,
        "serve": SERVE,
        "corruptions": CORRUPTIONS,
        "docs": DOCS,
        "dev": ["pytest>=8", "pytest-xdist>=3.5", "ruff>=0.6", *EXPORT, *DOWNLOAD, *SERVE, *CORRUPTIONS, *DOCS],
    },
)
