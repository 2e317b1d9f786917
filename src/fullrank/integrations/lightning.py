"""The collapse monitor as a Lightning callback, in two lines.

    from fullrank.integrations.lightning import lightning_callback
    trainer = Trainer(callbacks=[lightning_callback(lambda net, batch: {"projector": net(batch[0])})])

It measures validation rows in evaluation mode without gradient, logs `collapse/TAP/METRIC`, prints the
verdict, and stops the training if asked to.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any

from fullrank.collapse import CollapseMonitor, Report
from fullrank.errors import UsageError
from fullrank.integrations._common import OnCollapse, Taps, Watch, logged


def lightning_callback(
    taps: Taps,
    *,
    monitor: CollapseMonitor | None = None,
    on_collapse: OnCollapse = "warn",
    patience: int = 2,
) -> Any:
    """Lightning callback that watches the validation batches.

    Args:
        taps: from the module and a validation batch to named embeddings [b, d] (and `codes`, scores [b, K]).
        monitor, on_collapse, patience: see `Watch`.

    Raises:
        UsageError: Lightning is not installed.
    """
    watch = Watch(monitor, on_collapse, patience)
    base = _lightning()

    class CollapseCallback(base):  # type: ignore[misc,valid-type]
        """Observe every validation batch, and judge at the end of the epoch."""

        report: Report | None = None

        def on_validation_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *rest: Any, **more: Any
        ) -> None:
            """Observe a batch; the module is in evaluation mode and without gradient here."""
            watch.monitor.observe({name: rows.detach() for name, rows in taps(pl_module, batch).items()})

        def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            """Judge, log, and stop."""
            self.report = watch.monitor.close(trained=not trainer.sanity_checking)
            if trainer.sanity_checking:
                return
            pl_module.log_dict(logged(self.report))
            epochs = trainer.max_epochs or 0  # -1 where the training has no end
            progress = (trainer.current_epoch + 1) / epochs if epochs > 0 else None
            if watch.spent(self.report, trainer.is_global_zero, progress):
                trainer.should_stop = True

    return CollapseCallback()


def _lightning() -> type[Any]:
    """The base class of callbacks, under either name of the package."""
    for name in ("lightning.pytorch", "pytorch_lightning"):
        with suppress(ImportError):
            base: type[Any] = import_module(name).Callback
            return base
    raise UsageError("the Lightning callback needs Lightning: pip install lightning")
