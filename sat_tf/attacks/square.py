"""Square (Andriushchenko et al. 2020): random squares, no gradients; L-infinity (Algorithm 2) and L2 (Algorithm 3)."""

import dataclasses
from typing import Any

import tensorflow as tf

from sat_tf.attacks import draws
from sat_tf.attacks.states import Objective, State, begun, looked, pick

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries: where the square's area halves


@dataclasses.dataclass(frozen=True, kw_only=True)
class Square:
    """Random search in the L-infinity ball: a square of +-epsilon at a random place is kept where it helps.

    Attributes:
      ball: a `balls.Linf`.
      steps: queries.
      area: share of the image that the first square covers.
      schedule: queries over which the area falls as in the paper; AutoAttack stops after half of its 10,000.
    """

    ball: Any
    steps: int = 5000
    area: float = 0.8
    schedule: int = 10_000

    @property
    def evaluations(self) -> int:
        """Queries an image."""
        return self.steps

    def begin(self, images: tf.Tensor, seeds: tf.Tensor) -> State:
        """Return the state at the paper's start: vertical stripes of +-epsilon."""
        width, channels = tf.shape(images)[2], tf.shape(images)[3]
        bits = draws.hashed(seeds[:, None, None], -1, tf.range(width)[None, :, None], tf.range(channels)[None, None])
        current = self.ball.project(images + self.ball.epsilon * draws.sign(bits)[:, None], images)
        return {**begun(images), "seed": seeds, "current": current, "value": tf.zeros_like(images[:, 0, 0, 0])}

    def advance(self, objective: Objective, images: tf.Tensor, state: State) -> State:
        """Return the state after one more query of every image."""
        s = dict(state)
        height, width, channels = (tf.shape(images)[axis] for axis in (1, 2, 3))
        side = self._side(s["step"], height, width)
        row, column, signs = (draws.hashed(s["seed"], s["step"], part) for part in range(3))
        top = tf.cast(draws.uniform(row) * tf.cast(height - side + 1, tf.float32), tf.int32)
        left = tf.cast(draws.uniform(column) * tf.cast(width - side + 1, tf.float32), tf.int32)
        inside = window(_inside(top, side, height), _inside(left, side, width), channels)
        colours = draws.sign(draws.hashed(signs[:, None], tf.range(channels)[None]))[:, None, None]
        moved = tf.where(inside, self.ball.project(images + self.ball.epsilon * colours, images), s["current"])
        return kept(objective, s, moved)

    def _side(self, query, height, width):
        """Return the side of each image's square, int32 `[batch]`."""
        side = side_of(self.area, self.schedule, query, height, width)
        return tf.clip_by_value(side, 1, tf.minimum(height, width))


def kept(objective: Objective, s: State, moved: tf.Tensor) -> State:
    """Return the state after a query at `moved`, the start at first: it stays where it is better."""
    first = s["step"] == 0
    moved = pick(first, s["current"], moved)
    values, fooled, margin = objective(moved)
    better = first | (values > s["value"]) | fooled
    s["current"] = pick(better, moved, s["current"])
    s["value"] = tf.where(better, values, s["value"])
    return looked(s, moved, fooled, margin)


def side_of(area: float, steps: int, query: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Return the side, rounded, of a square that covers `area` of the image at first and halves at `HALVINGS`."""
    scaled = tf.cast(query, tf.float32) * (10_000 / steps)
    halvings = sum(tf.cast(scaled > mark, tf.float32) for mark in HALVINGS)
    return tf.cast(tf.round(tf.sqrt(area * 0.5**halvings * tf.cast(height * width, tf.float32))), tf.int32)


def _inside(start, size, length):
    """Return bool `[batch, length]`: the places from start on, `size` of them."""
    places = tf.range(length)[None]
    return (places >= start[:, None]) & (places < (start + size)[:, None])


@dataclasses.dataclass(frozen=True, kw_only=True)
class SquareL2(Square):
    """Random search in the L2 ball, `balls.L2`: the length that a second window gives up makes a bump in the first."""

    def begin(self, images: tf.Tensor, seeds: tf.Tensor) -> State:
        """Return the state at the start: bumps in tiles over the whole image, scaled to the edge of the ball."""
        height, width, channels = (tf.shape(images)[axis] for axis in (1, 2, 3))
        tile = tf.maximum(height // 5, 1)
        first = (height - tile * 5) // 2
        rows, columns = tf.range(height) - first, tf.range(width) - first
        place = tf.clip_by_value(rows // tile, 0, 4)[:, None] * 5 + tf.clip_by_value(columns // tile, 0, 4)[None]
        inside = ((rows >= 0) & (rows < tile * 5))[:, None] & ((columns >= 0) & (columns < tile * 5))[None]
        lying, standing = (
            two_bumps(tf.range(tile)[None], tf.range(tile)[None], tile[None], tf.constant([turned]))[0]
            for turned in (False, True)
        )
        within = tf.math.floormod(rows, tile)[:, None] * tile + tf.math.floormod(columns, tile)[None]
        lying, standing = (tf.gather(tf.reshape(bump, [-1]), within) for bump in (lying, standing))
        turned = draws.sign(draws.hashed(seeds[:, None, None], -2, place[None])) > 0
        bits = draws.hashed(seeds[:, None, None, None], -1, place[None, :, :, None], tf.range(channels))
        start = tf.where(inside, tf.where(turned, standing, lying), 0.0)[..., None] * draws.sign(bits)
        current = self.ball.project(images + self.ball.fill(start), images)
        return {**begun(images), "seed": seeds, "current": current, "value": tf.zeros_like(images[:, 0, 0, 0])}

    def advance(self, objective: Objective, images: tf.Tensor, state: State) -> State:
        """Return the state after one more query of every image."""
        s = dict(state)
        height, width, channels = (tf.shape(images)[axis] for axis in (1, 2, 3))
        side = tf.maximum(side_of(self.area, self.schedule, s["step"], height, width), 3)
        side = tf.minimum(side + (1 - side % 2), tf.minimum(height, width))  # odd
        corners = []
        for part, length in enumerate((height, width, height, width)):
            draw = draws.uniform(draws.hashed(s["seed"], s["step"], part))
            corners.append(tf.cast(draw * tf.cast(length - side + 1, tf.float32), tf.int32))
        windows = [
            tf.cast(window(_inside(top, side, height), _inside(left, side, width), channels), tf.float32)
            for top, left in (corners[:2], corners[2:])
        ]
        delta = s["current"] - images
        moved = self._moved(delta, windows, self._bump(s, corners, side, height, width, channels))
        moved = self.ball.project(images + self.ball.fill(moved), images)
        return kept(objective, s, moved)

    def _bump(self, s, corners, side, height, width, channels):
        """Return the two bumps of opposite sign in each image's first window, `[batch, h, w, c]`."""
        rows = tf.range(height)[None] - corners[0][:, None]
        columns = tf.range(width)[None] - corners[1][:, None]
        turned = draws.sign(draws.hashed(s["seed"], s["step"], 4)) > 0
        signs = draws.sign(draws.hashed(s["seed"][:, None], s["step"][:, None], 5 + tf.range(channels)[None]))
        return two_bumps(rows, columns, side, turned)[..., None] * signs[:, None, None]

    def _moved(self, delta, windows, bump):
        """Return the perturbation with the bump in the first window and nothing in the second.

        The first gets the length that both held and that was unused, of all channels together: so AutoAttack has it,
        and the whole is scaled to the ball after. In the paper each channel keeps its own.
        """
        first, second = windows
        squares = lambda x, *axes: tf.reduce_sum(tf.square(x), axes, keepdims=True)  # noqa: E731
        rest = delta * (1 - tf.maximum(first, second))
        old = delta * first
        new = bump + old / (1e-12 + tf.sqrt(squares(old, 1, 2)))
        unused = tf.nn.relu(self.ball.epsilon**2 - squares(delta, 1, 2, 3)) / tf.cast(tf.shape(delta)[-1], tf.float32)
        length = tf.sqrt(unused + squares(delta - rest, 1, 2, 3))
        return rest + new * (length / (1e-12 + tf.sqrt(squares(new, 1, 2))))


def window(rows: tf.Tensor, columns: tf.Tensor, channels: tf.Tensor) -> tf.Tensor:
    """Return the window `[batch, h, w, channels]` of its rows `[batch, h]` and columns `[batch, w]`."""
    columns = tf.repeat(columns, channels, axis=1)
    flat = rows[:, :, None] & columns[:, None, :]
    return tf.reshape(flat, tf.concat([tf.shape(flat)[:2], [-1, channels]], 0))


def two_bumps(rows: tf.Tensor, columns: tf.Tensor, side: tf.Tensor, turned: tf.Tensor) -> tf.Tensor:
    """Return eta of the paper, of length one: a window's halves with a bump up and a bump down, `[batch, h, w]`.

    Args:
      rows, columns: `[batch, h]`, `[batch, w]` counted from the window's corner; outside the window eta is 0.
      side: of the window, int32 `[batch]`.
      turned: bool `[batch]`: the halves lie side by side and not one above the other.
    """
    turned = turned[:, None]
    side = side[:, None]

    def hill(start, height):
        """Return the hill of a window's half that begins at `start` and is `height` x side, before it is turned."""
        levels = tf.maximum(height, side) // 2
        down = _slope(rows - tf.where(turned, 0, start), tf.where(turned, side, height), levels)
        right = _slope(columns - tf.where(turned, start, 0), tf.where(turned, height, side), levels)
        return _unit(tf.minimum(down[:, :, None], right[:, None, :]))

    half = side // 2
    return _unit(hill(tf.zeros_like(half), half) - hill(half, side - half))


def _unit(bumps):
    """Return the bumps `[batch, h, w]` scaled to length one."""
    return bumps / (1e-12 + tf.sqrt(tf.reduce_sum(tf.square(bumps), [1, 2], keepdims=True)))


def _slope(places, length, levels):
    """Return the sum of 1 / (k + 1)^2 over k from the distance to the middle on to `levels`; 0 beyond `length`.

    A hill's height is the smaller of its slopes along its two sides, as the sum falls with the distance.
    """
    terms = tf.concat([[0.0], tf.cumsum(1.0 / tf.square(tf.range(1.0, 1025.0)))], 0)
    distance = tf.clip_by_value(tf.abs(places - length // 2), 0, 1024)
    height = tf.gather(terms, tf.minimum(levels + 1, 1024)) - tf.gather(terms, distance)
    return tf.where((places >= 0) & (places < length), height, 0.0)
