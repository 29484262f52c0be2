"""Operations against the release's vectors and pencil and paper; policies: odds, signs, arguments, seeds, graph."""

import collections
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from sat_tf import autoaugment as aa
from sat_tf.autoaugment import OPERATIONS, POLICIES, POLICY_V0

VECTORS = dict(np.load(pathlib.Path(__file__).parent / "vectors" / "autoaugment_ops.npz"))
IMAGES = VECTORS.pop("images")
GEOMETRY = {"Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"}
SIDES = [(1, 1), (1, 9), (2, 2), (3, 3), (2, 40), (37, 5), (300, 260)]
ARGUMENTS = {  # a row for every operation: what the vectors leave out
    "AutoContrast": [0],
    "Equalize": [0],
    "Invert": [0],
    "Rotate": [-17.5, 45.0],
    "Posterize": [0, 5, 8],
    "Solarize": [0, 1, 255, 384],
    "Color": [0.0, 0.46, 1.72, 2.8],
    "Contrast": [0.0, 0.46, 2.8],
    "Brightness": [0.0, 0.46, 1.72, 2.8],
    "Sharpness": [0.0, 0.46, 1.72, 2.8],
    "ShearX": [-0.45, 0.333],
    "ShearY": [-0.45, 0.333],
    "TranslateX": [-7.5, 225.0],
    "TranslateY": [-7.5, 225.0],
    "Cutout": [[3.0, 0.0, 0.99], [60.0, 0.5, 0.5]],
    "SolarizeAdd": [-128, 0, 165],
}
UNKNOWN_SIDES = tf.TensorSpec([None, None, 3], tf.uint8)


def photo(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def column(*values):
    """Return an image one pixel wide, its three channels alike."""
    return np.repeat(np.array(values, np.uint8)[:, np.newaxis, np.newaxis], 3, axis=2)


def seeds(count):
    return tf.stack([tf.fill([count], 3), tf.range(count)], axis=1)


def over_seeds(fn, count, signature):
    run = tf.function(lambda: tf.map_fn(fn, seeds(count), fn_output_signature=signature))
    return tf.nest.map_structure(lambda x: x.numpy(), run())


@pytest.fixture(scope="module")
def draws():
    """Return 5,000 draws of a sub-policy: index, which act, signs."""
    return over_seeds(aa.draw_sub_policy, 5000, (tf.int32, tf.TensorSpec([2], tf.bool), tf.TensorSpec([2])))


@pytest.mark.parametrize("case", VECTORS)
def test_operations_equal_the_release(case):
    name, argument = case.split("|")
    for image, expected in zip(IMAGES, VECTORS[case], strict=True):
        out = OPERATIONS[name](tf.constant(image), float(argument or 0)).numpy()
        assert out.dtype == np.uint8 and out.shape == image.shape
        assert (out != expected).any(axis=2).mean() <= (0.01 if name in GEOMETRY else 0)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_take_any_image_and_give_the_same_bits_in_graphs(name):
    length = np.shape(ARGUMENTS[name][0])
    graph = tf.function(OPERATIONS[name], input_signature=[UNKNOWN_SIDES, tf.TensorSpec(length, tf.float32)])
    for height, width in SIDES:
        for image in (photo(height, width), np.full((height, width, 3), 77, np.uint8)):
            for argument in ARGUMENTS[name]:
                out = OPERATIONS[name](tf.constant(image), argument).numpy()
                assert out.dtype == np.uint8 and out.shape == image.shape
                np.testing.assert_array_equal(graph(image, tf.constant(argument, tf.float32)), out)


@pytest.mark.parametrize(
    ("name", "argument", "values", "expected"),
    [
        ("AutoContrast", 0, [77] * 5, [77] * 5),
        ("AutoContrast", 0, [10, 20, 30], [0, 127, 255]),  # 127.5
        ("AutoContrast", 0, [0, 100, 255], [0, 100, 255]),
        ("Equalize", 0, [9] * 600, [9] * 600),  # one value
        ("Equalize", 0, [3] * 254 + [8] * 300, [3] * 254 + [8] * 300),  # step 254 // 255 = 0
        ("Equalize", 0, [3] * 255 + [8] * 9, [0] * 255 + [255] * 9),  # step 1
        ("Equalize", 0, [0] * 510 + [1] * 300 + [9], [0] * 510 + [170] * 300 + [255]),  # step 3: 511 // 3, 811 // 3
        ("Invert", 0, [0, 1, 128, 255], [255, 254, 127, 0]),
        ("Posterize", 0, [0, 127, 128, 255], [0, 0, 128, 128]),  # as 1 bit
        ("Posterize", 1, [0, 127, 128, 255], [0, 0, 128, 128]),
        ("Posterize", 6, [3, 4, 7, 255], [0, 4, 4, 252]),
        ("Posterize", 8, [0, 1, 254, 255], [0, 1, 254, 255]),
        ("Solarize", 0, [0, 1, 255], [255, 254, 0]),
        ("Solarize", 255, [0, 254, 255], [0, 254, 0]),
        ("Solarize", 256, [0, 254, 255], [255, 1, 0]),  # wraps around to 0
        ("Solarize", 384, [0, 127, 128, 255], [0, 127, 127, 0]),  # wraps around to 128
        ("SolarizeAdd", 110, [0, 17, 127, 128, 255], [110, 127, 237, 128, 255]),
        ("SolarizeAdd", 165, [0, 90, 127, 128, 255], [165, 255, 255, 128, 255]),
        ("SolarizeAdd", -60, [0, 59, 61, 128, 255], [0, 0, 1, 128, 255]),
        ("Brightness", 0.5, [0, 1, 3, 255], [0, 0, 1, 127]),
        ("Brightness", 1.75, [0, 3, 145, 146], [0, 5, 253, 255]),
        ("Brightness", 0, [0, 3, 255], [0, 0, 0]),
        ("Contrast", 0, [50] * 512, [2] * 512),  # 512 pixels over 256 bins
        ("Contrast", 0, [50] * 70000, [255] * 70000),
        ("Contrast", 1.5, [50, 250], [75, 255]),  # level 0
        ("Color", 0.25, [0, 100, 255], [0, 100, 255]),  # grey stays grey
        ("Sharpness", 0, [1, 200], [1, 200]),  # nothing but border
        ("TranslateY", 1, [1, 2, 3], [2, 3, 128]),
        ("TranslateY", -1.4, [1, 2, 3], [128, 1, 2]),
        ("TranslateY", 225, [1, 2, 3], [128] * 3),
        ("ShearY", 0.3, [1, 2, 3], [1, 2, 3]),  # column 0 stays
        ("Rotate", 180, [1, 2, 3], [3, 2, 1]),
        ("Cutout", [1, 0.5, 0], [1, 2, 3, 4, 5], [1, 128, 128, 4, 5]),  # rows 2 - 1 to 2 + 1, exclusive
        ("Cutout", [2, 0.0, 0], [1, 2, 3, 4], [128, 128, 3, 4]),
    ],
)
def test_values_by_pencil_and_paper(name, argument, values, expected):
    out = OPERATIONS[name](tf.constant(column(*values)), argument)
    np.testing.assert_array_equal(out, column(*expected))


def test_channels_are_stretched_and_equalized_apart():
    ramp = np.arange(100)[:, np.newaxis] * np.ones(30)
    image = np.stack(np.broadcast_arrays(ramp, 7, 255), axis=2).astype(np.uint8)
    for name in ("AutoContrast", "Equalize"):
        out = OPERATIONS[name](tf.constant(image), 0).numpy()
        assert out[..., 0].min() == 0 and out[..., 0].max() == 255
        np.testing.assert_array_equal(out[..., 1:], image[..., 1:])


def smoothed(x):
    """Return the weighted mean of 3 x 3 pixels, its fraction cut off, inside a border that stays."""
    height, width = x.shape[:2]
    total = sum(x[row : row + height - 2, left : left + width - 2] for row in range(3) for left in range(3))
    out = x.copy()
    out[1:-1, 1:-1] = np.floor((total + 4 * x[1:-1, 1:-1]) / 13 + 1e-9)
    return out


@pytest.mark.parametrize("factor", [0.0, 0.46, 1.0, 1.72])
@pytest.mark.parametrize(
    ("name", "base_fn"),
    [("Sharpness", smoothed), ("Color", lambda x: np.floor(x @ [[0.2989], [0.587], [0.114]] * 255.5 / 255))],
)
def test_blends_against_numpy(name, base_fn, factor):
    for height, width in ((31, 44), (64, 17), (3, 3)):
        image = photo(height, width)
        base = base_fn(image.astype(np.float64))
        expected = np.floor(np.clip(base + factor * (image - base), 0, 255) + 1e-4)
        difference = np.abs(OPERATIONS[name](tf.constant(image), factor).numpy() - expected)
        assert difference.max() <= 2 and (difference > 0).mean() < 0.05  # float32 just below a whole mean


def test_sharpness_leaves_the_border():
    image = photo(9, 12)
    changed = (OPERATIONS["Sharpness"](tf.constant(image), 0.1).numpy() != image).any(axis=2)
    assert changed[1:-1, 1:-1].all() and changed.sum() == 7 * 10


@pytest.mark.parametrize(
    ("name", "argument", "source"),
    [
        ("TranslateX", 2.0, lambda y, x: (y, x + 2)),
        ("TranslateX", -2.6, lambda y, x: (y, x - 3)),
        ("TranslateY", 3.4, lambda y, x: (y + 3, x)),
        ("ShearX", 0.25, lambda y, x: (y, x + (y + 2) // 4)),
        ("ShearY", -0.1, lambda y, x: (y - (x + 4) // 10, x)),
        ("Rotate", 90.0, lambda y, x: (x, 20 - y)),  # counter-clockwise: the top comes from the right
        ("Rotate", -90.0, lambda y, x: (20 - x, y)),
    ],
)
def test_geometry_fetches_from_the_right_place(name, argument, source):
    image, expected = photo(21, 21), np.full((21, 21, 3), 128, np.uint8)
    for y, x in np.ndindex(21, 21):
        row, left = source(y, x)
        if 0 <= row < 21 and 0 <= left < 21:
            expected[y, x] = image[row, left]
    out = OPERATIONS[name](tf.constant(image), argument).numpy()
    assert (out != expected).any(axis=2).mean() <= 0.05  # ties of the nearest pixel


@pytest.mark.parametrize(
    ("name", "level", "argument"),
    [
        ("Rotate", 8, 24),
        ("Rotate", 15, 45),
        ("Posterize", 2, 0),
        ("Posterize", 6, 2),
        ("Posterize", 15, 6),
        ("Solarize", 3, 76),
        ("Solarize", 10, 256),
        ("SolarizeAdd", 3, 33),
        ("SolarizeAdd", 7, 77),
        ("Color", 0, 0.1),
        ("Color", 9, 1.72),
        ("Contrast", 2, 0.46),
        ("Brightness", 5, 1.0),
        ("Sharpness", 15, 2.8),
        ("ShearX", 9, 0.27),
        ("ShearY", 4, 0.12),
        ("TranslateX", 9, 225),
        ("TranslateY", 1, 25),
        ("Cutout", 15, 150),
        ("Equalize", 9, 0),
    ],
)
def test_levels_become_arguments(name, level, argument):
    assert aa.argument_of(name, level, translate=250, cut=100) == pytest.approx(argument, abs=1e-12)


def test_policy_is_the_published_one():
    """How often each operation occurs in it, and the sums of its probabilities and of its levels."""
    steps = [step for pair in POLICY_V0 for step in pair]
    assert len(POLICY_V0) == 25 and {len(pair) for pair in POLICY_V0} == {2}
    assert collections.Counter(name for name, _, _ in steps) == {
        "Equalize": 12,
        "Color": 9,
        "Solarize": 8,
        "Rotate": 7,
        "ShearY": 4,
        "SolarizeAdd": 2,
        "ShearX": 2,
        "Posterize": 2,
        "AutoContrast": 2,
        "Invert": 1,
        "TranslateY": 1,
    }
    assert sum(probability for _, probability, _ in steps) == pytest.approx(29.8)
    assert sum(level for _, _, level in steps) == 240


def test_every_sub_policy_is_reached_as_often_as_the_others(draws):
    counts = np.bincount(draws[0], minlength=25)
    assert len(counts) == 25 and np.sum((counts - 200) ** 2) / 200 < 51  # 24 degrees of freedom: exceeded once in 1,000


def test_operations_act_with_their_probability(draws):
    for index, pair in enumerate(POLICY_V0):
        acting = draws[1][draws[0] == index]
        for stage, (_, probability, _) in enumerate(pair):
            deviation = np.sqrt(probability * (1 - probability) / len(acting))  # 0 for what never or always acts
            assert abs(acting[:, stage].mean() - probability) <= 4 * deviation, (index, stage)


def test_signs_are_drawn_apart_and_evenly(draws):
    signs = draws[2]
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert np.abs(signs.mean(axis=0)).max() < 0.06 and abs(np.prod(signs, axis=1).mean()) < 0.06


def test_autoaugment_is_what_was_drawn():
    image = tf.constant(photo(40, 30))
    out = over_seeds(lambda seed: aa.autoaugment(image, seed), 60, tf.uint8)
    for seed, augmented in zip(seeds(60), out, strict=True):
        sub_policy, acting, signs = aa.draw_sub_policy(seed)
        expected = image
        for (name, _, level), acts, sign in zip(POLICY_V0[sub_policy], acting, signs, strict=True):
            argument = aa.argument_of(name, level, translate=250, cut=100) * (sign.numpy() if name in GEOMETRY else 1)
            expected = OPERATIONS[name](expected, argument) if acts else expected
        np.testing.assert_array_equal(augmented, expected)


@pytest.mark.parametrize(("layers", "magnitude"), [(1, 0), (2, 15.0), (3, 30)])
def test_randaugment_is_what_was_drawn(layers, magnitude):
    image = tf.constant(photo(40, 30))
    out = over_seeds(lambda seed: aa.randaugment(image, seed, layers=layers, magnitude=magnitude), 40, tf.uint8)
    for seed, augmented in zip(seeds(40), out, strict=True):
        expected = image
        for row, sign, place in zip(*aa.draw_operations(seed, layers), strict=True):
            name = list(OPERATIONS)[row]
            argument = aa.argument_of(name, magnitude, translate=100, cut=40)
            argument = sign.numpy() * argument if name in GEOMETRY else argument
            expected = OPERATIONS[name](expected, [argument, *place.numpy()] if name == "Cutout" else argument)
        np.testing.assert_array_equal(augmented, expected)


def test_randaugment_draws_every_operation_and_place_evenly():
    signature = (tf.TensorSpec([2], tf.int32), tf.TensorSpec([2]), tf.TensorSpec([2, 2]))
    operations, signs, places = over_seeds(lambda seed: aa.draw_operations(seed, 2), 3200, signature)
    counts = np.bincount(operations.ravel(), minlength=16)
    assert len(counts) == 16 and np.sum((counts - 400) ** 2) / 400 < 38  # 15 degrees of freedom: exceeded once in 1,000
    assert abs(np.corrcoef(operations.T)[0, 1]) < 0.06 and abs(signs.mean()) < 0.06
    assert places.min() >= 0 and places.max() < 1 and np.abs(places.mean(axis=0) - 0.5).max() < 0.03


@pytest.mark.parametrize("row", POLICIES)
def test_only_the_seed_decides_also_in_pipelines_with_unknown_sides(row):
    images = [photo(33, 50), photo(20, 20, 1), photo(1, 7, 2)]
    photos = tf.data.Dataset.from_generator(lambda: images * 8, output_signature=UNKNOWN_SIDES)
    data_set = tf.data.Dataset.zip(photos, tf.data.Dataset.from_tensor_slices(seeds(24))).map(POLICIES[row])
    assert data_set.element_spec == UNKNOWN_SIDES
    first = [out.numpy() for out in data_set]
    tf.random.set_seed(5)
    for index, (out, again, seed) in enumerate(zip(first, data_set, seeds(24), strict=True)):
        np.testing.assert_array_equal(out, again)
        np.testing.assert_array_equal(out, POLICIES[row](tf.constant(images[index % 3]), seed))
    other = over_seeds(lambda seed: POLICIES[row](tf.constant(images[0]), seed), 24, tf.uint8)
    different = len(np.unique(other.reshape(24, -1), axis=0))
    assert different == 1 if row == "none" else different > 12


@pytest.mark.parametrize("row", ["autoaugment", "randaugment"])
def test_graph_has_one_switch_and_stays_small(row):
    """One copy of each of 16 operations with 60 nodes at most: 25 sub-policies written out would be 50 copies."""
    signature = [UNKNOWN_SIDES, tf.TensorSpec([2], tf.int32)]
    graph = tf.function(POLICIES[row], input_signature=signature).get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    assert sum("Case" in node.op for node in nodes) == 1
    assert not any(node.op in ("If", "StatelessIf") for node in nodes)
    assert len(nodes) < 1000


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda: aa.autoaugment(np.zeros([4, 4, 3]), [0, 1]), r"uint8 image .*Received: image=float64 \(4, 4, 3\)"),
        (lambda: aa.autoaugment(np.zeros([1, 4, 4, 3], np.uint8), [0, 1]), r"Received: image=uint8 \(1, 4, 4, 3\)"),
        (lambda: aa.randaugment(np.zeros([4, 4, 1], np.uint8), [0, 1]), r"Received: image=uint8 \(4, 4, 1\)"),
        (lambda: aa.randaugment(IMAGES[0], [0, 1], magnitude=31), "magnitude from 0 to 30. Received: magnitude=31"),
        (lambda: aa.randaugment(IMAGES[0], [0, 1], magnitude=-0.1), "Received: magnitude=-0.1"),
        (lambda: aa.randaugment(IMAGES[0], [0, 1], magnitude="high"), "Received: magnitude='high'"),
        (lambda: aa.randaugment(IMAGES[0], [0, 1], layers=0), "positive number of operations. Received: layers=0"),
    ],
)
def test_errors_name_what_was_received(fn, message):
    with pytest.raises(ValueError, match=message):
        fn()
