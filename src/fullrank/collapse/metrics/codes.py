"""Use of codes, clusters or prototypes: all, a few, or every one alike.

The metrics take scores (logits) [n, K] or a `CodeUsage`, and are None where nothing was seen.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor

from fullrank.collapse.metrics._definition import metric
from fullrank.collapse.moments import check_rows
from fullrank.collapse.peers import Peers
from fullrank.errors import UsageError

_UNIFORM = "assignments that are uniform for every row"

_of_codes = partial(
    metric,
    needs="scores",
    high="1",
    sees="CK",
    cost="n K",
    invariances=frozenset({"permutation", "replication"}),
)


@dataclass(frozen=True)
class Usage:
    """Use of K codes by n images, from the softmax of their scores.

    Attributes:
        n: images.
        codes: K.
        perplexity: exp of the entropy of the mean assignment, in [1, K]: how many codes are in use. No more
            than n images can use more than n codes sharply.
        marginal_entropy: the same entropy over ln K, in [0, 1]; 0 where all images share one code.
        conditional_entropy: mean entropy of an image's own assignment over ln K, in [0, 1]; 1 where every
            image is assigned to all codes alike, which says as little as one code does.
        used: codes that are the first choice of some image.
        dead_share: share of the min(n, K) codes that could be a first choice and are not.
        first_share: share of images whose first choice is the most frequent one.
    """

    n: int
    codes: int
    perplexity: float
    marginal_entropy: float
    conditional_entropy: float
    used: int
    dead_share: float
    first_share: float

    def as_dict(self) -> dict[str, float]:
        """JSON-able."""
        return asdict(self)


class CodeUsage:
    """Sums of assignments, a chunk at a time; those of processes add up.

    Costs O(n K) time and O(K) memory, whatever the number of rows.

    Args:
        codes: K.
        device: where the scores are.

    Example:
        >>> usage = CodeUsage(4)
        >>> usage.update(100.0 * torch.eye(4))
        >>> result = usage.result()
        >>> round(result.perplexity, 3), result.dead_share, round(result.conditional_entropy, 3)
        (4.0, 0.0, 0.0)
    """

    def __init__(self, codes: int, device: torch.device | str = "cpu") -> None:
        if codes < 2:
            raise UsageError(f"assignments need at least two codes, not {codes}")
        self.codes, self.n = codes, 0
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self.sums = torch.zeros(codes, dtype=dtype, device=device)
        self.firsts = torch.zeros(codes, dtype=torch.int64, device=device)
        self.entropy = torch.zeros((), dtype=dtype, device=device)

    @torch.no_grad()
    def update(self, scores: Tensor) -> None:
        """Add scores (logits) [b, K].

        Raises:
            UsageError: wrong shape, or a score that is not finite.
        """
        check_rows(scores, self.codes)
        if not bool(scores.isfinite().all()):
            raise UsageError("scores over codes are not all finite")
        below = scores - scores.amax(dim=1, keepdim=True)
        log_p = below.clamp(min=-1e4).float().log_softmax(dim=1)  # scores of any size, no infinity times zero
        p = log_p.exp()
        self.n += len(scores)
        self.sums += p.sum(dim=0, dtype=self.sums.dtype)
        self.entropy -= (p * log_p).sum(dtype=self.sums.dtype)
        self.firsts += torch.bincount(scores.argmax(dim=1), minlength=self.codes)

    def all_reduce(self, peers: Peers | None = None) -> None:
        """Add the sums of all processes, by one collective."""
        peers = peers or Peers()
        if peers.size == 1:
            return
        exact = self.sums.dtype if self.sums.device.type == "mps" else torch.float64  # counts are below 2^53
        parts = [self.sums.new_tensor([self.n]), self.entropy[None], self.sums, self.firsts]
        whole = peers.reduce(torch.cat([part.to(exact) for part in parts]))
        count, entropy, sums, firsts = whole.split([1, 1, self.codes, self.codes])
        self.n, self.entropy, self.sums = int(count), entropy[0].clone(), sums.clone()
        self.firsts = firsts.long()

    def result(self) -> Usage:
        """Use of the codes so far; raises UsageError where nothing was seen."""
        if not self.n:
            raise UsageError("no assignments were seen, so there is no use to speak of")
        mean = (self.sums / self.n).cpu()
        entropy = float(-torch.xlogy(mean, mean).sum())
        ln_k = math.log(self.codes)
        used = int((self.firsts > 0).sum())
        return Usage(
            n=self.n,
            codes=self.codes,
            perplexity=math.exp(entropy),
            marginal_entropy=min(entropy / ln_k, 1.0),
            conditional_entropy=min(float(self.entropy) / self.n / ln_k, 1.0),
            used=used,
            dead_share=1.0 - used / min(self.n, self.codes),
            first_share=int(self.firsts.max()) / self.n,
        )


def below_the_largest(scores: Tensor) -> Tensor:
    """Scores [n, K] less the largest of their row: the same softmax.

    Example:
        >>> below_the_largest(torch.tensor([[1e60, 2e60], [0.0, 1.0]], dtype=torch.float64)).tolist()
        [[-1e+30, 0.0], [-1.0, 0.0]]
    """
    check_rows(scores)
    if not len(scores):
        return scores
    scores = scores.double()
    return (scores - scores.amax(1, keepdim=True)).clamp_min(-1e30)


def _counted(scores: Tensor | CodeUsage) -> CodeUsage | None:
    """Use that was added up already, or that of scores; None where nothing was seen."""
    if not isinstance(scores, CodeUsage):
        check_rows(scores)
        usage = CodeUsage(scores.shape[1], scores.device)
        usage.update(below_the_largest(scores))
        scores = usage
    return scores if scores.n else None


@_of_codes("code_entropy", part="marginal_entropy", blind=_UNIFORM, reference="`H(mean p) / log K`")
@_of_codes(
    "code_perplexity", part="perplexity", low="1", high="K", blind=_UNIFORM, reference="`exp H(mean p)`"
)
@_of_codes(
    "dead_codes",
    part="dead_share",
    better="low",
    blind="how evenly living codes are used",
    reference="codes that are nobody's first choice",
    invariances=frozenset({"permutation"}),
)
@_of_codes(
    "assignment_entropy",
    part="conditional_entropy",
    better="low",
    sees="U",
    blind="K: one code for all reads 0",
    reference="`mean H(p_i) / log K`",
)
def code_usage(scores: Tensor | CodeUsage) -> Usage | None:
    """Use of the codes, from the softmax of their scores.

    Returns:
        Entropies over log K, codes in use, the share that is no first choice; None without rows.

    Example:
        >>> usage = code_usage(100 * torch.eye(4)[:2])
        >>> usage.marginal_entropy, round(usage.perplexity, 6), usage.dead_share
        (0.5, 2.0, 0.0)
    """
    usage = _counted(scores)
    return None if usage is None else usage.result()


@_of_codes(
    "largest_code_share",
    low="1 / K",
    better="low",
    blind="all codes but the largest",
    reference="`max mean p`",
)
def largest_code_share(scores: Tensor | CodeUsage) -> float | None:
    """The largest part of the mean assignment: `max_k mean_i p_ik`.

    Returns:
        In [1 / K, 1]: 1 where all rows share one code; None without rows.

    Example:
        >>> round(largest_code_share(100 * torch.eye(4)[:2]), 6)
        0.5
    """
    usage = _counted(scores)
    return None if usage is None else float(usage.sums.max()) / usage.n


DUPLICATE = 0.025  # cosine distance below which two prototypes are one, as arXiv 2510.20108 has it


@torch.no_grad()
def unique_prototypes(prototypes: Tensor, distance: float = DUPLICATE, chunk: int = 1024) -> float:
    """Share of prototypes [K, d] that no other one lies close to.

    A prototype is a duplicate where its cosine distance 1 - cos to another is below `distance` (arXiv
    2510.20108, which reports 1.5 % of unique ones for DINO and 99.9 % for CAPI). Costs O(K^2 d) time and
    O(K chunk) memory.

    Returns:
        In [0, 1]: 1 where all differ; two equal ones are both duplicates.

    Raises:
        UsageError: wrong shape.

    Example:
        >>> unique_prototypes(torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [-1.0, 0.0]]))
        0.5
    """
    check_rows(prototypes)
    unit = torch.nn.functional.normalize(prototypes.float(), dim=1)
    unique = 0
    for start in range(0, len(unit), chunk):
        near = unit[start : start + chunk] @ unit.T > 1.0 - distance
        near.diagonal(offset=start).fill_(False)  # with itself
        unique += len(near) - int(near.any(dim=1).sum())
    return unique / max(len(unit), 1)
