"""One image: exact values where nothing is to be done, ranges, places and odds where something is."""

import numpy as np
import pytest
import tensorflow as tf
from data_files import as_format, portrait

from sat_tf.preprocess import (
    AUGMENTATIONS,
    EVALUATIONS,
    crop_resize,
    decode,
    pad_crop_flip,
    random_resized_crop_flip,
    resize_crop,
    to_unit_range,
)

SIZES = [(1, 1), (1, 200), (31, 32), (32, 32), (40, 300), (33, 7)]


def photo(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def unit(image):
    return image / np.float32(255)


def over_seeds(fn, image, size, count):
    """Apply an augmentation to one image under `count` seeds."""
    seeds = tf.stack([tf.fill([count], 7), tf.range(count)], axis=1)
    run = tf.function(lambda: tf.map_fn(lambda seed: fn(image, size, seed), seeds, fn_output_signature=tf.float32))
    return run().numpy()


@pytest.mark.parametrize("wrap", [lambda fn: fn, tf.function, lambda fn: tf.function(fn, jit_compile=True)])
def test_levels_are_divided_by_255_exactly(wrap):
    """Also in graphs, where a division by a constant may become a product that is off by one bit."""
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(wrap(to_unit_range)(tf.constant(levels)), unit(levels))


@pytest.mark.parametrize("evaluation", EVALUATIONS.values())
@pytest.mark.parametrize("size", [32, 64, 96])
def test_image_of_the_size_is_left_as_it_is(size, evaluation):
    image = photo(size, size)
    np.testing.assert_array_equal(evaluation(tf.constant(image), size), unit(image))
    unknown = tf.function(lambda x: evaluation(x, size), input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    np.testing.assert_array_equal(unknown(image), unit(image))
    file = tf.function(lambda x: evaluation(x, size), input_signature=[tf.TensorSpec([], tf.string)])
    np.testing.assert_array_equal(file(tf.io.encode_png(image)), unit(image))


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
    image = photo(height, width)
    np.testing.assert_allclose(resize_crop(tf.constant(image), size), unit(image)[rows, columns], atol=1e-6)


def cubic(image, height, width, slope, half_pixel):
    """Resize by cubic convolution of `slope` at the edge of its kernel's first lobe, in NumPy, one axis at a time."""

    def weights(old, new):
        shift = 0.5 if half_pixel else 0.0
        at = (np.arange(new) + shift) * old / new - shift
        taps = np.floor(at)[:, None] + np.arange(-1, 3)
        x = np.abs(at[:, None] - taps)
        near = (slope + 2) * x**3 - (slope + 3) * x**2 + 1
        far = slope * (x**3 - 5 * x**2 + 8 * x - 4)
        values = np.where(x <= 1, near, far)
        if half_pixel:  # TensorFlow leaves out what lies outside; in its TF1 manner it repeats the border
            values = np.where((taps < 0) | (taps >= old), 0, values)
            values /= values.sum(1, keepdims=True)
        matrix = np.zeros((new, old))
        np.add.at(matrix, (np.arange(new)[:, None], np.clip(taps, 0, old - 1).astype(int)), values)
        return matrix

    rows, columns = weights(image.shape[0], height), weights(image.shape[1], width)
    return np.clip(np.einsum("ah,hwc,bw->abc", rows, image.astype(float), columns, optimize=True) / 255, 0, 1)


@pytest.mark.parametrize(("top", "left", "height", "width"), [(0, 0, 600, 512), (40, 3, 333, 499), (9, 9, 90, 71)])
def test_evaluations_follow_the_release(top, left, height, width):
    """Of a photograph: shortest side 64 + 32, then its centre; the centre's 64 / 96 of the shortest side, then 64."""
    image = portrait()[top : top + height, left : left + width]
    least = min(height, width)
    sides = [(side * 96 + least // 2) // least for side in (height, width)]
    resized = cubic(image, *sides, slope=-0.5, half_pixel=True)
    above, before = ((side - 64) // 2 for side in sides)
    np.testing.assert_allclose(
        resize_crop(tf.constant(image), 64), resized[above : above + 64, before : before + 64], atol=4e-3
    )
    side = int(64 / 96 * least)
    above, before = (height - side + 1) // 2, (width - side + 1) // 2
    crop = image[above : above + side, before : before + side]
    np.testing.assert_allclose(
        crop_resize(tf.constant(image), 64), cubic(crop, 64, 64, slope=-0.75, half_pixel=False), atol=4e-3
    )


@pytest.mark.parametrize("row", [*AUGMENTATIONS, *EVALUATIONS])
def test_bytes_of_a_file_give_what_their_pixels_give(row):
    """A JPEG's colours are coarser than its pixels: at the border of a crop they are interpolated otherwise."""
    fn = AUGMENTATIONS.get(row, lambda image, size, seed: EVALUATIONS[row](image, size))
    files = {
        "jpeg": tf.io.encode_jpeg(portrait(), quality=95),
        "progressive": tf.io.encode_jpeg(portrait(), progressive=True),
        "grey": tf.io.encode_jpeg(portrait()[..., :1]),
        "cmyk": tf.constant(as_format(tf.io.encode_jpeg(portrait()).numpy(), "JPEG", "CMYK")),
        "png": tf.io.encode_png(portrait()),
    }
    traced = tf.function(
        lambda content, seed: fn(content, 64, seed),
        input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([2], tf.int32)],
    )
    for name, content in files.items():
        for number in range(4):
            from_file = traced(content, [1, number]).numpy()
            from_pixels = fn(decode(content), 64, tf.constant([1, number])).numpy()
            difference = np.abs(from_file - from_pixels)
            assert difference.mean() < 1e-3 and difference[2:-2, 2:-2].max() < (1e-5 if name == "png" else 0.1), name


def test_content_decides_not_the_name():
    png, jpeg = tf.io.encode_png(portrait()).numpy(), tf.io.encode_jpeg(portrait()).numpy()
    np.testing.assert_array_equal(decode(tf.constant(png)), portrait())
    np.testing.assert_array_equal(decode(tf.constant(as_format(png, "BMP"))), portrait())  # plain ones, of 24 bits
    pixels = decode(tf.constant(jpeg)).numpy()
    cmyk = decode(tf.constant(as_format(jpeg, "JPEG", "CMYK"))).numpy()
    assert np.abs(cmyk.astype(int) - pixels).mean() < 3
    grey = decode(tf.constant(as_format(jpeg, "JPEG", "L"))).numpy()
    assert (grey == grey[..., :1]).all()


def test_where_no_crop_is_found_the_centre_is_taken():
    """In an image of one row nothing has an aspect of 3/4 to 4/3 and 8 % of the area."""
    image = photo(1, 200)
    out = over_seeds(random_resized_crop_flip, tf.constant(image), 64, 5)
    centre = crop_resize(tf.constant(image), 64).numpy()
    for crop in out:
        assert min(np.abs(crop - centre).max(), np.abs(crop[:, ::-1] - centre).max()) < 0.02


def test_aspect_is_kept():
    """A white square in the middle of a wide image is a square in the crop, too."""
    image = np.zeros((200, 400, 3), np.uint8)
    image[50:150, 150:250] = 255
    crop = resize_crop(tf.constant(image), 96).numpy()[..., 0] > 0.5  # shortest side 200 -> 128: 100 pixels -> 64
    rows, columns = crop.any(axis=1), crop.any(axis=0)
    assert rows.sum() == columns.sum() == 64 == crop.sum() / 64
    assert rows[16:80].all() and columns[16:80].all()


def test_known_and_unknown_sides_agree():
    image = photo(70, 50)
    unknown = tf.function(lambda x: resize_crop(x, 32), input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    np.testing.assert_allclose(unknown(image), resize_crop(tf.constant(image), 32), atol=1e-6)


@pytest.mark.parametrize("row", [*AUGMENTATIONS, *EVALUATIONS])
@pytest.mark.parametrize("size", [8, 32, 64])
def test_any_image_gives_size_and_range(row, size):
    fn = AUGMENTATIONS.get(row, lambda image, size, seed: EVALUATIONS[row](image, size))
    traced = tf.function(
        lambda image, seed: fn(image, size, seed),
        input_signature=[tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([2], tf.int32)],
    )
    assert traced.get_concrete_function().output_shapes == [size, size, 3]
    for height, width in SIZES:
        black_and_white = photo(height, width) // 128 * 255  # bicubic overshoots most here
        out = traced(black_and_white, [1, height]).numpy()
        assert out.dtype == np.float32 and out.shape == (size, size, 3)
        assert out.min() >= 0 and out.max() <= 1


@pytest.mark.parametrize("row", AUGMENTATIONS)
def test_only_the_seed_decides(row):
    image = tf.constant(photo(48, 40))
    first = over_seeds(AUGMENTATIONS[row], image, 32, 20)
    tf.random.set_seed(5)
    np.testing.assert_array_equal(over_seeds(AUGMENTATIONS[row], image, 32, 20), first)
    different = len(np.unique(first.reshape(20, -1), axis=0))
    assert different == 1 if row == "none" else different > 15


def test_none_is_evaluation():
    image = tf.constant(photo(50, 40))
    np.testing.assert_array_equal(AUGMENTATIONS["none"](image, 32, [0, 1]), resize_crop(image, 32))


def test_pad_crop_flip_places_are_equally_likely():
    """Every result is one of the 9 x 9 cuts of the padded image or its mirror image, each as often as the others."""
    image, count = photo(32, 32), 4000
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
