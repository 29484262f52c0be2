"""One picture: exact values where nothing is to be done, ranges, places and odds where something is."""

import numpy as np
import pytest
import tensorflow as tf

from sat_tf.preprocess import AUGMENTATIONS, center_crop, pad_crop_flip, random_resized_crop_flip, to_unit_range

SIZES = [(1, 1), (1, 200), (31, 32), (32, 32), (40, 300), (33, 7)]


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def unit(image):
    return image / np.float32(255)


def over_seeds(fn, image, size, count):
    """Apply an augmentation to one picture under `count` seeds."""
    seeds = tf.stack([tf.fill([count], 7), tf.range(count)], axis=1)
    run = tf.function(lambda: tf.map_fn(lambda seed: fn(image, size, seed), seeds, fn_output_signature=tf.float32))
    return run().numpy()


@pytest.mark.parametrize("wrap", [lambda fn: fn, tf.function, lambda fn: tf.function(fn, jit_compile=True)])
def test_levels_are_divided_by_255_exactly(wrap):
    """Also in graphs, where a division by a constant may become a product that is off by one bit."""
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(wrap(to_unit_range)(tf.constant(levels)), unit(levels))


@pytest.mark.parametrize("size", [32, 64, 96])
def test_picture_of_the_size_is_left_as_it_is(size):
    image = picture(size, size)
    np.testing.assert_array_equal(center_crop(tf.constant(image), size), unit(image))
    unknown = tf.function(lambda x: center_crop(x, size), input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    np.testing.assert_array_equal(unknown(image), unit(image))


@pytest.mark.parametrize(
    ("height", "width", "size", "rows", "columns"),
    [
        (96, 96, 64, slice(16, 80), slice(16, 80)),  # shortest side 64 + 32 already: only the cut is left
        (96, 140, 64, slice(16, 80), slice(38, 102)),
        (32, 48, 32, slice(0, 32), slice(8, 40)),  # below 64 pixels no border is cut away
        (51, 32, 32, slice(9, 41), slice(0, 32)),
    ],
)
def test_centre_is_cut_out(height, width, size, rows, columns):
    image = picture(height, width)
    np.testing.assert_allclose(center_crop(tf.constant(image), size), unit(image)[rows, columns], atol=1e-6)


def test_aspect_is_kept():
    """A white square in the middle of a wide picture is a square in the crop, too."""
    image = np.zeros((200, 400, 3), np.uint8)
    image[50:150, 150:250] = 255
    crop = center_crop(tf.constant(image), 96).numpy()[..., 0] > 0.5  # shortest side 200 -> 128: 100 pixels -> 64
    rows, columns = crop.any(axis=1), crop.any(axis=0)
    assert rows.sum() == columns.sum() == 64 == crop.sum() / 64
    assert rows[16:80].all() and columns[16:80].all()


def test_known_and_unknown_sides_agree():
    image = picture(70, 50)
    unknown = tf.function(lambda x: center_crop(x, 32), input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    np.testing.assert_allclose(unknown(image), center_crop(tf.constant(image), 32), atol=1e-6)


@pytest.mark.parametrize("row", [*AUGMENTATIONS, "center_crop"])
@pytest.mark.parametrize("size", [8, 32, 64])
def test_any_picture_gives_size_and_range(row, size):
    fn = AUGMENTATIONS.get(row, lambda image, size, seed: center_crop(image, size))
    traced = tf.function(
        lambda image, seed: fn(image, size, seed),
        input_signature=[tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([2], tf.int32)],
    )
    assert traced.get_concrete_function().output_shapes == [size, size, 3]
    for height, width in SIZES:
        black_and_white = picture(height, width) // 128 * 255  # bicubic overshoots most here
        out = traced(black_and_white, [1, height]).numpy()
        assert out.dtype == np.float32 and out.shape == (size, size, 3)
        assert out.min() >= 0 and out.max() <= 1


@pytest.mark.parametrize("row", AUGMENTATIONS)
def test_only_the_seed_decides(row):
    image = tf.constant(picture(48, 40))
    first = over_seeds(AUGMENTATIONS[row], image, 32, 20)
    tf.random.set_seed(5)
    np.testing.assert_array_equal(over_seeds(AUGMENTATIONS[row], image, 32, 20), first)
    different = len(np.unique(first.reshape(20, -1), axis=0))
    assert different == 1 if row == "none" else different > 15


def test_none_is_evaluation():
    image = tf.constant(picture(50, 40))
    np.testing.assert_array_equal(AUGMENTATIONS["none"](image, 32, [0, 1]), center_crop(image, 32))


def test_pad_crop_flip_places_are_equally_likely():
    """Every result is one of the 9 x 9 cuts of the padded picture or its mirror image, each as often as the others."""
    image, count = picture(32, 32), 4000
    padded = np.pad(unit(image), [(4, 4), (4, 4), (0, 0)])
    cuts = [padded[top : top + 32, left : left + 32] for top in range(9) for left in range(9)]
    places = {cut.tobytes(): place for place, cut in enumerate(cuts + [cut[:, ::-1] for cut in cuts])}
    found = [places[out.tobytes()] for out in over_seeds(pad_crop_flip, tf.constant(image), 32, count)]
    counts = np.bincount(found, minlength=162)
    chi_square = np.sum((counts - count / 162) ** 2) / (count / 162)
    assert chi_square < 228  # 161 degrees of freedom: exceeded once in 2,500
    assert abs(counts[:81].sum() / count - 0.5) < 0.03


def test_imagenet_crops_have_the_stated_area_and_aspect():
    """Red rises from left to right, green from top to bottom: their spans in the result are the crop's sides."""
    side, count = 240, 300
    ramp = np.linspace(0, 255, side)
    image = np.stack([*np.meshgrid(ramp, ramp), np.zeros((side, side))], axis=-1).round().astype(np.uint8)
    out = over_seeds(random_resized_crop_flip, tf.constant(image), 32, count)
    columns, rows = out[..., 0].mean(axis=1), out[..., 1].mean(axis=2)
    width = np.ptp(columns, axis=1) * 32 / 31
    height = np.ptp(rows, axis=1) * 32 / 31
    area, aspect = width * height, width / height
    assert area.min() > 0.07 and area.max() < 1.05 and area.min() < 0.12 and area.max() > 0.85
    assert aspect.min() > 0.72 and aspect.max() < 1.40 and aspect.min() < 0.8 and aspect.max() > 1.25
    mirrored = columns[:, 0] > columns[:, -1]
    assert abs(mirrored.mean() - 0.5) < 0.1
    assert (rows[:, 0] < rows[:, -1]).all()
    centre = columns.mean(axis=1)
    assert centre.min() < 0.35 and centre.max() > 0.65
