"""Packaging: one package, sat_tf, the rooms at the top of the repository mapped below it; the embedded data; extras."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
PROJECT_URL = "https://github.com/sat-tf/sat-tf"  # where the repository is published: all addresses begin with it
BRANCH = "main"
ROOMS = ("hparams", "resnet", "efficientnet")  # at the top of the repository; sat_tf.hparams, ... for Python
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "sat_tf" / "__init__.py").read_text(encoding="utf-8"))[1]
EXPORT = ["ai-edge-litert>=1.2", "onnx>=1.16", "onnxruntime>=1.18", "tf2onnx>=1.16"]  # what exports are compared by
DOWNLOAD = ["gdown>=6.3"]
SERVE = ["flask>=3", "protobuf>=5.26", "waitress>=3"]
CORRUPTIONS = ["imagecorruptions-imaug>=1.1.5"]  # brings OpenCV, scikit-image and numba
BENCH = [  # what benchmarks/ compares with; TensorFlow's own libraries among them want no other TensorFlow
    "torch>=2.6",
    "torchvision>=0.21",
    "torchattacks>=3.5",
    "foolbox>=3.3",
    "adversarial-robustness-toolbox>=1.18",
    "cleverhans>=4",
]
DOCS = ["mkdocs-material>=9.5,<10", "mkdocstrings[python]>=1.0"]  # the site of docs/
BUILD = ["setuptools>=64", "wheel"]  # the tests build a wheel


def long_description():
    """Return the README with absolute addresses: a package's page has none of the repository's files beside it."""
    raw = f"{PROJECT_URL.replace('github.com', 'raw.githubusercontent.com')}/{BRANCH}/"
    text = (HERE / "README.md").read_text(encoding="utf-8")
    text = re.sub(r'(!\[[^\]]*\]\(|<img [^>]*?src=")(?!https?:|data:)(?:\./)?', rf"\g<1>{raw}", text)
    return re.sub(r"(?<!!)(\[[^\]]*\]\()(?!https?:|mailto:|#)(?:\./)?", rf"\g<1>{PROJECT_URL}/blob/{BRANCH}/", text)


setup(
    name="sat-tf",
    version=VERSION,
    description="Smooth Adversarial Training in TensorFlow/Keras: train and evaluate robust image classifiers.",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    author="The sat-tf authors",
    url=PROJECT_URL,
    project_urls={
        "Documentation": f"{PROJECT_URL}/tree/{BRANCH}/docs",
        "Changelog": f"{PROJECT_URL}/blob/{BRANCH}/CHANGELOG.md",
        "Issues": f"{PROJECT_URL}/issues",
        "Paper": "https://arxiv.org/abs/2006.14536",
    },
    license="Apache-2.0",
    license_files=["LICENSE", "sat_tf/data/fashion_mnist_12k.LICENSE"],
    keywords=[
        "adversarial training",
        "adversarial robustness",
        "smooth adversarial training",
        "AutoAttack",
        "image classification",
        "TensorFlow",
        "Keras",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Intended Audience :: Developers",
        "Intended Audience :: Education",
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: POSIX",
        "Operating System :: MacOS",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=[
        *find_packages(include=["sat_tf", "sat_tf.*"]),
        *(f"sat_tf.{package}" for package in find_packages(include=[*ROOMS, *(f"{room}.*" for room in ROOMS)])),
    ],
    package_dir={f"sat_tf.{room}": room for room in ROOMS},
    package_data={"sat_tf": ["py.typed"], "sat_tf.data": ["fashion_mnist_12k.npz", "fashion_mnist_12k.LICENSE"]},
    zip_safe=False,
    entry_points={"console_scripts": ["sat-tf = sat_tf.cli:main"]},
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
        "bench": BENCH,
        "docs": DOCS,
        "dev": ["pytest>=8", "pytest-xdist>=3.5", "ruff>=0.6", *BUILD, *EXPORT, *DOWNLOAD, *SERVE, *CORRUPTIONS, *DOCS],
    },
)
