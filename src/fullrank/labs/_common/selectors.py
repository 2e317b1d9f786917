"""What labs read off their runs besides what a `Result` tells: linear accuracy, and spectra to compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fullrank.collapse import cumulative_curve
from fullrank.figures import Series
from fullrank.labs._common.results import Result, Results

__all__ = ["auc_end", "comparable", "cumulative", "linear", "linear_end", "null_end", "relative", "untrained"]

FLOOR = 1e-5  # of the largest singular value: below is rounding


def comparable(results: Results) -> Results:
    """The results of those seeds that have every arm."""
    seeds = results.whole_seeds
    return Results([result for result in results if result.seed in seeds])


def auc_end(result: Result) -> float | None:
    """AUC of the encoder's features at the end (Li et al., 2209.15007): higher is more collapsed."""
    return result.last("auc", "backbone")


def linear(result: Result) -> dict[int, float]:
    """Accuracy of the linear classifier that was trained beside the method, by epoch."""
    rows = [(row.epoch, row.accuracy("probe")) for row in result.run.epochs if row.epoch]
    return {epoch: top1 for epoch, top1 in rows if top1 is not None}


def linear_end(result: Result) -> float | None:
    """The same at the end."""
    found = linear(result)
    return found[max(found)] if found else None


def untrained(results: Sequence[Result]) -> dict[str, float]:
    """A reference line at the untrained network's k-NN accuracy, mean over all results; {} without any."""
    found = [result.knn[0] for result in results if 0 in result.knn]
    return {"untrained": float(np.mean(found))} if found else {}


def null_end(results: Sequence[Result], measure: str, tap: str) -> float | None:
    """What a measure reads on isotropic noise of the last panel's size, in the first result that has it."""
    for result in results:
        points = result.run.measures(tap, measure)
        if points and points[-1].null is not None:
            return points[-1].null
    return None


def relative(results: Results, arm: str, tap: str = "backbone", name: str = "") -> Series:
    """Centred singular values at the end over the largest, by the share of the directions before them."""
    return _curves(results, arm, tap, name, _over_the_largest)


def cumulative(results: Results, arm: str, tap: str = "backbone", name: str = "") -> Series:
    """The cumulative curve of the same (Li et al., 2209.15007, equation 2); its mean height is the AUC."""
    return _curves(results, arm, tap, name, _from_nothing)


def _curves(
    results: Results, arm: str, tap: str, name: str, curve: Callable[[np.ndarray], np.ndarray | None]
) -> Series:
    found = [result.run.spectra(tap, "centred") for result in results[arm]]
    drawn = [curve(np.asarray(spectra[max(spectra)])) for spectra in found if spectra]
    ys = [[float(y) if np.isfinite(y) else None for y in values] for values in drawn if values is not None]
    m = min(map(len, ys), default=0)
    d = m - 1 if curve is _from_nothing else m
    return Series(name or arm, [k / d for k in range(1 + d - m, d + 1)], [values[:m] for values in ys])


def _from_nothing(sigma: np.ndarray) -> np.ndarray | None:
    """The cumulative curve from its origin on."""
    curve = cumulative_curve(sigma, len(sigma))
    return None if curve is None else np.concatenate([[0.0], curve])


def _over_the_largest(sigma: np.ndarray) -> np.ndarray | None:
    """Without what a logarithm has no place for."""
    if not len(sigma) or not sigma[0] > 0:
        return None
    share: np.ndarray = sigma / sigma[0]
    return np.where(share > FLOOR, share, np.nan)
