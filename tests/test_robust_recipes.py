"""The recipes of today's robust networks: a step of each on a network that is quick, by the recipe's own settings."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from sat_tf import assembly
from sat_tf.experiment import run
from sat_tf.hparams import apgd2, trades

RECIPES = {
    "imagenet-apgd2-resnet50": (apgd2.imagenet_apgd2_resnet50, "resnet8-w8"),
    "cifar10-trades-wrn28-10": (trades.cifar10_trades_wrn28_10, "wrn-10-1"),
}
QUICK = {"dataset": "synthetic", "image_size": 32, "batch_size": 16, "validation": 16, "validation_attack": "pgd-1"}


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_of_each(name, tmp_path):
    make, model = RECIPES[name]
    recipe = dataclasses.replace(make().replace(model=model, **QUICK), epochs=1, warmup_epochs=0)
    assembly.make_deterministic(recipe.seed)
    begun = run.Run(recipe, assembly.load_data(recipe, None), tf.distribute.get_strategy(), tmp_path)
    before = [variable.numpy() for variable in begun.state.model.trainable_variables]
    begun.total_steps = 1
    begun.train()
    assert begun.state.step == 1 and np.isfinite(begun.history[-1]["train/loss"])
    after = begun.state.model.trainable_variables
    assert all(np.any(old != new) for old, new in zip(before, after, strict=True))
    assert "average" in begun.variables() and (tmp_path / "checkpoints" / "best").is_file()
