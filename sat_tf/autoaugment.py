"""AutoAugment (ImageNet, policy v0) and RandAugment: uint8 `[h, w, 3]` -> uint8 `[h, w, 3]`.

Rows of `POLICIES` are `(image, seed) -> image`; rows of `OPERATIONS` are `(image, argument) -> image` with the argument
after level conversion (degrees, pixels, factors, thresholds, bits). Randomness is an argument: the same seed, int32
`[2]`, gives the same image, whatever ran before, in eager mode and in graphs.

Every operation gives the values of the EfficientNet release, its oddities included ("Release:" in the docstrings).
Where arithmetic does it, nothing is looked up: on a CPU a pass over 224 x 224 pixels takes 10 us, a look-up 280 us.

Source: Cubuk et al. 2019, "AutoAugment", Appendix A; Cubuk et al. 2020, "RandAugment", Section 3.
"""

import functools
import math
import numbers

import numpy as np
import tensorflow as tf

FILL = 128  # grey level of what geometry moves in and Cutout covers
MAX_MAGNITUDE = 30  # the largest that the RandAugment paper searches

POLICY_V0 = (  # two (operation, probability, level) each, tried in this order
    (("Equalize", 0.8, 1), ("ShearY", 0.8, 4)),
    (("Color", 0.4, 9), ("Equalize", 0.6, 3)),
    (("Color", 0.4, 1), ("Rotate", 0.6, 8)),
    (("Solarize", 0.8, 3), ("Equalize", 0.4, 7)),
    (("Solarize", 0.4, 2), ("Solarize", 0.6, 2)),
    (("Color", 0.2, 0), ("Equalize", 0.8, 8)),
    (("Equalize", 0.4, 8), ("SolarizeAdd", 0.8, 3)),
    (("ShearX", 0.2, 9), ("Rotate", 0.6, 8)),
    (("Color", 0.6, 1), ("Equalize", 1.0, 2)),
    (("Invert", 0.4, 9), ("Rotate", 0.6, 0)),
    (("Equalize", 1.0, 9), ("ShearY", 0.6, 3)),
    (("Color", 0.4, 7), ("Equalize", 0.6, 0)),
    (("Posterize", 0.4, 6), ("AutoContrast", 0.4, 7)),
    (("Solarize", 0.6, 8), ("Color", 0.6, 9)),
    (("Solarize", 0.2, 4), ("Rotate", 0.8, 9)),
    (("Rotate", 1.0, 7), ("TranslateY", 0.8, 9)),
    (("ShearX", 0.0, 0), ("Solarize", 0.8, 4)),
    (("ShearY", 0.8, 0), ("Color", 0.6, 4)),
    (("Color", 1.0, 0), ("Rotate", 0.6, 2)),
    (("Equalize", 0.8, 4), ("Equalize", 0.0, 8)),
    (("Equalize", 1.0, 4), ("AutoContrast", 0.6, 2)),
    (("ShearY", 0.4, 7), ("SolarizeAdd", 0.6, 7)),
    (("Posterize", 0.8, 2), ("Solarize", 0.6, 10)),
    (("Solarize", 0.6, 8), ("Equalize", 0.6, 1)),
    (("Color", 0.8, 6), ("Rotate", 0.4, 5)),
)


def autocontrast(image: tf.Tensor, argument: tf.Tensor | None = None) -> tf.Tensor:
    """Stretch every channel to reach from 0 to 255, fractions cut off; one of a single value stays as it is."""
    darkest = tf.cast(tf.reduce_min(image, [0, 1]), tf.float32)
    brightest = tf.cast(tf.reduce_max(image, [0, 1]), tf.float32)
    flat = brightest <= darkest
    scale = 255.0 / tf.where(flat, 255.0, brightest - darkest)
    offset = -tf.where(flat, 0.0, darkest) * scale
    stretched = tf.cast(_rows(image), tf.float32) * _along_row(scale, image) + _along_row(offset, image)
    return tf.reshape(_to_uint8(stretched), tf.shape(image))


def equalize(image: tf.Tensor, argument: tf.Tensor | None = None) -> tf.Tensor:
    """Spread the values of every channel evenly over 0 to 255.

    With n(v) pixels of value v, step = (pixels - n(brightest value)) // 255 and N(v) the number of pixels below v, v
    becomes min((N(v) + step // 2) // step, 255). A channel with step 0 is left as it is.
    """
    indices = tf.cast(_rows(image), tf.int32) + _along_row([0, 256, 512], image)
    counts = tf.raw_ops.DenseBincount(input=tf.reshape(indices, [-1]), size=768, weights=tf.zeros([0], tf.int32))
    counts = tf.reshape(counts, [3, 256])
    brightest = tf.reduce_max(tf.where(counts > 0, tf.range(256), 0), axis=1)
    step = (tf.reduce_sum(counts, axis=1) - tf.gather(counts, brightest, batch_dims=1))[:, tf.newaxis] // 255
    table = (tf.cumsum(counts, axis=1, exclusive=True) + step // 2) // tf.maximum(step, 1)
    table = tf.cast(tf.where(step > 0, tf.minimum(table, 255), tf.range(256)), tf.uint8)
    spread = tf.gather_nd(tf.reshape(table, [-1]), indices[..., tf.newaxis])  # faster than tf.gather for single values
    return tf.reshape(spread, tf.shape(image))


def invert(image: tf.Tensor, argument: tf.Tensor | None = None) -> tf.Tensor:
    """Replace every value v by 255 - v."""
    return tf.bitwise.invert(image)


def rotate(image: tf.Tensor, degrees: float | tf.Tensor) -> tf.Tensor:
    """Turn the image counter-clockwise about its centre; what opens is grey."""
    angle = tf.cast(degrees, tf.float32) * (math.pi / 180)
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2] - 1, tf.float32))
    cosine, sine = tf.cos(angle), tf.sin(angle)
    right = (width - (cosine * width - sine * height)) / 2.0
    down = (height - (sine * width + cosine * height)) / 2.0
    return _transform(image, [cosine, -sine, right, sine, cosine, down])


def posterize(image: tf.Tensor, bits: float | tf.Tensor) -> tf.Tensor:
    """Keep the highest `bits` bits of every value.

    Release: 0 bits act as 1, because a uint8 is never shifted by more than 7 (policy v0 asks for 0 in one place); so do
    more than 8, because the shift 8 - `bits` is a uint8 that wraps around (RandAugment from magnitude 22.5 on).
    """
    shift = tf.minimum((8 - tf.cast(bits, tf.int32)) % 256, 7)
    return tf.bitwise.bitwise_and(image, tf.cast(256 - tf.bitwise.left_shift(1, shift), tf.uint8))


def solarize(image: tf.Tensor, threshold: float | tf.Tensor) -> tf.Tensor:
    """Invert every value that is not below `threshold`.

    Release: the threshold is a uint8 that wraps around, so 256 inverts everything, and 384 (RandAugment's magnitude 15)
    is 128.
    """
    levels = tf.cast(image, tf.float32)
    bright = levels >= tf.cast(tf.cast(threshold, tf.int32) % 256, tf.float32)
    return tf.cast(levels + tf.cast(bright, tf.float32) * (255.0 - 2.0 * levels), tf.uint8)


def solarize_add(image: tf.Tensor, addition: float | tf.Tensor) -> tf.Tensor:
    """Add `addition` to every value below 128 and clip to 0 to 255."""
    levels = tf.cast(image, tf.float32)
    return _to_uint8(levels + tf.cast(levels < 128, tf.float32) * tf.cast(tf.cast(addition, tf.int32), tf.float32))


def color(image: tf.Tensor, factor: float | tf.Tensor) -> tf.Tensor:
    """Blend with the grey image: 0 is grey, 1 the image itself."""
    grey = tf.cast(tf.image.rgb_to_grayscale(image), tf.float32)
    grey = tf.matmul(tf.reshape(grey, [-1, 1]), tf.ones([1, 3]))  # exact, and faster than broadcasting
    return _blend(tf.reshape(grey, tf.shape(image)), image, factor)


def contrast(image: tf.Tensor, factor: float | tf.Tensor) -> tf.Tensor:
    """Blend with one grey level: 0 is that level everywhere, 1 the image itself.

    Release: the level is not the image's mean, but min(h w // 256, 255), the sum of a histogram's counts over its 256
    bins: 196 at 224 x 224, 255 from 256 x 256 on.
    """
    level = tf.minimum(tf.reduce_prod(tf.shape(image)[:2]) // 256, 255)
    return _blend(tf.cast(level, tf.float32), image, factor)


def brightness(image: tf.Tensor, factor: float | tf.Tensor) -> tf.Tensor:
    """Multiply by `factor`: 0 is black, 1 the image itself."""
    return _blend(0.0, image, factor)


def sharpness(image: tf.Tensor, factor: float | tf.Tensor) -> tf.Tensor:
    """Blend with the mean of 3 x 3 pixels in which the middle counts 5 of 13: 0 is smooth, 1 the image itself.

    Release: the outermost pixels stay as they are; rounding in the mean may darken even a flat image by one level. Its
    convolution rounds as its processor does; here the sum is that of fused float32 steps, row by row, on any.
    """
    weights = np.float64(np.float32([1 / 13] * 4 + [5 / 13] + [1 / 13] * 4))
    pixels = tf.cast(image, tf.float64)[tf.newaxis]
    patches = tf.image.extract_patches(pixels, [1, 3, 3, 1], [1, 1, 1, 1], [1, 1, 1, 1], "SAME")[0]
    smooth = tf.zeros(tf.shape(image), tf.float32)
    for part, weight in zip(tf.split(patches, 9, axis=-1), weights, strict=True):
        smooth = tf.cast(part * weight + tf.cast(smooth, tf.float64), tf.float32)
    blended = _blend(tf.floor(tf.clip_by_value(smooth, 0.0, 255.0)), image, factor)
    changes = (blended - image)[1:-1, 1:-1]  # uint8 wraps around here, and back again in the sum
    after = tf.shape(image)[:2] - 1 - tf.shape(changes)[:2]
    return image + tf.pad(changes, [[1, after[0]], [1, after[1]], [0, 0]])


def shear_x(image: tf.Tensor, slope: float | tf.Tensor) -> tf.Tensor:
    """Move row y by `slope` y pixels to the left; what opens is grey."""
    return _transform(image, [1.0, slope, 0.0, 0.0, 1.0, 0.0])


def shear_y(image: tf.Tensor, slope: float | tf.Tensor) -> tf.Tensor:
    """Move column x by `slope` x pixels upwards; what opens is grey."""
    return _transform(image, [1.0, 0.0, 0.0, slope, 1.0, 0.0])


def translate_x(image: tf.Tensor, pixels: float | tf.Tensor) -> tf.Tensor:
    """Move the image by `pixels` to the left; what opens is grey."""
    return _transform(image, [1.0, 0.0, pixels, 0.0, 1.0, 0.0])


def translate_y(image: tf.Tensor, pixels: float | tf.Tensor) -> tf.Tensor:
    """Move the image by `pixels` upwards; what opens is grey."""
    return _transform(image, [1.0, 0.0, 0.0, 0.0, 1.0, pixels])


def cutout(image: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """Cover a square with grey, cut off at the border.

    Args:
      image: uint8 `[h, w, 3]`.
      place: `[3]`: half the side in pixels; then the middle, as fractions of height and width from 0 to below 1.
    """
    half = tf.cast(tf.cast(place[0], tf.int32), tf.float32)

    def covered(side, fraction):
        middle = tf.floor(tf.cast(fraction, tf.float32) * tf.cast(side, tf.float32))
        position = tf.range(tf.cast(side, tf.float32))
        return tf.cast((position >= middle - half) & (position < middle + half), tf.uint8)

    height, width = tf.unstack(tf.shape(image)[:2])
    rows, columns = covered(height, place[1])[:, tf.newaxis], tf.repeat(covered(width, place[2]), 3)
    values = _rows(image)
    return tf.reshape(values + rows * columns * (FILL - values), tf.shape(image))  # the difference may wrap around


OPERATIONS = {  # the first three ignore their argument
    "AutoContrast": autocontrast,
    "Equalize": equalize,
    "Invert": invert,
    "Rotate": rotate,
    "Posterize": posterize,
    "Solarize": solarize,
    "Color": color,
    "Contrast": contrast,
    "Brightness": brightness,
    "Sharpness": sharpness,
    "ShearX": shear_x,
    "ShearY": shear_y,
    "TranslateX": translate_x,
    "TranslateY": translate_y,
    "Cutout": cutout,
    "SolarizeAdd": solarize_add,
}
SIGNED = frozenset(("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"))  # negative every second time
_V0_OPERATIONS = tuple(dict.fromkeys(name for pair in POLICY_V0 for name, _, _ in pair))


def argument_of(name: str, level: float, *, translate: float, cut: float) -> float:
    """Return the argument at a level, 0 to 10 and beyond: `translate` pixels and `cut`, half a side, at level 10."""
    share = level / 10
    enhance = share * 1.8 + 0.1
    return {
        "AutoContrast": 0,
        "Equalize": 0,
        "Invert": 0,
        "Rotate": share * 30,
        "Posterize": int(share * 4),
        "Solarize": int(share * 256),
        "Color": enhance,
        "Contrast": enhance,
        "Brightness": enhance,
        "Sharpness": enhance,
        "ShearX": share * 0.3,
        "ShearY": share * 0.3,
        "TranslateX": share * translate,
        "TranslateY": share * translate,
        "Cutout": int(share * cut),
        "SolarizeAdd": int(share * 110),
    }[name]


def draw_sub_policy(seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Draw one of the 25 sub-policies, which of its two operations act, and their signs.

    Returns:
      int32 `[]` in 0 to 24; bool `[2]`; float32 `[2]` of -1 and 1.
    """
    draws = tf.random.stateless_uniform([5], _own_stream(seed))
    sub_policy = tf.cast(draws[0] * len(POLICY_V0), tf.int32)
    probabilities = tf.constant([[probability for _, probability, _ in pair] for pair in POLICY_V0])
    return sub_policy, draws[1:3] < probabilities[sub_policy], _signs(draws[3:])


def draw_operations(seed: tf.Tensor, layers: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Draw `layers` of the 16 operations, their signs and places, each layer apart from the others.

    Returns:
      int32 `[layers]` in 0 to 15; float32 `[layers]` of -1 and 1; float32 `[layers, 2]` from 0 to below 1.
    """
    draws = tf.random.stateless_uniform([4, layers], _own_stream(seed))
    return tf.cast(draws[0] * len(OPERATIONS), tf.int32), _signs(draws[1]), tf.transpose(draws[2:])


def unchanged(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return the image itself; the seed is not used."""
    return image


def autoaugment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Apply one of 25 sub-policies of two operations, found by search on ImageNet (policy v0).

    Args:
      image: uint8 `[h, w, 3]`, also with unknown sides.
      seed: int32 `[2]`.

    Returns:
      uint8 `[h, w, 3]`.

    Raises:
      ValueError: `image` is of another dtype or shape.
    """
    image = _checked(image)
    sub_policy, acting, signs = draw_sub_policy(seed)
    rows = [[_V0_OPERATIONS.index(name) for name, _, _ in pair] for pair in POLICY_V0]
    arguments = [[argument_of(name, level, translate=250, cut=100) for name, _, level in pair] for pair in POLICY_V0]
    operations = tf.where(acting, tf.constant(rows)[sub_policy], len(_V0_OPERATIONS))
    values = _signed(_V0_OPERATIONS, operations, tf.constant(arguments, tf.float32)[sub_policy], signs)
    return _apply(image, _V0_OPERATIONS, operations, values, tf.zeros([2, 2]))


def randaugment(image: tf.Tensor, seed: tf.Tensor, *, layers: int = 2, magnitude: float = 15.0) -> tf.Tensor:
    """Apply two of 16 operations, drawn with equal odds, at one magnitude.

    Args:
      image: uint8 `[h, w, 3]`, also with unknown sides.
      seed: int32 `[2]`.
      layers: number of operations, one after the other.
      magnitude: level of all of them, 0 to 30.

    Returns:
      uint8 `[h, w, 3]`.

    Raises:
      ValueError: `image` is of another dtype or shape, `layers` or `magnitude` out of range.
    """
    image = _checked(image)
    if not isinstance(layers, numbers.Integral) or layers < 1:
        raise ValueError(f"Expected a positive number of operations. Received: layers={layers!r}.")
    if not isinstance(magnitude, numbers.Real) or not 0 <= magnitude <= MAX_MAGNITUDE:
        raise ValueError(f"Expected a magnitude from 0 to {MAX_MAGNITUDE}. Received: magnitude={magnitude!r}.")
    names = tuple(OPERATIONS)
    operations, signs, places = draw_operations(seed, layers)
    arguments = tf.constant([argument_of(name, magnitude, translate=100, cut=40) for name in names], tf.float32)
    return _apply(image, names, operations, _signed(names, operations, tf.gather(arguments, operations), signs), places)


POLICIES = {"none": unchanged, "autoaugment": autoaugment, "randaugment": randaugment}


def _apply(image, names, operations, values, places):
    """Apply rows `[stages]` of `names`, arguments `[stages]` and places `[stages, 2]` of Cutout; row len(names) idles.

    A loop around one switch: all stages share one copy of every operation, which keeps the graph small.
    """
    shape = image.shape

    def stage(index, image):
        place = tf.concat([values[index][tf.newaxis], places[index]], axis=0)
        branches = [
            functools.partial(OPERATIONS[name], image, place if name == "Cutout" else values[index]) for name in names
        ]
        return index + 1, tf.ensure_shape(tf.switch_case(operations[index], [*branches, lambda: image]), shape)

    return tf.while_loop(lambda index, _: index < tf.shape(operations)[0], stage, (0, image))[1]


def _checked(image):
    """Return the image as a tensor."""
    image = tf.convert_to_tensor(image)
    if image.dtype != tf.uint8 or image.shape.rank != 3 or image.shape[2] != 3:
        raise ValueError(f"Expected a uint8 image [h, w, 3]. Received: image={image.dtype.name} {image.shape}.")
    return image


def _own_stream(seed):
    """Return a seed that shares no draws with the crop and the flip, which may start from the same one."""
    return tf.random.experimental.stateless_fold_in(seed, 25)


def _signs(draws):
    """Return -1 or 1 with equal odds."""
    return tf.where(draws < 0.5, -1.0, 1.0)


def _signed(names, operations, arguments, signs):
    """Give arguments of `SIGNED` operations their sign."""
    signed = tf.constant([name in SIGNED for name in names] + [False])
    return tf.where(tf.gather(signed, operations), signs * arguments, arguments)


def _rows(image):
    """Return `[h, 3 w]`: arithmetic between `[h, w, 3]` and `[3]` is slow, between `[h, 3 w]` and `[3 w]` fast."""
    return tf.reshape(image, [tf.shape(image)[0], -1])


def _along_row(channels, image):
    """Repeat `[3]` for every pixel of a row."""
    return tf.tile(channels, [tf.shape(image)[1]])


def _to_uint8(values):
    """Clip to 0 to 255 and cut fractions off."""
    return tf.cast(tf.clip_by_value(values, 0.0, 255.0), tf.uint8)


def _blend(base, image, factor):
    """Return base + factor (image - base), clipped, fractions cut off."""
    return _to_uint8(base + tf.cast(factor, tf.float32) * (tf.cast(image, tf.float32) - base))


def _transform(image, matrix):
    """Fetch pixel (x, y) from the place nearest to (a x + b y + c, d x + e y + f), grey where that lies outside."""
    transform = tf.stack([tf.cast(entry, tf.float32) for entry in [*matrix, 0.0, 0.0]])
    sides = tf.shape(image)[:2]
    pixels = tf.concat([tf.fill([1, 3], tf.constant(FILL, tf.uint8)), tf.reshape(image, [-1, 3])], axis=0)
    sources = tf.raw_ops.ImageProjectiveTransformV3(  # of pixel numbers: three times as fast as of colours
        images=tf.reshape(tf.range(1, tf.shape(pixels)[0]), [1, sides[0], sides[1], 1]),
        transforms=transform[tf.newaxis],
        output_shape=sides,
        fill_value=0.0,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )
    return tf.gather(pixels, sources[0, :, :, 0])
