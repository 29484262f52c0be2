"""Image files as viewers show them: every format and oddity against Pillow; also in the graph of an export."""

import io

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tensorflow as tf
from data_files import noise, portrait

from sat_tf import decoding, preprocess
from sat_tf.data import contents
from sat_tf.export import signatures

PIXELS = noise(1, 24, 40)[0]
RGB = PIL.Image.fromarray(PIXELS)
SMOOTH = PIL.Image.fromarray(portrait()[:48, :80])
DEEP = np.arange(24 * 40, dtype=np.uint16).reshape(24, 40) * 68


def packed(image, name, **options):
    out = io.BytesIO()
    image.save(out, name, **options)
    return out.getvalue()


def turned(image, name, orientation, **options):
    exif = PIL.Image.Exif()
    exif[0x010F] = "a maker"
    exif[0x0112] = orientation
    return packed(image, name, exif=exif.tobytes(), **options)


def shown(content):
    return np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(content))).convert("RGB"))


def seen(content):
    """Return the pixels that training and evaluation see."""
    return decoding.decode(contents.plain(tf.constant(content))).numpy()


def transparent(mode, channels):
    return PIL.Image.fromarray(noise(1, 24, 40, channels)[0], mode)


PALETTE = RGB.convert("P", palette=PIL.Image.Palette.ADAPTIVE, colors=8)
INVERTED = PIL.ImageOps.invert(RGB)
EXACT = {
    "PNG": packed(RGB, "PNG"),
    "PNG of one bit": packed(RGB.convert("1"), "PNG"),
    "PNG, palette": packed(PALETTE, "PNG"),
    "PNG, palette of two bits and transparency": packed(PALETTE.quantize(4), "PNG", bits=2, transparency=1),
    "PNG, transparent": packed(transparent("RGBA", 4), "PNG"),
    "PNG, grey and transparent": packed(transparent("LA", 2), "PNG"),
    "PNG, animated": packed(RGB, "PNG", save_all=True, append_images=[INVERTED]),
    "PNG with text": packed(RGB, "PNG", dpi=(72, 72)),
    "BMP": packed(RGB, "BMP"),
    "BMP, palette": packed(PALETTE, "BMP"),
    "BMP, grey": packed(RGB.convert("L"), "BMP"),
    "BMP of one bit": packed(RGB.convert("1"), "BMP"),
    "BMP of 32 bits": packed(transparent("RGBA", 4), "BMP"),
    "GIF": packed(PALETTE, "GIF"),
    "GIF, animated": packed(RGB, "GIF", save_all=True, append_images=[INVERTED]),
    "WebP": packed(RGB, "WEBP", lossless=True),
    "WebP, animated": packed(RGB, "WEBP", lossless=True, save_all=True, append_images=[INVERTED]),
    "TIFF": packed(RGB, "TIFF"),
    "TIFF, packed": packed(RGB, "TIFF", compression="tiff_lzw"),
    "TIFF, two pages": packed(RGB, "TIFF", save_all=True, append_images=[INVERTED]),
    "TIFF, CMYK": packed(RGB.convert("CMYK"), "TIFF"),
    "PPM": packed(RGB, "PPM"),
    "JPEG 2000": packed(RGB, "JPEG2000", irreversible=False),
    **{f"PNG, turned {way}": turned(RGB, "PNG", way) for way in range(1, 9)},
    **{f"WebP, turned {way}": turned(RGB, "WEBP", way, lossless=True) for way in (1, 6)},
    "TIFF, turned": turned(RGB, "TIFF", 8),
}
NEAR = {
    "JPEG": packed(SMOOTH, "JPEG"),
    "JPEG, progressive": packed(SMOOTH, "JPEG", progressive=True),
    "JPEG, grey": packed(SMOOTH.convert("L"), "JPEG"),
    "JPEG, CMYK": packed(SMOOTH.convert("CMYK"), "JPEG"),
    "JPEG, comment and profile": packed(SMOOTH, "JPEG", comment=b"c" * 500, icc_profile=b"p" * 70_000),
    "JPEG, turned, comment and profile": turned(SMOOTH, "JPEG", 5, comment=b"c" * 500, icc_profile=b"p" * 70_000),
    **{f"JPEG, turned {way}": turned(SMOOTH, "JPEG", way, quality=95) for way in range(1, 9)},
}


@pytest.mark.parametrize("name", EXACT)
def test_lossless_files_are_what_a_viewer_shows(name):
    np.testing.assert_array_equal(seen(EXACT[name]), shown(EXACT[name]))
    kind, sides, _ = contents.look(tf.constant(EXACT[name]))
    assert contents.KINDS[kind] == name.split(",")[0].split(" of")[0].split(" with")[0]
    assert sides.numpy().tolist() == list(shown(EXACT[name]).shape[:2])


@pytest.mark.parametrize("name", NEAR)
def test_jpeg_files_are_what_a_viewer_shows(name):
    got, expected = seen(NEAR[name]), shown(NEAR[name])
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected).mean() < 2  # two decoders round differently
    _, sides, _ = contents.look(tf.constant(NEAR[name]))
    assert sides.numpy().tolist() == list(expected.shape[:2])


def test_of_sixteen_bits_the_upper_eight_are_seen():
    high = np.repeat((DEEP >> 8)[..., None], 3, axis=-1)
    for name in ("PNG", "TIFF", "PPM"):
        np.testing.assert_array_equal(seen(packed(PIL.Image.fromarray(DEEP), name)), high)
    colours = tf.io.encode_png(np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]], axis=-1)).numpy()
    np.testing.assert_array_equal(seen(colours)[..., 1], high[::-1, :, 1])


@pytest.mark.parametrize("row", ["resize_crop", "crop_resize", "imagenet", "pad_crop_flip"])
def test_turned_jpeg_is_cut_where_its_pixels_are(row):
    """Also where only a part of the file is decoded: the same as of the pixels that a viewer shows."""
    fn = preprocess.AUGMENTATIONS.get(row, lambda image, size, seed: preprocess.EVALUATIONS[row](image, size))
    image = PIL.Image.fromarray(portrait()[100:400, 60:420])
    traced = tf.function(
        lambda content, seed: fn(content, 64, seed),
        input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([2], tf.int32)],
    )
    for way in (2, 4, 6, 7):
        content = turned(image, "JPEG", way, quality=95, subsampling=0)
        whole = tf.constant(shown(content))
        for seed in ([1, 0], [1, 2]):
            difference = np.abs(traced(content, seed) - fn(whole, 64, tf.constant(seed)))
            assert difference.mean() < 0.01, (way, seed)


def test_image_bytes_of_an_export_see_the_same():
    """The signature's graph decodes JPEG and PNG as evaluation does, and holds nothing that only Python runs."""
    logits = tf.keras.Sequential([tf.keras.layers.Input([32, 32, 3]), tf.keras.layers.Flatten()])
    serving = signatures.Serving(logits, 32, preprocess.resize_crop)
    for content in (NEAR["JPEG, turned 6"], NEAR["JPEG, CMYK"], EXACT["PNG, turned 3"], EXACT["PNG, palette"]):
        answer = serving.classify_bytes(tf.constant([content]))["logits"]
        np.testing.assert_allclose(answer[0], np.ravel(preprocess.resize_crop(tf.constant(content), 32)), atol=1e-6)
    graph = serving.classify_bytes.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    assert not {node.op for node in nodes if "PyFunc" in node.op}
    for name in ("GIF", "WebP", "BMP, palette"):
        with pytest.raises(tf.errors.InvalidArgumentError, match="Expected the bytes of a JPEG or PNG file"):
            serving.classify_bytes(tf.constant([EXACT[name]]))
    assert (signatures.MOST_PIXELS, signatures.MOST_ASPECT) == (decoding.MOST_PIXELS, decoding.MOST_ASPECT)


@pytest.mark.parametrize("name", ["BMP, palette", "BMP of 32 bits", "GIF", "WebP", "TIFF"])
def test_what_the_graph_would_misread_it_refuses(name):
    with pytest.raises(tf.errors.InvalidArgumentError, match="Expected the bytes of a JPEG, a PNG or a BMP of 24 bits"):
        decoding.decode(tf.constant(EXACT[name]))


def bomb(name):
    """Return a file of 9000 x 7500 black pixels, of some kB."""
    return packed(PIL.Image.new("1" if name in ("PNG", "TIFF") else "L", (9000, 7500)), name)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (lambda: bomb("PNG"), "9000 x 7500 pixels, more than 67,108,864"),
        (lambda: bomb("GIF"), "9000 x 7500 pixels, more than 67,108,864"),
        (lambda: packed(PIL.Image.new("RGB", (4000, 3)), "PNG"), "4000 x 3 pixels, longer than 100 times its width"),
        (lambda: packed(PIL.Image.new("RGB", (3, 4000)), "JPEG"), "3 x 4000 pixels, longer than 100 times its width"),
        (lambda: packed(PIL.Image.new("RGB", (4000, 3)), "WEBP"), "4000 x 3 pixels, longer than 100 times its width"),
        (lambda: EXACT["GIF"][:300], "unreadable GIF"),
        (lambda: EXACT["WebP"][:300], "unreadable WebP"),
        (lambda: EXACT["TIFF"][:900], "unreadable TIFF"),
        (lambda: EXACT["PNG"][:300], "unreadable PNG"),
        (lambda: packed(PIL.Image.fromarray(DEEP / np.float32(9)), "TIFF"), "TIFF of mode F, whose values have no"),
        (lambda: b"\0\0\0\x18ftypheic" + bytes(50), "HEIC: JPEG, PNG, GIF, BMP"),
        (lambda: b"garbage" * 9, "no image of a known format: JPEG, PNG, GIF"),
        (lambda: b"", "empty"),
    ],
)
def test_what_cannot_be_read_is_told_in_words(content, fault):
    content = content()
    assert contents.fault_of(content).startswith(fault)
    with pytest.raises(tf.errors.OpError):
        contents.look(tf.constant(content))


def test_strip_takes_no_more_memory_than_its_middle():
    """Beyond 100 to 1 the ends, which are cut away after resizing, are cut away before; below nothing changes."""
    strip = np.repeat(np.linspace(0, 255, 2001).astype(np.uint8)[None, :, None], 3, axis=2)
    strip = np.repeat(strip, 2, axis=0)
    traced = tf.function(lambda: preprocess.resize_crop(tf.constant(strip), 224))
    image = traced().numpy()
    assert image.shape == (224, 224, 3) and abs(image[..., 0].mean() - 0.5) < 0.01
    assert preprocess._without_far_ends(tf.constant(strip)).shape == (2, 199, 3)
    assert preprocess._without_far_ends(tf.constant(strip[:, :200])).shape == (2, 200, 3)


def test_digests_tell_images_apart_and_copies_not():
    digest = {name: int(contents.look(tf.constant(content))[2]) for name, content in EXACT.items()}
    same = ("PNG", "PNG with text", "BMP", "WebP", "TIFF", "PPM", "JPEG 2000", "PNG, turned 1", "PNG, animated")
    assert len({digest[name] for name in same}) == 1
    assert digest["PNG, turned 2"] != digest["PNG"] != digest["PNG of one bit"]
    assert digest["PNG"] == contents.digests_of(PIXELS[None])[0]
    several = contents.digests_of(np.stack([PIXELS, PIXELS[::-1], PIXELS])).numpy()
    assert several[0] == several[2] == digest["PNG"] != several[1]
    assert contents.digests_of(np.zeros([1, 4, 6, 3], np.uint8)) != contents.digests_of(
        np.zeros([1, 6, 4, 3], np.uint8)
    )
    jpegs = [int(contents.look(tf.constant(NEAR[name]))[2]) for name in ("JPEG", "JPEG, progressive", "JPEG")]
    assert jpegs[0] == jpegs[2] != jpegs[1]


def test_exif_data_that_are_damaged_turn_nothing():
    whole = turned(SMOOTH, "JPEG", 6)
    start = whole.index(b"Exif")
    stored = np.asarray(PIL.Image.open(io.BytesIO(whole))).shape
    for cut in range(start + 6, start + 40, 3):
        content = whole[:cut] + b"\xff" * 4 + whole[cut + 4 :]
        assert sorted(seen(content).shape) == sorted(stored)
