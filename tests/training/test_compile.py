"""Compiled networks compute what plain ones do."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fullrank.errors import UsageError
from fullrank.methods import METHODS, Method, build_method
from fullrank.training.config import TrainConfig
from fullrank.training.run import train
from fullrank.training.setup import compile_networks

CPU = torch.device("cpu")


def small(name: str) -> Method:
    torch.manual_seed(0)
    return build_method(name, nn.Sequential(nn.Flatten(), nn.Linear(48, 16)), 16).train()


@pytest.mark.parametrize("name", list(METHODS))
def test_every_network_that_images_pass_is_compiled_and_keeps_its_names(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, mode: compiled.append(module))
    monkeypatch.setattr(torch, "compile", lambda function: function)
    method = small(name)
    names = list(method.state_dict())
    compile_networks(method, CPU)
    through = {id(parameter) for module in compiled for parameter in module.parameters()}
    own = {id(p) for child in method.children() for p in child.parameters()}
    assert method.backbone in compiled
    assert through == own
    assert list(method.state_dict()) == names


@pytest.mark.slow
def test_a_compiled_step_has_the_loss_and_gradients_of_a_plain_one() -> None:
    plain = small("byol")
    compiled = copy.deepcopy(plain)
    compile_networks(compiled, CPU)
    views = [torch.randn(32, 3, 4, 4, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    losses = [method.loss(views).loss for method in (plain, compiled)]
    torch.testing.assert_close(losses[1], losses[0])
    for loss in losses:
        loss.backward()
    for (name, p), q in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        if p.grad is None:
            assert q.grad is None, name
        else:
            torch.testing.assert_close(q.grad, p.grad, rtol=1e-4, atol=1e-6, msg=name)
    for ours, theirs in zip(compiled.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.slow
def test_an_evaluation_runs_what_is_compiled_operation_by_operation() -> None:
    method = small("simsiam")
    compile_networks(method, CPU)
    graphs = torch._dynamo.utils.counters["stats"]
    method.backbone(torch.randn(8, 3, 4, 4))
    before = graphs["unique_graphs"]
    with torch.compiler.set_stance("force_eager"):
        for n in (5, 6, 7):
            method.backbone(torch.randn(n, 3, 4, 4))
    assert graphs["unique_graphs"] == before > 0


@pytest.mark.slow
def test_a_run_with_compiled_networks_ends_where_a_plain_one_does(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "limit": 64, "batch_size": 32, "epochs": 1, "backbone": "resnet8-w16", "views": "shapes",
        "accelerator": "cpu", "watch_images": 32, "knn_every": 0, "level_every": 1, "warmup_epochs": 0.0,
        "options": {"proj_output_dim": 16, "pred_hidden_dim": 8}, "lr": 0.01,
    }  # fmt: skip
    outcomes = [
        train(TrainConfig(**settings, compile=mode), tmp_path / mode) for mode in ("none", "reduce-overhead")
    ]
    plain, compiled = (outcome.record.loss for outcome in outcomes)
    assert compiled == pytest.approx(plain, abs=1e-4)


def test_a_machine_that_cannot_compile_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: object) -> object:
        raise RuntimeError("no compiler found\nand more")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(
        UsageError, match=r"--compile needs .* leave it out, or mend this: no compiler found$"
    ):
        compile_networks(small("simsiam"), CPU)
