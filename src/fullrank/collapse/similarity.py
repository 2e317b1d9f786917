"""Two embeddings of the same images, or several views of them: neighbours, CKA."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from fullrank.collapse.metrics.agreement import nearest_units, neighbours_taken
from fullrank.collapse.moments import finite_rows, unit_rows
from fullrank.errors import UsageError


def neighbour_sets(rows: Tensor) -> Tensor:
    """The nearest other rows of every row, by cosine similarity of centred rows.

    Args:
        rows: [n, d].

    Returns:
        Booleans [n, n]: which rows are neighbours of which, a twentieth of them (`neighbours_taken`).

    Raises:
        UsageError: fewer than three rows, or numbers that are not finite.

    Example:
        >>> rows = torch.tensor([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [1.0, 0.1]])
        >>> neighbour_sets(rows).long().argmax(1).tolist()
        [1, 0, 3, 2]
    """
    if len(rows) < 3:
        raise UsageError(f"neighbours of {len(rows)} rows say nothing: give three or more")
    exact = finite_rows(rows)
    return nearest_units(unit_rows(exact - exact.mean(0)), neighbours_taken(len(rows)))


def shared_neighbours(one: Tensor, other: Tensor) -> Tensor:
    """Share of each row's neighbours that two embeddings have in common.

    Args:
        one, other: of `neighbour_sets`, [n, n].

    Returns:
        [n], in [0, 1]; k / (n - 1) on average where the two have nothing to do with each other.

    Example:
        >>> near = neighbour_sets(torch.randn(50, 3))
        >>> shared_neighbours(near, near).mean().item()
        1.0
    """
    return (one & other).sum(1).double() / one.sum(1).clamp_min(1)


def view_coherence(views: Tensor) -> Tensor:
    """Share of each image's neighbours that two views of it share, above chance.

    Its mean over images is the metric `neighbour_coherence`.

    Args:
        views: [n, q, d], q >= 2 views of each of n images.

    Returns:
        [n], the mean over pairs of views: 1 where all neighbours are kept, 0 on average by chance.

    Example:
        >>> images = torch.randn(100, 1, 8, generator=torch.Generator().manual_seed(0))
        >>> view_coherence(images.repeat(1, 2, 1)).mean().item()
        1.0
    """
    rows = finite_rows(views.flatten(0, 1))
    units = unit_rows(rows - rows.mean(0)).reshape(views.shape)
    k = neighbours_taken(len(views))
    chance = k / (len(views) - 1)
    near = [nearest_units(units[:, view], k) for view in range(units.shape[1])]
    shared = torch.stack([shared_neighbours(a, b) for a, b in combinations(near, 2)]).mean(0)
    return (shared - chance) / (1 - chance)


def linear_cka(one: Tensor, other: Tensor) -> float | None:
    """Linear CKA of two embeddings: how alike their similarities between images are.

    Formula: `|X'Y|^2 / (|X'X| |Y'Y|)` of centred X [n, d] and Y [n, e], Frobenius norms. Paper: Kornblith et
    al. 2019 (arXiv 1905.00414), section 3.

    Returns:
        In [0, 1], 1 for embeddings that a rotation and a scale make equal; None where all rows of one are the
        same.

    Raises:
        UsageError: another number of rows, or numbers that are not finite.

    Example:
        >>> rows = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
        >>> round(linear_cka(rows, 3 * rows.flip(1)), 6)
        1.0
    """
    if len(one) != len(other):
        raise UsageError(f"two embeddings have as many rows; these have {len(one)} and {len(other)}")
    x, y = finite_rows(one), finite_rows(other)
    x, y = x - x.mean(0), y - y.mean(0)
    norms = (x.T @ x).norm() * (y.T @ y).norm()
    return float((x.T @ y).square().sum() / norms) if float(norms) > 0 else None
