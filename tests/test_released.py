"""The authors' TF1 checkpoints: reference vectors, names and shapes, one clear sentence for every other file."""

import functools
import hashlib

import numpy as np
import pytest
import released_vectors
import tensorflow as tf

from sat_tf import hparams, models, released
from sat_tf.released import tf1

AVERAGE = "/ExponentialMovingAverage"
VECTORS = {  # act, weights: logits of class 0..3 and argmax of each image, cross-entropy clean and after PGD-10
    ("resnet50", "relu", "raw"): (
        [[1.21344, -1.35522, -3.78792, 1.10783], [0.86588, -1.6037, -3.31363, 0.74757]],
        [164, 164],
        [9.293032, 9.047188],
        [11.73897, 11.3705],
    ),
    ("resnet50", "silu", "raw"): (
        [[0.11626, -0.14599, -0.37039, 0.34889], [0.01453, -0.11846, -0.38444, 0.10304]],
        [888, 795],
        [6.599308, 6.763612],
        [7.287789, 7.720738],
    ),
    ("efficientnet-b0", "swish", "raw"): (
        [[-0.4795, 1.04814, 0.08637, 0.01928], [-0.54437, 1.1729, 0.05952, 0.03821]],
        [655, 655],
        [7.004188, 6.941068],
        [7.359878, 7.404262],
    ),
    ("efficientnet-b0", "swish", "ema"): (
        [[-0.56892, -0.18075, -0.39366, -0.12081], [-0.76501, -0.28726, -0.31106, -0.26016]],
        [960, 960],
        [7.239107, 6.219609],
        [9.513302, 6.860545],
    ),
}
NAMES = {  # how many, and how the SHA-256 of the sorted lines "name [shape]" of the release's own code begins
    "resnet50": (267, "60af2b27efc8bda2"),
    "efficientnet-b0": (311, "543f308d2aae1be0"),
}


@functools.cache
def shapes_of(model, act="swish"):
    return released.variables(model, act)


def write(prefix, shapes, changed=None):
    """Write a checkpoint whose values do not matter."""
    return released_vectors.write(prefix, shapes, changed, released_vectors.ones)


def averaged(shapes):
    """Return names and shapes of a file with raw and averaged weights."""
    return shapes | {name + AVERAGE: shape for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return `write(model, act, weights) -> prefix` of a file with the reference vectors' values, written once."""
    folder, written = tmp_path_factory.mktemp("released"), {}

    def write(model, act="relu", weights="raw"):
        key = f"{model}-{act}-{weights}"
        if key not in written:
            shapes = shapes_of(model, act)
            slots = {"global_step": np.int64(7), f"{next(iter(shapes))}/Momentum": np.zeros(3, np.float32)}
            written[key] = released_vectors.write(folder / key, averaged(shapes) if weights == "ema" else shapes, slots)
        return written[key]

    return write


@pytest.mark.parametrize("model,act,weights", VECTORS)
def test_logits_and_attack_of_the_released_network(model, act, weights, files):
    """The release's own network code gave these numbers on the same random weights; the ResNets see BGR."""
    prefix = files(model, act, weights)
    released_vectors.check(released.load(prefix, model, act=act, weights=weights), *VECTORS[model, act, weights])


@pytest.mark.parametrize("model", NAMES)
def test_names_and_shapes_are_the_releases(model):
    shapes = shapes_of(model)
    lines = "\n".join(sorted(f"{name} {list(shape)}" for name, shape in shapes.items()))
    assert (len(shapes), hashlib.sha256(lines.encode()).hexdigest()[:16]) == NAMES[model]


def test_names_of_l1_have_its_own_scope():
    shapes = shapes_of("efficientnet-l1")
    assert all(name.startswith("efficientnet-bL1/") for name in shapes)
    trained = {name: shape for name, shape in shapes.items() if "/moving_" not in name}
    assert sum(int(np.prod(shape)) for shape in trained.values()) == 272_630_564
    assert shapes["efficientnet-bL1/stem/tpu_batch_normalization/gamma"] == (1, 1, 1, 1, 128)
    assert tf1._model_of(shapes) == "efficientnet-l1"


def test_smoothrelu_has_a_parameter_at_every_site(files):
    shapes = shapes_of("resnet50", "smoothrelu")
    betas = [name for name in shapes if name.endswith("smoothrelu_beta")]
    assert len(betas) == 49 and all(shapes[name] == (1,) for name in betas)
    assert {
        "conv0/smoothrelu_beta",
        "group0/block0/conv1/smoothrelu_beta",
        "group0/block0/conv2/smoothrelu_beta",
        "group0/block0/smoothrelu_beta",
    } <= set(betas)
    model = released.load(files("resnet50", "smoothrelu"))
    site = model.get_layer("group1_block2_conv2_act")
    wanted = released_vectors.value("group1/block2/conv2/smoothrelu_beta", (1,))
    np.testing.assert_allclose(site.raw, wanted, rtol=1e-6)


def test_first_kernel_is_flipped_and_the_rest_is_not(files):
    model = released.load(files("resnet50"), "resnet50", act="relu")
    kernel = released_vectors.value("conv0/W", (7, 7, 3, 64)).astype(np.float32)
    np.testing.assert_array_equal(model.get_layer("conv0").kernel, kernel[:, :, ::-1])
    other = released_vectors.value("group0/block0/conv1/W", (1, 1, 64, 64)).astype(np.float32)
    np.testing.assert_array_equal(model.get_layer("group0_block0_conv1").kernel, other)
    assert model.get_layer("conv0").epsilon == 1e-5 and model.get_layer("conv0").momentum == 0.9


def test_every_release_is_recognised_by_its_variables():
    for name, release in hparams.RELEASES.items():
        recipe = release.make_recipe()
        act = "smoothrelu" if recipe.act.startswith("smoothrelu") else "swish"  # others have no variables
        assert tf1._model_of(shapes_of(recipe.model, act)) == recipe.model, name
        assert (recipe.norm_momentum, recipe.norm_epsilon) == (0.9, 1e-5)
        size = recipe.image_size or models.image_size(recipe.model)
        wanted = {"299": 299, "380": 380}.get(name.split("-")[2] if name.count("-") > 1 else "", size)
        assert size == wanted
        assert set(release.published) <= set(hparams.ATTACKS) and all(0 < p < 1 for p in release.published.values())
    ids = [drive_id for release in hparams.RELEASES.values() for drive_id in release.drive_ids]
    assert len(hparams.RELEASES) == 24 and len(set(ids)) == 72
    assert [n for n, r in hparams.RELEASES.items() if r.make_recipe().evaluated_weights == "averaged"] == [
        "efficientnet-bL1-enhanced"
    ]


@pytest.mark.parametrize("suffix", ["", ".index", ".meta", ".data-00000-of-00001"])
def test_a_checkpoint_is_found_by_any_of_its_names(suffix, files):
    prefix = files("resnet50")
    assert released.find(f"{prefix}{suffix}") == prefix and released.is_released(f"{prefix}{suffix}")


def test_a_folder_with_one_checkpoint_is_enough(files, tmp_path):
    (tmp_path / "a").mkdir()
    write(tmp_path / "a" / "b", {"c": (2,)})
    assert released.find(tmp_path / "a") == tmp_path / "a" / "b"
    write(tmp_path / "a" / "d", {"c": (2,)})
    with pytest.raises(FileNotFoundError, match="one checkpoint in .*a, there are several: b.index, d.index"):
        released.find(tmp_path / "a")


def test_places_that_hold_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in (".", "/", "..", "no/such/folder", ""):
        assert not released.is_released(place)
    (tmp_path / "a[1]").mkdir()
    write(tmp_path / "b", {"c": (2,)})
    for file in tmp_path.glob("b.*"):
        file.rename(tmp_path / "a[1]" / file.name)
    with pytest.raises(OSError, match="path without '.'"):
        released.load(tmp_path / "a[1]" / "b")


W = "group0/block0/conv2/W"
CHANGES = {  # what is done to a file of resnet50, what the message says
    "missing": ({W: None}, rf"missing in the file: {W} \(3, 3, 64, 64\)"),
    "extra": (
        {"group0/block0/conv4/W": np.zeros((1, 2), np.float32)},
        r"only in the file: group0/block0/conv4/W \(1, 2\)",
    ),
    "transposed": (
        {"linear/W": np.zeros((1000, 2048), np.float32)},
        r"another shape: linear/W \(1000, 2048\) in the file",
    ),
    "slot of nothing": ({"foo/Momentum": np.zeros(3, np.float32)}, r"only in the file: foo/Momentum \(3,\)"),
    "some averages": (
        {W + AVERAGE: np.zeros((3, 3, 64, 64), np.float32)},
        r"missing in the file: conv0/W/ExponentialMovingAverage \(7, 7, 3, 64\)",
    ),
    "wrong rank": (
        {"conv0/bn/gamma": np.zeros((1, 1, 1, 1, 64), np.float32)},
        r"another shape: conv0/bn/gamma \(1, 1, 1, 1, 64\) in the file, \(64,\) in the model",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_variable_is_accounted_for(change, tmp_path):
    changed, says = CHANGES[change]
    prefix = write(tmp_path / "a", shapes_of("resnet50", "relu"), changed)
    with pytest.raises(ValueError, match=f"Expected the weights of resnet50 with relu. .*which differs: .*{says}"):
        released.load(prefix, "resnet50", act="relu")


AVERAGED = {  # what is done to a file with raw and averaged weights of efficientnet-b0, what the message says
    "no raw": ("head/dense/bias", None, "", r"missing in the file: efficientnet-b0/head/dense/bias \("),
    "raw": ("head/dense/bias", 7, "", r"another shape: efficientnet-b0/head/dense/bias \(7,\)"),
    "no average": (
        "stem/conv2d/kernel",
        None,
        AVERAGE,
        f"missing in the file: efficientnet-b0/stem/conv2d/kernel{AVERAGE}",
    ),
    "average": ("head/dense/bias", 7, AVERAGE, f"another shape: efficientnet-b0/head/dense/bias{AVERAGE}"),
}


@pytest.mark.parametrize("weights", ["raw", "ema"])
@pytest.mark.parametrize("case", AVERAGED)
def test_raw_and_averaged_weights_are_both_accounted_for(case, weights, tmp_path):
    name, size, suffix, says = AVERAGED[case]
    changed = {f"efficientnet-b0/{name}{suffix}": size and np.zeros(size, np.float32)}
    prefix = write(tmp_path / "a", averaged(shapes_of("efficientnet-b0")), changed)
    with pytest.raises(ValueError, match=says):
        released.load(prefix, "efficientnet-b0", weights=weights)


def test_what_training_keeps_beside_the_weights_is_known(tmp_path):
    shapes = averaged(shapes_of("efficientnet-b0"))
    kernel = "efficientnet-b0/stem/conv2d/kernel"
    one = np.zeros(1, np.float32)
    beside = {
        "global_step": one,
        "a/global_step": one,
        "learning_rate": one,
        "EMA/QueueInput/queue_size": one,
        "opt/beta1_power": one,
        f"{kernel}/RMSProp": one,
        f"{kernel}/RMSProp_1": one,
        f"{kernel}/Adam_1": one,
        f"{kernel}{AVERAGE}/Momentum": one,
        "apply_gradients/AccumGrad/x": one,
    }
    prefix = write(tmp_path / "a", shapes, beside)
    for weights in ("raw", "ema"):
        released.load(prefix, weights=weights)


def test_a_file_of_averages_only(tmp_path):
    shapes = {f"{name}{AVERAGE}": shape for name, shape in shapes_of("efficientnet-b0").items()}
    prefix = write(tmp_path / "a", shapes)
    released.load(prefix, weights="ema")
    with pytest.raises(ValueError, match="holds efficientnet-b0, averaged weights only: weights='ema'"):
        released.load(prefix)


def test_a_folder_of_the_checkpoints_name_does_not_matter(tmp_path):
    prefix = write(tmp_path / "a", shapes_of("efficientnet-b0"))
    prefix.mkdir()
    released.load(prefix, "efficientnet-b0")


@pytest.mark.parametrize(
    "kind,loaded,says",
    [
        (
            ("resnet50", "relu"),
            {"model": "resnet101", "act": "relu"},
            "weights of resnet101. .*which holds resnet50, raw",
        ),
        (
            ("efficientnet-b0", "swish"),
            {"model": "resnet50", "act": "relu"},
            "which holds efficientnet-b0, raw weights",
        ),
        (("resnet50", "relu"), {"model": "efficientnet-b0"}, "which holds resnet50, raw weights"),
        (("resnet50", "relu"), {"model": "resnet50", "act": "smoothrelu"}, "act=smoothrelu. .*but no parameters of"),
        (
            ("resnet50", "smoothrelu"),
            {"model": "resnet50", "act": "silu"},
            "act=swish. .*the parameters of smoothrelu at",
        ),
        (("resnet50", "relu"), {"model": "resnet50"}, "Expected the activation"),
        (("resnet50", "relu"), {"model": "resnet50", "act": "relu", "weights": "ema"}, "holds resnet50, raw weights"),
        (("resnet50", "relu"), {"model": "resnet50", "act": "relu", "weights": "averaged"}, "weights of raw, ema"),
        (
            ("efficientnet-b0", "swish"),
            {"model": "efficientnet-b0", "act": "smoothrelu"},
            "no parameters of smoothrelu",
        ),
    ],
)
def test_another_network_is_named(kind, loaded, says, files):
    with pytest.raises(ValueError, match=says):
        released.load(files(*kind), **loaded)


def test_a_files_graph_tells_the_activation(files, tmp_path):
    """ReLU's and swish's files have the same variables; the .meta file beside them has the graph."""
    prefix = write(tmp_path / "a", shapes_of("resnet50", "relu"))
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [1, 4, 4, 3])
        y = tf.nn.conv2d(x, tf.zeros([1, 1, 3, 2]), 1, "SAME")
        tf.multiply(y, tf.sigmoid(y))
        meta = tf.compat.v1.train.export_meta_graph(graph_def=graph.as_graph_def())
    (tmp_path / "a.meta").write_bytes(meta.SerializeToString())
    with pytest.raises(ValueError, match="act=relu. Received: .*which holds resnet50 with swish, raw weights"):
        released.load(prefix, "resnet50", act="relu")
    assert type(released.load(prefix).get_layer("conv0_act")).__name__ == "Swish"
    (tmp_path / "a.meta").write_bytes(b"no graph")
    released.load(prefix, "resnet50", act="relu")


def text(path):
    path.write_text("<!DOCTYPE html><html>too many downloads</html>\n" * 9)


DAMAGES = {  # file, what is done to it, what the message says
    "text for index": ("index", text, r"a.index is no index of a checkpoint, or damaged: not an sstable"),
    "empty index": ("index", lambda path: path.write_bytes(b""), "too short"),
    "cut index": ("index", lambda path: path.write_bytes(path.read_bytes()[:-9]), "not an sstable"),
    "text for data": ("data-00000-of-00001", text, r"cut off or another file: it has 423 bytes of \d+"),
    "cut data": ("data-00000-of-00001", lambda path: path.write_bytes(path.read_bytes()[:-1]), "cut off"),
    "flipped data": (
        "data-00000-of-00001",
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
        "damaged at .*Checksum does not match",
    ),
    "no data": ("data-00000-of-00001", lambda path: path.unlink(), "lacks its file a.data-00000-of-00001"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_one_sentence(damage, tmp_path):
    suffix, harm, says = DAMAGES[damage]
    write(tmp_path / "a", shapes_of("efficientnet-b0"))
    harm(tmp_path / f"a.{suffix}")
    with pytest.raises(OSError, match=says) as caught:
        released.load(tmp_path / "a", "efficientnet-b0")
    assert "\n" not in str(caught.value)


def test_values_that_are_not_finite_are_refused(tmp_path):
    nan = {"efficientnet-b0/head/dense/bias": np.full(1000, np.nan, np.float32)}
    prefix = write(tmp_path / "a", shapes_of("efficientnet-b0"), nan)
    with pytest.raises(OSError, match="values of efficientnet-b0/head/dense/bias that are not finite"):
        released.load(prefix, "efficientnet-b0")


def test_another_networks_file_is_named(tmp_path):
    prefix = write(tmp_path / "a", {"dense/kernel": (3, 4), "dense/bias": (4,)})
    with pytest.raises(ValueError, match="which holds 2 variables such as dense/bias, dense/kernel"):
        released.load(prefix)


@pytest.mark.parametrize("model", ["resnet20"])
def test_a_network_that_the_release_has_not(model):
    with pytest.raises(ValueError, match="a network that the release has.*model=resnet20"):
        released.variables(model)
