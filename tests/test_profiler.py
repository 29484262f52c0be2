"""Some steps of a training are profiled, and no others."""

import tensorflow as tf

from sat_tf.profiler import Profiler


def test_some_steps_are_profiled(tmp_path):
    profiler = Profiler(tmp_path, range(2, 4))
    assert profiler.stops == (2, 4) and Profiler(tmp_path, range(0)).stops == ()
    with profiler:
        for step in (1, 2, 3, 4, 5):
            profiler.at(step)
            assert profiler.going == (step in (2, 3))
            tf.square(tf.ones([2])).numpy()
    assert list(tmp_path.rglob("*.xplane.pb"))
    with Profiler(tmp_path / "cut", range(1, 9)) as profiler:
        profiler.at(1)
    assert not profiler.going and list((tmp_path / "cut").rglob("*.xplane.pb"))
