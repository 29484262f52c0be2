"""Networks that are none of the table's, as classifiers of images in [0, 1]: a .keras file, a function, an application.

Nothing in a file is executed: Keras' safe mode is on, and a layer that the file itself would bring is refused.
"""

from sat_tf.networks.applications import PREPARED, application
from sat_tf.networks.architecture import rebuilt, settled
from sat_tf.networks.classifying import Classifier, classifier, side_of, value_range_of
from sat_tf.networks.graphs import remember
from sat_tf.networks.reading import call, read, takes

__all__ = [
    "PREPARED",
    "SIDE",
    "Classifier",
    "application",
    "call",
    "classifier",
    "read",
    "rebuilt",
    "remember",
    "settled",
    "side_of",
    "takes",
    "value_range_of",
]

SIDE = 224  # pixels, where neither the network nor the data say
