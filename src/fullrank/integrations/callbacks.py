"""The monitor in other people's trainers: Lightning and Hugging Face, in two lines each.

Lightning:

    from fullrank.integrations.callbacks import lightning_callback
    trainer = Trainer(callbacks=[lightning_callback(lambda net, batch: {"projector": net(batch[0])})])

Hugging Face:

    from fullrank.integrations.callbacks import trainer_callback
    trainer.add_callback(trainer_callback(held_out, lambda net, batch: {"backbone": net(**batch)[0]}))

Both measure held-out rows in evaluation mode without gradient, log `collapse/TAP/METRIC`, print the verdict,
and stop the training if asked to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor

from fullrank.collapse import CollapseMonitor, Report
from fullrank.errors import UsageError

__all__ = ["lightning_callback", "logged", "trainer_callback"]

Taps = Callable[[Any, Any], Mapping[str, Tensor]]
OnCollapse = Literal["warn", "stop"]


def logged(report: Report) -> dict[str, float]:
    """The numbers of a report under flat names, for any logger; what is not defined is left out.

    Example:
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


class _Patience:
    """Says when to stop: after so many collapsed reports in a row."""

    def __init__(self, on_collapse: OnCollapse, patience: int) -> None:
        if on_collapse not in ("warn", "stop") or patience < 1:
            raise UsageError("on_collapse is 'warn' or 'stop', and patience at least 1")
        self.stops, self.patience, self.in_a_row = on_collapse == "stop", patience, 0

    def spent(self, report: Report) -> bool:
        self.in_a_row = self.in_a_row + 1 if report.verdict.collapsed else 0
        return self.stops and self.in_a_row >= self.patience


def lightning_callback(
    taps: Taps,
    *,
    monitor: CollapseMonitor | None = None,
    on_collapse: OnCollapse = "warn",
    patience: int = 2,
) -> Any:
    """A Lightning callback that watches the validation batches.

    Args:
        taps: from the module and a validation batch to named embeddings [b, d] (and `codes`, scores [b, K]).
        monitor: where thresholds and sample sizes are set.
        on_collapse: `warn` prints, `stop` ends the training.
        patience: collapsed reports in a row before it stops.

    Raises:
        UsageError: Lightning is not installed.
    """
    watched, waiting = monitor or CollapseMonitor(), _Patience(on_collapse, patience)
    base = _lightning()

    class Watch(base):  # type: ignore[misc,valid-type]
        """Observes every validation batch, and judges at the end of the epoch."""

        report: Report | None = None

        def on_validation_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *rest: Any, **more: Any
        ) -> None:
            """The module is in evaluation mode and without gradient here."""
            watched.observe({name: rows.detach() for name, rows in taps(pl_module, batch).items()})

        def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            """Judges, logs, and stops."""
            self.report = watched.close(trained=not trainer.sanity_checking)
            if trainer.sanity_checking:
                return
            pl_module.log_dict(logged(self.report))
            if trainer.is_global_zero:
                print(self.report.verdict)
            if waiting.spent(self.report):
                trainer.should_stop = True

    return Watch()


def _lightning() -> type[Any]:
    """The base class of callbacks, under either name of the package."""
    for name in ("lightning.pytorch", "pytorch_lightning"):
        with suppress(ImportError):
            found: type[Any] = import_module(name).Callback
            return found
    raise UsageError("the Lightning callback needs Lightning: pip install lightning")


def trainer_callback(
    batches: Iterable[Any],
    taps: Taps,
    *,
    monitor: CollapseMonitor | None = None,
    on_collapse: OnCollapse = "warn",
    patience: int = 2,
) -> Any:
    """A Hugging Face Trainer callback that embeds held-out batches at the end of every epoch.

    Args:
        batches: held-out batches, iterated anew every time.
        taps: from the model and a batch to named embeddings [b, d] (and `codes`, scores [b, K]); it moves the
            batch to the model's device.
        monitor: where thresholds and sample sizes are set.
        on_collapse: `warn` prints, `stop` ends the training.
        patience: collapsed reports in a row before it stops.

    Raises:
        UsageError: transformers is not installed.
    """
    watched, waiting = monitor or CollapseMonitor(), _Patience(on_collapse, patience)
    try:
        from transformers import TrainerCallback
    except ImportError:
        raise UsageError("the Trainer callback needs transformers: pip install transformers") from None

    class Watch(TrainerCallback):  # type: ignore[misc,unused-ignore]
        """Embeds the held-out batches, judges, and tells the Trainer."""

        report: Report | None = None

        def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> Any:
            """Judges in evaluation mode without gradient, and leaves the model as it was."""
            was_training = model.training
            model.eval()
            try:
                with torch.no_grad():
                    for batch in batches:
                        watched.observe(taps(model, batch))
            finally:
                model.train(was_training)
            self.report = watched.close()
            state.log_history.append({"step": state.global_step, "epoch": state.epoch, **logged(self.report)})
            if state.is_world_process_zero:
                print(self.report.verdict)
            if waiting.spent(self.report):
                control.should_training_stop = True
            return control

    return Watch()
