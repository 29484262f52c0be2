"""Settings of the whole suite: two processes of one thread each, in each of them two logical CPU devices."""

import contextlib
import ctypes
import dataclasses
import gc
import io
import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "PYTEST_XDIST_WORKER" in os.environ:  # small operations gain nothing by threads, and two processes would share them
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import sat_tf  # noqa: E402, F401, I001 - before TensorFlow, which hears once of its backend and of oneDNN
import keras  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow.python.eager import context  # noqa: E402
from tensorflow.python.framework import ops  # noqa: E402

from sat_tf import efficientnet, report  # noqa: E402

CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(CPU, [tf.config.LogicalDeviceConfiguration()] * 2)
# An input pipeline goes by the optimizers of graphs that TensorFlow starts with, a tf.function by those of its tracing.
# To optimize a pipeline takes ten times as long as what it does for a few images; test_data proves the bits the same.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
tf.config.list_logical_devices()
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell has it for what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.fsync = lambda descriptor: None  # no test cuts the power; that and when files are flushed, test_files asks
gc.freeze()  # what was imported stays: no collection need look at it
gc.set_threshold(20_000)  # tracing allocates so much that a collection of every 700 takes a twentieth of the time


def pytest_xdist_auto_num_workers(config):
    """Return the processes of `-n auto`: two for the whole suite, whatever the machine, and none besides for a file."""
    return 0 if any(".py" in argument for argument in config.args) else 2


def pytest_itemcollected(item):
    """Leave Python as it is where graphs are traced: `graphs.job` does, and AutoGraph takes longer than many a test.

    Tests that need it say so by `@pytest.mark.autograph`.
    """
    if not item.get_closest_marker("autograph"):
        item.obj = tf.autograph.experimental.do_not_convert(item.obj)


@pytest.fixture(scope="session")
def two_replicas():
    """Return the suite's only strategy with two replicas."""
    from sat_tf.distribute import strategies

    return strategies.mirrored(tuple(device.name for device in tf.config.list_logical_devices("CPU")))


@contextlib.contextmanager
def narrowed():
    """Make efficientnet-b0 three blocks of few channels, every kind of block among them; give its name."""
    name = "efficientnet-b0"
    with pytest.MonkeyPatch.context() as patch:
        full = efficientnet.VARIANTS[name]
        patch.setitem(efficientnet.VARIANTS, name, dataclasses.replace(full, width=0.1))
        patch.setattr(efficientnet.scaling, "_STAGES", [(1, 3, 1, 1, 16), (1, 3, 2, 6, 24), (1, 5, 1, 6, 24)])
        yield name


@pytest.fixture
def narrow_b0():
    """Give the name of a narrow EfficientNet, for one test; fixtures of more say `with narrowed()` as they make it."""
    with narrowed() as name:
        yield name


@pytest.fixture(autouse=True, scope="module")
def blank_figures(request):
    """Leave the figures of reports blank where no test looks at them: their texts take a fifth of a tiny run.

    A file that looks at them says so by `FIGURES = True`.
    """
    if getattr(request.module, "FIGURES", False):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "png", _blank)
        yield


def _blank(figure):
    figure.clear()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=20)
    return buffer.getvalue()


@pytest.fixture(autouse=True, scope="module")
def op_by_op(request):
    """Run `tf.function`s as Python where a file asks for it: to trace a graph takes ten times as long as a few steps.

    Such a file says so by `EAGER = True`. What graphs have to be asked is asked in others: that each attack, method and
    model makes one, of static shapes, and that a whole run, evaluation and export do; by `@pytest.mark.graphs` also of
    single tests of the file.
    """
    tf.config.run_functions_eagerly(getattr(request.module, "EAGER", False))
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(autouse=True)
def graphs(request):
    """Trace graphs in a test that is marked so."""
    eagerly = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(eagerly and not request.node.get_closest_marker("graphs"))
    yield
    tf.config.run_functions_eagerly(eagerly)


@pytest.fixture(autouse=True, scope="module")
def forgotten_models():
    """Free what can be freed of a file's models when its tests are done; Python does not know their size."""
    yield
    gradients = ops.gradient_registry._registry  # TensorFlow keeps every custom gradient that was traced, and its graph
    for name in [name for name in gradients if name.startswith("CustomGradient-")]:
        del gradients[name]
    keras.utils.clear_session(free_memory=False)  # free_memory collects, as the next line does
    gc.collect()
    gc.freeze()  # what is left stays: the next file's collection need not look at it
    context.context().clear_kernel_cache()  # which holds what was compiled of functions that are gone
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
