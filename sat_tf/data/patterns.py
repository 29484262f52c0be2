"""Images from a formula, for tests and dry runs."""

import os

import numpy as np

from sat_tf.data.splits import Data, from_arrays, nothing_to_find, set_aside

_CLASSES, _SIZE, _TRAIN, _TEST = 10, 32, 400, 100
_NOISE = 40.0  # standard deviation, in 255ths


def synthetic(data_dir: str | os.PathLike | None, validation: int | None, seed: int) -> Data:
    """500 images of 10 colour patterns under noise, made on the spot (32 px): for tests and dry runs."""
    nothing_to_find("synthetic", data_dir)
    random = np.random.RandomState(0)
    patterns = random.uniform(48, 208, [_CLASSES, 4, 4, 3]).repeat(_SIZE // 4, 1).repeat(_SIZE // 4, 2)
    labels = np.arange(_TRAIN + _TEST, dtype=np.int32) % _CLASSES
    noise = _NOISE * random.randn(len(labels), _SIZE, _SIZE, 3)
    images = np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8)
    train, held = set_aside(images[:_TRAIN], labels[:_TRAIN], validation, seed)
    return Data(
        name="synthetic",
        source="made from a formula: ten colour patterns under noise",
        classes=tuple(f"pattern {number}" for number in range(_CLASSES)),
        image_size=_SIZE,
        train=train,
        validation=held,
        test=from_arrays(images[_TRAIN:], labels[_TRAIN:]),
    )
