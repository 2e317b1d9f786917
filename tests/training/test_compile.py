"""Compiled networks compute what plain ones do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fullrank.errors import UsageError
from fullrank.methods import METHODS, Method, build_method
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
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
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
    for p, q in zip(plain.buffers(), compiled.buffers(), strict=True):
        torch.testing.assert_close(q, p)


def test_a_machine_that_cannot_compile_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: object) -> object:
        raise RuntimeError("no compiler found\nand more")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(
        UsageError, match=r"--compile needs .* leave it out, or mend this: no compiler found$"
    ):
        compile_networks(small("simsiam"), CPU)
