"""Clean and robust accuracy, and whether they can be believed."""

from sat_tf.evaluate.attacker import Attacker, default_step_size, forward_equivalents, plan_of
from sat_tf.evaluate.counting import Evaluator, numbered
from sat_tf.evaluate.model_checks import evenly
from sat_tf.evaluate.plans import PLANS
from sat_tf.evaluate.predictor import predictor
from sat_tf.evaluate.results import Examples, Result
from sat_tf.evaluate.sanity import examine, trusted
from sat_tf.evaluate.store import Store

__all__ = [
    "PLANS",
    "Attacker",
    "Evaluator",
    "Examples",
    "Result",
    "Store",
    "default_step_size",
    "evenly",
    "examine",
    "forward_equivalents",
    "numbered",
    "plan_of",
    "predictor",
    "trusted",
]
