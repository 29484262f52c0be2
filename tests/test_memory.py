"""Memory that tensors have freed stays with the process, also after what TensorFlow does to malloc on Python 3.11."""

import os
import subprocess
import sys

import pytest

from sat_tf import memory

# Sixteen tensors of 8 MB, one after the other, each filled: with its own mapping each costs 2,000 page faults.
FAULTS = """
import resource, sys
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
list(tf.data.Dataset.from_generator(lambda: iter([1]), output_signature=tf.TensorSpec([], tf.int32)))
if "keep" in sys.argv:
    from sat_tf import memory
    assert memory.keep_freed() and memory.keep_freed()
def fill():
    for number in range(16):
        tf.fill([2**21], float(number))
for _ in range(4):  # until the heap is as large as it will be
    fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments):
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0"}  # whose allocator keeps what is freed by itself
    command = [sys.executable, "-c", FAULTS, *arguments]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(found.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the page faults of Linux")
def test_tensors_take_the_pages_of_those_before():
    if not memory.keep_freed():
        pytest.skip("another malloc than glibc's")
    kept = faults("keep")
    assert kept < 4096, kept
    assert kept < faults() or sys.version_info < (3, 11)


def test_it_says_what_it_can(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(memory.ctypes, "CDLL", missing)
    assert memory.keep_freed.__wrapped__() is False
