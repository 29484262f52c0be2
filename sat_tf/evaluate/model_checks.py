"""What a model's answers say about themselves before any attack; each check returns `(passed, figure, numbers)`."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from sat_tf import attacks, graphs, losses
from sat_tf.evaluate.results import classes

SUM_ROUNDED = 1e-2  # of logarithms of probabilities in half precision
ROUNDED = 1e-3  # of an image's logits, largest minus smallest: sums in another order differ by 1e-5, TF32's by 1e-3
FAR, FAR_IMAGES = (1e2, 1e4), 32  # how far beyond their scale inputs go, and how many
AT_EDGE, PILED = 1e-3, 0.9  # of the outputs' range; share of the outputs there. Honest nets stay below 50 %
NO_GRADIENT = 0.1  # share of images: 10 times an honest net's logits leave up to 8 % without, 30 times 33 %
POINTS = 0.02
SCALINGS = 500  # images on which inputs of another scale are tried
BETTER = 0.05
DEVIATIONS = 3  # standard errors, since six variants are tried
MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet's training images, as most frameworks subtract it
STD = np.array([0.229, 0.224, 0.225], np.float32)
VARIANTS = {
    "BGR": lambda images: images[..., ::-1],
    "255 x": lambda images: images * 255,
    "x / 255": lambda images: images / 255,
    "2 x - 1": lambda images: 2 * images - 1,
    "(x - mean) / std": lambda images: (images - MEAN) / STD if images.shape[-1] == 3 else images,
    "1 - x": lambda images: 1 - images,
}

Found = tuple[bool | None, str, dict[str, Any]]  # passed, figure, numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A model, the images that it is evaluated on, and its logits `[n, classes]` of them."""

    attacker: Any
    examples: Any
    logits: np.ndarray
    recorded: float | None = None
    recorded_images: int | None = None  # that `recorded` was measured on; None for many
    sample: int = 100

    @property
    def chosen(self) -> np.ndarray:
        """The places of the sample."""
        return evenly(len(self.logits), self.sample)

    @property
    def right(self) -> np.ndarray:
        """Which images are read as their label."""
        return classes(self.logits) == self.examples.labels

    def read(self, images: np.ndarray) -> np.ndarray:
        """Return logits of any images, in batches of the shape that all are read in."""
        size = min(self.attacker.batch_size, len(self.logits))
        missing = [[0, -len(images) % size]] + [[0, 0]] * 3
        padded = np.pad(images, missing)
        parts = [self.attacker.read(padded[begin : begin + size]) for begin in range(0, len(padded), size)]
        return np.concatenate(parts)[: len(images)]


def evenly(count: int, wanted: int) -> np.ndarray:
    """Return `wanted` places of `count`, or all, evenly spread."""
    wanted = min(count, wanted)
    return np.arange(wanted) * count // max(wanted, 1)


def logits_not_probabilities(case: Case) -> Found:
    """Look for outputs that are a softmax or sigmoids already: a loss that takes another climbs next to nothing."""
    logits = case.logits.astype(np.float64)
    low, high, sums = logits.min(), logits.max(), logits.sum(-1)
    off = float(np.abs(sums - 1).max())
    passed = not (low >= 0 and high <= 1)
    figure = f"outputs from {low:.4g} to {high:.4g}; their sums are up to {off:.4g} from 1"
    total = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    logarithms = bool(np.abs(total).max() <= SUM_ROUNDED)
    if logarithms:
        figure += "; they are logarithms of probabilities, whose cross-entropy is that of the logits"
    return passed, figure, {"smallest": low, "largest": high, "sum_off": off, "log_probabilities": logarithms}


def logits_not_saturating(case: Case) -> Found:
    """Read inputs of a huge scale: logits leave every bound there, or differ; bounded outputs end at two values."""
    images = np.asarray(case.examples.images[case.chosen[evenly(len(case.chosen), FAR_IMAGES)]])
    noise = np.random.default_rng(0).standard_normal(images.shape).astype(np.float32)
    shares = {}
    for factor in FAR:
        far = np.concatenate([factor * inputs for inputs in (images, -images, noise)])
        outputs = case.read(far).astype(np.float64)
        outputs = outputs[np.isfinite(outputs).all(-1)]
        if len(outputs) < len(far) / 2:  # beyond half precision
            continue
        low, high = min(outputs.min(), case.logits.min()), max(outputs.max(), case.logits.max())
        edge = AT_EDGE * (high - low)
        if edge > 0:
            shares[f"{factor:g}"] = float(((outputs <= low + edge) | (outputs >= high - edge)).mean())
    if not shares:
        return None, "the model gives one answer, or none that is finite, to inputs of a huge scale", {}
    factor, share = max(shares.items(), key=lambda item: item[1])
    figure = (
        f"{share:.1%} of the outputs for inputs of {factor} times the scale are one of two values (limit {PILED:.0%})"
    )
    return share <= PILED, figure, shares


def finite(case: Case) -> Found:
    """Look for logits that are not numbers."""
    faults = int((~np.isfinite(case.logits)).any(-1).sum())
    return not faults, f"{faults} of {len(case.logits)} images have logits that are not finite", {"images": faults}


def same_input_same_output(case: Case) -> Found:
    """Read the sample again: as it was, and at other places of the batch in other company."""
    images = case.examples.images[case.chosen]
    first, second = case.attacker.read(images), case.attacker.read(images)
    company = images.copy()
    company[1::2] = 1 - company[1::2]
    moved = case.attacker.read(company[::-1])[::-1]
    spread = float(np.median(case.logits.max(-1) - case.logits.min(-1)))
    found = {
        "again": np.abs(second - first).max(),
        "in_other_company": np.abs(moved - first)[::2].max(),
        "than_given": np.abs(first - case.logits[case.chosen]).max(),
    }
    worst = float(max(found.values()))
    figure = (
        f"logits of the same {len(images)} images differ by up to {worst:.3g}; their spread is {spread:.3g}, "
        f"rounding explains {ROUNDED * spread:.3g}"
    )
    return bool(worst <= ROUNDED * spread), figure, {**found, "spread": spread}


def images_in_range(case: Case) -> Found:
    """Look for images outside [0, 1], and for images that were scaled to it twice."""
    images, low, high, faults = case.examples.images, np.inf, -np.inf, 0
    for begin in range(0, len(images), case.attacker.batch_size):
        part = np.asarray(images[begin : begin + case.attacker.batch_size])
        low, high = min(low, part.min()), max(high, part.max())
        faults += int((~((part >= 0) & (part <= 1))).any((1, 2, 3)).sum())  # a NaN compares as False
    passed = not faults and bool(high > 1 / 255)
    figure = f"values from {low:.4g} to {high:.4g}; {faults} of {len(images)} images leave [0, 1]"
    if not faults and not passed:
        figure += "; all below one grey level: scaled twice"
    return passed, figure, {"smallest": low, "largest": high, "outside": faults}


def zero_gradients(case: Case) -> Found:
    """Count images on which the cross-entropy has no gradient to climb: an attack's step there has no length."""
    chosen = case.chosen[case.right[case.chosen]]
    if not len(chosen):
        return None, "the model reads no image of the sample right", {}
    gradients = _gradients(case.attacker, case.examples.images[chosen], case.examples.labels[chosen])
    ball = attacks.BALLS[case.attacker.norm](epsilon=1.0)
    steps = ball.length(ball.direction(tf.constant(gradients))).numpy()
    fooled = ~np.isfinite(gradients).all((1, 2, 3))
    none = fooled | ~(steps > 0.5)  # 1, or 0: of a gradient too small for its length to be had in float32, too
    numbers = {"images": none.mean(), "not_finite": fooled.mean(), "values": (gradients == 0).mean()}
    figure = (
        f"{int(none.sum())} of {len(chosen)} images have no gradient, {int(fooled.sum())} of them one that is "
        f"not finite (limit {NO_GRADIENT:.0%}); of all values {numbers['values']:.1%} are exactly zero"
    )
    return bool(none.mean() <= NO_GRADIENT), figure, numbers


def _gradients(attacker, images, labels):
    """Return the cross-entropy's gradient to the images, as attacks see it: `[n, h, w, c]`."""
    predict = attacker.attacked or attacker.predict

    def of_batch(images, labels):
        return attacks.input_gradient(lambda x: losses.cross_entropy(predict(x), labels), images)

    gradient = graphs.compiled(of_batch, predict)
    size, parts = min(attacker.batch_size, len(images)), []
    for begin in range(0, len(images), size):
        part = np.arange(begin, begin + size) % len(images)  # the last batch is filled up with the first images
        parts.append(gradient(tf.constant(images[part]), tf.constant(labels[part].astype(np.int32))).numpy())
    return np.concatenate(parts)[: len(images)]


def clean_accuracy_as_recorded(case: Case) -> Found:
    """Compare the clean accuracy with the one that was recorded for this model."""
    accuracy = float(case.right.mean())
    if case.recorded is None:
        return None, f"accuracy {accuracy:.2%}; none is recorded for this model", {"accuracy": accuracy}
    share, variance = case.recorded, 1 / len(case.right)
    if case.recorded_images not in (None, len(case.right)):  # both are of a draw
        variance += 1 / case.recorded_images
        share = (case.right.sum() + share * case.recorded_images) / (len(case.right) + case.recorded_images)
    interval = float(1.96 * np.sqrt(share * (1 - share) * variance))
    limit = POINTS + interval
    figure = (
        f"accuracy {accuracy:.2%} on {len(case.right)} images, {case.recorded:.2%} recorded "
        f"(limit {limit:.2%} apart, of which {interval:.2%} by the draw of images)"
    )
    numbers = {"accuracy": accuracy, "recorded": case.recorded, "limit": limit}
    return bool(abs(accuracy - case.recorded) <= limit), figure, numbers


def input_scaling_and_channels(case: Case) -> Found:
    """Try other scales and orders of channels: none may suit the model better than the one that is used."""
    chosen = evenly(len(case.logits), SCALINGS)
    images, labels = case.examples.images[chosen], case.examples.labels[chosen]
    right = case.right[chosen].astype(np.float64)
    numbers, worst = {"as given": right.mean()}, (-np.inf, None, 0.0)
    for name, change in VARIANTS.items():
        gains = (classes(case.attacker.read(change(images))) == labels) - right
        limit = max(BETTER, DEVIATIONS * gains.std() / np.sqrt(len(gains)))
        numbers[name] = right.mean() + gains.mean()
        worst = max(worst, (gains.mean() - limit, name, limit))
    excess, name, limit = worst
    figure = (
        f"accuracy {numbers['as given']:.1%} as given, {numbers[name]:.1%} with {name}, of the others the "
        f"nearest to its limit of {limit:.1%} more"
    )
    return bool(excess <= 0), figure, numbers


def not_constant(case: Case) -> Found:
    """Look for a model that answers every image alike."""
    if len(case.logits) < 2:
        return None, "one image cannot differ from others", {}
    varied = float(np.abs(case.logits - case.logits[:1]).max())
    predicted, held = len(np.unique(case.logits.argmax(-1))), len(np.unique(case.examples.labels))
    figure = f"{predicted} classes are predicted for {held} labels; logits differ between images by {varied:.3g}"
    return varied > 0 and (predicted > 1 or held == 1), figure, {"difference": varied, "predicted": predicted}
