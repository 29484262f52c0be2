"""A user's own Keras model: trained by `fit`, made smooth, compared."""

from sat_tf.fit.adversarial_model import AdversarialModel

__all__ = ["AdversarialModel"]
