"""Audit of one embedding: all metrics of rows [n, d], with the evidence.

One pass over the rows keeps their moments and a bounded sample; every metric follows from these. A file of
any length costs the memory of one chunk and of two d x d matrices.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse.baselines import baseline
from fullrank.collapse.blemishes import with_outlier_rows
from fullrank.collapse.code_verdict import judge_codes
from fullrank.collapse.intervals import half_widths, interval
from fullrank.collapse.metrics import METRICS, OF_MOMENTS, Metric, Spectra
from fullrank.collapse.metrics.codes import CodeUsage
from fullrank.collapse.metrics.neighbours import Neighbourhood
from fullrank.collapse.moments import check_rows, plain_floats
from fullrank.collapse.one_pass import PartOfRows, RowSource, take_in
from fullrank.collapse.panel import Panel
from fullrank.collapse.peers import Peers
from fullrank.collapse.sampling import Reservoir
from fullrank.collapse.statistics import EmbeddingStatistics
from fullrank.collapse.thresholds import Thresholds
from fullrank.collapse.treatments import Advice, advice_on
from fullrank.collapse.verdict import Verdict, judge
from fullrank.errors import UsageError

SAMPLE, CODE_SAMPLE = 2048, 256


@dataclass(frozen=True)
class AuditMetric:
    """One metric of an audit.

    Attributes:
        value: None where it is not defined.
        null: what isotropic Gaussian rows of the same n and d read.
        power_law: what Gaussian rows with covariance eigenvalues 1/k read.
        low: lower end of the interval that the value of as many other rows from the same source lies in with
            95 %, within the range of the metric; None where none was computed.
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
    """Result of an audit.

    Attributes:
        tap: what the rows are called.
        n: rows.
        d: their width.
        verdict: with its evidence.
        panel: the measures that were judged, and the spectra.
        metrics: name to value, nulls and interval; `METRICS[name]` says how to read it.
        sample: the rows that were compared with each other, [m, d].
        places: which of the n rows these are, int64 [m].
        origin: where the rows are from.
        notes: one line each.
        seconds: how long it took.
        outlier_rows: which of the n rows lie far from all others, and were left out; with several in a few
            directions only those of the sample.
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
    outlier_rows: tuple[int, ...] = ()

    @property
    def advice(self) -> tuple[Advice, ...]:
        """What to try, the most promising first, and what is known of it."""
        return advice_on([self.verdict.kind])

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: verdict, evidence, metrics, advice, and where the rows are from."""
        verdict = self.verdict.as_dict()
        return {
            "verdict": verdict["kind"],
            "severity": verdict["severity"],
            "probability": verdict["probability"],
            "near_border": self.verdict.near_border,
            "why": verdict["why"],
            "tap": self.tap,
            "n": self.n,
            "d": self.d,
            "evidence": verdict["evidence"],
            "blemishes": verdict["blemishes"],
            "outlier_rows": list(self.outlier_rows),
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
    narrowest: int | None = None,
    origin: str = "",
    progress: Callable[[int], None] | None = None,
    row_name: Callable[[int], str] | None = None,
) -> Audit:
    """Measure and judge an embedding.

    Args:
        rows: a tensor or array [n, d], or a source of rows such as `open_embeddings` gives. Of a source that
            processes share, its `part` says which rows this one reads; all get the same audit.
        tap: what to call them.
        labels: a class per row, for the metrics of classes.
        codes: whether the rows are scores (logits) over codes or prototypes.
        thresholds: what the verdict depends on.
        metrics: names of `METRICS`; None takes all that rows, and labels where given, allow, but for slow
            ones that fit mixtures or cluster many times.
        sample: rows that are compared with each other, at most.
        narrowest: width of the narrowest layer before the rows; read off their spectrum where None.
        origin: where the rows are from, for reports.
        progress: called with the number of rows seen after every chunk.
        row_name: what to call an outlier, by its place among the rows; its number where None.

    Raises:
        UsageError: no matrix, no rows, rows that are not finite or not as many as said, or labels of another
            length.
        UnknownNameError: no such metric.

    Example:
        >>> z = torch.randn(2000, 32, generator=torch.Generator().manual_seed(0))
        >>> audit(z).verdict.kind
        'healthy'
        >>> print(audit(z[:, :2] @ torch.randn(2, 32, generator=torch.Generator().manual_seed(1))))
        embedding: dimensional collapse: 2.0 of 32 directions by effective rank
    """
    start = time.perf_counter()
    if sample < 1:
        raise UsageError(f"a sample of {sample} rows is none; the default is {SAMPLE}")
    source = _source(rows)
    names = [name for name in METRICS if not METRICS[name].slow] if metrics is None else metrics
    chosen = [METRICS[name] for name in names]
    classes = None if labels is None else _classes(labels, source.n)
    part: PartOfRows | None = getattr(source, "part", None)
    peers, first = (part.peers, part.first) if part else (Peers(alone=True), 0)
    seen: EmbeddingStatistics | CodeUsage
    if codes:
        seen, reservoir = CodeUsage(source.d), Reservoir(source.d, min(sample, CODE_SAMPLE))
    else:
        seen = EmbeddingStatistics(source.d, capacity=sample, first=first, expected=source.n, peers=peers)
        reservoir = seen.sample
    take_in(source, part, seen, reservoir, progress)
    panel, outliers = None, list[int]()
    if isinstance(seen, EmbeddingStatistics):
        seen.finish()
        points, places = reservoir.rows, reservoir.places
        halves = half_widths([m for m in chosen if m.needs in OF_MOMENTS], seen.moments, points)
        spectra = Spectra(seen.moments)
        panel = Panel.from_statistics(tap, seen, narrowest=narrowest, spectra=spectra)
        verdict, outliers = judge(panel, (), thresholds), seen.outlier_rows
        odd = with_outlier_rows(verdict.blemishes, outliers, row_name)
        verdict = replace(verdict, blemishes=odd)
        found = _measure(chosen, spectra, points, None if classes is None else classes[places], halves)
    else:
        seen.all_reduce(peers)
        reservoir.gather(peers)
        points, places = reservoir.rows, reservoir.places
        verdict = judge_codes(seen.result(), tap, thresholds)
        found = {
            metric.name: AuditMetric(metric(seen), None, None, None, None, seen.n)
            for metric in chosen
            if metric.needs == "scores"
        }
    seconds = time.perf_counter() - start
    of = tap, source.n, source.d, verdict, panel, found, points, places, origin
    return Audit(*of, seconds=seconds, outlier_rows=tuple(outliers))


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
        if isinstance(rows, np.ma.MaskedArray) and (masked := int(np.ma.getmaskarray(rows).sum())):
            raise UsageError(f"{masked:,} entries of the rows are masked: fill them, or leave their rows out")
        rows = torch.from_numpy(np.ascontiguousarray(rows))
    if isinstance(rows, Tensor):
        check_rows(rows)
        rows = plain_floats(rows)
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
    metrics: Sequence[Metric],
    spectra: Spectra,
    points: Tensor,
    classes: Tensor | None,
    halves: dict[str, float],
) -> dict[str, AuditMetric]:
    n, d = spectra.moments.count, spectra.moments.dim
    inputs: dict[str, tuple[Any, ...]] = dict.fromkeys(OF_MOMENTS, (spectra,))
    inputs |= {"points": (points,), "neighbours": (Neighbourhood(points),)}
    if classes is not None:
        inputs["labels"] = points, classes
    found: dict[str, AuditMetric] = {}
    for metric in metrics:
        if metric.needs not in inputs:
            continue
        value = metric(*inputs[metric.needs])
        found[metric.name] = AuditMetric(
            value,
            baseline(metric.name, n, d, len(points)),
            baseline(metric.name, n, d, len(points), kind="power-law"),
            *interval(metric, value, halves.get(metric.name), n, d),
            n if metric.needs in OF_MOMENTS else len(points),
        )
    return found
