"""States of streaming metrics: sums, or a bounded sample of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from fullrank.collapse.metrics.codes import CodeUsage, below_the_largest
from fullrank.collapse.moments import finite_rows
from fullrank.collapse.sampling import row_keys, smallest
from fullrank.collapse.streaming_metric import CollapseMetric
from fullrank.collapse.streaming_sums import OfMoments, OfViews
from fullrank.errors import UsageError


class _OfScores(CollapseMetric):
    """State of scores (logits) [n, K]: the sums of `CodeUsage`.

    Args:
        codes: K.
    """

    count: Tensor
    sums: Tensor
    firsts: Tensor
    entropy: Tensor

    def __init__(self, codes: int, **options: Any) -> None:
        super().__init__(**options)
        self.codes = codes
        self._sum(count=(), sums=(codes,), firsts=(codes,), entropy=())

    def update(self, scores: Tensor) -> None:
        usage = CodeUsage(self.codes, self.device)
        usage.update(below_the_largest(scores))
        self.count += usage.n
        self.sums += usage.sums
        self.firsts += usage.firsts
        self.entropy += usage.entropy

    def compute(self) -> Tensor | None:
        """The value, a float64 scalar."""
        usage = CodeUsage(self.codes, self.device)
        usage.n, usage.sums, usage.entropy = int(self.count), self.sums, self.entropy
        usage.firsts = self.firsts.long()
        return self._value(usage)


class _OfSample(CollapseMetric):
    """State of a sample: the `capacity` rows of the smallest `row_keys`.

    So the sample is a uniform one of the different rows, and the same for the same rows in any order, any
    chunks and any number of processes.

    Args:
        shapes: what one row of each input looks like.
        capacity: the most rows to keep, as float64.
    """

    full_state_update = True  # `forward` would otherwise append samples instead of merging them
    keys: list[Tensor] | Tensor

    def __init__(self, shapes: Sequence[tuple[int, ...]], capacity: int, **options: Any) -> None:
        super().__init__(**options)
        if capacity < 1:
            raise UsageError(f"a sample keeps at least one row, not {capacity}")
        self.shapes, self.capacity = tuple(shapes), capacity
        self.names = [f"rows_{place}" for place in range(len(self.shapes))]
        for name in ("keys", *self.names):
            self.add_state(name, [], dist_reduce_fx="cat", persistent=True)

    def _offer(self, *inputs: Tensor) -> None:
        inputs = tuple(self._checked(z, shape) for z, shape in zip(inputs, self.shapes, strict=True))
        if len({len(z) for z in inputs}) > 1:
            raise UsageError(f"rows belong together, but there are {[len(z) for z in inputs]} of them")
        parts = [row_keys(inputs), *inputs]
        chosen = smallest(parts[0], self.capacity)
        self._keep([part[chosen] for part in parts])

    def _keep(self, parts: list[Tensor], anew: bool = False) -> None:
        kept: list[list[Tensor]] = [[] if anew else getattr(self, name) for name in self._states]
        joined = [torch.cat([*before, part]) for before, part in zip(kept, parts, strict=True)]
        chosen = smallest(joined[0], self.capacity)
        for name, part in zip(self._states, joined, strict=True):
            setattr(self, name, [part[chosen]])

    @property
    def _states(self) -> tuple[str, ...]:
        return ("keys", *self.names)

    def _checked(self, z: Tensor, shape: tuple[int, ...]) -> Tensor:
        if not isinstance(z, Tensor) or z.shape[1:] != shape or not z.ndim:
            got = list(z.shape) if isinstance(z, Tensor) else type(z).__name__
            raise UsageError(f"{type(self).__name__} takes {['n', *shape]} here, not {got}")
        if not shape:
            return z.detach().to(self.device)
        return finite_rows(z.flatten(1)).reshape(z.shape).to(self.device)

    def _sample(self) -> list[Tensor]:
        """The sample in the order of its keys."""
        if not len(self.keys):
            raise UsageError("no embedding rows were seen, so there is nothing to measure")
        parts = [dim_zero_cat(getattr(self, name)) for name in self._states]
        chosen = smallest(parts[0], self.capacity)
        return [part[chosen] for part in parts[1:]]

    def _sync_dist(
        self, dist_sync_fn: Callable[..., Any] = gather_all_tensors, process_group: Any | None = None
    ) -> None:
        if not len(self.keys):  # a process without rows takes part with none of the right shape
            types = [torch.float64 if shape else torch.int64 for shape in self.shapes]
            empty = [
                torch.empty(0, *shape, dtype=t, device=self.device)
                for shape, t in zip(self.shapes, types, strict=True)
            ]
            self._keep([torch.empty(0, dtype=torch.int64, device=self.device), *empty])
        # Keys come first, so that of all samples only the rows travel that make the sample of all.
        keys = dim_zero_cat(self.keys)
        union = torch.cat(dist_sync_fn(keys, group=process_group or self.process_group))
        if len(union):
            winners = keys <= union.sort().values[: self.capacity][-1]
            self._keep([dim_zero_cat(getattr(self, name))[winners] for name in self._states], anew=True)
        super()._sync_dist(dist_sync_fn, process_group)

    def compute(self) -> Tensor | None:
        """The value, a float64 scalar."""
        return self._value(*self._sample())


class _OfPoints(_OfSample):
    """State of rows [n, d]: a sample.

    Args:
        dim: d, the width of a row.
        capacity: the most rows to keep.
    """

    def __init__(self, dim: int, capacity: int = 2048, **options: Any) -> None:
        super().__init__([(dim,)], capacity, **options)

    def update(self, z: Tensor) -> None:
        self._offer(z)


class _OfPairs(_OfSample):
    """State of two views [n, d] of the same images: a sample.

    Args:
        dim: d, the width of a row.
        capacity: the most pairs to keep.
    """

    def __init__(self, dim: int, capacity: int = 1024, **options: Any) -> None:
        super().__init__([(dim,), (dim,)], capacity, **options)

    def update(self, za: Tensor, zb: Tensor) -> None:
        self._offer(za, zb)


class _OfLabels(_OfSample):
    """State of rows [n, d] and integer labels [n]: a sample.

    Args:
        dim: d, the width of a row.
        capacity: the most rows to keep.
    """

    def __init__(self, dim: int, capacity: int = 8192, **options: Any) -> None:
        super().__init__([(dim,), ()], capacity, **options)

    def update(self, z: Tensor, labels: Tensor) -> None:
        if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
            raise UsageError("labels are a tensor of one integer a row")
        self._offer(z, labels.long())


class _OfClassifier(_OfLabels):
    """State of rows [n, d] and labels [n], beside a linear classifier.

    Args:
        weight: [K, d].
        bias: [K], or None for zeros.
        capacity: the most rows to keep.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, capacity: int = 8192, **options: Any
    ) -> None:
        super().__init__(weight.shape[1], capacity, **options)
        self.register_buffer("weight", weight.detach().clone())
        bias = weight.new_zeros(len(weight)) if bias is None else bias.detach().clone()
        self.register_buffer("bias", bias)

    def compute(self) -> Tensor | None:
        """The value, a float64 scalar."""
        return self._value(*self._sample(), self.weight, self.bias)


class _OfTokens(_OfSample):
    """State of the tokens [n, t, d] of n images: a sample.

    Args:
        tokens: t, of one image.
        dim: d, the width of a token.
        capacity: the most images to keep.
    """

    def __init__(self, tokens: int, dim: int, capacity: int = 64, **options: Any) -> None:
        super().__init__([(tokens, dim)], capacity, **options)

    def update(self, tokens: Tensor) -> None:
        self._offer(tokens)


BASES: dict[str, type[CollapseMetric]] = {
    "spectrum": OfMoments,
    "unit spectrum": OfMoments,
    "moments": OfMoments,
    "points": _OfPoints,
    "neighbours": _OfPoints,
    "clusters": _OfPoints,
    "pairs": _OfPairs,
    "views": OfViews,
    "labels": _OfLabels,
    "classifier": _OfClassifier,
    "scores": _OfScores,
    "tokens": _OfTokens,
}
"""The kind of state of a metric, by what it needs."""
