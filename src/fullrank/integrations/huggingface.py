"""The collapse monitor as a callback of Hugging Face's Trainer, in two lines.

    from fullrank.integrations.huggingface import trainer_callback
    trainer.add_callback(trainer_callback(held_out, lambda net, batch: net(**batch)[0].mean(1)))

It measures held-out rows in evaluation mode without gradient, logs `collapse/TAP/METRIC`, prints the verdict,
and stops the training if asked to. `sentence_callback` does the same for SentenceTransformerTrainer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fullrank.collapse import CollapseMonitor, Report
from fullrank.errors import UsageError
from fullrank.integrations._common import OnCollapse, Taps, Watch, repeatable


def trainer_callback(
    batches: Iterable[Any],
    taps: Taps,
    *,
    every_steps: int = 0,
    monitor: CollapseMonitor | None = None,
    on_collapse: OnCollapse = "warn",
    patience: int = 2,
) -> Any:
    """Hugging Face Trainer callback that embeds held-out batches every epoch.

    Args:
        batches: held-out batches, iterated anew every time.
        taps: from the model and a batch to embeddings [b, d], or several by name (and `codes`, scores
            [b, K]); it moves the batch to the model's device.
        every_steps: also after every so many steps, for trainings of one epoch; 0: after epochs alone.
        monitor, on_collapse, patience: see `Watch`.

    Raises:
        UsageError: transformers is not installed.
    """
    watch, batches = Watch(monitor, on_collapse, patience), repeatable(batches)
    try:
        from transformers import TrainerCallback
    except ImportError:
        raise UsageError("the Trainer callback needs transformers: pip install transformers") from None

    class CollapseCallback(TrainerCallback):  # type: ignore[misc,unused-ignore]
        """Embed the held-out batches, judge, and tell the Trainer."""

        report: Report | None = None
        judged_at = -1

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> Any:
            """Judge where a step is due."""
            due = every_steps > 0 and state.global_step % every_steps == 0
            return self._judged(state, control, model) if due else control

        def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> Any:
            """Judge in evaluation mode without gradient, and leave the model as it was."""
            return self._judged(state, control, model)

        def _judged(self, state: Any, control: Any, model: Any) -> Any:
            if state.global_step == self.judged_at:  # the last step of an epoch is its end
                return control
            self.judged_at = state.global_step
            watch.observe(model, batches, taps)
            progress = state.global_step / state.max_steps if state.max_steps > 0 else None
            if watch.judge(state.is_world_process_zero, progress):
                control.should_training_stop = True
            self.report = watch.report
            state.log_history.append({"step": state.global_step, "epoch": state.epoch, **watch.numbers})
            return control

    return CollapseCallback()


def sentence_callback(
    sentences: Sequence[str],
    *,
    batch_size: int = 64,
    every_steps: int = 0,
    monitor: CollapseMonitor | None = None,
    on_collapse: OnCollapse = "warn",
    patience: int = 2,
) -> Any:
    """Callback of sentence-transformers' trainer that embeds held-out sentences.

    Args:
        sentences: held out, some hundreds or more.
        batch_size: sentences at once.
        every_steps, monitor, on_collapse, patience: see `trainer_callback`.
    """
    if isinstance(sentences, str):
        raise UsageError("sentences are a list of texts, not one text")
    batches = [list(sentences[i : i + batch_size]) for i in range(0, len(sentences), batch_size)]
    return trainer_callback(
        batches,
        lambda model, texts: model.encode(texts, convert_to_tensor=True, show_progress_bar=False),
        every_steps=every_steps,
        monitor=monitor,
        on_collapse=on_collapse,
        patience=patience,
    )
