"""What is asked for again and again is computed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fullrank.collapse import baselines
from fullrank.collapse.decay import _spectra, readings
from fullrank.collapse.label_free_score import read_weights
from fullrank.collapse.metrics.gaussian import _directions

KEPT: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "readings": (readings, ("effective_rank", 20, 16)),
    "spectra of power laws": (_spectra, (20, 16)),
    "weights of a score": (read_weights, ()),
    "directions": (_directions, (5, 7, 0)),
    "standard rows": (baselines._standard, (9, 4)),
    "a scatter": (baselines._wishart, (90, 4)),
    "spectra of a cloud": (baselines._spectra, ("isotropic", 9, 4)),
    "rows of a cloud": (baselines._sample, ("isotropic", 9, 4)),
    "neighbours in a cloud": (baselines._neighbourhood, ("isotropic", 9, 4)),
    "the table of baselines": (baselines._table, ()),
    "a baseline": (baselines.baseline, ("rankme_unit", 19, 4, None, 0, "power-law")),
}


@pytest.mark.parametrize("name", KEPT)
def test_the_second_result_is_the_first(name: str) -> None:
    function, arguments = KEPT[name]
    assert function(*arguments) is function(*arguments)
