"""Eigenmodes of deep networks: spectra, predictor alignment (Figures 3, 4, 7, 8)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fullrank.figures import Lines, Series
from fullrank.jobs.job import Settings
from fullrank.labs._common.findings import Chapter, Claim, Findings, above, holds, spread
from fullrank.labs._common.results import Result, Results
from fullrank.labs._common.selectors import (
    by_index,
    knn_dots,
    knn_end,
    knn_gain,
    knn_lines,
    last,
    untrained,
)

METHODS = {"DirectPred": "directpred", "IsoLoss": "isoloss", "BYOL": "byol"}
DISTANCES = ("euclidean", "cosine")
DECAYS = (4e-4, 1e-5, 1e-6)
SHOWN = 9  # modes of a figure
EARLY = 0.3  # of the run: when "learns faster early on" is judged
FLOOR = 1e-12  # of the largest eigenvalue: below is rounding
TITLES = {
    "deep": "Figure 3: eigenvalues along training",
    "linear": "Figure 4: alignment of a linear predictor",
    "no-ema": "Figure 7: with and without a moving average",
    "weight-decay": "Figure 8: over weight decays",
}
LEDES = {
    "deep": "Variances of the projector's output along its principal directions, held-out images.",
    "linear": "uᵢᵀ W uᵢ / |W uᵢ| for the eigenvectors uᵢ of the projections' correlation, largest first.",
    "no-ema": "IsoLoss, cosine.",
    "weight-decay": "Cosine; decay is that of the whole network.",
}


def arms(own: Settings, part: str) -> Iterable[tuple[str, dict[str, Any]]]:
    """Names of a part's arms, with the settings of their runs."""
    if part == "deep":
        for distance in DISTANCES:
            for name, method in METHODS.items():
                yield f"{name}, {distance}", _run(own, method, distance=distance)
    elif part == "linear":
        for distance in DISTANCES:
            run = _run(own, "byol", predictor="linear", distance=distance)
            run |= {"diagnostics_every": own["diagnostics_every"]}
            yield f"BYOL, linear predictor, {distance}", run
    elif part == "no-ema":
        yield "IsoLoss, EMA", _run(own, "isoloss")
        run = _run(own, "isoloss", tau_base=0.0, tau_final=0.0)
        if "recipe" in own:
            run |= {"recipe": own["recipe"].format("isoloss-noema")}
        yield "IsoLoss, no EMA", run
    else:
        for name in ("DirectPred", "IsoLoss"):
            for decay in DECAYS:
                yield f"{name}, decay {decay:g}", {**_run(own, METHODS[name]), "weight_decay": decay}


def _run(own: Settings, method: str, **options: Any) -> dict[str, Any]:
    heads = own["byol"] if method == "byol" else own["closed_form"]
    run = {**own["run"], "options": {**own["options"], **heads, **options}}
    return run | ({"recipe": own["recipe"].format(method)} if "recipe" in own else {"method": method})


def half_times(epochs: np.ndarray, eigenvalues: np.ndarray) -> np.ndarray:
    """Epoch at which each mode, by rank, has gone half of its way, in logarithms.

    Args:
        epochs: [k], the first that of the untrained network.
        eigenvalues: [k, d], positive.

    Returns:
        Epochs [d], interpolated; NaN for a mode that ends within a fifth (in ln) of where it began.

    Example:
        >>> half_times(np.array([0, 1, 2]), np.exp([[0.0, 0, 0], [1, 3, 0], [2, 4, 0.1]])).round(2).tolist()
        [1.0, 0.67, nan]
    """
    logs = np.log(eigenvalues)
    way = logs[-1] - logs[0]
    moved = np.abs(way) > 0.2
    shares = (logs - logs[0]) / np.where(moved, way, 1.0)
    times = np.full(len(way), np.nan)
    for mode in np.flatnonzero(moved):
        place = int(np.argmax(shares[:, mode] >= 0.5))
        low, high = shares[place - 1, mode], shares[place, mode]
        times[mode] = np.interp(0.5, [low, high], epochs[place - 1 : place + 1])
    return times


def rate_spread(result: Result) -> float | None:
    """Std over modes of ln half time, in ln epochs; None if fewer than two modes move."""
    epochs, eigenvalues = _eigenvalues(result)
    if len(epochs) < 2:
        return None
    alive = (eigenvalues > FLOOR * eigenvalues.max(axis=1, keepdims=True)).all(axis=0)
    times = half_times(epochs, eigenvalues[:, alive]) if alive.any() else np.array([])
    times = times[np.isfinite(times)]
    return float(np.log(np.maximum(times, 1e-3)).std()) if len(times) > 1 else None


def _eigenvalues(result: Result) -> tuple[np.ndarray, np.ndarray]:
    """Epochs [k] and variances [k, d] along principal directions of the projector."""
    found = result.run.spectra("projector", "centred")
    return np.array(list(found)), np.array([values**2 for values in found.values()])


def findings(part: str, results: Results) -> Findings:
    """Findings of a part."""
    return Findings(_chapters(part, results), _claims(part, results), _summary(part, results))


def _claims(part: str, results: Results) -> list[Claim]:
    if part == "deep":
        return [claim for distance in DISTANCES for claim in _compared(results, distance)]
    if part == "linear":
        return [_aligned(results, arm) for arm in results.arms]
    return [without_average(results, "IsoLoss")] if results["IsoLoss, no EMA"] else []


def without_average(results: Results, method: str) -> Claim:
    """A claim that a method trains without EMA: healthy, and better than untrained."""
    arm = f"{method}, no EMA"
    gain = spread(results.values(arm, knn_gain))
    return holds(
        f"{method} trains without a moving average.",
        [result.verdict == "healthy" and (knn_gain(result) or 0.0) > 0 for result in results[arm]],
        f"{results.kinds(arm)}, {results.spreads(arm, {'k-NN': knn_end})}, above untrained by {gain}",
    )


def _aligned(results: Results, arm: str) -> Claim:
    ends = [_mean_alignment(result) for result in results[arm]]
    return above(
        f"{arm}: its eigenvectors come to be those of the correlation.",
        [after for _, after in ends],
        [before for before, _ in ends],
        "mean alignment at the end",
        "after the first epoch",
    )


def _compared(results: Results, distance: str) -> list[Claim]:
    iso, base = f"IsoLoss, {distance}", f"DirectPred, {distance}"
    if not {iso, base} <= set(results.arms):
        return []
    even = f"deep, {distance}: IsoLoss's modes converge at more equal rates than DirectPred's."
    fast = f"deep, {distance}: IsoLoss learns faster early on."
    half, early = "spread of ln half times, DirectPred", f"k-NN after {EARLY:.0%} of the epochs, IsoLoss"
    return [
        results.above(even, rate_spread, base, iso, half, "IsoLoss"),
        results.above(fast, _early, iso, base, early, "DirectPred"),
    ]


def _early(result: Result) -> float | None:
    if len(result.knn) < 2:
        return None
    wanted = EARLY * max(result.knn)
    return result.knn[min((epoch for epoch in result.knn if epoch > 0), key=lambda e: abs(e - wanted))]


def _mean_alignment(result: Result) -> tuple[float, float]:
    """Eigenvalue-weighted mean alignment at the first and the last diagnostics."""
    alignments = result.run.spectra("predictor-map", "alignment")
    weights = result.run.spectra("predictor-map", "eigenvalues")
    means = [float(np.average(found, weights=weights[e])) for e, found in alignments.items()]
    return means[0], means[-1]


def _chapters(part: str, results: Results) -> list[Chapter]:
    linear = part == "linear"
    items = [_alignment(results, arm) if linear else _spectra(part, results, arm) for arm in results.arms]
    outcome: list[Any] = [
        knn_lines(results, f"k-NN along training ({part})"),
        knn_dots(results, f"k-NN at the end ({part})", "On backbone features.", untrained(results)),
        results.table(
            f"Modes and what they are worth ({part})",
            "Spread: standard deviation over modes of ln half time. Rank and participation at the projector, "
            f"at the end; early: after {EARLY:.0%} of the epochs.",
            {
                "Spread": rate_spread,
                "Effective rank": last("erank_centred"),
                "Participation": last("participation_ratio"),
                "k-NN early": _early,
                "k-NN": knn_end,
            },
        ),
    ]
    return [
        Chapter(TITLES[part], items, LEDES[part], "two" if linear else "three", ordered=True),
        Chapter(f"What the modes are worth ({part})", outcome),
    ]


def _spectra(part: str, results: Results, arm: str) -> Lines:
    found = [_eigenvalues(result) for result in results[arm]]
    epochs = min((epochs for epochs, _ in found), key=len)
    d = found[0][1].shape[1]
    modes = np.unique(np.linspace(0, d - 1, min(SHOWN, d)).round().astype(int))
    series = [
        Series(
            f"mode {mode + 1}",
            epochs.tolist(),
            [[float(x) if x > 0 else None for x in values[: len(epochs), mode]] for _, values in found],
        )
        for mode in modes
    ]
    return Lines(f"{arm} ({part})", "", "epoch", "eigenvalue", series, log_y=True, y_range=_range(results))


def _range(results: Results) -> tuple[float, float]:
    top = max(float(_eigenvalues(result)[1].max()) for result in results)
    low = min(float(np.quantile(_eigenvalues(result)[1], 0.02)) for result in results)
    return 0.7 * max(low, 1e-6 * top), 1.5 * top


def _alignment(results: Results, arm: str) -> Lines:
    """One curve for each epoch with diagnostics."""
    found = [result.run.spectra("predictor-map", "alignment") for result in results[arm]]
    epochs = [epoch for epoch in found[0] if all(epoch in seed for seed in found)]
    series = []
    for epoch in epochs:
        d = min(len(seed[epoch]) for seed in found)
        series.append(by_index(f"epoch {epoch}", [seed[epoch][:d].tolist() for seed in found]))
    ends = {"shared eigenvector": 1.0, "": 0.0}
    return Lines(arm, "", "index (1 = largest)", "alignment", series, ends, y_range=(-1, 1.1))


def _summary(part: str, results: Results) -> str:
    if part == "linear":
        ends = {arm: [_mean_alignment(result) for result in results[arm]] for arm in results.arms}
        arms = [
            f"{arm} {spread([before for before, _ in found])} after the first epoch, "
            f"{spread([after for _, after in found])} at the end"
            for arm, found in ends.items()
        ]
        return f"Mean alignment: {'; '.join(arms)}."
    columns = {"rank": last("erank_centred"), "k-NN": knn_end}
    return f"{part.capitalize()}: {results.ends(columns)}."
