"""Intervals of metrics of moments: where other rows from the same source read.

By the jackknife (Efron and Stein 1981, Annals of Statistics 9): each of some rows is left out of all, so that
the value is always one of n - 1 rows. Halves of a sample would be of fewer rows than d where all are of more,
and ranks scatter otherwise there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from fullrank.collapse.leave_one_out import leave_one_out
from fullrank.collapse.metrics._definition import Metric, Spectra
from fullrank.collapse.moments import Moments

LEFT_OUT = 64  # rows, of which a standard deviation is known to 9 %
LEAST_ROWS = 32  # below which there are no intervals
COVERED = 2.04 * 2**0.5  # standard deviations: 95 % of Student's t with 31 degrees, for a difference of two


def interval(
    metric: Metric, value: float | None, half: float | None, n: int, d: int
) -> tuple[float | None, float | None]:
    """Ends of the interval around a value, within the range of the metric.

    Args:
        metric: whose range it is.
        value: of n rows of width d; without one there is no interval.
        half: half its width, None where that is not known.
        n: rows.
        d: their width.

    Example:
        >>> from fullrank.collapse.metrics import METRICS
        >>> interval(METRICS["centred_share"], 0.75, 0.5, n=100, d=8)
        (0.25, 1.0)
    """
    if value is None or half is None:
        return None, None
    least, largest = metric.bounds(n, d)
    return max(value - half, min(least, value)), min(value + half, max(largest, value))


def half_widths(metrics: Sequence[Metric], moments: Moments, rows: Tensor) -> dict[str, float]:
    """Half widths of 95 % intervals for the value of n other rows.

    The decompositions that this takes are kept for the values of the metrics themselves.

    Args:
        metrics: of moments and spectra.
        moments: of all n rows.
        rows: [m, d], some of them in an order of chance.

    Returns:
        By name; none of a metric that is not defined without some row, or that is the same without any, as
        counts are and what is cut to its range; and none at all of few rows.
    """
    rows = rows[:LEFT_OUT]
    if len(rows) < LEAST_ROWS or not metrics:
        return {}
    values: dict[str, list[float]] = {metric.name: [] for metric in metrics}
    for left in leave_one_out(moments, rows):
        spectra = Spectra(left)
        for metric in metrics:
            value = metric(spectra)
            if value is not None:
                values[metric.name].append(value)
    scale = COVERED * (moments.count - 1) ** 0.5
    return {
        name: scale * float(np.std(found, ddof=1))
        for name, found in values.items()
        if len(found) == len(rows) and min(found) < max(found)
    }
