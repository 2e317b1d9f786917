"""Collapse metrics: pure functions of embedding rows, each declared once.

No metric sees every collapse, so they are read as a panel. A value that is not defined (a rank of a zero
spectrum, a spread of one row) is None; no finite input gives NaN. Where the moments of the rows are enough,
they are taken in place of the rows. All raise UsageError for rows that are not a matrix, a spectrum that is
not a vector or is negative, and numbers that are not finite.

A file without underscore holds a family; what it defines without underscore is public.

Example:
    >>> import torch
    >>> z = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    >>> spectra = Spectra.of(z)
    >>> [round(METRICS[name](spectra), 1) for name in ("erank_centred", "participation_ratio", "level")]
    [8.0, 7.8, 1.0]
    >>> METRICS["uniformity"].needs, METRICS["uniformity"].sees
    ('points', 'CU')
"""

from fullrank.collapse.metrics._definition import (
    COLLAPSES,
    METRICS,
    NEEDS,
    OF_MOMENTS,
    Metric,
    Spectra,
    class_name,
    metric,
)
from fullrank.registry import discover

__all__ = ["COLLAPSES", "METRICS", "NEEDS", "OF_MOMENTS", "Metric", "Spectra", "class_name", "metric"]

discover(__name__, __file__)
METRICS.sort()
