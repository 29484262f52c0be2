"""What cameras, weather and compression do to images: the 15 corruptions of ImageNet-C, in five severities.

Computed by the package imagecorruptions-imaug (Apache-2.0), a maintained fork of Michaelis et al.'s imagecorruptions,
which draws ImageNet-C's corruptions on images of any size from 32 x 32 pixels.

On small images: the constants are those that ImageNet-C chose for 224 pixels, and most are lengths in pixels (radii
of blurs, steps of a shake) or parts of an image (JPEG's blocks of 8 pixels). At 32 pixels a disk of radius 10 covers
a third of the image, so a corruption does far more harm at the same severity. CIFAR-10-C has milder constants of its
own: figures on small images compare with one another, not with figures on CIFAR-10-C.

Source: Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
Section 4.1 and Appendix A; Michaelis et al. 2019, "Benchmarking Robustness in Object Detection".
Differs from source: motion blur and snow are drawn by NumPy, not by ImageMagick; elastic transform has no affine part
and scales with the image; zoomed layers are cut at a corner, not in the centre; frost has six textures, not five;
and ImageNet-C's files went through JPEG once more on their way to disk. Figures on those files are near, not the same.
"""

import contextlib
import importlib
import importlib.metadata
import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

KINDS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
SEVERITIES = (1, 2, 3, 4, 5)
LIBRARY = "imagecorruptions-imaug"
MODULE = "imagecorruptions"  # what the library is imported as, as the package that it forks
SEEDED_APART = ("impulse_noise", "glass_blur")  # these draw from generators of their own, not from NumPy's global one
WITHOUT_SCREEN = "pip install --force-reinstall --no-deps opencv-python-headless"
SMALLEST = 32  # pixels, the library's


def check() -> str:
    """Refuse, before any work, to go on without the library; return its name and version for a report.

    Raises:
      OSError: it is not installed or does not load; the message says how to mend that.
    """
    try:
        version = importlib.metadata.version(LIBRARY)
    except importlib.metadata.PackageNotFoundError as error:
        raise OSError(f'Expected the package {LIBRARY}: pip install -e ".[corruptions]" has it.') from error
    try:
        importlib.import_module(MODULE)
    except ImportError as error:  # its OpenCV wants libGL and libxcb, which machines without a screen lack
        raise OSError(
            f"Expected {LIBRARY} {version} to load. Received: {error}. Where a shared library of screens is "
            f"missing, {WITHOUT_SCREEN} does without."
        ) from error
    return f"{LIBRARY} {version}"


def corrupt(images: np.ndarray, kind: str, severity: int, seed: int, places: np.ndarray) -> np.ndarray:
    """Return images as one corruption leaves them; they are 8-bit images on their way, as in ImageNet-C.

    An image's randomness depends on `seed` and its place alone: not on its batch, and it is the same for each kind
    and severity. The library draws from NumPy's global generator, which is as it was when this returns; another
    thread that draws from it meanwhile would disturb both.

    Args:
      images: float32 `[n, h, w, 3]` in [0, 1], at least 32 x 32 pixels.
      kind: one of `KINDS`.
      severity: one of `SEVERITIES`.
      seed: an int from 0.
      places: int `[n]` from 0, the images' places in the data set.

    Returns:
      float32 `[n, h, w, 3]`, multiples of 1/255 in [0, 1].

    Raises:
      ValueError: an argument is not as said.
      OSError: the library is missing.
    """
    if kind not in KINDS:
        raise ValueError(f"Expected a corruption of {', '.join(KINDS)}. Received: kind={kind}.")
    if severity not in SEVERITIES:
        raise ValueError(f"Expected a severity from 1 to 5. Received: severity={severity}.")
    _check_images(images, seed, places)
    if min(images.shape[1:3]) < SMALLEST:
        raise ValueError(
            f"Expected images of at least {SMALLEST} x {SMALLEST} pixels; resize them first. "
            f"Received: shape={list(images.shape)}."
        )
    check()
    levels = np.round(images * np.float32(255)).astype(np.uint8)
    with _global_generator_restored(), _quiet():
        for i, place in enumerate(places):
            levels[i] = _corrupt_one(levels[i], kind, int(severity), _draw_seed(seed, place))
    return np.float32(levels) / np.float32(255)


def gaussian_noise(images: np.ndarray, sigma: float, seed: int, places: np.ndarray) -> np.ndarray:
    """Return images plus normal noise of standard deviation `sigma`, clipped to [0, 1]; ours, in float32 throughout.

    Args:
      images: float32 `[n, h, w, 3]` in [0, 1].
      sigma: in units of the pixel range, above 0.
      seed: an int from 0.
      places: int `[n]` from 0, the images' places in the data set: with `seed` all that the noise depends on.
    """
    if not 0 < sigma < np.inf:
        raise ValueError(f"Expected a standard deviation above 0. Received: sigma={sigma}.")
    _check_images(images, seed, places)
    noisy = np.empty_like(images)
    for i, place in enumerate(places):
        noise = np.random.default_rng([seed, int(place)]).standard_normal(images.shape[1:], np.float32)
        noisy[i] = np.clip(images[i] + np.float32(sigma) * noise, 0, 1)
    return noisy


def measure(
    accuracy_fn: Callable[[np.ndarray], float],
    images: np.ndarray,
    places: np.ndarray,
    *,
    kinds: Sequence[str],
    sigmas: Iterable[float],
    seed: int,
    progress: Callable[[], Any],
) -> dict[str, Any]:
    """Return accuracies under corruptions and Gaussian noise, as a report has them.

    Args:
      accuracy_fn: `images -> share that is right`.
      images, places: as `corrupt` takes them.
      kinds: of `KINDS`, each in all `SEVERITIES`.
      sigmas: standard deviations of `gaussian_noise`.
      seed: an int from 0.
      progress: is called without arguments after each setting.
    """
    found = {
        "count": len(images),
        "clean": accuracy_fn(images),
        "corruptions": {kind: [] for kind in kinds},
        "noise": {},
        "library": check() if kinds else None,
    }
    for kind in kinds:
        for severity in SEVERITIES:
            found["corruptions"][kind].append(accuracy_fn(corrupt(images, kind, severity, seed, places)))
            progress()
    for sigma in sigmas:
        found["noise"][f"{sigma:g}"] = accuracy_fn(gaussian_noise(images, sigma, seed, places))
        progress()
    return found


def _check_images(images, seed, places):
    if images.dtype != np.float32 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(
            "Expected images as float32 of shape [n, h, w, 3]. "
            f"Received: dtype={images.dtype}, shape={list(images.shape)}."
        )
    if images.size and not (images.min() >= 0 and images.max() <= 1):  # so worded, a NaN is refused too
        raise ValueError(f"Expected values in [0, 1]. Received: min={images.min()}, max={images.max()}.")
    if seed < 0 or len(places) != len(images) or np.any(np.asarray(places) < 0):
        raise ValueError(
            f"Expected a seed and {len(images)} places from 0. Received: seed={seed}, places={list(places)}."
        )


def _draw_seed(seed, place):
    """Return 32 bits that depend on both numbers."""
    return int(np.random.SeedSequence([seed, int(place)]).generate_state(1)[0])


def _corrupt_one(image, kind, severity, seed):
    """Return a uint8 image `[h, w, 3]` corrupted; leaves NumPy's global generator where the library left it."""
    np.random.seed(seed)
    apart = {"seed": seed} if kind in SEEDED_APART else {}
    return importlib.import_module(MODULE).corrupt(image, severity=severity, corruption_name=kind, **apart)


@contextlib.contextmanager
def _global_generator_restored():
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)


@contextlib.contextmanager
def _quiet():
    """Keep the library's warnings and prints, which say nothing that a user could act on, from the user."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
