"""Facts about the two losses and their networks that follow from the papers' formulas."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.errors import UsageError
from fullrank.methods import StepInfo, build_method, negative_cosine, regression_loss
from fullrank.methods.byol import BYOL, byol_loss
from fullrank.methods.simsiam import SimSiam, simsiam_loss
from fullrank.training.config import TrainConfig
from fullrank.training.optim import build_optimizer


def rows(seed: int, n: int = 12, d: int = 5) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_the_cosine_ignores_scale_and_stays_in_range(seed: int, scale: float) -> None:
    p, z = rows(seed), rows(seed + 1)
    value = negative_cosine(p, z)
    assert -1 <= value <= 1
    torch.testing.assert_close(negative_cosine(scale * p, z), value)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_byol_is_the_squared_distance_of_unit_rows(seed: int) -> None:
    p, z = rows(seed), rows(seed + 1)
    distance = (F.normalize(p, dim=1) - F.normalize(z, dim=1)).square().sum(1).mean()
    torch.testing.assert_close(regression_loss(p, z), distance)


def test_both_losses_are_symmetric_in_the_views() -> None:
    p, z = [rows(0), rows(1)], [rows(2), rows(3)]
    for loss in (simsiam_loss, byol_loss):
        torch.testing.assert_close(loss(p, z), loss(p[::-1], z[::-1]))


def test_a_constant_output_has_the_best_loss() -> None:
    constant = torch.ones(12, 5)
    assert simsiam_loss([constant] * 2, [constant] * 2).item() == pytest.approx(-1)
    assert byol_loss([constant] * 2, [constant] * 2).item() == pytest.approx(0, abs=1e-6)


def test_three_views_are_the_mean_over_ordered_pairs() -> None:
    p, z = [rows(i) for i in range(3)], [rows(i + 3) for i in range(3)]
    pairs = [negative_cosine(p[a], z[b]) for a in range(3) for b in range(3) if a != b]
    torch.testing.assert_close(simsiam_loss(p, z), torch.stack(pairs).mean())


def test_the_stop_gradient_keeps_the_target_out() -> None:
    p, z = rows(0).requires_grad_(), rows(1).requires_grad_()
    simsiam_loss([p, p], [z, z]).backward()
    assert z.grad is None
    simsiam_loss([p, p], [z, z], stop_gradient=False).backward()
    assert z.grad is not None


def test_byols_target_gets_no_gradient() -> None:
    m = build_method("byol", nn.Sequential(nn.Flatten(), nn.Linear(12, 6)), 6, {"proj_hidden_dim": 8})
    m.loss([torch.randn(8, 3, 2, 2) for _ in range(2)]).loss.backward()
    assert isinstance(m, BYOL)
    assert all(p.grad is None and not p.requires_grad for p in m.target.parameters())


def test_tau_zero_copies_the_online_parameters_but_no_statistics() -> None:
    options = {"proj_hidden_dim": 8, "tau_base": 0.0, "tau_final": 0.0}
    m = build_method("byol", nn.Sequential(nn.Flatten(), nn.Linear(12, 6)), 6, options)
    assert isinstance(m, BYOL)
    m.loss([torch.randn(8, 3, 2, 2) for _ in range(2)])
    with torch.no_grad():
        for p in m.projector.parameters():
            p.add_(1.0)
        before = {k: v.clone() for k, v in m.target["projector"].named_buffers()}
    m.after_step(StepInfo(3, 10))
    for ours, theirs in zip(m.target["projector"].parameters(), m.projector.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert all(torch.equal(v, before[k]) for k, v in m.target["projector"].named_buffers())


@pytest.mark.parametrize("options", [{}, {"predictor": "fixed"}])
def test_what_is_frozen_never_moves_not_even_by_weight_decay(options: dict[str, str]) -> None:
    m = build_method("simsiam", nn.Flatten(), 12, {"proj_output_dim": 8, "pred_hidden_dim": 4} | options)
    assert isinstance(m, SimSiam)
    optimizer = build_optimizer(m.param_groups(), TrainConfig(lr=1.0, weight_decay=0.1))
    frozen = {name: p.detach().clone() for name, p in m.named_parameters() if not p.requires_grad}
    assert frozen
    m.loss([torch.randn(8, 3, 2, 2) for _ in range(2)]).loss.backward()
    optimizer.step()
    values = dict(m.named_parameters())
    assert all(torch.equal(values[name], start) for name, start in frozen.items())


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("simsiam", {"proj_output_dim": -1}, "must not be negative"),
        ("swav", {"num_prototypes": 0}, "must be positive"),
        ("simsiam", {"predictor": "big"}, "unknown simsiam option predictor .big."),
        ("byol", {"tau_base": 1.5}, r"tau-base lies in \[0, 1\]"),
        ("byol", {"distance": "l3"}, "unknown byol option distance .l3."),
    ],
)
def test_a_knob_out_of_range_is_refused(name: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        build_method(name, nn.Flatten(), 12, options)
