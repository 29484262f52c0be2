"""What a recipe's words become: size and batches of images, optimizer, average, policy, the one strategy of devices."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sat_tf import assembly, autoaugment, data, hparams
from sat_tf.distribute import strategies


def recipe(**changes):
    return hparams.choose({"dataset": "synthetic", "model": "resnet8-w8", **changes})


@pytest.fixture(scope="module")
def dataset():
    return data.load("synthetic", validation=40)


def test_the_recipes_size_comes_before_the_datas_and_this_before_the_models(dataset):
    assert assembly.image_size(recipe(), dataset) == dataset.image_size
    assert assembly.image_size(recipe(image_size=16), dataset) == 16
    assert assembly.model_side(recipe(model="efficientnet-b4")) == 380


def test_a_batch_is_no_larger_than_what_it_holds(dataset):
    strategy = tf.distribute.get_strategy()
    for size, wanted in ((7, 7), (64, 40)):
        batches = assembly.evaluation_batches(recipe(eval_batch_size=size), dataset.validation, 32, strategy)
        assert batches.element_spec[0].shape == (wanted, 32, 32, 3)


def test_the_rate_is_quoted_for_256_images():
    optimizer = assembly.make_optimizer(
        recipe(learning_rate=0.1, batch_size=64, schedule="constant", warmup_epochs=0), 10, 20
    )
    assert float(tf.convert_to_tensor(optimizer.learning_rate)) == pytest.approx(0.1 * 64 / 256)


@pytest.mark.parametrize(
    "changes,says",
    [
        ({"method": "free", "attack": "pgd-10"}, "an attack of one step with the method free"),
        ({"method": "cat", "extra_share": "0.5"}, "extra_share=0 with the method cat"),
        ({"method": "fast", "random_start": "false"}, "random_start=true.* Received: .*random_start=false"),
    ],
)
def test_what_a_method_can_not_have_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        assembly.make_method(hparams.choose(changes))


def test_weights_decay_once():
    by_loop, by_optimizer = recipe(weight_decay=0.01), recipe(weight_decay=0.01, optimizer="adamw")
    assert assembly.added_weight_decay(by_loop) == 0.01 and assembly.added_weight_decay(by_optimizer) == 0
    assert assembly.make_optimizer(by_optimizer, 1, 1).weight_decay == 0.01


def test_a_policy_is_named_with_its_magnitude():
    assert assembly.make_policy(recipe(policy="none")) is None
    assert assembly.make_policy(recipe(policy="autoaugment")) is autoaugment.POLICIES["autoaugment"]
    assert assembly.make_policy(recipe(policy="randaugment:5")).keywords == {"magnitude": 5.0}


def test_an_average_is_kept_where_asked():
    model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
    assert assembly.make_average(recipe(), model) is None
    average = assembly.make_average(recipe(average_decay=0.9), model)
    assert [v.shape for v in average.variables.values()] == [(2, 1), (1,)]


def test_same_devices_have_one_strategy(two_replicas):
    assert strategies.mirrored(tuple(d.name for d in tf.config.list_logical_devices("CPU"))) is two_replicas
    with pytest.raises(ValueError, match="multiple of the 2 replicas. Received: batch_size=5"):
        assembly.make_strategy(recipe(strategy="mirrored", batch_size=5))


def test_a_cut_test_part_is_said_and_the_same_every_time():
    cut = [assembly.load_data(recipe(eval_images=10), None) for _ in range(2)]
    assert cut[0].test.size == 10 and "10 of the" in cut[0].notes[-1]
    np.testing.assert_array_equal(*(each.test.places for each in cut))
