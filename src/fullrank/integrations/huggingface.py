"""The collapse monitor as a callback of Hugging Face's Trainer, in two lines.

    from fullrank.integrations.huggingface import trainer_callback
    trainer.add_callback(trainer_callback(held_out, lambda net, batch: {"backbone": net(**batch)[0]}))

It measures held-out rows in evaluation mode without gradient, logs `collapse/TAP/METRIC`, prints the verdict,
and stops the training if asked to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from fullrank.collapse import CollapseMonitor, Report
from fullrank.errors import UsageError
from fullrank.integrations._common import OnCollapse, Taps, Watch, logged


def trainer_callback(
    batches: Iterable[Any],
    taps: Taps,
    *,
    monitor: CollapseMonitor | None = None,
    on_collapse: OnCollapse = "warn",
    patience: int = 2,
) -> Any:
    """Hugging Face Trainer callback that embeds held-out batches every epoch.

    Args:
        batches: held-out batches, iterated anew every time.
        taps: from the model and a batch to named embeddings [b, d] (and `codes`, scores [b, K]); it moves the
            batch to the model's device.
        monitor, on_collapse, patience: see `Watch`.

    Raises:
        UsageError: transformers is not installed.
    """
    watch = Watch(monitor, on_collapse, patience)
    try:
        from transformers import TrainerCallback
    except ImportError:
        raise UsageError("the Trainer callback needs transformers: pip install transformers") from None

    class CollapseCallback(TrainerCallback):  # type: ignore[misc,unused-ignore]
        """Embed the held-out batches, judge, and tell the Trainer."""

        report: Report | None = None

        def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> Any:
            """Judge in evaluation mode without gradient, and leave the model as it was."""
            was_training = model.training
            model.eval()
            try:
                with torch.no_grad():
                    for batch in batches:
                        watch.monitor.observe(taps(model, batch))
            finally:
                model.train(was_training)
            self.report = watch.monitor.close()
            state.log_history.append({"step": state.global_step, "epoch": state.epoch, **logged(self.report)})
            progress = state.global_step / state.max_steps if state.max_steps > 0 else None
            if watch.spent(self.report, state.is_world_process_zero, progress):
                control.should_training_stop = True
            return control

    return CollapseCallback()
