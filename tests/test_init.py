"""Training that starts from the weights of a checkpoint: what is taken, what starts afresh, what is refused."""

import numpy as np
import pytest
import tensorflow as tf

from sat_tf import assembly, hparams, saving
from sat_tf.experiment import run
from sat_tf.runs import folders

TINY = {"model": "resnet8-w8", "dataset": "synthetic", "epochs": 1, "batch_size": 64, "validation": 40}


def fresh(folder, seed=0, **changes):
    recipe = hparams.choose({**TINY, "seed": seed, **changes})
    assembly.make_deterministic(seed)
    return run.Run(recipe, assembly.load_data(recipe, None), tf.distribute.get_strategy(), folder)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Return a run without an attack, whose checkpoint is there, and the folder of it."""
    folder = tmp_path_factory.mktemp("clean")
    begun = fresh(folder, seed=1, method="standard")
    folders.write_recipe(folder, begun.recipe)
    begun.train()
    return begun, folder


def test_weights_statistics_and_averages_are_taken_and_the_optimizer_is_not(first, tmp_path):
    begun, folder = first
    started = fresh(tmp_path, average_decay=0.9, init=str(folder))
    assert started.found is None and not started.start.new_head
    wanted = {path: variable.numpy() for path, variable in saving.by_path(begun.state.model).items()}
    for group in (saving.by_path(started.state.model), started.state.average.variables):
        assert group.keys() == wanted.keys()
        for path, variable in group.items():
            np.testing.assert_array_equal(variable, wanted[path])
    assert started.state.step == 0
    assert not any(np.any(v.numpy()) for v in started.state.optimizer.variables if len(v.shape))


def test_another_network_is_refused(first):
    with pytest.raises(ValueError, match="Expected the model of the weights .*, resnet8-w8. Received: model=resnet14"):
        hparams.choose({**TINY, "model": "resnet14", "init": str(first[1])})


def test_an_activation_may_be_another(first, tmp_path):
    started = fresh(tmp_path, act="gelu", init=str(first[1]))
    wanted = saving.by_path(first[0].state.model)
    for path, variable in saving.by_path(started.state.model).items():
        np.testing.assert_array_equal(variable, wanted[path])
