"""The monitor in other people's trainers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fullrank.collapse import CollapseMonitor, Thresholds
from fullrank.errors import UsageError
from fullrank.integrations._common import logged
from fullrank.integrations.huggingface import trainer_callback
from fullrank.integrations.lightning import lightning_callback

IMAGES = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))


def module(lightning: Any, collapsed: bool) -> Any:
    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Linear(8, 16)
            if collapsed:
                nn.init.zeros_(self.net.weight)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            loss: torch.Tensor = self.net(batch[0]).square().mean() * 0
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            self.net(batch[0])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    return Module()


def fit(collapsed: bool, **options: Any) -> tuple[Any, Any]:
    lightning = pytest.importorskip("lightning.pytorch")
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(IMAGES), batch_size=64)
    watch = lightning_callback(lambda m, batch: {"projector": m.net(batch[0])}, **options)
    trainer = lightning.Trainer(
        max_epochs=4, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[watch],
    )  # fmt: skip
    trainer.fit(module(lightning, collapsed), loader, loader)
    return trainer, watch


def test_lightning_reports_a_healthy_module_to_the_end() -> None:
    trainer, watch = fit(collapsed=False, on_collapse="stop")
    assert watch.report.verdict.kind == "healthy"
    assert trainer.current_epoch == 4


def test_lightning_stops_a_collapsed_module_after_its_patience() -> None:
    trainer, watch = fit(collapsed=True, on_collapse="stop", patience=2)
    assert watch.report.verdict.kind == "complete"
    assert trainer.current_epoch == 2


def test_lightning_logs_every_measure_by_tap() -> None:
    trainer, _ = fit(collapsed=False)
    assert trainer.logged_metrics["collapse/projector/level"] > 0.3


def run_trainer(collapsed: bool) -> tuple[Any, Any]:
    transformers = pytest.importorskip("transformers")
    net = nn.Linear(8, 16)
    if collapsed:
        nn.init.zeros_(net.weight)
    held_out = IMAGES.split(64)
    watch = trainer_callback(held_out, lambda model, batch: {"backbone": model(batch)}, on_collapse="stop")
    state = transformers.TrainerState()
    control = transformers.TrainerControl()
    for epoch in range(4):  # the first two may be a passing phase
        state.epoch = float(epoch)
        control = watch.on_epoch_end(None, state, control, model=net.train())
        assert net.training
    return control, state


def test_the_trainer_is_told_to_stop_when_the_model_has_collapsed() -> None:
    assert run_trainer(collapsed=True)[0].should_training_stop
    assert not run_trainer(collapsed=False)[0].should_training_stop


def test_the_trainers_history_holds_the_measures() -> None:
    _, state = run_trainer(collapsed=False)
    assert "collapse/backbone/rankme_unit" in state.log_history[-1]


def test_what_is_not_defined_is_not_logged() -> None:
    monitor = CollapseMonitor(thresholds=Thresholds())
    monitor.observe({"projector": torch.ones(64, 4)})
    numbers = logged(monitor.close())
    assert numbers["collapse/collapsed"] == 1.0
    assert "collapse/projector/erank_centred" not in numbers


def test_a_wrong_wish_is_refused() -> None:
    with pytest.raises(UsageError, match="'warn' or 'stop'"):
        trainer_callback([], lambda m, b: {}, on_collapse="panic")  # type: ignore[arg-type]
