"""The collapse monitor in a loop of Hugging Face Accelerate, in three lines.

from fullrank.integrations.accelerate import accelerate_watch
watch = accelerate_watch(accelerator, held_out, lambda net, batch: net(batch[0]))
if watch(model): break    # at the end of every epoch, on every process
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from fullrank.collapse import CollapseMonitor
from fullrank.errors import UsageError
from fullrank.integrations._common import OnCollapse, Taps
from fullrank.integrations.loop import HeldOutWatch


def accelerate_watch(
    accelerator: Any,
    batches: Iterable[Any],
    taps: Taps,
    *,
    monitor: CollapseMonitor | None = None,
    on_collapse: OnCollapse = "warn",
    patience: int = 2,
) -> HeldOutWatch:
    """Watch of held-out batches on the accelerator's device, logged to its trackers.

    Every process calls it with its part of the batches, as a prepared loader gives them; all get the same
    verdict, which the main process prints.

    Args:
        accelerator: that trains.
        batches, taps, monitor, on_collapse, patience: see `HeldOutWatch`; batches are moved to the device.

    Raises:
        UsageError: Accelerate is not installed.
    """
    try:
        from accelerate.utils import send_to_device
    except ImportError:
        raise UsageError("the watch needs Accelerate: pip install accelerate") from None

    class AcceleratorWatch(HeldOutWatch):
        """Watch that unwraps, moves and logs as the accelerator does."""

        def __call__(self, model: nn.Module, progress: float | None = None) -> bool:
            """See `HeldOutWatch.__call__`."""
            stops = super().__call__(accelerator.unwrap_model(model), progress)
            accelerator.log(self.numbers)
            return stops

    def on_device(network: Any, batch: Any) -> Any:
        with accelerator.autocast():
            return taps(network, send_to_device(batch, accelerator.device))

    return AcceleratorWatch(
        batches,
        on_device,
        monitor=monitor,
        on_collapse=on_collapse,
        patience=patience,
        shown=accelerator.is_main_process,
    )
