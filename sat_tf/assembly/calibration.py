"""How fast a recipe trains on this machine."""

import time

import numpy as np
import tensorflow as tf
from absl import logging

from sat_tf import hparams, train
from sat_tf.assembly.devices import prepared
from sat_tf.assembly.models import make_average, sketch
from sat_tf.assembly.training import added_weight_decay, make_method, make_optimizer

CALIBRATION_FLOPS = 4e11  # of one step, so that a calibration takes seconds on a slow machine
CALIBRATION_STEPS = 3


def calibrate(recipe: hparams.Recipe, classes: int, size: int, flops: float) -> tuple[float | None, str]:
    """Train a few steps on noise here; return images a second (None where too slow to try) and how it was measured.

    The batch is cut so that a step stays in seconds; the input pipeline is not part of it.
    """
    batch = int(min(recipe.batch_size, CALIBRATION_FLOPS // flops))
    if not batch:
        return None, "one image is too much for a calibration here; say --images_per_second=N"
    logging.info("Calibrating: %d steps of %d images.", CALIBRATION_STEPS, batch)
    small = recipe.replace(batch_size=batch)
    model = prepared(small, sketch(small, classes, size, weights=True))
    optimizer = make_optimizer(small, 100, 100)
    optimizer.build(model.trainable_variables)
    method = make_method(small)
    state = train.TrainState(
        model=model,
        optimizer=optimizer,
        average=make_average(small, model),
        updates=method.updates,
        memory=train.make_memory(method, batch_size=batch, image_shape=(size, size, 3), images=batch),
    )
    loop = train.Loop(
        state=state,
        method=method,
        strategy=tf.distribute.get_strategy(),
        batch_size=batch,
        seed=0,
        weight_decay=added_weight_decay(small),
    )
    rng = np.random.default_rng(0)
    images = rng.random((batch, size, size, 3), np.float32), rng.integers(0, classes, batch, np.int32)
    times = []
    before = time.perf_counter()
    for _ in loop.run(tf.data.Dataset.from_tensors(images).repeat(), until=1 + CALIBRATION_STEPS, steps_per_call=1):
        times.append(time.perf_counter() - before)
        before = time.perf_counter()
    return batch / min(times[1:]), f"measured here in {CALIBRATION_STEPS} steps of {batch} images"
