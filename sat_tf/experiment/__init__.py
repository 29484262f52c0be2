"""The one place where all parts meet.

Each thing that a user can ask for is a function of a file of its name.
"""

from sat_tf.assembly.devices import start
from sat_tf.experiment.compare import compare
from sat_tf.experiment.convert import convert
from sat_tf.experiment.download import download
from sat_tf.experiment.draw import draw
from sat_tf.experiment.evaluate import evaluate
from sat_tf.experiment.export import export
from sat_tf.experiment.merge import merge
from sat_tf.experiment.plan import plan
from sat_tf.experiment.train import train
from sat_tf.experiment.verify import verify
from sat_tf.mechanism.gradients import gradients
from sat_tf.runs.load import load

__all__ = [
    "compare",
    "convert",
    "download",
    "draw",
    "evaluate",
    "export",
    "gradients",
    "load",
    "merge",
    "plan",
    "start",
    "train",
    "verify",
]
