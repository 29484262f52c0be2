"""What attacks say about one another; each check returns `(passed, figure, numbers)`."""

import dataclasses
import functools
from typing import Any

import numpy as np

from sat_tf.evaluate.attacker import Attacker
from sat_tf.evaluate.model_checks import ROUNDED, Found, evenly
from sat_tf.evaluate.results import ROBUST, Examples, Result, classes, distances
from sat_tf.evaluate.saved import eight_bits

STEPS = 20  # of the PGD that all comparisons share, one compiled attack for every radius
FINAL = (1, 5, STEPS)
RADII = (0, 1 / 4, 1 / 2, 1, 2, 4)  # times epsilon
QUERIES = 500
LONGER, LEAST, MOST, RESTARTS = 2, 40, 200, 3  # how much longer than the attack evaluated a run to the end is
POINTS, IMAGES, EXACT = 0.02, 2, 1e-9  # what chance may do to a comparison: the larger of both
RESCORED, LEAST_RESCORED = 0.002, 1  # images at the boundary, which a batch of another size may round across
GRID = 1e-6  # what float32(k / 255) and a radius such as 4/255 leave open
BLACK_BOX = ("square", "noise")  # stages that use no gradient
RADIUS_ROUNDED = 1e-7  # of values in [0, 1], in L-infinity
LENGTH_ROUNDED = 1e-6, 2**-25  # in L2: of the radius, since it is projected in float32; of each value


class Case:
    """A model, the images that it is evaluated on, and what attacks left of them.

    Args:
      attacker: an `Attacker`.
      examples, logits: all that were attacked.
      results: `{name: Result}`. Those of the first one's radius are compared with the checks' own attacks.
      sibling: another model of the same task, or None.
      sample: images that the checks attack.
    """

    def __init__(
        self,
        attacker: Attacker,
        examples: Examples,
        logits: np.ndarray,
        results: dict[str, Result],
        sibling: Any = None,
        sample: int = 100,
    ) -> None:
        self.attacker, self.examples, self.logits, self.results = attacker, examples, logits, results
        self.sibling, self.chosen = sibling, evenly(len(logits), sample)
        self.few, self.few_logits = examples.take(self.chosen), logits[self.chosen]
        self.right = classes(self.few_logits) == self.few.labels
        self.epsilon = next(iter(results.values())).epsilon
        self.compared = {name: result for name, result in results.items() if result.epsilon == self.epsilon}

    @property
    def allowed(self) -> float:
        """By how much a share of the sample may be off."""
        return max(POINTS, IMAGES / len(self.chosen)) + EXACT

    def attack(self, name: str, epsilon: float | None = None, **arguments: Any) -> Result:
        """Attack the sample; PGD steps 2.5 epsilon / steps far, so that a radius changes nothing but the scale."""
        epsilon = self.epsilon if epsilon is None else epsilon
        _, _, steps = name.rpartition("-")
        step_size = min(2.5 / int(steps), 1.0) * epsilon if steps.isdecimal() else None
        return self.attacker.attack(
            self.few, name, epsilon=epsilon, step_size=step_size, logits=self.few_logits, **arguments
        )

    @functools.cached_property
    def ladder(self) -> dict[float, Result]:
        """What PGD leaves in balls of `RADII` times epsilon, and of no more than the whole cube: results by radius."""
        radii = sorted({min(share * self.epsilon, self.diameter) for share in RADII})
        steps = {0: 1}  # in a ball of radius 0 every iterate is the image
        return {radius: self.attack(f"pgd-{steps.get(radius, STEPS)}", radius) for radius in radii}

    def only(self, chosen: np.ndarray) -> Result:
        """Return a result before which every image of the sample but `chosen`, bool `[sample]`, is fooled already."""
        return dataclasses.replace(
            self.ladder[0], stage=np.where(chosen, ROBUST, np.where(self.right, 0, self.ladder[0].stage))
        )

    @property
    def diameter(self) -> float:
        """The radius within which every image is: of the cube in this norm."""
        return 1.0 if self.attacker.norm == "linf" else float(np.sqrt(np.prod(self.examples.images.shape[1:])))

    @functools.cached_property
    def evaluated(self) -> np.ndarray:
        """Which images of the sample the gradient attacks of the evaluation leave right: bool `[sample]`."""
        return np.all([_white_box(result) for result in self.compared.values()], 0)[self.chosen]

    @property
    def white_box(self) -> np.ndarray:
        """Which images are right after those and PGD, so that an evaluation of FGSM alone is evaluated fairly."""
        return self.evaluated & self.ladder[min(self.epsilon, self.diameter)].robust


def _white_box(result):
    """Say which images the gradient attacks among a result's stages leave right: bool `[n]`."""
    return result.robust | np.isin(result.fooled_by, BLACK_BOX)


def epsilon_zero_is_clean(case: Case) -> Found:
    """Attack in a ball of radius 0: nothing may change but what is read right or wrong by rounding."""
    other = case.ladder[0].robust != case.right
    top = np.sort(case.few_logits.astype(np.float64), -1)
    clear = other & (top[:, -1] - top[:, -2] > ROUNDED * (top[:, -1] - top[:, 0]))
    figure = (
        f"{int(case.right.sum())} of {len(case.right)} images are right as they are, "
        f"{int(case.ladder[0].robust.sum())} after an attack of radius 0"
    )
    return not clear.any(), figure, {"differ": int(other.sum()), "beyond_rounding": int(clear.sum())}


def radius_respected(case: Case) -> Found:
    """Measure every adversarial image in float64, and read it again."""
    passed, figures, numbers = True, [], {}
    for name, result in case.results.items():
        allowed = _reach(result.epsilon, result.norm, np.prod(case.examples.images.shape[1:]))
        outside, farthest, right = 0, 0.0, 0
        for chunk, clean, adversarial in _fooled(case, result):
            lengths = distances(adversarial, clean, result.norm)
            inside = (lengths <= allowed) & ((adversarial >= 0) & (adversarial <= 1)).all((1, 2, 3))
            outside, farthest = outside + int((~inside).sum()), max(farthest, float(lengths.max()))
            right += int((_predictions(case, adversarial) == result.labels[chunk]).sum())
        limit = max(RESCORED * len(result.stage), LEAST_RESCORED)
        passed &= not outside and right <= limit and bool(np.isfinite(farthest))
        rescored = result.robust_accuracy + right / len(result.stage)
        numbers[name] = {
            "outside": outside,
            "farthest": farthest,
            "epsilon": result.epsilon,
            "rescored": rescored,
            "claimed": result.robust_accuracy,
        }
        figures.append(
            f"{name}: {outside} of {int((result.stage >= 0).sum())} beyond {result.norm} "
            f"{result.epsilon:.6g}, the farthest at {farthest:.6g}; accuracy {rescored:.2%} when read "
            f"again, {result.robust_accuracy:.2%} claimed"
        )
    return bool(passed), "; ".join(figures), numbers


def eight_bits_keep_it(case: Case) -> Found:
    """Round the strongest attack's images to 8 bits, as a file holds them, and read them again."""
    name, result = min(case.results.items(), key=lambda item: item[1].robust_accuracy)
    allowed = _reach(result.epsilon, result.norm, np.prod(case.examples.images.shape[1:]))
    right, outside, farthest = 0, 0, 0.0
    for chunk, clean, adversarial in _fooled(case, result):
        rounded = eight_bits(adversarial, clean, result.epsilon, result.norm).astype(np.float32) / np.float32(255)
        lengths = distances(rounded, clean, result.norm)
        outside, farthest = outside + int((lengths > allowed + GRID).sum()), max(farthest, float(lengths.max()))
        right += int((_predictions(case, rounded) == result.labels[chunk]).sum())
    lost = right / len(result.stage)
    accuracy = result.robust_accuracy + lost
    figure = (
        f"accuracy {accuracy:.2%} under {name} in 8 bits, {result.robust_accuracy:.2%} in float32 (limit "
        f"{POINTS:.0%} more); {outside} images beyond {result.epsilon:.6g}, the farthest at {farthest:.6g}"
    )
    return (
        lost <= POINTS + EXACT,
        figure,
        {"accuracy": accuracy, "claimed": result.robust_accuracy, "outside": outside, "farthest": farthest},
    )


def accuracy_falls_with_steps(case: Case) -> Found:
    """Take PGD's last iterate after more and more steps; the worst of all iterates could not rise."""
    left = {steps: case.attack(f"pgd-{steps}", final=True).robust_accuracy for steps in FINAL}
    return _falls(left, case.allowed, "{} steps".format)


def accuracy_falls_with_epsilon(case: Case) -> Found:
    """Attack in larger and larger balls, each anew."""
    left = {radius: result.robust_accuracy for radius, result in case.ladder.items()}
    return _falls(left, case.allowed, "{:.4g}".format)


def huge_epsilon_reaches_zero(case: Case) -> Found:
    """Attack in a ball that holds every image there is: by PGD, and by APGD if that leaves more than the limit."""
    left = case.attack(f"pgd-{STEPS}", case.diameter)
    first = left.robust_accuracy
    if first > case.allowed:
        left = case.attack("apgd-ce", case.diameter, before=left)
    figure = (
        f"accuracy {left.robust_accuracy:.1%} at radius {case.diameter:.4g}, where any image may be reached "
        f"(limit {case.allowed:.1%})"
    )
    return (
        left.robust_accuracy <= case.allowed,
        figure,
        {"pgd": first, "left": left.robust_accuracy, "limit": case.allowed},
    )


def converged(case: Case) -> Found:
    """Go on where the evaluated attacks ended: twice their steps, three restarts; once more by another loss.

    The margin does not saturate as the cross-entropy does where logits are large.
    """
    steps = [
        facts["steps"]
        for result in case.compared.values()
        for stage, facts in result.facts.items()
        if stage not in BLACK_BOX
    ]
    steps = int(np.clip(LONGER * max(steps, default=0), LEAST, MOST))
    longer = case.attack(f"pgd-{steps}", restarts=RESTARTS, before=case.only(case.evaluated))
    longer = case.attack(f"cw-{steps}", before=longer)
    reached = float(case.evaluated.mean())
    figure = (
        f"accuracy {longer.robust_accuracy:.1%} after {RESTARTS} x {steps} more steps of PGD and {steps} on "
        f"the margin, {reached:.1%} reached before (limit {case.allowed:.1%} less)"
    )
    passed = reached - longer.robust_accuracy <= case.allowed
    if not passed:
        figure += "; not converged: the accuracy is an upper bound"
    return (
        passed,
        figure,
        {
            "reached": reached,
            "longer": longer.robust_accuracy,
            "steps": steps,
            "restarts": RESTARTS,
            "limit": case.allowed,
        },
    )


def black_box_not_stronger(case: Case) -> Found:
    """Search at random, which needs no gradients; the evaluation's own random searches count, too."""
    held, searched = np.ones_like(case.right), False
    for result in case.compared.values():
        held &= (result.fooled_by != "square")[case.chosen] & (result.stage >= ROBUST)[case.chosen]
        searched |= result.facts.get("square", {}).get("steps", 0) >= QUERIES

    def search(chosen):
        if searched and not (chosen & ~case.evaluated).any():  # a longer search than this met every one of them
            return chosen & held
        return case.attack("square", steps=QUERIES, before=case.only(chosen & held)).robust

    return _not_stronger(case, search, f"Square, {QUERIES} queries or more")


def noise_not_stronger(case: Case) -> Found:
    """Try random points of the ball."""
    return _not_stronger(case, lambda chosen: case.attack("noise", before=case.only(chosen)).robust, "random points")


def transfer_not_stronger(case: Case) -> Found:
    """Read images that were made against a sibling, which has gradients of its own."""
    if case.sibling is None:
        return None, "no second model was given", {}
    other = Attacker(
        case.sibling,
        norm=case.attacker.norm,
        batch_size=case.attacker.batch_size,
        strategy=case.attacker.strategy,
        seed=case.attacker.seed,
        value_range=case.attacker.value_range,
    )

    def transfer(chosen):
        moved, places = np.array(case.few.images), np.flatnonzero(chosen)
        if len(places):
            some = case.few.take(places)  # the last iterate: the first that fools it would hardly cross its boundary
            step_size = 2.5 / STEPS * case.epsilon
            result = other.attack(some, f"pgd-{STEPS}", epsilon=case.epsilon, final=True, step_size=step_size)
            moved[places] = result.attacked(some.images)
        return chosen & (classes(case.attacker.read(moved)) == case.few.labels)

    return _not_stronger(case, transfer, "images made against the sibling")


def _not_stronger(case, attack, words):
    """Compare what an attack without the model's gradients leaves with what attacks by gradients leave.

    Where it fools no more of what those leave than the limit allows, what it does elsewhere cannot change the verdict,
    and is not tried.

    Args:
      case: a `Case`.
      attack: of the images that a bool `[sample]` chooses: which of them are right after it.
      words: for it.
    """
    white_box, count = case.white_box, len(case.right)
    held = attack(white_box)
    only = int((white_box & ~held).sum())
    figure = f"{only} of the {int(white_box.sum())} images that attacks by gradients leave right are fooled by {words}"
    numbers = {"white_box": float(white_box.mean()), "only": only, "limit": case.allowed}
    if only / count <= case.allowed:
        return True, f"{figure} (limit {case.allowed:.1%} of {count})", numbers
    held = held | attack(case.right & ~white_box)
    left = float(held.mean())
    figure += (
        f"; accuracy {left:.1%} under it, {numbers['white_box']:.1%} under attacks by gradients (limit "
        f"{case.allowed:.1%} less)"
    )
    return numbers["white_box"] - left <= case.allowed, figure, {**numbers, "left": left}


def _falls(left, allowed, words):
    """Say whether accuracies never rise above one before them by more than is allowed."""
    values = list(left.values())
    rise = float(max(np.array(values) - np.minimum.accumulate(values)))
    figure = (
        ", ".join(f"{share:.1%} at {words(key)}" for key, share in left.items())
        + f"; rises by {rise:.1%} at most (limit {allowed:.1%})"
    )
    return (
        rise <= allowed,
        figure,
        {"left": {words(key): share for key, share in left.items()}, "rise": rise, "limit": allowed},
    )


def _fooled(case, result):
    """Give `(places, clean, adversarial)` of the images on which an attack fooled the model, a batch at a time."""
    places, size = np.flatnonzero(result.stage >= 0), case.attacker.batch_size
    for begin in range(0, len(places), size):
        chunk = places[begin : begin + size]
        yield chunk, case.examples.images[chunk], np.asarray(result.adversarial[chunk])


def _predictions(case, images):
    """Return the classes of at most a batch of images, which is filled up: its shape never changes."""
    missing = min(case.attacker.batch_size, len(case.logits)) - len(images)
    filled = np.concatenate([images, np.zeros([max(missing, 0), *images.shape[1:]], np.float32)])
    return classes(case.attacker.read(filled)[: len(images)])


def _reach(epsilon, norm, values):
    """Return the distance that rounding in float32 explains."""
    relative, each = LENGTH_ROUNDED
    return epsilon + (RADIUS_ROUNDED if norm == "linf" else relative * epsilon + each * np.sqrt(values))
