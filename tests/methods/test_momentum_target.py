"""The momentum target: where it starts, when it moves, and by how much."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fullrank.methods import MomentumMethod, StepInfo
from fullrank.networks.momentum import cosine_tau, update_momentum
from methods.shrunk import method, training_step, views
from methods.test_branches import every_momentum_method

# the momentum target


def momentum(name: str, **options: Any) -> MomentumMethod:
    built = method(name, **options)
    assert isinstance(built, MomentumMethod)
    return built


def online_parameters(m: MomentumMethod) -> list[Tensor]:
    return [p.detach() for part in m.target for p in getattr(m, part).parameters()]


def target_parameters(m: MomentumMethod) -> list[Tensor]:
    return list(m.target.parameters())


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def optimiser_step(m: MomentumMethod, step: int, total: int = 4) -> None:
    training_step(m, views(seed=step), StepInfo(step, total))


@every_momentum_method
def test_the_target_starts_as_the_online_network_and_shares_nothing_with_it(name: str) -> None:
    m = momentum(name)
    assert same(online_parameters(m), target_parameters(m))
    places, theirs = ({p.data_ptr() for p in side} for side in (online_parameters(m), target_parameters(m)))
    assert not places & theirs


@every_momentum_method
def test_with_tau_zero_the_target_is_the_online_network_after_each_step(name: str) -> None:
    m = momentum(name, tau_base=0.0, tau_final=0.0)
    for step in range(3):
        before = [p.clone() for p in target_parameters(m)]
        optimiser_step(m, step)
        assert same(online_parameters(m), target_parameters(m))
        assert not same(before, target_parameters(m))


@every_momentum_method
def test_with_tau_one_the_target_never_moves(name: str) -> None:
    m = momentum(name, tau_base=1.0, tau_final=1.0)
    before = [p.clone() for p in target_parameters(m)]
    for step in range(3):
        optimiser_step(m, step)
    assert same(before, target_parameters(m))


@every_momentum_method
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_the_target_moves_by_the_tau_of_this_point_of_the_run(name: str, progress: float) -> None:
    m = momentum(name, tau_base=0.6, tau_final=1.0)
    with torch.no_grad():
        for p in (*m.backbone.parameters(), *m.projector.parameters()):  # type: ignore[union-attr]
            p.add_(torch.randn_like(p))
    tau = {0.0: 0.6, 0.5: 0.8, 1.0: 1.0}[progress]
    pairs = zip(target_parameters(m), online_parameters(m), strict=True)
    wanted = [tau * ours + (1 - tau) * theirs for ours, theirs in pairs]
    m.after_step(StepInfo(int(2 * progress), 2))
    torch.testing.assert_close(target_parameters(m), wanted)


@pytest.mark.parametrize(("base", "final"), [(0.99, 1.0), (0.5, 0.5), (0.0, 0.0), (1.0, 0.3)])
def test_tau_has_exactly_its_ends(base: float, final: float) -> None:
    assert cosine_tau(base, final, 0.0) == pytest.approx(base, abs=1e-15)
    assert cosine_tau(base, final, 1.0) == pytest.approx(final, abs=1e-15)


def test_a_part_without_parameters_has_nothing_to_average() -> None:
    target = nn.Flatten()
    update_momentum(target, nn.Flatten(), 0.5)
    assert not list(target.parameters())


@every_momentum_method
def test_before_target_moves_the_target_within_the_step_and_not_after_it(name: str) -> None:
    m = momentum(name, target_update="before-target", tau_base=0.5, tau_final=0.5)
    optimiser_step(m, 0)  # here both networks are the same when the target moves
    between = [p.clone() for p in target_parameters(m)]
    wanted = [(a + b) / 2 for a, b in zip(between, online_parameters(m), strict=True)]
    m.before_step(StepInfo(1, 4))
    m.loss(views(seed=1))
    torch.testing.assert_close(target_parameters(m), wanted)
    m.after_step(m.info)
    torch.testing.assert_close(target_parameters(m), wanted)


@every_momentum_method
def test_before_target_compares_with_the_target_that_has_just_moved(name: str) -> None:
    losses = []
    for update in ("before-target", "after-step"):
        m = momentum(name, target_update=update, tau_base=0.5, tau_final=0.5).double()
        with torch.no_grad():
            for p in m.backbone.parameters():
                p.add_(0.5 * torch.sin(torch.arange(p.numel(), dtype=p.dtype)).view_as(p))
        if update == "after-step":
            m.after_step(m.info)  # by hand, before the forward pass
        losses.append(m.loss([view.double() for view in views()]).loss)
    torch.testing.assert_close(*losses)


def test_before_target_moves_once_per_step_however_many_batches_it_has() -> None:
    m = momentum("byol", target_update="before-target", tau_base=0.5, tau_final=0.5)
    with torch.no_grad():
        for p in m.backbone.parameters():
            p.add_(1.0)
    m.before_step(StepInfo(3, 4))
    m.loss(views())
    once = [p.clone() for p in target_parameters(m)]
    m.loss(views(seed=2))
    assert same(once, target_parameters(m))


def test_before_target_does_not_move_in_eval_mode() -> None:
    m = momentum("byol", target_update="before-target").eval()
    with torch.no_grad():
        for p in m.backbone.parameters():
            p.add_(1.0)
    before = [p.clone() for p in target_parameters(m)]
    m.loss(views())
    assert same(before, target_parameters(m))
