"""AutoGraph converts what others wrote in Python, and nothing else."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
from small_methods import attack_of, linear, loop_of, small_batch

from sat_tf import attacks, evaluate, graphs, methods


@dataclasses.dataclass(frozen=True, kw_only=True)
class Branching(methods.AdversarialTraining):
    """Adversarial training with a branch that AutoGraph alone can trace."""

    def learn(self, model, batch, updater):
        scale = 1.0
        if tf.reduce_mean(batch.images) > 2:
            scale = 0.0
        return super().learn(model, dataclasses.replace(batch, images=scale * batch.images), updater)


class Step:
    """An attack of a user's."""


@pytest.mark.parametrize(
    "part,expected",
    [
        (linear(), True),
        (methods.sat(attack_of()), True),
        (attacks.Once(attack=attack_of()), True),
        (attacks.Once(attack=Step()), False),
        (Branching(attack=attack_of()), False),
        (lambda x: x, False),
        (functools.partial(attacks.input_gradient, tf.nn.relu), True),
        (functools.partial(attacks.input_gradient, lambda x: x), False),
        (evaluate.predictor(linear()), True),
        (evaluate.predictor(lambda x: x), False),
        (tf.nn.relu, True),
        (0.5, True),
    ],
)
def test_whose_python_it_is(part, expected):
    assert graphs.written(part) is expected


def trained(method):
    model = linear()
    data = tf.data.Dataset.from_tensors(small_batch()).repeat()
    (_, found), (_, again) = loop_of(method, model).run(data, until=4, steps_per_call=2)
    return [*found["loss"], *again["loss"]], model.get_weights()


@pytest.mark.autograph
def test_a_method_of_python_trains_as_one_of_tensorflow():
    (losses, weights), (expected, others) = (trained(kind(attack=attack_of())) for kind in (Branching, methods.sat))
    assert losses == expected and losses[-1] < losses[0]
    for found, wanted in zip(weights, others, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.autograph
def test_a_job_converts_nothing():
    def work(count):
        """Count."""
        return [int(n) for n in tf.data.Dataset.range(count).map(lambda n: n if n > 0 else -n)]

    assert work(2) == [0, 1] and graphs.job(work).__doc__ == "Count."
    with pytest.raises(tf.errors.OperatorNotAllowedInGraphError):
        graphs.job(work)(2)
