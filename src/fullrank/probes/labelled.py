"""Labelled rows for a probe, and the split that is held out to choose by."""

from __future__ import annotations

import torch
from torch import Tensor

from fullrank.collapse.moments import all_finite
from fullrank.errors import UsageError


def labelled_rows(features: Tensor, labels: Tensor, what: str = "features") -> tuple[Tensor, Tensor]:
    """The rows that have a label.

    Args:
        features: [n, d], real and finite.
        labels: integers [n]; those below 0 mean unlabelled.
        what: the name of these rows in an error.

    Returns:
        Rows [l, d], detached, and their labels int64 [l] on the same device; l is at least 1.

    Raises:
        UsageError: not a matrix, not one integer a row, values that are not finite, or no row with a label.

    Example:
        >>> labelled_rows(torch.eye(3), torch.tensor([4, -1, 2]))
        (tensor([[1., 0., 0.],
                [0., 0., 1.]]), tensor([4, 2]))
    """
    if features.ndim != 2 or features.is_complex() or not features.shape[1]:
        raise UsageError(f"the {what} are a real matrix [n, d], not {list(features.shape)} {features.dtype}")
    if labels.shape != features.shape[:1] or labels.is_floating_point() or labels.is_complex():
        raise UsageError(
            f"the labels of the {what} are one integer a row, [{len(features)}], "
            f"not {list(labels.shape)} {str(labels.dtype).removeprefix('torch.')}"
        )
    features, labels = features.detach(), labels.detach().to(features.device, torch.long)
    known = labels >= 0
    if not bool(known.any()):
        raise UsageError(f"none of the {len(labels)} {what} has a label: this probe needs labels")
    if not bool(known.all()):
        features, labels = features[known], labels[known]
    if not all_finite(features):
        bad = int((~features.isfinite().all(1)).sum())
        raise UsageError(f"{bad} of {len(features)} {what} are not finite (NaN or infinite)")
    return features, labels


def two_classes(labels: Tensor, what: str = "features") -> int:
    """Number of classes: the largest label and those below it.

    Raises:
        UsageError: all labels are the same.

    Example:
        >>> two_classes(torch.tensor([0, 2, 2]))
        3
    """
    if bool((labels == labels[0]).all()):
        raise UsageError(f"all {what} are of class {int(labels[0])}: a probe needs two classes at least")
    return int(labels.max()) + 1


def split_held_out(labels: Tensor, share: float = 0.1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Split into rows to keep and to hold out, alike in every class.

    Args:
        labels: int64 [n], not negative.
        share: of the rows, in (0, 1); a class of c rows gives round(share c) and keeps one at least.
        seed: of the draw.

    Returns:
        Row numbers to keep and to hold out, ascending, on the CPU.

    Raises:
        UsageError: a share outside (0, 1), or too few rows to hold one out.

    Example:
        >>> keep, held = split_held_out(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]), share=0.25)
        >>> len(keep), len(held), int((held < 4).sum())
        (9, 3, 1)
    """
    if not 0 < share < 1:
        raise UsageError(f"the share to hold out lies in (0, 1), not {share}")
    labels = labels.cpu()
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = shuffled[labels[shuffled].argsort(stable=True)]  # by class, in random order within
    counts = torch.bincount(labels)
    place = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[order]]
    out = (counts * share).round().long().minimum((counts - 1).clamp_min(0))
    held = place < out[labels[order]]
    if not bool(held.any()):
        raise UsageError(
            f"{len(labels)} labelled rows are too few to hold a share of {share:g} of each class out"
        )
    return order[~held].sort().values, order[held].sort().values
