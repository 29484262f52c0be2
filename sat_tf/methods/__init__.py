"""Methods of training: how images are perturbed before an update, what it minimises, what it costs.

`METHODS` is the one table of their names. The mode of batch normalisation is written here and nowhere else: an attack
looks at the model in inference mode, an update in training mode. What others want to know of a method it says itself.
"""

from sat_tf.methods.adversarial import AdversarialTraining, Fast, MultiStep
from sat_tf.methods.curriculum import Curriculum
from sat_tf.methods.customized import Customized
from sat_tf.methods.difficulty import Convergence, Difficulty, HeadCurvature, ProbabilityGap, Seen, Steps, fosc
from sat_tf.methods.free import Free
from sat_tf.methods.mart import Mart
from sat_tf.methods.pace import Length, pace
from sat_tf.methods.standard import Batch, Report, Standard, Update, Updater
from sat_tf.methods.table import METHODS, Method, at_worst_weights, sat, standard
from sat_tf.methods.trades import Trades
from sat_tf.methods.warmup import GrowingRadius
from sat_tf.methods.weights import WeightPerturbed, perturbed
from sat_tf.replicas import added

__all__ = [
    "AdversarialTraining", "Batch", "Convergence", "Curriculum", "Customized", "Difficulty", "Fast", "Free",
    "GrowingRadius", "HeadCurvature", "Length", "METHODS", "Mart", "Method", "MultiStep", "ProbabilityGap", "Report",
    "Seen", "Standard", "Steps", "Trades", "Update", "Updater", "WeightPerturbed", "added", "at_worst_weights",
    "fosc", "pace", "perturbed", "sat", "standard",
]  # fmt: skip
