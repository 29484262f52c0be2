"""Whether the gradient that attacks follow is that of what the model computes; the check returns as `model_checks`' do.

For a direction d of the images and a cotangent v of the logits z, the gradient's share in d, <J'v, d>, is compared
with (<v, z(x + h d)> - <v, z(x - h d)>) / 2h. Cotangents are the cross-entropy's and a random one, directions the sign
of the former's gradient, along which attacks step, and random signs. Differences of logits say what those of the loss
would, without its curvature and without its rounding where it saturates.
"""

import numpy as np
import tensorflow as tf

from sat_tf import graphs, losses
from sat_tf.evaluate.model_checks import Case, Found, evenly

IMAGES, DIRECTIONS = 32, 3
STEPS = {  # by what the model computes in: as short as its rounding lets them be; kinks and steps lie farther apart
    "float32": (2**-13, 2**-10, 2**-7),
    "float16": (2**-9, 2**-8, 2**-6),
    "bfloat16": (2**-6, 2**-5, 2**-4),
}
ULP = {"float32": 2**-24, "float16": 2**-11, "bfloat16": 2**-8}
CLEAR = 20  # times the rounding of logits, before a difference of them is compared
SHORTEST = 2  # steps that are clear, of which the better counts: one may cross a kink
SMALLEST = {"float32": 1e-20, "float16": 1e-3, "bfloat16": 1e-20}  # cotangents, that gradients do not vanish on the way
OFF = {"float32": 0.15, "float16": 0.25, "bfloat16": 0.5}  # of a derivative, more where rounding alone is 10 % of it
LIMIT = 0.2  # share of the derivatives that may be off


def gradient_matches_function(case: Case) -> Found:
    """Compare the gradient with finite differences of the logits, and with itself computed twice."""
    if case.attacker.attacked is not None:
        return None, "attacks follow the gradients of another model, as asked for", {}
    right = case.chosen[case.right[case.chosen]]
    chosen = right if len(right) else case.chosen
    chosen = chosen[evenly(len(chosen), IMAGES)]
    classes = case.logits.shape[1]
    backward = _Backward(case.attacker, np.asarray(case.examples.images[chosen]), case.examples.labels[chosen], classes)
    precision = backward.precision
    images = _inside(backward.images, 2 * max(STEPS[precision]))
    first, second = backward(images), backward(images)
    again = [_relative(a - b, a, b) for (_, a), (_, b) in zip(first, second, strict=True)]
    found = {"computed twice": np.concatenate(again)}
    signs = np.random.default_rng(1).choice(np.float32([-1, 1]), [DIRECTIONS, *images.shape])
    directions = np.concatenate([np.sign(first[0][1])[None], signs])
    moved = _Differences(case, images, directions, precision)
    for (name, some), (cotangent, gradient) in zip(KINDS.items(), (first[0], first[0], first[1]), strict=True):
        found[name] = moved.off(cotangent, gradient, some)
    return _verdict(found, precision, len(images))


KINDS = {  # what is compared, and in which of the directions
    "along the gradient's sign": slice(0, 1),
    "in random directions": slice(1, None),
    "in random directions of random outputs": slice(1, None),
}


class _Backward:
    """The compiled gradient of a model's cross-entropy, and of a random sum of its logits."""

    def __init__(self, attacker, images, labels, classes):
        self.images, self.count = images, len(images)
        predict, size = attacker.predict, min(attacker.batch_size, len(images))

        def gradients(images, labels, random):
            with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
                tape.watch(images)
                logits = predict(images)
                tape.watch(logits)
                loss = losses.cross_entropy(logits, labels)
                total, mixed = tf.reduce_sum(loss), tf.reduce_sum(tf.reduce_sum(random * logits, -1))
            return (
                tape.gradient(loss, logits),
                tape.gradient(total, images, unconnected_gradients="zero"),
                tape.gradient(mixed, images, unconnected_gradients="zero"),
            )

        self.labels, self.size, self._gradients = labels.astype(np.int32), size, graphs.compiled(gradients, predict)
        shapes = (
            tf.TensorSpec([size, *images.shape[1:]]),
            tf.TensorSpec([size], tf.int32),
            tf.TensorSpec([size, classes]),
        )
        self.precision = _precision(self._gradients.get_concrete_function(*shapes).graph)
        self.random = np.random.default_rng(2).standard_normal([self.count, classes])

    def __call__(self, images):
        """Return `(cotangent, gradient)` of the cross-entropy and of the random sum, all `[n, ...]`."""
        parts = []
        for begin in range(0, self.count, self.size):
            part = np.arange(begin, begin + self.size) % self.count  # the last batch is filled up with the first images
            given = images[part], self.labels[part], self.random[part].astype(np.float32)
            parts.append([value.numpy() for value in self._gradients(*map(tf.constant, given))])
        cotangent, *gradients = (np.concatenate(values)[: self.count] for values in zip(*parts, strict=True))
        return (cotangent, gradients[0]), (self.random, gradients[1])


class _Differences:
    """Logits on both sides of images, a few step lengths away, in directions `[d, n, h, w, c]`."""

    def __init__(self, case, images, directions, precision):
        self.precision, self.directions = precision, directions.astype(np.float64).reshape(*directions.shape[:2], -1)
        self.steps = np.array(STEPS[precision])
        sides = [self._sides(case, images, directions, step) for step in STEPS[precision]]
        self.change = np.array([above - below for above, below in sides])  # [steps, directions, n, classes]
        nearly = np.float32(4 * ULP[precision]) * directions[-1]
        here, beside = (
            case.read(np.concatenate([images, images + nearly])).astype(np.float64).reshape(2, len(images), -1)
        )
        self.rounding = np.abs(beside - here).max(-1)

    @staticmethod
    def _sides(case, images, directions, step):
        """Return the logits above and below, float64 `[2, directions, n, classes]`."""
        far = np.concatenate([images + sign * np.float32(step) * d for sign in (1, -1) for d in directions])
        return case.read(far).astype(np.float64).reshape(2, len(directions), len(images), -1)

    def off(self, cotangent, gradient, some):
        """Return by what share derivatives in some directions are off, of those that rounding leaves clear."""
        largest = np.abs(cotangent).max(-1).astype(np.float64)
        kept = largest > SMALLEST[self.precision]
        largest = np.where(kept, largest, 1)
        cotangent = cotangent / largest[:, None]
        flat = gradient.astype(np.float64).reshape(len(gradient), -1) / largest[:, None]
        expected = np.einsum("dnp,np->dn", self.directions[some], flat)
        change = np.einsum("sdnc,nc->sdn", self.change[:, some], cotangent)
        found = change / (2 * self.steps[:, None, None])
        scale = np.maximum(np.sqrt(np.square(found).mean(1)), np.sqrt(np.square(expected).mean(0)))  # [steps, n]
        if expected.shape[0] > 1:
            scale = np.maximum(scale, np.sqrt(np.square(flat).sum(-1)))
        rounding = self.rounding * np.abs(cotangent).sum(-1)
        clear = kept & (2 * self.steps[:, None] * scale > CLEAR * rounding) & np.isfinite(scale) & (scale > 0)
        clear &= np.cumsum(clear, 0) <= SHORTEST
        share = np.abs(found - expected) / np.where(clear, scale, 1)[:, None]
        best = np.where(clear[:, None], share, np.inf).min(0)  # [directions, n]
        return best[:, clear.any(0)].ravel()


def _verdict(found, precision, count):
    """Return what the differences say."""
    off = OFF[precision]
    numbers = {name: float((values > off).mean()) for name, values in found.items() if len(values)}
    measured = [name for name in KINDS if name in numbers]
    if not measured:
        return None, f"no difference of logits is clear of its rounding in {precision}", numbers
    worst = max(numbers, key=numbers.get)
    middle = float(np.median(found[worst]))
    figure = (
        f"derivatives are off by more than {off:.0%} in "
        + ", ".join(f"{share:.1%} {name}" for name, share in numbers.items())
        + f" (limit {LIMIT:.0%}; in the middle {middle:.2%} off where most are), {count} images in {precision}"
    )
    return max(numbers.values()) <= LIMIT, figure, {**numbers, "middle": middle, "images": count}


def _relative(difference, *values):
    """Return how large a difference of `[n, ...]` is to the larger of two values, 0 where both are nothing: `[n]`."""
    size = lambda x: np.abs(x.astype(np.float64)).reshape(len(x), -1).sum(-1)  # noqa: E731
    most = np.maximum(*map(size, values))
    return size(difference) / np.where(most > 0, most, 1)


def _inside(images, margin):
    """Return images that no step leaves [0, 1] from, a little off their grid: at its points networks have kinks."""
    draw = np.random.default_rng(3).uniform(-margin / 2, margin / 2, images.shape)
    return (margin + (1 - 2 * margin) * images + draw).astype(np.float32)


def _precision(graph):
    """Return the coarsest type of floats that a graph computes in; TF32 has as few digits as float16."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    types = {value.type for node in nodes for value in node.attr.values() if value.HasField("type")}
    if tf.bfloat16.as_datatype_enum in types:
        return "bfloat16"
    tf32 = tf.config.list_logical_devices("GPU") and tf.config.experimental.tensor_float_32_execution_enabled()
    return "float16" if tf.float16.as_datatype_enum in types or tf32 else "float32"
