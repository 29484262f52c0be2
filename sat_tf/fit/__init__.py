"""A user's own Keras model: trained by `fit`, made smooth, compared."""

from sat_tf.fit.adversarial_model import AdversarialModel
from sat_tf.fit.benchmarking import Benchmark, benchmark
from sat_tf.fit.smoothing import Smoothing, smooth

__all__ = ["AdversarialModel", "Benchmark", "Smoothing", "benchmark", "smooth"]
