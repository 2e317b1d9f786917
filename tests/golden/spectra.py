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
from golden.case import Case, comparer
from golden.settings import Refused

CLASSES = 100  # that the reference's LiDAR takes at most


@comparer("07a_spectrum_metrics")
def spectra(case: Case) -> None:
    x = case.tensor("in.x")
    case.settings.expect("n", len(x))
    case.settings.expect("d", x.shape[1])
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
    if case.names("out.lidar"):
        ratios(case, x)


def ratios(case: Case, x: Tensor) -> None:
    """LiDAR: consecutive rows are one class, and delta is absolute."""
    q = case.settings["samples_per_class"]
    delta, eps = case.settings.get("delta", 1e-4), case.settings.get("epsilon", 1e-8)
    classes = min(len(x) // q, case.settings.get("n_classes", CLASSES))
    views = x[: classes * q].reshape(classes, q, x.shape[1])
    value = lidar(views, delta, eps, relative=False)
    eigenvalues = lidar_eigenvalues(views, delta, relative=False)
    if value is None or eigenvalues is None:
        raise Refused("out.lidar is recorded, but ours is undefined: all class means agree")
    case.check("out.lidar", value)
    case.check("out.lidar_entropy", np.log(value))
    case.check("out.lidar_top_eigenvalue", eigenvalues[0])


def check_scaled(case: Case, z: Tensor, width: int) -> None:
    """Compare with what the reference made of rows: scaled to [0, 1] and padded to a width."""
    scaled = scale_and_pad(z, width)
    if scaled is None:
        raise Refused("all embeddings are one number, which cannot be scaled")
    case.check("out.scaled_shape", list(scaled.shape))
    rows, columns = case.arrays.get("out.scaled_first_rows", np.empty((0, 0))).shape
    case.check("out.scaled_first_rows", scaled[:rows, :columns])
    by_column = scaled * torch.arange(1, width + 1, dtype=scaled.dtype)
    sums = torch.stack([scaled.min(), scaled.max(), scaled.sum(), scaled.square().sum(), by_column.sum()])
    case.check("out.scaled_checksums", sums[: len(case.arrays.get("out.scaled_checksums", ()))])


@comparer("07b_log_spectrum")
def log_spectrum(case: Case) -> None:
    z = case.tensor("in.embeddings")
    width = case.arrays["out.scaled_shape"][1] if "out.scaled_shape" in case.arrays else case.settings["DIM"]
    for key, size in (("n", len(z)), ("d", z.shape[1]), ("DIM", int(width))):
        case.settings.expect(key, size)
    check_scaled(case, z, int(width))
    spectrum = legacy_log_spectrum(z, int(width))
    assert spectrum is not None  # `check_scaled` refuses what has none
    leading = case.arrays.get("out.log_singular_values_leading", np.empty(0))
    case.check("out.log_singular_values_leading", spectrum[: len(leading)])
    case.check("out.log_singular_values", spectrum)


@comparer("07c_gmm_entropy")
def mixture_entropies(case: Case) -> None:
    z = case.tensor("in.embeddings")
    mixture = Mixture(*(case.tensor(f"in.{name}").double() for name in ("weights", "means", "covariances")))
    components, width = mixture.means.shape
    for key, size in (("n", len(z)), ("d", z.shape[1]), ("DIM", width), ("components", components)):
        case.settings.expect(key, size)
    check_scaled(case, z, width)
    published = component_entropies(mixture.variances, dim=z.shape[1])
    case.check("out.entropies", published)
    case.check("out.entropies_mean", published.mean())
    case.check("out.entropies_std", published.std(correction=0))
    case.check("alt.entropies_consistent_dimension", component_entropies(mixture.variances))
    if "in.points" in case.arrays:
        density = log_density(case.tensor("in.points").double(), mixture)
        case.check("out.log_density", density)
        case.check("out.minus_mean_log_density", -density.mean())
    samples, repeats = case.settings.get("samples", 10_000), case.settings.get("repeats", 10)
    mean, std = entropy_by_sampling(mixture, samples=samples, repeats=repeats, seed=0)
    case.check("alt.monte_carlo_mean", mean, slack=4 * std)  # other draws of the same mixture
