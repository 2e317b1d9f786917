"""Numbers of a report under flat names, and when a training is stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from torch import Tensor, nn

from fullrank.collapse import CollapseMonitor, Report
from fullrank.collapse.phase import with_phase
from fullrank.errors import UsageError
from fullrank.eval_mode import eval_mode
from fullrank.terminal import say

Taps = Callable[[Any, Any], Mapping[str, Tensor] | Tensor]
"""From a network and a batch to embeddings [b, d], one or several by name (and `codes`, scores [b, K])."""

OnCollapse = Literal["warn", "stop"]


def logged(report: Report) -> dict[str, float]:
    """Numbers of a report under flat names, for any logger.

    Example:
        >>> import torch
        >>> monitor = CollapseMonitor()
        >>> monitor.observe({"projector": torch.eye(40)})
        >>> logged(monitor.close())["collapse/projector/level"] > 0.9
        True
    """
    numbers = {
        f"collapse/{tap}/{name}": float(measure.value)
        for tap, panel in report.panels.items()
        for name, measure in panel.measures.items()
        if measure.value is not None
    }
    if report.usage is not None:
        numbers |= {f"collapse/codes/{name}": float(value) for name, value in report.usage.as_dict().items()}
    return numbers | {"collapse/collapsed": float(report.verdict.collapsed)}


class Watch:
    """A monitor that knows when to stop: after so many collapsed reports in a row.

    Args:
        monitor: where thresholds and sample sizes are set; None takes the defaults.
        on_collapse: `warn` prints, `stop` ends the training.
        patience: collapsed reports in a row, those of a passing phase not counted, before it stops.

    Attributes:
        report: the last one; None before the first.
    """

    def __init__(self, monitor: CollapseMonitor | None, on_collapse: OnCollapse, patience: int) -> None:
        if on_collapse not in ("warn", "stop") or patience < 1:
            raise UsageError("on_collapse is 'warn' or 'stop', and patience at least 1")
        self.monitor = monitor or CollapseMonitor()
        self.stops, self.patience, self.in_a_row = on_collapse == "stop", patience, 0
        self.panels = 0
        self.before: float | None = None
        self.report: Report | None = None

    def observe(self, model: nn.Module, batches: Iterable[Any], taps: Taps) -> None:
        """Observe held-out batches in evaluation mode without gradient."""
        with eval_mode(model):
            for batch in batches:
                self.monitor.observe(taps(model, batch))

    def judge(self, shown: bool, progress: float | None = None) -> bool:
        """Judge what was observed; tell whether to stop. `progress`: share done."""
        self.report = self.monitor.close()
        self.panels += 1
        verdict = with_phase(self.report.verdict, self.panels, progress, before=self.before)
        self.before = verdict.probability
        if shown:
            say(str(verdict))
            for blemish in verdict.blemishes:
                say(f"  beside it: {blemish}")
        self.in_a_row = self.in_a_row + 1 if verdict.collapsed and verdict.phase != "transient" else 0
        return self.stops and self.in_a_row >= self.patience

    @property
    def numbers(self) -> dict[str, float]:
        """The last report's numbers for a logger, as `collapse/TAP/METRIC`."""
        return logged(self.report) if self.report else {}


def repeatable(batches: Iterable[Any]) -> Iterable[Any]:
    """Batches that can be iterated again; UsageError for a generator."""
    if iter(batches) is batches:
        raise UsageError("held-out batches are iterated again every time: a list or a loader, no generator")
    return batches
