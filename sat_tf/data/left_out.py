"""What training has to do without: images that can't be read."""

from sat_tf.data.splits import Data

SHOWN = 20  # by name


def left_out(dataset: Data, limit: int) -> list[str]:
    """Return the lines that say which training images are left out, and what else is worth knowing of the images.

    Args:
      dataset: a `Data`.
      limit: unreadable training images at most.

    Raises:
      ValueError: there are more.
    """
    unreadable = dataset.train.unreadable
    if len(unreadable) > limit:
        raise ValueError(
            f"Expected at most unreadable_limit={limit} training images that can't be read. "
            f"Received: {len(unreadable)} in {dataset.source}, the first: {unreadable[0]}. Mend them, or allow "
            f"more: --set unreadable_limit={len(unreadable)}."
        )
    lines = [f"Left out: {name}." for name in unreadable[:SHOWN]]
    if unreadable:
        more = f", {len(unreadable) - SHOWN} of them not shown here" if len(unreadable) > SHOWN else ""
        total = len(unreadable) + dataset.train.size + dataset.validation.size
        lines.append(
            f"Left out {len(unreadable)} of {total} training images that can't be read{more}; the report names all."
        )
    if dataset.test.unreadable:
        lines.append(
            f"Training can go on, but its evaluation will be refused: {len(dataset.test.unreadable)} of the test "
            f"images can't be read, the first {dataset.test.unreadable[0]}. Replace them meanwhile."
        )
    return lines + [f"Worth knowing of the images: {note}." for note in dataset.notes]
