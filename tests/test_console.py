"""Errors that say what to do, and progress in fractions."""

import pytest
import tensorflow as tf

from sat_tf import console


def test_a_unreadable_image_met_while_training_is_named(tmp_path):
    unreadable = tmp_path / "unreadable.jpg"

    class Examples:
        diagnose = staticmethod(lambda: f"{unreadable} cannot be decoded.")

    with pytest.raises(OSError, match="unreadable.jpg"), console.naming_failures() as failing:
        failing.dataset = Examples
        tf.io.decode_jpeg(b"\xff\xd8\xff nothing")
    with pytest.raises(OSError, match="TensorFlow failed: ") as error, console.naming_failures():
        tf.io.decode_jpeg(b"\xff\xd8\xff nothing")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("message,kind", [("No space left on device", OSError), ("OOM", MemoryError)])
def test_a_full_disk_is_not_lack_of_memory(message, kind):
    with pytest.raises(kind), console.naming_failures():
        raise tf.errors.ResourceExhaustedError(None, None, message)


def test_fractions_of_a_step_are_shown_as_whole_steps():
    with console.make_progress(5, "checks", "%") as progress:
        add = console.whole_steps(progress)
        shown = []
        for _ in range(10):
            add(0.5)
            shown.append(progress.n)
    assert shown == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
