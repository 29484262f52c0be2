"""Memory of the host that a process has freed: kept for the next tensor, not given back to the system each time.

TensorFlow lowers malloc's threshold for mappings of their own to 128 KiB on Python 3.11 and later, for good, once a
data set is made by a generator; so is every data set that a `tf.distribute` strategy spreads. From then on each larger
tensor is mapped anew, and its pages are filled with zeros on first touch: half a million page faults for a step of
ResNet-20 on 128 images, which took 1.8 times as long as with the threshold raised again.
"""

import contextlib
import ctypes
import functools

import tensorflow as tf

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEPT = 2**30  # bytes: of one tensor, and free at the end of the heap


@functools.cache
def keep_freed() -> bool:
    """Let malloc keep what tensors free, once for the process; say whether the system's malloc can be told so."""
    empty = tf.data.Dataset.from_generator(lambda: iter(()), output_signature=tf.TensorSpec([], tf.int32))
    list(empty)  # TensorFlow lowers the threshold here, if it does at all, and never again
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        tell = ctypes.CDLL(None).mallopt
        return bool(tell(_MMAP_THRESHOLD, KEPT) and tell(_TRIM_THRESHOLD, KEPT))
    return False
