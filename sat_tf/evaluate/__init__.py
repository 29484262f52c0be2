"""Clean and robust accuracy, and whether they can be believed."""

from sat_tf.evaluate.attacker import Attacker
from sat_tf.evaluate.counting import Counter
from sat_tf.evaluate.model_checks import evenly
from sat_tf.evaluate.predictor import predictor
from sat_tf.evaluate.reading import read_examples
from sat_tf.evaluate.results import Examples, Result
from sat_tf.evaluate.sanity import Check, after, before, examine, trusted
from sat_tf.evaluate.shared import SharedAttacker
from sat_tf.evaluate.store import Store

Pictures = Examples  # its name before version 0.2

__all__ = [
    "Attacker",
    "Check",
    "Counter",
    "Examples",
    "Pictures",
    "Result",
    "SharedAttacker",
    "Store",
    "after",
    "before",
    "evenly",
    "examine",
    "predictor",
    "read_examples",
    "trusted",
]
