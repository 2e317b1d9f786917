"""Both branches as the loss compares them: effective ranks and RDM's filter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse import effective_rank
from fullrank.labs._common.results import Result
from fullrank.labs._common.trained import held_out_taps, reopen
from fullrank.methods._spectral import filtered_pair
from fullrank.networks.correlation import gain
from fullrank.networks.soft_targets import sharpen, sinkhorn
from fullrank.training.setup import Setup

IMAGES = 1024
TRACE = 0.9999  # of the variance lies in the directions that the paper plots


def branches(run: Path) -> dict[str, Any]:
    """Online and target branch on held-out images, untrained and trained.

    Returns:
        `untrained` and `trained`, each with `online`, `target` (effective ranks, centred; None for a
        constant), `difference`, and, where trained, `eigenvalues`, `filter` and `tilt` of `spectral_filter`.
    """
    found: dict[str, Any] = {}
    for time in ("untrained", "trained"):
        online, target = _compared(reopen(run, trained=time == "trained"))
        ranks = rank(online), rank(target)
        found[time] = {"online": ranks[0], "target": ranks[1], "difference": _less(ranks[1], ranks[0])}
        if time == "trained":
            found[time] |= spectral_filter(online, target)
    return found


def rank(rows: Tensor) -> float | None:
    """The effective rank of centred rows [n, d]; None where they are all one."""
    z = rows.double()
    values = torch.linalg.svdvals(z - z.mean(0))
    if values[0] <= 1e-6 * z.norm():  # rounding around a constant has a rank of its own
        return None
    return effective_rank(values.numpy())


def spectral_filter(online: Tensor, target: Tensor) -> dict[str, Any]:
    """Online branch's gain per direction relative to the target (2303.02387, sec. 4).

    The directions are eigenvectors of the sum of both covariances, each divided by its trace, so that neither
    branch is preferred; those that hold 99.99 % of it are kept.

    Args:
        online: rows p [n, d], of the branch with the gradient.
        target: rows z [n, d] of the same images.

    Returns:
        `eigenvalues`, descending; `filter`, the root of u^T Cov(p) u / u^T Cov(z) u, over that of the first
        direction; `tilt`, the slope of ln filter against ln eigenvalue, each direction weighted by its
        eigenvalue: above 0 is a low-pass filter, as it weakens what is weak; `plain_tilt`, the same without
        weights, which the many weakest directions decide. Lists are empty and slopes None for a constant.

    Example:
        >>> z = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([4.0, 2, 1])
        >>> [round(x, 2) for x in spectral_filter(z * torch.tensor([4.0, 2, 1]), z)["filter"]]
        [1.0, 0.5, 0.25]
    """
    covariances = [torch.cov(rows.double().T, correction=0) for rows in (online, target)]
    traces = [covariance.trace() for covariance in covariances]
    scale = min(float(trace) / float(r.double().square().sum() / len(r)) for trace, r in zip(
        traces, (online, target), strict=True))  # fmt: skip
    if not scale > 1e-12:
        return {"eigenvalues": [], "filter": [], "tilt": None, "plain_tilt": None}
    together = sum(c / t for c, t in zip(covariances, traces, strict=True))
    values, vectors = torch.linalg.eigh(together)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    kept = int((values.cumsum(0) < TRACE * values.sum()).sum()) + 1
    values, u = values[:kept], vectors[:, :kept]
    online_share, target_share = ((u * (c @ u)).sum(0).clamp(min=1e-30) for c in covariances)
    passed = (online_share / target_share).sqrt()
    tilts: list[float | None] = [None, None]
    if kept > 1 and float(values[0] / values[-1]) > 1.001:
        x, y = values.log().numpy(), passed.log().numpy()
        weights = (values.sqrt().numpy(), None)  # polyfit squares them
        tilts = [float(np.polyfit(x, y, 1, w=w)[0]) for w in weights]
    ratio = [round(value, 6) for value in (passed / passed[0]).tolist()]
    return {"eigenvalues": values.tolist(), "filter": ratio, "tilt": tilts[0], "plain_tilt": tilts[1]}


@torch.no_grad()
def _compared(s: Setup) -> tuple[Tensor, Tensor]:
    method: Any = s.method
    taps = held_out_taps(s, IMAGES)
    config, z = method.config, taps["projector"]
    match s.config.method:
        case "dino":
            prototypes = method.target["prototypes"].cpu()
            teacher = sharpen(prototypes(taps["target"]), method.temperature, method.centre.cpu())
            return (taps["codes"] / config.student_temperature).softmax(1), teacher
        case "swav":
            balanced = sinkhorn(taps["codes"], config.sk_epsilon, config.sk_iters)
            return (taps["codes"] / config.temperature).softmax(1), balanced
        case "rdm_simsiam" | "rdm_byol":
            return filtered_pair(z, taps.get("target", z), config)
    return taps.get("predictor", z), taps.get("target", z)


def along(result: Result) -> dict[int, float | None]:
    """Target rank minus online rank, by epoch; 0 is the untrained network.

    From the panels of the run's taps. A filter of RDM is put on the recorded spectrum of the branch that it
    filters. Empty for DINO and SwAV: what they compare, distributions over prototypes, has no panel.
    """
    config = result.run.config
    options = config["options"]
    if config["method"] in ("dino", "swav"):
        return {}
    taps = result.run.taps
    online, target = ("predictor" if "predictor" in taps else "projector"), "projector"
    if "target" in taps:
        target = "target"
    spectra = {side: result.run.spectra(tap, "centred") for side, tap in (("o", online), ("t", target))}
    found: dict[int, float | None] = {}
    for epoch, values in spectra["o"].items():
        ours, theirs = values, spectra["t"][epoch]
        if "pred_location" in options:
            if options["pred_location"] == "online":
                ours = _filtered(ours, options, config["batch_size"])
            else:
                theirs = _filtered(theirs, options, config["batch_size"])
        found[epoch] = _less(effective_rank(theirs), effective_rank(ours))
    return found


def _filtered(deviations: np.ndarray, options: dict[str, Any], n: int) -> np.ndarray:
    """Spectrum of standard deviations after the filter, given a batch of n."""
    s = torch.from_numpy(deviations * n**0.5)
    kept = s > max(options["rank_threshold"], 1e-12) * s[0]
    return (s[kept] * gain(s[kept], options["pred_type"], options["sigma"])).abs().numpy()


def _less(target: float | None, online: float | None) -> float | None:
    return None if target is None or online is None else target - online
