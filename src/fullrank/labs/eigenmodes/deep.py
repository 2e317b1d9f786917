"""Eigenmodes of deep networks: spectra along training, alignment of a predictor (Figures 3, 4, 7 and 8)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fullrank.figures import Dots, Lines, Series, Table
from fullrank.labs._common.claims import Claim, above, holds, spread
from fullrank.labs._common.findings import Chapter
from fullrank.labs._common.lab import Settings
from fullrank.labs._common.results import Result, Results

__all__ = ["arms", "chapters", "claims", "half_times", "rate_spread", "words"]

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
            yield (
                f"BYOL, linear predictor, {distance}",
                {**run, "diagnostics_every": own["diagnostics_every"]},
            )
    elif part == "no-ema":
        yield "IsoLoss, EMA", _run(own, "isoloss")
        run = _run(own, "isoloss", tau_base=0.0, tau_final=0.0)
        yield (
            "IsoLoss, no EMA",
            run | ({"recipe": own["recipe"].format("isoloss-noema")} if "recipe" in own else {}),
        )
    else:
        for name in ("DirectPred", "IsoLoss"):
            for decay in DECAYS:
                yield f"{name}, decay {decay:g}", {**_run(own, METHODS[name]), "weight_decay": decay}


def _run(own: Settings, method: str, **options: Any) -> dict[str, Any]:
    heads = own["byol"] if method == "byol" else own["closed_form"]
    run = {**own["run"], "options": {**own["options"], **heads, **options}}
    return run | ({"recipe": own["recipe"].format(method)} if "recipe" in own else {"method": method})


def half_times(epochs: np.ndarray, eigenvalues: np.ndarray) -> np.ndarray:
    """When each mode, by its place in the spectrum, has gone half of its way, in logarithms.

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
    """Standard deviation over modes of ln half time, in ln epochs; None where fewer than two modes move."""
    epochs, eigenvalues = _eigenvalues(result)
    if len(epochs) < 2:
        return None
    alive = (eigenvalues > FLOOR * eigenvalues.max(axis=1, keepdims=True)).all(axis=0)
    times = half_times(epochs, eigenvalues[:, alive]) if alive.any() else np.array([])
    times = times[np.isfinite(times)]
    return float(np.log(np.maximum(times, 1e-3)).std()) if len(times) > 1 else None


def _eigenvalues(result: Result) -> tuple[np.ndarray, np.ndarray]:
    """Epochs [k] and variances along principal directions [k, d] of the projector's output."""
    found = result.run.spectra("projector", "centred")
    return np.array(list(found)), np.array([values**2 for values in found.values()])


def claims(part: str, results: Results) -> list[Claim]:
    """What the paper says about a part."""
    if part == "deep":
        return [claim for distance in DISTANCES for claim in _compared(results, distance)]
    if part == "linear":
        found = []
        for arm in results.arms:
            ends = [_mean_alignment(result) for result in results[arm]]
            found.append(
                above(
                    f"{arm}: its eigenvectors come to be those of the correlation.",
                    [last for _, last in ends],
                    [first for first, _ in ends],
                    "mean alignment at the end",
                    "after the first epoch",
                )
            )
        return found
    if part == "no-ema":
        arm = "IsoLoss, no EMA"
        return [
            holds(
                "IsoLoss trains without a moving average.",
                [r.verdict == "healthy" and (r.knn_gain or 0.0) > 0 for r in results[arm]],
                f"{results.kinds(arm)}, k-NN {spread(results.values(arm, lambda r: r.knn_end))}, "
                f"above untrained by {spread(results.values(arm, lambda r: r.knn_gain))}",
            )
        ] if results[arm] else []  # fmt: skip
    return []


def _compared(results: Results, distance: str) -> list[Claim]:
    """IsoLoss against DirectPred, in one distance."""
    iso, base = f"IsoLoss, {distance}", f"DirectPred, {distance}"
    if not {iso, base} <= set(results.arms):
        return []
    return [
        above(
            f"deep, {distance}: IsoLoss's modes converge at more equal rates than DirectPred's.",
            results.values(base, rate_spread),
            results.values(iso, rate_spread),
            "spread of ln half times, DirectPred",
            "IsoLoss",
        ),
        above(
            f"deep, {distance}: IsoLoss learns faster early on.",
            results.values(iso, _early),
            results.values(base, _early),
            f"k-NN after {EARLY:.0%} of the epochs, IsoLoss",
            "DirectPred",
        ),
    ]


def _early(result: Result) -> float | None:
    if len(result.knn) < 2:
        return None
    wanted = EARLY * max(result.knn)
    return result.knn[min((epoch for epoch in result.knn if epoch > 0), key=lambda e: abs(e - wanted))]


def _alignments(result: Result) -> dict[int, np.ndarray]:
    return result.run.spectra("predictor-map", "alignment")


def _mean_alignment(result: Result) -> tuple[float, float]:
    """At the first diagnostics and at the last, each direction weighted by its eigenvalue."""
    weights = result.run.spectra("predictor-map", "eigenvalues")
    means = [float(np.average(found, weights=weights[e])) for e, found in _alignments(result).items()]
    return means[0], means[-1]


def chapters(part: str, results: Results) -> list[Chapter]:
    """A part's small multiples, then what the arms are worth."""
    if part == "linear":
        items: list[Any] = [_alignment(results, arm) for arm in results.arms]
    else:
        items = [_spectra(part, results, arm) for arm in results.arms]
    reads: tuple[Any, ...] = (
        rate_spread,
        lambda r: r.last("erank_centred"),
        lambda r: r.last("participation_ratio"),
        _early,
        lambda r: r.knn_end,
    )
    rows: list[list[Any]] = [
        [arm, results.kinds(arm), *(results.values(arm, read) for read in reads)] for arm in results.arms
    ]
    untrained = [result.knn[0] for result in results if 0 in result.knn]
    worth: list[Any] = [
        Lines(
            f"k-NN along training ({part})",
            "On backbone features; epoch 0 is the untrained network.",
            "epoch",
            "k-NN top-1",
            results.curves(lambda r: r.knn),
            percent=True,
        ),
        Dots(
            f"k-NN at the end ({part})",
            "On backbone features.",
            "k-NN top-1",
            results.by_arm(lambda r: r.knn_end),
            {"untrained": float(np.mean(untrained))} if untrained else {},
            percent=True,
        ),
        Table(
            f"Modes and what they are worth ({part})",
            "Spread: standard deviation over modes of ln half time. Rank and participation at the projector, "
            f"at the end; early: after {EARLY:.0%} of the epochs.",
            ("Arm", "Verdict", "Spread", "Effective rank", "Participation", "k-NN early", "k-NN"),
            rows,
        ),
    ]
    layout = "two" if part == "linear" else "three"
    return [
        Chapter(TITLES[part], items, LEDES[part], layout, ordered=True),
        Chapter(f"What the modes are worth ({part})", worth),
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
            [[_positive(row[mode]) for row in values[: len(epochs)]] for _, values in found],
        )
        for mode in modes
    ]
    return Lines(f"{arm} ({part})", "", "epoch", "eigenvalue", series, log_y=True, y_range=_range(results))


def _positive(value: float) -> float | None:
    return float(value) if value > 0 else None


def _range(results: Results) -> tuple[float, float]:
    """One axis for all panels of a part: from 1e-6 of the largest eigenvalue up."""
    top = max(float(_eigenvalues(result)[1].max()) for result in results)
    low = min(float(np.quantile(_eigenvalues(result)[1], 0.02)) for result in results)
    return 0.7 * max(low, 1e-6 * top), 1.5 * top


def _alignment(results: Results, arm: str) -> Lines:
    """One curve for each epoch with diagnostics."""
    found = [_alignments(result) for result in results[arm]]
    epochs = [epoch for epoch in found[0] if all(epoch in seed for seed in found)]
    series = []
    for epoch in epochs:
        d = min(len(seed[epoch]) for seed in found)
        series.append(
            Series(f"epoch {epoch}", list(range(1, d + 1)), [seed[epoch][:d].tolist() for seed in found])
        )
    return Lines(
        arm,
        "",
        "index (1 = largest)",
        "alignment",
        series,
        {"shared eigenvector": 1.0, "": 0.0},
        y_range=(-1, 1.1),
    )


def words(part: str, results: Results) -> str:
    """A sentence about a part."""
    if part == "linear":
        told = [
            f"{arm} {spread([_mean_alignment(r)[0] for r in results[arm]])} after the first epoch, "
            f"{spread([_mean_alignment(r)[1] for r in results[arm]])} at the end"
            for arm in results.arms
        ]
        return f"Mean alignment: {'; '.join(told)}."
    told = [
        f"{arm} – {results.kinds(arm)}, "
        f"rank {spread(results.values(arm, lambda r: r.last('erank_centred')))}, "
        f"k-NN {spread(results.values(arm, lambda r: r.knn_end))}"
        for arm in results.arms
    ]
    return f"{part.capitalize()}: {'; '.join(told)}."
