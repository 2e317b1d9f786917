"""Where gradients go and where they must not, and views beyond the second."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fullrank.methods import METHODS, Method, build_method, negative_cosine, regression_loss
from fullrank.methods.byol import BYOL, byol_loss
from fullrank.methods.simsiam import SimSiam
from fullrank.networks.momentum import cosine_tau


def small(name: str, **options: Any) -> Method:
    """A method whose widths are all 8, in double precision; seeded."""
    torch.manual_seed(0)
    widths = {f.name: 8 for f in dataclasses.fields(METHODS[name].Config) if f.name.endswith("_dim")}
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    return build_method(name, backbone, 6, widths | options).double()


def views(count: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(10, 3, 2, 2, generator=generator, dtype=torch.float64) for _ in range(count)]


def gradients(loss: Tensor, method: Method) -> list[Tensor]:
    wanted = [p for p in method.parameters() if p.requires_grad]
    return list(torch.autograd.grad(loss, wanted))


def test_simsiams_gradient_is_that_of_targets_that_are_constants() -> None:
    method, (a, b) = small("simsiam"), views()
    assert isinstance(method, SimSiam)
    with torch.no_grad():
        targets = [method.projector(method.backbone(view)) for view in (a, b)]
    p = [method.predictor(method.projector(method.backbone(view))) for view in (a, b)]
    by_hand = 0.5 * negative_cosine(p[0], targets[1]) + 0.5 * negative_cosine(p[1], targets[0])
    for ours, theirs in zip(
        gradients(method.loss([a, b]).loss, method), gradients(by_hand, method), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_without_the_stop_gradient_the_loss_is_the_same_and_the_gradient_another() -> None:
    stopped, free = small("simsiam"), small("simsiam", stop_gradient=False)
    losses = [method.loss(views()).loss for method in (stopped, free)]
    torch.testing.assert_close(*losses)
    first = [gradients(loss, method)[0] for loss, method in zip(losses, (stopped, free), strict=True)]
    assert not torch.allclose(first[0], first[1])


def test_byols_predictions_meet_the_target_networks_projections_of_the_other_view() -> None:
    method, (a, b) = small("byol"), views()
    assert isinstance(method, BYOL)
    with torch.no_grad():
        for weight in method.target.parameters():
            weight.add_(torch.randn_like(weight))  # away from the online network, lest they be confused
        targets = [method.target["projector"](method.target["backbone"](view)) for view in (a, b)]
    p = [method.predictor(method.projector(method.backbone(view))) for view in (a, b)]
    by_hand = regression_loss(p[0], targets[1]) + regression_loss(p[1], targets[0])
    torch.testing.assert_close(method.loss([a, b]).loss, by_hand)


def test_byol_over_three_views_is_twice_the_mean_over_ordered_pairs() -> None:
    p, z = torch.randn(2, 3, 10, 8, generator=torch.Generator().manual_seed(0)).unbind()
    pairs = [regression_loss(p[a], z[b]) for a in range(3) for b in range(3) if a != b]
    torch.testing.assert_close(byol_loss(list(p), list(z)), 2 * sum(pairs) / len(pairs))


def test_the_average_starts_at_its_base_and_ends_at_its_final_value() -> None:
    assert (cosine_tau(0.9, 1.0, 0.0), cosine_tau(0.9, 1.0, 1.0)) == (0.9, 1.0)
    assert cosine_tau(0.9, 1.0, 0.5) == pytest.approx(0.95)
