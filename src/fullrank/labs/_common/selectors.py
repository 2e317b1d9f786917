"""Selectors: values and curves from results, and figures shared by several labs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

import numpy as np

from fullrank.collapse import cumulative_curve
from fullrank.collapse.thresholds import Thresholds
from fullrank.figures import Dots, Lines, Series
from fullrank.labs._common.results import Curve, Read, References, Result, Results

FLOOR = 1e-5  # of the largest singular value: below is rounding
KNN_NOTE = "On backbone features; epoch 0 is the untrained network."

loss: Curve = attrgetter("loss")
"""Mean training loss, by epoch."""
knn: Curve = attrgetter("knn")
"""k-NN accuracy, by epoch; 0 is the untrained network."""


def linear(result: Result) -> dict[int, float]:
    """Accuracy of the linear classifier that was trained beside the method, by epoch."""
    rows = [(row.epoch, row.accuracy("probe")) for row in result.run.epochs if row.epoch]
    return {epoch: top1 for epoch, top1 in rows if top1 is not None}


def along(measure: str, tap: str = "projector") -> Curve:
    """A metric of the panel, by epoch."""
    return lambda result: {point.epoch: point.value for point in result.run.measures(tap, measure)}


def _end(curve: Curve) -> Read:
    def end(result: Result) -> float | None:
        found = curve(result)
        return found[max(found)] if found else None

    return end


loss_end, knn_end, linear_end = _end(loss), _end(knn), _end(linear)


def knn_gain(result: Result) -> float | None:
    """k-NN accuracy at the end less that of the untrained network."""
    return result.knn[max(result.knn)] - result.knn[0] if 0 in result.knn else None


def last(measure: str, tap: str = "projector") -> Read:
    """A metric of the panel at the end."""
    return _end(along(measure, tap))


ranks: Curve = along("erank_centred")
"""Centred effective rank of the projector's output, by epoch."""
auc_end = last("auc", "backbone")
"""AUC of the encoder's features at the end (Li et al., 2209.15007): higher is more collapsed."""


def rank_share(tap: str = "projector") -> Read:
    """Centred effective rank at the end over d."""

    return _end(lambda result: rank_shares(result, tap))


def untrained(results: Sequence[Result]) -> dict[str, float]:
    """Reference line: k-NN accuracy untrained, mean over results; {} if none has it."""
    found = [result.knn[0] for result in results if 0 in result.knn]
    return {"untrained": float(np.mean(found))} if found else {}


def null_end(results: Sequence[Result], measure: str, tap: str) -> float | None:
    """A measure on isotropic noise of the last panel's size, from the first with it."""
    for result in results:
        points = result.run.measures(tap, measure)
        if points and points[-1].null is not None:
            return points[-1].null
    return None


def relative(results: Results, arm: str, tap: str = "backbone", name: str = "") -> Series:
    """Final centred singular values over the largest, by share of directions before."""
    return _curves(results, arm, tap, name, _over_the_largest)


def cumulative(results: Results, arm: str, tap: str = "backbone", name: str = "") -> Series:
    """Cumulative curve of singular values (2209.15007, eq. 2); its mean is the AUC."""
    return _curves(results, arm, tap, name, _from_nothing)


def _curves(
    results: Results, arm: str, tap: str, name: str, curve: Callable[[np.ndarray], np.ndarray | None]
) -> Series:
    found = [result.run.spectra(tap, "centred") for result in results[arm]]
    known = [curve(np.asarray(spectra[max(spectra)])) for spectra in found if spectra]
    ys = [[float(y) if np.isfinite(y) else None for y in values] for values in known if values is not None]
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


def knn_lines(results: Results, title: str, note: str = KNN_NOTE, references: References = None) -> Lines:
    """Curves of k-NN accuracy over epochs."""
    return results.lines(title, note, "k-NN top-1", knn, references, percent=True)


def knn_dots(results: Results, title: str, note: str, references: References = None) -> Dots:
    """k-NN accuracy at the end."""
    return results.dots(title, note, "k-NN top-1", knn_end, references, percent=True)


def relative_lines(results: Results, title: str, note: str, tap: str = "backbone") -> Lines:
    """Spectra of all arms, each over its largest value."""
    series = [relative(results, arm, tap) for arm in results.arms]
    return Lines(title, note, "share of the directions", "singular value, relative", series, log_y=True)


def cumulative_lines(
    results: Results, title: str, note: str, tap: str = "backbone", more: Sequence[Series] = ()
) -> Lines:
    """Cumulative curves of all arms, and of further series."""
    series = [*(cumulative(results, arm, tap) for arm in results.arms), *more]
    return Lines(title, note, "share of the directions", "share of the spectrum they hold", series)


def rank_shares(result: Result, tap: str = "projector") -> dict[int, float | None]:
    """Centred effective rank over the width, by epoch."""
    ranks, d = along("erank_centred", tap)(result), max(1, result.width(tap))
    return {epoch: None if rank is None else rank / d for epoch, rank in ranks.items()}


def level_lines(
    results: Results, title: str, note: str, tap: str = "projector", threshold: bool = False
) -> Lines:
    """Normalized std (level) over epochs, and the threshold of complete collapse."""
    level = Thresholds().level
    references = {f"below {level:g}: complete": level} if threshold else {}
    return results.lines(title, note, "level (1 = isotropic)", along("level", tap), references)


def spectrum_lines(results: Results, title: str, note: str, form: str, tap: str = "projector") -> Lines:
    """Final singular values of every arm by index, where positive on every seed.

    `form` is `centred`, or `unit` for unit rows that are not centred.
    """
    series = []
    for arm in results.arms:
        found = [result.run.spectra(tap, form) for result in results[arm]]
        ends = [np.asarray(spectra[max(spectra)], float) for spectra in found if spectra]
        d = min((int((values > 0).sum()) for values in ends), default=0)
        series.append(by_index(arm, [values[:d].tolist() for values in ends]))
    return Lines(title, note, "index (1 = largest)", "singular value", series, log_y=True)


def by_index(name: str, ys: Sequence[Sequence[float | None]]) -> Series:
    """A series over the index, from 1 on; `ys` are of one length, a seed each."""
    return Series(name, list(range(1, len(ys[0]) + 1 if ys else 1)), ys)
