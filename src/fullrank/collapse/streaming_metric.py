"""Base of all streaming metrics: options, states in double precision, a value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric as TorchMetric

from fullrank.collapse.metrics import Metric
from fullrank.errors import UnknownNameError


class CollapseMetric(TorchMetric):
    """One metric as streaming state.

    Args:
        options: options of the metric, such as `k` of `LocalDimension`, and those of `torchmetrics.Metric`,
            such as `sync_on_compute` and `process_group`.

    Attributes:
        definition: of the metric.

    Raises:
        UsageError: an unknown option; input that is not finite or of another shape.
    """

    definition: ClassVar[Metric]
    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    def __init__(self, **options: Any) -> None:
        known = (*self.definition.knobs, *_METRIC_OPTIONS)
        for name in options:
            if name not in known:
                raise UnknownNameError(f"option of {type(self).__name__}", name, known)
        super().__init__(**{name: value for name, value in options.items() if name in _METRIC_OPTIONS})
        self.options = {name: value for name, value in options.items() if name in self.definition.knobs}

    def _sum(self, **shapes: tuple[int, ...]) -> None:
        for name, shape in shapes.items():
            zeros = torch.zeros(shape, dtype=torch.float64)
            self.add_state(name, zeros, dist_reduce_fx="sum", persistent=True)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Any:
        # Devices are followed, precisions are not: sums in half precision would be no sums.
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), exclude_state)

    def _value(self, *inputs: Any) -> Tensor | None:
        value = self.definition(*inputs, **self.options)
        return None if value is None else torch.tensor(value, dtype=torch.float64, device=self.device)


_METRIC_OPTIONS = (
    "compute_on_cpu",
    "dist_sync_on_step",
    "process_group",
    "dist_sync_fn",
    "distributed_available_fn",
    "sync_on_compute",
    "compute_with_cache",
)
