"""The audit of one embedding: everything that can be said of rows [n, d], with the evidence.

One pass over the rows keeps their moments and a bounded sample; every metric follows from these. A file of
any length costs the memory of one chunk and of two d x d matrices.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse.advice import ADVICE, Advice
from fullrank.collapse.catalogue import CATALOGUE, Entry, Spectra
from fullrank.collapse.moments import Moments, check_rows
from fullrank.collapse.neighbours import Neighbourhood
from fullrank.collapse.panel import Panel
from fullrank.collapse.reference import reference_value
from fullrank.collapse.reservoir import Reservoir
from fullrank.collapse.thresholds import Thresholds
from fullrank.collapse.usage import CodeUsage
from fullrank.collapse.verdict import Verdict, judge, judge_codes
from fullrank.errors import UsageError

__all__ = ["Audit", "AuditMetric", "RowSource", "RowsInMemory", "audit"]

SAMPLE = 2048
CHUNK_ELEMENTS = 1 << 23  # as many rows as moments take at a time
RESAMPLES = 20
RESAMPLED = 1024  # rows of which halves are taken
COVERED = 1.96  # standard deviations of a 95 % interval
SLOW = {
    "mixture_entropy",
    "legacy_mixture_entropy",
    "cluster_learnability",
}  # minutes where others take seconds


class RowSource(Protocol):
    """Rows that can be read again and again, a chunk at a time."""

    @property
    def n(self) -> int:
        """Rows."""

    @property
    def d(self) -> int:
        """Their width."""

    def chunks(self, rows: int | None = None) -> Iterator[Tensor]:
        """All rows in their order, [b, d] at a time."""


@dataclass(frozen=True)
class AuditMetric:
    """One metric of an audit.

    Attributes:
        value: None where it is not defined.
        null: what isotropic Gaussian rows of the same n and d read.
        power_law: what Gaussian rows with covariance eigenvalues 1/k read.
        low: lower end of a 95 % interval for other rows from the same source; None where none was computed.
        high: its upper end.
        n: rows, or points of the sample, that it was computed from.
    """

    value: float | None
    null: float | None
    power_law: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        tap: what the rows are called.
        n: rows.
        d: their width.
        verdict: with its evidence.
        panel: the measures that were judged, and the spectra.
        metrics: name to value, nulls and interval; `CATALOGUE[name]` says how to read it.
        sample: the rows that were compared with each other, [m, d].
        places: which of the n rows these are, int64 [m].
        origin: where the rows are from.
        notes: one line each.
        seconds: how long it took.
    """

    tap: str
    n: int
    d: int
    verdict: Verdict
    panel: Panel | None
    metrics: dict[str, AuditMetric]
    sample: Tensor
    places: Tensor
    origin: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def advice(self) -> tuple[Advice, ...]:
        """Likely mechanisms, the likeliest first, and what to try."""
        return ADVICE[self.verdict.kind]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: verdict, severity, why, evidence, metrics, n, d, advice, origin, notes, seconds."""
        verdict = self.verdict.as_dict()
        return {
            "verdict": verdict["kind"],
            "severity": verdict["severity"],
            "why": verdict["why"],
            "tap": self.tap,
            "n": self.n,
            "d": self.d,
            "evidence": verdict["evidence"],
            "metrics": {name: vars(metric) for name, metric in self.metrics.items()},
            "advice": [advice._asdict() for advice in self.advice],
            "origin": self.origin,
            "notes": list(self.notes),
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        return str(self.verdict)


def audit(
    rows: Tensor | np.ndarray | RowSource,
    *,
    tap: str = "embedding",
    labels: Tensor | np.ndarray | Sequence[int] | None = None,
    codes: bool = False,
    thresholds: Thresholds | None = None,
    metrics: Sequence[str] | None = None,
    sample: int = SAMPLE,
    origin: str = "",
    progress: Callable[[int], None] | None = None,
) -> Audit:
    """Measures and judges an embedding.

    Args:
        rows: a tensor or array [n, d], or a source of rows such as `open_embeddings` gives.
        tap: what to call them.
        labels: a class per row, for the metrics of classes.
        codes: whether the rows are scores (logits) over codes or prototypes.
        thresholds: what the verdict depends on.
        metrics: names of `CATALOGUE`; None takes all that rows, and labels where given, allow, but for three
            (`SLOW`) that fit mixtures or cluster many times.
        sample: rows that are compared with each other, at most.
        origin: where the rows are from, for reports.
        progress: called with the number of rows seen after every chunk.

    Raises:
        UsageError: no matrix, no rows, rows that are not finite, or labels of another length.
        UnknownNameError: no such metric.

    Example:
        >>> z = torch.randn(2000, 32, generator=torch.Generator().manual_seed(0))
        >>> audit(z).verdict.kind
        'healthy'
        >>> print(audit(z[:, :2] @ torch.randn(2, 32, generator=torch.Generator().manual_seed(1))))
        embedding: dimensional collapse: RankMe of unit rows is 2.0 of 32 directions, below 3.2
    """
    start = time.perf_counter()
    source = _source(rows)
    chosen = [CATALOGUE[name] for name in metrics or CATALOGUE if metrics is not None or name not in SLOW]
    classes = None if labels is None else _classes(labels, source.n)
    if codes:
        return _audit_codes(source, tap, thresholds, chosen, origin, progress, start)
    moments, reservoir = Moments(source.d), Reservoir(source.d, sample)
    seen = 0
    for chunk in source.chunks(max(CHUNK_ELEMENTS // source.d, 1)):
        moments.update(chunk)
        reservoir.add(chunk)
        seen += len(chunk)
        if progress:
            progress(seen)
    points, places = reservoir.rows, reservoir.places
    spectra = Spectra(moments)
    panel = Panel.from_moments(tap, spectra, points)
    verdict = judge(panel, (), thresholds)
    found = _measure(chosen, spectra, points, None if classes is None else classes[places])
    seconds = time.perf_counter() - start
    return Audit(tap, source.n, source.d, verdict, panel, found, points, places, origin, (), seconds)


class RowsInMemory:
    """The rows of a matrix [n, d], which may be mapped, as a source.

    Example:
        >>> [len(chunk) for chunk in RowsInMemory(torch.zeros(5, 2)).chunks(3)]
        [3, 2]
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.n, self.d = matrix.shape

    def chunks(self, rows: int | None = None) -> Iterator[Tensor]:
        """All rows in their order, [b, d] at a time."""
        yield from torch.split(self.matrix, rows or self.n)


def _source(rows: Tensor | np.ndarray | RowSource) -> RowSource:
    if isinstance(rows, np.ndarray):
        if rows.dtype.kind not in "fiu":
            raise UsageError(f"rows must be numbers, not {rows.dtype}")
        rows = torch.from_numpy(np.ascontiguousarray(rows))
    if isinstance(rows, Tensor):
        check_rows(rows)
        if rows.is_complex() or rows.dtype == torch.bool:
            raise UsageError(f"rows must be real numbers, not {rows.dtype}")
        rows = RowsInMemory(rows.detach() if rows.is_floating_point() else rows.detach().double())
    if not rows.n or not rows.d:
        raise UsageError(f"an audit needs rows: these are [{rows.n}, {rows.d}]")
    return rows


def _classes(labels: Tensor | np.ndarray | Sequence[int], n: int) -> Tensor:
    classes = torch.as_tensor(np.asarray(labels))
    if classes.ndim != 1 or len(classes) != n:
        raise UsageError(f"{n} rows need {n} labels in one dimension, not {tuple(classes.shape)}")
    inverse: Tensor = torch.unique(classes, return_inverse=True)[1]
    return inverse


def _measure(
    entries: Sequence[Entry], spectra: Spectra, points: Tensor, classes: Tensor | None
) -> dict[str, AuditMetric]:
    n, d = spectra.moments.count, spectra.moments.dim
    spread = _spreads([e for e in entries if e.needs in ("spectrum", "unit spectrum", "moments")], points, n)
    near = Neighbourhood(points)
    found: dict[str, AuditMetric] = {}
    for entry in entries:
        if entry.needs in ("spectrum", "unit spectrum", "moments"):
            value, used = entry(spectra), n
        elif entry.needs == "points":
            value, used = entry(points), len(points)
        elif entry.needs == "neighbours":
            value, used = entry(near), len(points)
        elif entry.needs == "labels" and classes is not None:
            value, used = entry(points, classes), len(points)
        else:
            continue
        half = spread.get(entry.name)
        found[entry.name] = AuditMetric(
            value,
            reference_value("isotropic", entry.name, n, d, len(points)),
            reference_value("power-law", entry.name, n, d, len(points)),
            value - half if value is not None and half is not None else None,
            value + half if value is not None and half is not None else None,
            used,
        )
    return found


def _spreads(entries: Sequence[Entry], points: Tensor, n: int) -> dict[str, float]:
    """Half the width of a 95 % interval of each metric at n rows, from halves of the sample.

    Halves without replacement: repeated rows would lower ranks. A half of m rows scatters as m/2 rows would,
    by as much again as the finite sample leaves out; n rows scatter less by the square root of their number.
    """
    points = points[:RESAMPLED]
    m = len(points)
    if m < 64:
        return {}
    generator = torch.Generator().manual_seed(0)
    drawn: dict[str, list[float]] = {entry.name: [] for entry in entries}
    for _ in range(RESAMPLES):
        half = Spectra(Moments.of(points[torch.randperm(m, generator=generator)[: m // 2]]))
        for entry in entries:
            value = entry(half)
            if value is not None and np.isfinite(value):
                drawn[entry.name].append(value)
    shrink = (2.0 * (m // 2) / n) ** 0.5
    return {
        name: COVERED * float(np.std(values, ddof=1)) * min(shrink, 2.0**0.5)
        for name, values in drawn.items()
        if len(values) == RESAMPLES
    }


def _audit_codes(
    source: RowSource,
    tap: str,
    thresholds: Thresholds | None,
    entries: Sequence[Entry],
    origin: str,
    progress: Callable[[int], None] | None,
    start: float,
) -> Audit:
    usage, seen, reservoir = CodeUsage(source.d), 0, Reservoir(source.d, 256)
    for chunk in source.chunks(max(CHUNK_ELEMENTS // source.d, 1)):
        usage.update(chunk)
        reservoir.add(chunk)
        seen += len(chunk)
        if progress:
            progress(seen)
    verdict = judge_codes(usage.result(), tap, thresholds)
    found = {
        entry.name: AuditMetric(entry(usage), None, None, None, None, usage.n)
        for entry in entries
        if entry.needs == "scores"
    }
    seconds = time.perf_counter() - start
    sample, places = reservoir.rows, reservoir.places
    return Audit(tap, source.n, source.d, verdict, None, found, sample, places, origin, (), seconds)
