"""The collapse monitor as a Lightning callback, in two lines.

    from fullrank.integrations.lightning import lightning_callback
    trainer = Trainer(callbacks=[lightning_callback(lambda net, batch: net(batch[0]))])

It measures validation rows, or those of a `dataloader`, in evaluation mode without gradient, logs
`collapse/TAP/METRIC`, prints the verdict, and stops the training if asked to.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from typing import Any

from fullrank.collapse import CollapseMonitor, Report
from fullrank.errors import UsageError
from fullrank.integrations._common import OnCollapse, Taps, Watch, repeatable

NO_BATCHES = (
    "the module has no validation batches to watch: pass dataloader=, a loader of held-out batches, to "
    "lightning_callback, or a validation loader to fit and a validation_step to the module"
)


def lightning_callback(
    taps: Taps,
    *,
    dataloader: Iterable[Any] | None = None,
    monitor: CollapseMonitor | None = None,
    on_collapse: OnCollapse = "warn",
    patience: int = 2,
) -> Any:
    """Lightning callback that watches held-out batches.

    Args:
        taps: from the module and a batch to embeddings [b, d], or several by name (and `codes`, scores
            [b, K]).
        dataloader: held-out batches, embedded at the end of every training epoch; None watches those of the
            module's own validation.
        monitor, on_collapse, patience: see `Watch`.

    Raises:
        UsageError: Lightning is not installed; when the training starts, there is nothing to watch.
    """
    watch = Watch(monitor, on_collapse, patience)
    batches = None if dataloader is None else repeatable(dataloader)
    base = _lightning()

    class CollapseCallback(base):  # type: ignore[misc,valid-type]
        """Observe every held-out batch, and judge at the end of the epoch."""

        report: Report | None = None

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            """Refuse a training that has nothing to watch."""
            if batches is None and not sum(trainer.num_val_batches or [0]):
                raise UsageError(NO_BATCHES)

        def on_validation_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *rest: Any, **more: Any
        ) -> None:
            """Observe a batch; the module is in evaluation mode and without gradient here."""
            if batches is None and not trainer.sanity_checking:
                watch.monitor.observe(taps(pl_module, batch))

        def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            """Judge, log, and stop."""
            if batches is None and not trainer.sanity_checking:
                self._judge(trainer, pl_module)

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            """Embed the batches of `dataloader`, judge, log, and stop."""
            if batches is not None:
                move = trainer.strategy.batch_to_device
                watch.observe(pl_module, batches, lambda module, batch: taps(module, move(batch)))
                self._judge(trainer, pl_module)

        def _judge(self, trainer: Any, pl_module: Any) -> None:
            trainer.should_stop |= watch.judge(trainer.is_global_zero, _progress(trainer))
            self.report = watch.report
            pl_module.log_dict(watch.numbers)

    return CollapseCallback()


def _progress(trainer: Any) -> float | None:
    """Share of the training that is done; None where it has no end."""
    epochs = trainer.max_epochs or 0  # -1 where there is none
    return (trainer.current_epoch + 1) / epochs if epochs > 0 else None


def _lightning() -> type[Any]:
    """The base class of callbacks, under either name of the package."""
    for name in ("lightning.pytorch", "pytorch_lightning"):
        with suppress(ImportError):
            base: type[Any] = import_module(name).Callback
            return base
    raise UsageError("the Lightning callback needs Lightning: pip install lightning")
