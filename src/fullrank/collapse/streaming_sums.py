"""States of streaming metrics that sums of rows are enough for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from fullrank.collapse.metrics.views import ViewSums
from fullrank.collapse.moments import Moments, around_a_shift
from fullrank.collapse.row_sums import RowSums
from fullrank.collapse.streaming_metric import CollapseMetric


class _OfRowSums(CollapseMetric):
    """State that holds `RowSums`: a count, and shift, offset and scatter of each.

    Args:
        dim: d, the width of a row.
    """

    count: Tensor
    prefixes: ClassVar[tuple[str, ...]]  # of the sums

    def __init__(self, dim: int, **options: Any) -> None:
        super().__init__(**options)
        self.dim = dim
        self._sum(**{f"{prefix}scatter": (dim, dim) for prefix in self.prefixes})
        # Before these are reduced all processes have agreed on them, so the largest is that of each.
        names = [prefix + name for prefix in self.prefixes for name in ("shift", "offset")]
        self._agreed(count=(), **dict.fromkeys(names, (dim,)))

    def _agreed(self, **shapes: tuple[int, ...]) -> None:
        for name, shape in shapes.items():
            zeros = torch.zeros(shape, dtype=torch.float64)
            self.add_state(name, zeros, dist_reduce_fx="max", persistent=True)

    def _sums(self, state: Mapping[str, Any] | None = None) -> list[RowSums]:
        """The sums that the states hold, or those of other states."""
        part: Callable[[str], Tensor] = partial(getattr, self) if state is None else state.__getitem__
        names = ("shift", "offset", "scatter")
        return [
            RowSums.around(int(part("count")), *(part(prefix + name) for name in names))
            for prefix in self.prefixes
        ]

    def _store(self, found: Sequence[RowSums]) -> None:
        self.count = torch.full_like(self.count, found[0].count)
        for prefix, sums in zip(self.prefixes, found, strict=True):
            for name in ("shift", "offset", "scatter"):
                setattr(self, prefix + name, getattr(sums, name))

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        """Add the rows of another state, whose shifts may be others."""
        found = self._sums(incoming_state)
        for sums, own in zip(found, self._sums(), strict=True):
            sums.merge(own)
        self._store(found)

    def _sync_dist(
        self, dist_sync_fn: Callable[..., Any] = gather_all_tensors, process_group: Any | None = None
    ) -> None:
        found = self._sums()
        means = [self.count[None]]
        for sums in found:
            means += [sums.shift, sums.offset]
        parts = torch.stack(dist_sync_fn(torch.cat(means), group=process_group or self.process_group))
        columns = torch.split(parts, [1] + 2 * len(found) * [self.dim], dim=1)
        for place, sums in enumerate(found):
            sums.merge_means(columns[0][:, 0], columns[1 + 2 * place], columns[2 + 2 * place])
        self._store(found)
        super()._sync_dist(dist_sync_fn, process_group)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Load states, also those that were summed around zero, before there was a shift."""
        for own in self.prefixes:
            total, outer = f"{prefix}{own}total", f"{prefix}{own}outer"
            if total in state_dict and outer in state_dict:
                parts = around_a_shift(state_dict[f"{prefix}count"], state_dict[total], state_dict[outer])
                for name, part in zip(("shift", "offset", "scatter"), parts[1:], strict=True):
                    state_dict[f"{prefix}{own}{name}"] = part
                del state_dict[total], state_dict[outer]
        state_dict.pop(f"{prefix}energy", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class OfMoments(_OfRowSums):
    """State of rows [n, d]: mean and scatter of raw and unit rows.

    Args:
        dim: d, the width of a row.
    """

    prefixes = ("", "unit_")

    def _moments(self) -> Moments:
        moments = Moments(0, self.device)
        for own, sums in zip((moments, moments.unit), self._sums(), strict=True):
            own.replace(sums.count, sums.shift, sums.offset, sums.scatter)
        return moments

    def update(self, z: Tensor) -> None:
        """Add rows [n, d]."""
        moments = self._moments()
        moments.update(z)
        self._store([moments, moments.unit])

    def compute(self) -> Tensor | None:
        """The value, a float64 scalar."""
        return self._value(self._moments())


class OfViews(_OfRowSums):
    """State of views [n, q, d] of n images: the sums of `ViewSums`.

    Args:
        dim: d, the width of a row.
    """

    prefixes = ("",)
    within: Tensor

    def __init__(self, dim: int, **options: Any) -> None:
        super().__init__(dim, **options)
        self._sum(within=(dim, dim))

    def _views(self) -> ViewSums:
        views = ViewSums(0, self.device)
        (views.means,) = self._sums()
        views.within = self.within
        return views

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        super()._reduce_states(incoming_state)
        self.within = self.within + incoming_state["within"]

    def update(self, views: Tensor) -> None:
        """Add views [n, q, d]."""
        sums = self._views()
        sums.update(views)
        self._store([sums.means])

    def compute(self) -> Tensor | None:
        """The value, a float64 scalar."""
        return self._value(self._views())
