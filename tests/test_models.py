"""The table of models and its builder."""

import numpy as np
import pytest
import tensorflow as tf

from sat_tf import activations, cost, models


def test_build_by_name_and_by_factory_agree_in_shape():
    by_name = models.build("resnet8-w8", "swish", 5, momentum=0.8, epsilon=1e-3)
    by_factory = models.build("resnet8-w8", activations.factory("swish"), 5)
    assert [v.path for v in by_name.variables] == [v.path for v in by_factory.variables]
    norm = by_name.get_layer("conv0")
    assert (norm.momentum, norm.epsilon) == (0.8, 1e-3)


def test_the_first_layer_scales_to_minus_one_to_one():
    model = models.build("resnet8-w8", "relu", 10)
    scale = model.get_layer("scale")
    np.testing.assert_allclose(scale(tf.constant([[[[0.0, 0.5, 1.0]]]])), [[[[-1, 0, 1]]]])


def test_variables_have_unique_paths_with_an_activation_that_learns():
    with cost.weightless():
        paths = [variable.path for variable in models.build("resnet50", "smoothrelu", 10).variables]
    assert len(paths) == len(set(paths))


@pytest.mark.parametrize("name,near", [("resnet5", "resnet50"), ("ResNet20", "resnet20"), ("resnext50-32", "resnext")])
def test_unknown_model_offers_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"Did you mean {near}"):
        models.build(name, "relu")


def test_unknown_activation():
    with pytest.raises(ValueError, match="Did you mean swish"):
        models.build("resnet20", "swich")


def test_image_sizes_and_preprocessing_of_the_families():
    names = ("resnet20", "resnet50", "efficientnet-b7", "efficientnet-lite3")
    sizes = {name: models.image_size(name) for name in names}
    assert sizes == {"resnet20": 32, "resnet50": 224, "efficientnet-b7": 600, "efficientnet-lite3": 280}
    assert models.evaluation_preprocess("resnet50") == "resize_crop"
    assert models.evaluation_preprocess("efficientnet-b0") == "crop_resize"


def test_noise_for_a_resnet_is_refused():
    with pytest.raises(ValueError, match="Received: model=resnet20, stochastic_depth=0.2"):
        models.build("resnet20", "relu", 10, stochastic_depth=0.2)
