"""What a number depends on besides its recipe: versions and devices."""

import datetime
import os
import platform

import keras
import numpy as np
import tensorflow as tf

import sat_tf
from sat_tf import onednn


def now() -> str:
    """Return date and time with their zone, as reports hold them: 2026-01-31T12:00:00+00:00."""
    return datetime.datetime.now().astimezone().isoformat("T", "seconds")


def versions() -> dict[str, str]:
    """Return the versions that a number depends on."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "sat_tf": sat_tf.__version__,
    }


def devices(strategy: tf.distribute.Strategy) -> dict[str, str]:
    """Return what is computed on."""
    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": str(os.cpu_count()),
        "threads of an operation": os.environ.get("TF_NUM_INTRAOP_THREADS", "all cores"),
        "oneDNN": "on" if onednn.is_on() else "off",
        "devices": ", ".join(sorted({d.device_type for d in tf.config.list_logical_devices()})),
        "replicas": str(strategy.num_replicas_in_sync),
    }
