"""The monitor in other people's trainers."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fullrank.collapse import CollapseMonitor, Thresholds
from fullrank.errors import UsageError
from fullrank.integrations._common import logged
from fullrank.integrations.accelerate import accelerate_watch
from fullrank.integrations.huggingface import sentence_callback, trainer_callback
from fullrank.integrations.lightning import lightning_callback
from fullrank.integrations.loop import HeldOutWatch

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


def fit(collapsed: bool, validated: bool = True, **options: Any) -> tuple[Any, Any]:
    lightning = pytest.importorskip("lightning.pytorch")
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(IMAGES), batch_size=64)
    watch = lightning_callback(lambda m, batch: {"projector": m.net(batch[0])}, **options)
    trainer = lightning.Trainer(
        max_epochs=4, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[watch],
    )  # fmt: skip
    trainer.fit(module(lightning, collapsed), loader, loader if validated else None)
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


def test_lightning_without_validation_batches_says_what_to_pass() -> None:
    with pytest.raises(UsageError, match="pass dataloader=, a loader of held-out batches"):
        fit(collapsed=False, validated=False)


@pytest.mark.parametrize("validated", [True, False])
def test_lightning_watches_a_loader_of_its_own(validated: bool) -> None:
    held_out = [[batch] for batch in IMAGES.split(64)]
    trainer, watch = fit(True, validated, dataloader=held_out, on_collapse="stop", patience=2)
    assert watch.report.panels["projector"].n == len(IMAGES)
    assert trainer.current_epoch == 2 and "collapse/projector/level" in trainer.logged_metrics


def test_a_generator_is_refused_before_it_is_empty() -> None:
    for call in (
        lambda: HeldOutWatch((batch for batch in IMAGES.split(64)), lambda net, batch: batch),
        lambda: trainer_callback((batch for batch in IMAGES.split(64)), lambda net, batch: batch),
    ):
        with pytest.raises(UsageError, match="a list or a loader, no generator"):
            call()


def test_a_plain_loop_stops_after_its_patience_and_the_network_is_left_as_it_was(
    capsys: pytest.CaptureFixture[str],
) -> None:
    linear = nn.Linear(8, 16)
    net = nn.Sequential(linear, nn.BatchNorm1d(16).eval(), nn.Dropout())
    nn.init.zeros_(linear.weight)
    watch = HeldOutWatch(IMAGES.split(64), lambda net, batch: net(batch), on_collapse="stop")
    assert [watch(net, progress) for progress in (0.6, 0.8)] == [False, True]
    assert [module.training for module in net] == [True, False, True]
    assert capsys.readouterr().out.count("embedding: complete collapse") == 2
    assert watch.numbers["collapse/collapsed"] == 1.0


def test_accelerate_trains_until_the_network_has_collapsed(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    logs: list[dict[str, float]] = []
    accelerator.log = logs.append
    net = nn.Linear(8, 16)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(IMAGES), batch_size=64)
    model, loader = accelerator.prepare(net, loader)
    watch = accelerate_watch(accelerator, loader, lambda net, batch: {"z": net(batch[0])}, on_collapse="stop")
    assert not watch(model, 0.5) and watch.report is not None
    assert watch.report.verdict.kind == "healthy" and watch.report.panels["z"].n == len(IMAGES)
    nn.init.zeros_(net.weight)
    assert [watch(model, 0.8), watch(model, 0.9)] == [False, True]
    assert [log["collapse/collapsed"] for log in logs] == [0.0, 1.0, 1.0]


def test_sentence_transformers_trainer_is_watched_within_an_epoch(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    losses = import_module("sentence_transformers.losses")
    from datasets import Dataset
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as token_models

    words = {f"w{i}": i for i in range(300)} | {"[UNK]": 300}
    tokenizer = Tokenizer(token_models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    static = import_module("sentence_transformers.models").StaticEmbedding(tokenizer, embedding_dim=16)
    model = library.SentenceTransformer(modules=[static], device="cpu")
    columns = {"anchor": [f"w{i}" for i in range(64)], "positive": [f"w{i + 1}" for i in range(64)]}
    pairs = Dataset.from_dict(columns)
    watch = sentence_callback([f"w{i}" for i in range(200)], every_steps=2, on_collapse="stop")
    args = library.SentenceTransformerTrainingArguments(
        str(tmp_path), num_train_epochs=1, per_device_train_batch_size=16, report_to=[], use_cpu=True,
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = library.SentenceTransformerTrainer(
        model, args, train_dataset=pairs, loss=losses.MultipleNegativesRankingLoss(model), callbacks=[watch]
    )
    trainer.train()
    judged = [entry["step"] for entry in trainer.state.log_history if "collapse/collapsed" in entry]
    assert judged == [2, 4]
    assert watch.report.panels["embedding"].n == 200


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
        state.epoch, state.global_step = float(epoch), epoch
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
