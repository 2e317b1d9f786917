"""Dense tokens: whether the patch embeddings of images keep parts apart."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fullrank.collapse.kmeans import in_fixed_order, sample_kmeans, squared_distances
from fullrank.collapse.metrics._definition import metric
from fullrank.collapse.metrics.ranks import effective_rank
from fullrank.collapse.moments import Moments, centred_rows, finite_rows
from fullrank.errors import UsageError


class DenseScore(NamedTuple):
    """DSE and its parts, all in units of the mean norm of a centred token.

    Attributes:
        score: `between + dimensions - (within + within_image) / 2`.
        between: mean distance of a token to the nearest centre of another cluster of the sample.
        within: mean radius of the clusters of the sample.
        within_image: mean radius of the clusters of one image.
        dimensions: effective rank over min(tokens, d).
    """

    score: float
    between: float
    within: float
    within_image: float
    dimensions: float


@metric(
    "dense_score",
    needs="tokens",
    part="score",
    low="-n",
    high="n + 2",
    sees="DK",
    blind="C: undefined there; k-means decides what a part is",
    cost="N K d per step + N d^2 for N tokens",
    reference="DSE, arXiv 2510.17299",
    invariances=frozenset({"scale", "translation", "permutation"}),
)
def dense_score(
    tokens: Tensor, clusters: int = 24, clusters_per_image: int = 3, seed: int = 0
) -> DenseScore | None:
    """DSE: parts far apart, parts tight, many dimensions.

    Formula: with k-means pseudo-classes of all tokens and of each image, on centred tokens at mean norm 1,
    `between` the mean distance to the nearest other centre, a radius `||Z_j - mean||_* / (N_j - 1)` (nuclear
    norm), and the effective rank of all tokens over min(N, d). Paper: Dai et al. 2025 (arXiv 2510.17299);
    distances are not squared and weights are fixed, so that the unit cancels and one model has a value.

    Args:
        tokens: [images, t, d], the patch tokens of every image.
        clusters: pseudo-classes of the whole sample.
        clusters_per_image: pseudo-classes of one image.
        seed: of k-means.

    Returns:
        Score in [-N, N + 2] in principle, about -1 to 3 in practice; higher was found better. None where all
        tokens are the same.

    Raises:
        UsageError: not [images, t, d], no cluster, or numbers that are not finite.

    Example:
        >>> parts = torch.eye(4).repeat(5, 3, 1) + 0.01 * torch.rand(5, 12, 4)
        >>> apart = dense_score(parts, clusters=4, clusters_per_image=4)
        >>> apart.between > 1 > 0.05 > apart.within
        True
    """
    if not isinstance(tokens, Tensor) or tokens.ndim != 3:
        shape = list(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
        raise UsageError(f"tokens are a tensor [images, tokens of one image, d], not {shape}")
    if min(clusters, clusters_per_image) < 1:
        raise UsageError("pseudo-classes of tokens need at least one cluster")
    rows = finite_rows(tokens.flatten(0, 1))
    if not len(rows):
        return None
    rows = centred_rows(rows)
    scale = rows.norm(dim=1).mean()
    if not float(scale) > 0:
        return None
    rows = rows / scale
    images = rows.reshape(tokens.shape)
    rank = effective_rank(Moments.of(rows).singular_values()) or 0.0
    between, within = _spread(in_fixed_order(rows), clusters, seed)
    radii = [_spread(in_fixed_order(image), clusters_per_image, seed)[1] for image in images]
    within_image = sum(radii) / len(radii)
    dimensions = rank / min(rows.shape)
    score = between + dimensions - (within + within_image) / 2
    return DenseScore(score, between, within, within_image, dimensions)


def _spread(rows: Tensor, clusters: int, seed: int) -> tuple[float, float]:
    """Mean distance to the nearest other centre, and mean cluster radius."""
    centres, nearest = sample_kmeans(rows, clusters, seed)
    radii = []
    for own in range(len(centres)):
        members = rows[nearest == own]
        if len(members) > 1:
            radii.append(_nuclear_norm(centred_rows(members)) / (len(members) - 1))
    within = sum(radii) / len(radii) if radii else 0.0
    if len(centres) < 2:
        return 0.0, within
    distances = squared_distances(rows, centres).sqrt()
    distances.scatter_(1, nearest[:, None], torch.inf)
    return float(distances.amin(1).mean()), within


def _nuclear_norm(rows: Tensor) -> float:
    """Sum of the singular values, by way of the smaller Gram matrix."""
    gram = rows @ rows.T if rows.shape[0] < rows.shape[1] else rows.T @ rows
    squares = torch.linalg.eigvalsh(gram)
    noise = max(rows.shape) * torch.finfo(torch.float64).eps * squares[-1]
    return float(torch.where(squares > noise, squares, 0.0).sqrt().sum())
