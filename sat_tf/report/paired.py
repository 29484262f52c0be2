"""Two accuracies on the same images: their difference, its interval, and whether chance explains it."""

import math

from sat_tf.report.words import wilson_interval


def difference(both: int, first: int, second: int, neither: int) -> tuple[float, float, float]:
    """Return the difference of two paired accuracies, the first minus the second, with its 95 % interval.

    Newcombe's hybrid score interval: the bounds of the two Wilson intervals, put together by the correlation of the two
    outcomes. With p1, p2 the accuracies, (l1, u1), (l2, u2) their Wilson intervals and r the correlation

        low  = d - sqrt((p1 - l1)^2 - 2 r (p1 - l1)(u2 - p2) + (u2 - p2)^2)
        high = d + sqrt((u1 - p1)^2 - 2 r (u1 - p1)(p2 - l2) + (p2 - l2)^2)

    It holds no variation between training seeds.

    Args:
      both, first, second, neither: images that both, only the first, only the second, or neither gets right.

    Raises:
      ValueError: a count is negative, or there is no image.

    Source: Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on
    paired data", method 10.
    """
    counts = both, first, second, neither
    total = sum(counts)
    if min(counts) < 0 or not total:
        raise ValueError(f"Expected counts of at least 0, and one image or more. Received: {counts}.")
    p1, p2 = (both + first) / total, (both + second) / total
    (l1, u1), (l2, u2) = wilson_interval(both + first, total), wilson_interval(both + second, total)
    r = _correlation(both, first, second, neither)
    below = (p1 - l1) ** 2 - 2 * r * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2
    above = (u1 - p1) ** 2 - 2 * r * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2
    d = (first - second) / total
    return d, d - math.sqrt(max(below, 0.0)), d + math.sqrt(max(above, 0.0))


def _correlation(both, first, second, neither):
    """Return the phi coefficient of two outcomes, drawn towards 0 by half an image where it is positive."""
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    if not margins:
        return 0.0
    product = both * neither - first * second
    if product > 0:
        product = max(product - sum((both, first, second, neither)) / 2, 0.0)
    return product / math.sqrt(margins)


def mcnemar(first: int, second: int) -> float:
    """Return the exact two-sided p-value of McNemar's test: whether two models are equally often right alone.

    Of the images that only one of the two gets right each has one half of the chance if the models are equally good.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages".
    """
    total, few = first + second, min(first, second)
    if not total:
        return 1.0
    logs = [math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) for k in range(few + 1)]
    return min(1.0, 2 * math.fsum(math.exp(value - total * math.log(2)) for value in logs))
