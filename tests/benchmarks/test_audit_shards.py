"""How far apart two audits of the same rows are said to be."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def benchmark_of_shards(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("audit_shards")


@pytest.mark.parametrize(
    ("name", "one", "other", "gap"),
    [
        ("erank_centred", 50.0, 50.5, 0.01),
        ("visreg_centre", 2e-7, 3e-7, 0.5),
        ("mean_cosine", 1e-9, 1.5e-9, 5e-10),  # almost 0 of its range from -1 to 1
        ("self_cluster", 0.0, 0.25, 0.25),
        ("lidar", None, None, 0.0),
        ("lidar", 3.0, None, math.inf),
        ("lidar", None, 3.0, math.inf),
    ],
)
def test_metrics_differ_by_what_they_read_and_those_through_zero_by_their_range(
    benchmark_of_shards: Any, name: str, one: float | None, other: float | None, gap: float
) -> None:
    assert benchmark_of_shards.apart({name: one}, {name: other}) == pytest.approx(gap, rel=1e-9)
