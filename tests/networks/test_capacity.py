"""How many directions a network's outputs can span: a bound that holds, and that is reached."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.errors import UnknownNameError
from fullrank.methods import METHODS, Method, build_method
from fullrank.networks.capacity import capacity
from fullrank.networks.heads import mlp
from methods.shrunk import TokenBackbone, method, shrunk, views


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.inner(x)
        return out


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.before, self.function = nn.Sequential(*parts), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.before(x))


def rank(rows: Tensor) -> int:
    """Directions about the mean, numerically."""
    return int(torch.linalg.matrix_rank(rows - rows.mean(dim=0), rtol=1e-9))


HEADS = {
    "linear": (nn.Linear(12, 5), 5),
    "bottleneck": (nn.Sequential(nn.Linear(12, 3), nn.Linear(3, 20)), 3),
    "bottleneck and activation": (nn.Sequential(nn.Linear(12, 3), nn.Linear(3, 20), nn.Tanh()), 20),
    "SimSiam's": (mlp([12, 12, 40], output_bn=True), 12),
    "wide inside": (mlp([12, 30, 20]), 20),
    "batch norm keeps": (nn.Sequential(nn.Linear(12, 3), nn.BatchNorm1d(3), nn.Linear(3, 9)), 3),
    "residual sum": (nn.Sequential(nn.Linear(12, 9), Residual(mlp([9, 2, 9]))), 9),
    "sum of two narrow ones": (nn.Sequential(nn.Linear(12, 2), nn.Linear(2, 9), Residual(mlp([9, 3, 9]))), 5),
    "unit length": (Function(lambda z: F.normalize(z, dim=1), nn.Linear(12, 3), nn.Linear(3, 9)), 4),
    "layer norm": (nn.Sequential(nn.Linear(12, 3), nn.Linear(3, 9), nn.LayerNorm(9)), 4),
    "channels": (Function(lambda z: z[:, :4], nn.Linear(12, 9)), 4),
}


@pytest.mark.parametrize(("head", "expected"), HEADS.values(), ids=HEADS)
def test_the_rank_of_many_outputs_is_the_capacity(head: nn.Module, expected: int) -> None:
    torch.manual_seed(0)
    for part in head.modules():
        if isinstance(part, nn.Linear):
            part.reset_parameters()
    assert capacity(head, 12) == expected
    with torch.no_grad():
        assert rank(head.eval().double()(torch.randn(500, 12, dtype=torch.float64))) == expected


def test_measuring_the_capacity_leaves_modes_as_they_were() -> None:
    head = mlp([4, 4, 2])
    head[1].eval()
    capacity(head, 4)
    assert [part.training for part in head] == [True, False, True, True]


def test_what_takes_no_rows_is_refused() -> None:
    with pytest.raises(TypeError, match="Conv2d does not map rows to rows"):
        capacity(nn.Conv2d(3, 4, 3), 8)


# methods


def rows_of(m: Method, count: int = 4000) -> dict[str, Tensor]:
    """Every tap of many random images, in double precision."""
    torch.manual_seed(1)
    for step in range(4):  # what starts at zero, a correlation, has seen something
        m.loss([view.double() for view in views(n=16, seed=step, count=type(m).views_needed)])
    with torch.no_grad():
        return m.eval().embed(torch.randn(count, 3, 4, 4, dtype=torch.float64))


@pytest.mark.parametrize("name", list(METHODS))
def test_no_tap_of_an_untrained_method_spans_more_than_its_capacity_and_most_of_it_is_reached(
    name: str,
) -> None:
    network = TokenBackbone() if METHODS[name].needs_tokens else wide_backbone()
    width = 12 if METHODS[name].needs_tokens else 24
    torch.manual_seed(0)
    small = {key: min(value, 40) for key, value in shrunk(name).items()}
    m = build_method(name, network, width, small).double()
    for tap, z in rows_of(m).items():
        found = m.capacity(tap)
        assert rank(z) <= found <= z.shape[1], tap
        assert rank(z) >= 2 / 3 * found, tap


def wide_backbone() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 24), nn.ReLU())


def test_asking_for_the_capacity_changes_nothing() -> None:
    m = method("byol")
    before, backbone = {key: value.clone() for key, value in m.state_dict().items()}, m.backbone
    m.capacity("target")
    assert m.backbone is backbone
    assert m.training
    assert all(torch.equal(before[key], value) for key, value in m.state_dict().items())


def test_the_projector_of_simsiams_reference_on_a_narrow_backbone_spans_no_more_than_its_inside() -> None:
    m = build_method("simsiam", nn.Flatten(), 64, {"proj_output_dim": 2048})
    assert m.capacity("projector") == 64


def test_a_tap_that_is_not_there_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'projector'"):
        method("byol").capacity("projectr")
