"""Every collapse metric with what is needed to use it and to read it.

An entry says which function computes it from what, its range, the collapses it sees, what it is blind to, its
cost, and under which changes of the rows it stays the same. The table of the documentation, the streaming
classes and the tests are made from this, so a metric that is entered here has all three.

Example:
    >>> import torch
    >>> z = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    >>> spectra = Spectra.of(z)
    >>> [round(CATALOGUE[name](spectra), 1) for name in ("erank_centred", "participation_ratio", "level")]
    [8.0, 7.8, 1.0]
    >>> CATALOGUE["uniformity"].needs, CATALOGUE["uniformity"].sees
    ('points', 'CU')
"""

from __future__ import annotations

from collections.abc import Mapping

from fullrank.collapse.catalogue.entry import COLLAPSES, NEEDS, Entry, Need, Spectra, class_name
from fullrank.collapse.catalogue.groups import CODES, LABELS, TOKENS, VIEWS
from fullrank.collapse.catalogue.points import POINTS
from fullrank.collapse.catalogue.ranks import LEVELS, RANKS
from fullrank.collapse.catalogue.slopes import DECAY, SPHERE
from fullrank.errors import UnknownNameError

__all__ = ["CATALOGUE", "COLLAPSES", "NEEDS", "Entry", "Need", "Spectra", "class_name"]


class _Catalogue(dict[str, Entry]):
    """Entries by name; an unknown one is answered with the nearest."""

    def __missing__(self, name: str) -> Entry:
        raise UnknownNameError("metric", name, self)


_ENTRIES = (*LEVELS, *RANKS, *DECAY, *SPHERE, *POINTS, *VIEWS, *LABELS, *CODES, *TOKENS)

CATALOGUE: Mapping[str, Entry] = _Catalogue({entry.name: entry for entry in _ENTRIES})
"""Metric name to entry, in the order of reading."""
