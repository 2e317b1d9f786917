"""What of the collapse metrics answers to the recorded spectra, ranks, LiDAR and mixture entropies."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse import Moments, auc, cumulative_curve, level, rankme
from fullrank.collapse.metrics import METRICS, Spectra
from fullrank.collapse.metrics.decay import condition_at
from fullrank.collapse.metrics.mixture import (
    Mixture,
    component_entropies,
    entropy_by_sampling,
    legacy_log_spectrum,
    log_density,
    scale_and_pad,
)
from fullrank.collapse.metrics.views import lidar, lidar_eigenvalues
from golden.harness import Case, comparer


@comparer("07a_spectrum_metrics")
def spectra(case: Case) -> None:
    x = case.tensor("in.x")
    normalised = x / (1e-6 + x.norm(dim=1, keepdim=True))  # the reference's normalisation, eps and all
    for prefix, rows in (("out.", x), ("out.normalized_", normalised)):
        moments = Moments.of(rows)
        sigma = moments.singular_values()
        case.check(prefix + "svd", sigma)
        case.check(prefix + "svd_relative", sigma / sigma[0])
        case.check(prefix + "svd_cumulative", cumulative_curve(sigma))
        case.check(prefix + "svd_auc", auc(sigma))
        case.check(prefix + "std", moments.variances.sqrt())
    seen = Spectra.of(x)
    entropy_rank = METRICS["rankme_spt"](seen)
    assert entropy_rank == rankme(x, eps=1e-5)
    assert entropy_rank is not None
    case.check("out.rankme", entropy_rank)
    case.check("out.rankme_entropy", np.log(entropy_rank))
    case.check("out.rankme_top_singular_value", seen.uncentred[0])
    case.check("out.rankme_condition_number", condition_at(seen.uncentred, share=1.0))
    case.check("out.std_of_l2_normalized", (level(x) or 0.0) / x.shape[1] ** 0.5)
    case.check("alt.reptrix_rankme", METRICS["rankme_reptrix"](seen))
    # Consecutive rows are one class here, and delta is absolute.
    views = x.reshape(-1, case.settings["samples_per_class"], x.shape[1])
    if case.dtype == torch.float32 and len(views) * (views.shape[1] - 1) < x.shape[1]:
        return  # directions without a spread within: what is left of single precision there is its rounding
    value, eigenvalues = lidar(views, eps=1e-8, relative=False), lidar_eigenvalues(views, relative=False)
    assert value is not None and eigenvalues is not None
    case.check("out.lidar", value)
    case.check("out.lidar_entropy", np.log(value))
    case.check("out.lidar_top_eigenvalue", eigenvalues[0])


def checksums(scaled: Tensor) -> list[Tensor]:
    columns = torch.arange(1, scaled.shape[1] + 1, dtype=scaled.dtype)
    return [scaled.min(), scaled.max(), scaled.sum(), scaled.square().sum(), (scaled * columns).sum()]


@comparer("07b_log_spectrum")
def log_spectrum(case: Case) -> None:
    z, width = case.tensor("in.embeddings"), case.settings["DIM"]
    scaled = scale_and_pad(z, width)
    assert scaled is not None
    case.check("out.scaled_shape", list(scaled.shape))
    case.check("out.scaled_first_rows", scaled[:4, : z.shape[1]])
    case.check("out.scaled_checksums", torch.stack(checksums(scaled)))
    case.check("out.log_singular_values_leading", legacy_log_spectrum(z, width))


@comparer("07c_gmm_entropy")
def mixture_entropies(case: Case) -> None:
    z, points = case.tensor("in.embeddings"), case.tensor("in.points").double()
    names = ("weights", "means", "covariances")
    mixture = Mixture(*(case.tensor(f"in.{name}").double() for name in names))
    scaled = scale_and_pad(z, case.settings["DIM"])
    assert scaled is not None
    case.check(
        "out.scaled_checksums", torch.stack(checksums(scaled))[: len(case.arrays["out.scaled_checksums"])]
    )
    published = component_entropies(mixture.variances, dim=case.settings["d"])
    case.check("out.entropies", published)
    case.check("out.entropies_mean", published.mean())
    case.check("out.entropies_std", published.std(correction=0))
    case.check("alt.entropies_consistent_dimension", component_entropies(mixture.variances))
    density = log_density(points, mixture)
    case.check("out.log_density", density)
    case.check("out.minus_mean_log_density", -density.mean())
    mean, std = entropy_by_sampling(mixture, samples=10_000, repeats=10, seed=0)
    assert abs(mean - float(case.arrays["alt.monte_carlo_mean"])) < 4 * std  # other draws of the same mixture
