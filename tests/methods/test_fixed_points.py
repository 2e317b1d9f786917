"""Declared fixed points of every loss: the method's own loss has that value on embeddings of that state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fullrank.errors import UnknownNameError, UsageError
from fullrank.methods import METHODS, FixedPoint, Method, Situation, explain_loss
from fullrank.methods.cplearn import CPLearn
from fullrank.methods.nnsiam import NNSiam
from methods.shrunk import TokenBackbone, shrunk

D = 8
POINTS = [(name, point) for name, cls in METHODS.items() for point in cls.fixed_points]


def widths(name: str, **options: Any) -> dict[str, Any]:
    """Options that make every layer D wide."""
    return dict.fromkeys((k for k in shrunk(name) if k.endswith("_dim")), D) | options


def of_embeddings(name: str, **options: Any) -> Method:
    """The method with networks that change nothing, so that its views are its embeddings."""
    count = {"num_codes": 24 if name == "cplearn" else D, "num_prototypes": 24, "num_channels": D}
    fields = METHODS[name].Config.__dataclass_fields__
    chosen = {key: value for key, value in count.items() if key in fields} | widths(name) | options
    if name == "wmse":
        chosen |= {"whitening_size": 2 * 4 * D}
    config = METHODS[name].Config(**chosen).fit(D)
    m = METHODS[name](TokenBackbone() if METHODS[name].needs_tokens else nn.Flatten(), D, config).double()
    for owner in (m, m._modules.get("target")):
        for part in ("backbone", "projector", "predictor"):
            if owner is not None and part in owner._modules:
                owner._modules[part] = nn.Sequential(nn.Identity(), nn.Identity())
    m.register_parameter("unused", nn.Parameter(torch.zeros(1)))  # which tells the device
    return m


def frame(n: int) -> Tensor:
    """Rows [n, D], n a multiple of 4 D: each axis forwards and backwards; of unit covariance."""
    axes = torch.eye(D, dtype=torch.float64)
    rows = torch.cat([axes, -axes, axes, -axes]).repeat(n // (4 * D), 1)
    return rows * math.sqrt((n - 1) / (n / D))


def constant(m: Method, n: int) -> list[Tensor]:
    return [torch.arange(1.0, D + 1).double().expand(n, D)] * 2


def agreeing(m: Method, n: int) -> list[Tensor]:
    orthogonal = m.name in ("simclr", "mocov3", "directclr")  # negatives
    return [torch.eye(D, dtype=torch.float64) if orthogonal else frame(n)] * 2


def unrelated(m: Method, n: int) -> list[Tensor]:
    signs = (
        torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64).repeat_interleave(D).repeat(n // (4 * D))
    )
    return [frame(n), signs[:, None] * frame(n)]  # as often alike as opposite, each view as before


def repeated(m: Method, n: int) -> list[Tensor]:
    return [frame(n)[:, :1].expand(n, D) * torch.ones(D, dtype=torch.float64)] * 2


def zero(m: Method, n: int) -> list[Tensor]:
    return [torch.zeros(n, D, dtype=torch.float64)] * 2


def one_code(m: Method, n: int) -> list[Tensor]:
    return [on_codes(m, torch.zeros(n, dtype=torch.long))] * 2


def own_codes(m: Method, n: int) -> list[Tensor]:
    return [on_codes(m, torch.arange(n))] * 2


def on_codes(m: Method, codes: Tensor) -> Tensor:
    """Embeddings that are certain of their code."""
    if isinstance(m, CPLearn):
        return 1e3 * m.dictionary.matrix(torch.zeros(1, dtype=torch.float64))[:, codes].T
    return 1e4 * torch.eye(D, dtype=torch.float64)[codes]


STATES: dict[str, Callable[[Method, int], list[Tensor]]] = {
    "constant": constant,
    "agreeing": agreeing,
    "unrelated": unrelated,
    "decorrelated": agreeing,
    "one channel repeated": repeated,
    "at zero": zero,
    "uniform over codes": zero,
    "all on one code": one_code,
    "a code for each image": own_codes,
}


def loss_in(m: Method, point: FixedPoint) -> tuple[float, float]:
    """The loss on embeddings in the point's state, and the declared value."""
    views = STATES[point.state](m, D if point.state == "a code for each image" else 8 * D)
    if isinstance(m, NNSiam):
        m.queue.rows.copy_(views[1].repeat(len(m.queue.rows) // len(views[1]) + 1, 1)[: len(m.queue.rows)])
    if m.name == "distill":
        if point.state == "at zero":
            m._modules["projector"] = Zero()
            views = [frame(8 * D) * math.sqrt(64 / 63)] * 2  # standardised with n, not n - 1
        m.eval()
    declared = point.value(Situation(m.config, len(views[0])))
    assert declared is not None
    return m.loss([view.clone() for view in views]).loss.item(), declared


class Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.0 * x


@pytest.mark.parametrize(("name", "point"), POINTS, ids=[f"{name}: {point.state}" for name, point in POINTS])
def test_the_loss_of_embeddings_in_a_declared_state_is_the_declared_value(
    name: str, point: FixedPoint
) -> None:
    found, declared = loss_in(of_embeddings(name), point)
    assert found == pytest.approx(declared, rel=2e-3, abs=2e-3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("byol", {"distance": "euclidean"}),
        ("isoloss", {"alpha": 1.0, "eps": 0.25}),
        ("mocov3", {"temperature": 0.5}),
        ("barlow_twins", {"scale": 0.3, "lamb": 0.01}),
        ("vicreg", {"variance_over_views": "mean", "cov_weight": 2.0}),
        ("cplearn", {"beta": 0.5}),
        ("distill", {"distance": "cosine"}),
        ("lejepa", {"flatten_views": True, "lamb": 0.2}),
    ],
)
def test_the_declared_values_follow_the_options(name: str, options: dict[str, Any]) -> None:
    checked = 0
    for point in METHODS[name].fixed_points:
        m = of_embeddings(name, **options)
        if point.value(Situation(m.config)) is not None:
            found, declared = loss_in(m, point)
            assert found == pytest.approx(declared, rel=2e-3, abs=2e-3), point.state
            checked += 1
    assert checked


def test_simclr_with_three_views_is_at_the_declared_values() -> None:
    for point in METHODS["simclr"].fixed_points:
        m = of_embeddings("simclr")
        views = [STATES[point.state](m, 16)[0]] * 3
        declared = point.value(Situation(m.config, len(views[0]), 3))
        assert m.loss(views).loss.item() == pytest.approx(declared)


def test_every_method_of_the_package_declares_a_fixed_point() -> None:
    own = {name: cls for name, cls in METHODS.items() if cls.__module__.startswith("fullrank.methods")}
    assert [name for name, cls in own.items() if not cls.fixed_points] == []


def test_a_loss_at_a_fixed_point_is_explained_with_the_collapses_that_end_there() -> None:
    found = explain_loss(-0.995, "simsiam")
    assert [point["state"] for point in found.at] == ["agreeing"]
    assert found.lines[0].startswith(
        "simsiam's loss at -1: embeddings are agreeing (compatible with complete or dimensional collapse)"
    )


def test_a_loss_beside_all_fixed_points_is_placed_between_the_nearest() -> None:
    found = explain_loss(3.0, "byol")
    assert found.at == ()
    assert "it lies between 0 (agreeing) and 4 (unrelated)" in found.lines[0]
    assert "it lies above 4 (unrelated)" in explain_loss(5.0, "byol").lines[0]


def test_options_batch_views_and_width_of_the_backbone_move_the_fixed_points() -> None:
    assert explain_loss(math.log(100), "dino", {"num_prototypes": 100}).at
    assert explain_loss(math.log(511), "simclr", batch_size=256).at[0]["state"] == "constant"
    assert explain_loss(math.log(767 / 2), "simclr", batch_size=256, views=3).at[0]["state"] == "constant"
    assert explain_loss(25.6, "barlow_twins", feature_dim=64).at[0]["state"] == "constant"


@pytest.mark.parametrize("name", [name for name, cls in METHODS.items() if cls.least_loss is not None])
@pytest.mark.parametrize("state", ["constant", "agreeing", "unrelated", "at zero", "random", "opposite"])
def test_no_loss_is_below_the_least_that_its_method_declares(name: str, state: str) -> None:
    m = of_embeddings(name)
    random = torch.randn(8 * D, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    more = {"random": [random, random.roll(1, 0)], "opposite": [10 * random, -10 * random]}
    if name == "wmse" and state in ("constant", "at zero"):
        pytest.skip("a singular covariance is refused")
    views = more[state] if state in more else STATES[state](m, 8 * D)
    assert m.loss([view.clone() for view in views]).loss.item() >= (METHODS[name].least_loss or 0.0) - 1e-9


@pytest.mark.parametrize(("value", "method"), [(-2.0, "simsiam"), (-0.1, "byol"), (-1.0, "dino")])
def test_a_loss_below_the_least_is_said_to_be_another(value: float, method: str) -> None:
    found = explain_loss(value, method)
    assert f"which {method}'s loss never is" in found.lines[0]
    assert "never" not in explain_loss(0.5, method).lines[0]


@pytest.mark.parametrize(
    ("value", "method", "options", "line"),
    [
        (math.nan, "byol", {}, "a loss of nan says that training has diverged"),
        (
            1.0,
            "directpred",
            {"distance": "euclidean"},
            "declares no fixed point of its loss with these options",
        ),
    ],
)
def test_what_cannot_be_explained_is_refused(
    value: float, method: str, options: dict[str, Any], line: str
) -> None:
    with pytest.raises(UsageError, match=line):
        explain_loss(value, method, options)


def test_an_unknown_method_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'byol'"):
        explain_loss(1.0, "byoll")
