"""What a recipe's words mean: its network, images, training and devices, made of the parts below."""

from sat_tf.assembly.calibration import calibrate
from sat_tf.assembly.devices import make_deterministic, make_strategy
from sat_tf.assembly.extra import check as check_extra
from sat_tf.assembly.images import (
    evaluation_batches,
    image_size,
    load_data,
    make_policy,
    mixed,
    preprocess,
    train_batches,
)
from sat_tf.assembly.models import (
    OWN,
    attacked_view,
    build_model,
    fixed_side,
    make_average,
    model_side,
    own_network,
    sketch,
    variables,
)
from sat_tf.assembly.training import (
    added_weight_decay,
    check_names,
    make_memory,
    make_method,
    make_optimizer,
    rate_of_head,
)

__all__ = [
    "OWN",
    "added_weight_decay",
    "attacked_view",
    "build_model",
    "calibrate",
    "check_extra",
    "check_names",
    "evaluation_batches",
    "fixed_side",
    "image_size",
    "load_data",
    "make_average",
    "make_deterministic",
    "make_memory",
    "make_method",
    "make_optimizer",
    "make_policy",
    "make_strategy",
    "mixed",
    "model_side",
    "own_network",
    "preprocess",
    "rate_of_head",
    "sketch",
    "train_batches",
    "variables",
]
