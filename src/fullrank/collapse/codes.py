"""The use of codes or prototypes, one number each, from scores (logits) [n, K]; `Usage` has all of them."""

from __future__ import annotations

import torch

from fullrank.collapse.moments import check_rows
from fullrank.collapse.usage import CodeUsage

__all__ = [
    "assignment_entropy",
    "below_the_largest",
    "code_entropy",
    "code_perplexity",
    "dead_codes",
    "largest_code_share",
]


def _usage(scores: torch.Tensor | CodeUsage) -> CodeUsage | None:
    """Use that was added up already, or that of scores; None where nothing was seen."""
    if isinstance(scores, CodeUsage):
        return scores if scores.n else None
    check_rows(scores)
    usage = CodeUsage(scores.shape[1], scores.device)
    usage.update(below_the_largest(scores))
    return usage if usage.n else None


def below_the_largest(scores: torch.Tensor) -> torch.Tensor:
    """Scores [n, K] less the largest of their row: the same softmax, and no overflow in single precision.

    Example:
        >>> below_the_largest(torch.tensor([[1e60, 2e60], [0.0, 1.0]], dtype=torch.float64)).tolist()
        [[-1e+30, 0.0], [-1.0, 0.0]]
    """
    check_rows(scores)
    if not len(scores):
        return scores
    scores = scores.double()
    return (scores - scores.amax(1, keepdim=True)).clamp_min(-1e30)


def code_entropy(scores: torch.Tensor | CodeUsage) -> float | None:
    """Entropy of the mean assignment over its largest value: `H(mean_i p_i) / log K`.

    Args:
        scores: [n, K] logits, or a `CodeUsage`.

    Returns:
        In [0, 1]: 0 where all rows share one code, 1 where codes are used alike; None without rows.

    Sees cluster collapse. Blind to assignments that are uniform for every row, which read 1: see
    `assignment_entropy`. Costs O(n K).

    Raises:
        UsageError: fewer than two codes, not a matrix, or scores that are not finite.

    Example:
        >>> code_entropy(100 * torch.eye(4)[:2])
        0.5
    """
    usage = _usage(scores)
    return None if usage is None else usage.result().marginal_entropy


def code_perplexity(scores: torch.Tensor | CodeUsage) -> float | None:
    """Codes in use: `exp H(mean_i p_i)`.

    Args:
        scores: [n, K] logits, or a `CodeUsage`.

    Returns:
        In [1, K]; None without rows. Its reference line is K, or n where that is less.

    Sees cluster collapse. Blind to assignments that are uniform for every row. Costs O(n K).

    Raises:
        UsageError: fewer than two codes, not a matrix, or scores that are not finite.

    Example:
        >>> round(code_perplexity(100 * torch.eye(4)[:2]), 6)
        2.0
    """
    usage = _usage(scores)
    return None if usage is None else usage.result().perplexity


def dead_codes(scores: torch.Tensor | CodeUsage) -> float | None:
    """Share of the min(n, K) codes that could be a row's first choice and are not.

    Args:
        scores: [n, K] logits, or a `CodeUsage`.

    Returns:
        In [0, 1): 0 where all are in use; None without rows.

    Sees cluster collapse. Blind to how evenly living codes are used. Costs O(n K).

    Raises:
        UsageError: fewer than two codes, not a matrix, or scores that are not finite.

    Example:
        >>> dead_codes(torch.eye(4)[:1].repeat(8, 1))
        0.75
    """
    usage = _usage(scores)
    return None if usage is None else usage.result().dead_share


def largest_code_share(scores: torch.Tensor | CodeUsage) -> float | None:
    """The largest part of the mean assignment: `max_k mean_i p_ik`.

    Args:
        scores: [n, K] logits, or a `CodeUsage`.

    Returns:
        In [1 / K, 1]: 1 where all rows share one code; None without rows.

    Sees cluster collapse. Blind to all codes but the largest. Costs O(n K).

    Raises:
        UsageError: fewer than two codes, not a matrix, or scores that are not finite.

    Example:
        >>> round(largest_code_share(100 * torch.eye(4)[:2]), 6)
        0.5
    """
    usage = _usage(scores)
    return None if usage is None else float(usage.sums.max()) / usage.n


def assignment_entropy(scores: torch.Tensor | CodeUsage) -> float | None:
    """Mean entropy of a row's own assignment over its largest value: `mean_i H(p_i) / log K`.

    Args:
        scores: [n, K] logits, or a `CodeUsage`.

    Returns:
        In [0, 1]: 0 for one-hot assignments, 1 where every row is assigned to all codes alike; None without
        rows.

    Sees uniform-assignment collapse. Blind to cluster collapse: one code for all reads 0. Costs O(n K).

    Raises:
        UsageError: fewer than two codes, not a matrix, or scores that are not finite.

    Example:
        >>> round(assignment_entropy(torch.zeros(3, 4)), 6)
        1.0
    """
    usage = _usage(scores)
    return None if usage is None else usage.result().conditional_entropy
