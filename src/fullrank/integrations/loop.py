"""The collapse monitor in a plain training loop, in three lines.

from fullrank.integrations.loop import HeldOutWatch
watch = HeldOutWatch(held_out, lambda net, batch: net(batch[0]), on_collapse="stop")
if watch(model): break    # at the end of every epoch
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from fullrank.collapse import CollapseMonitor
from fullrank.integrations._common import OnCollapse, Taps, Watch, repeatable


class HeldOutWatch(Watch):
    """Watch of held-out batches, to be called with the network after every epoch.

    Args:
        batches: held-out batches, iterated anew every time.
        taps: from the network and a batch to embeddings [b, d], or several by name.
        monitor: where thresholds and sample sizes are set; None takes the defaults.
        on_collapse: `warn` prints, `stop` has the call say so.
        patience: collapsed reports in a row before it says so.
        shown: print the verdict.

    Example:
        >>> import torch
        >>> images = torch.randn(256, 8, generator=torch.Generator().manual_seed(0)).split(64)
        >>> watch = HeldOutWatch(images, lambda net, batch: net(batch))
        >>> watch(torch.nn.Flatten()), watch.report.verdict.kind  # doctest: +ELLIPSIS
        embedding: healthy: level is 1.00 ...
        (False, 'healthy')
    """

    def __init__(
        self,
        batches: Iterable[Any],
        taps: Taps,
        *,
        monitor: CollapseMonitor | None = None,
        on_collapse: OnCollapse = "warn",
        patience: int = 2,
        shown: bool = True,
    ) -> None:
        super().__init__(monitor, on_collapse, patience)
        self.batches, self.taps, self.shown = repeatable(batches), taps, shown

    def __call__(self, model: nn.Module, progress: float | None = None) -> bool:
        """Judge the network, in evaluation mode without gradient; tell whether to stop.

        Args:
            model: left in the mode that it was in.
            progress: share of the training that is done, where known: a dip at its start is passing.
        """
        self.observe(model, self.batches, self.taps)
        return self.judge(self.shown, progress)
