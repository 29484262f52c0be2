"""The mechanism of the SAT paper: what gradients are worth, of any model and at every checkpoint of a run."""

from sat_tf.mechanism.quantities import along, many_steps, noise, one_step, share

__all__ = ["along", "many_steps", "noise", "one_step", "share"]
