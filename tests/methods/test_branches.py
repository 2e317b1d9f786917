"""What methods with two branches share: the pairing of views, mean encodings, and momentum targets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.errors import UsageError
from fullrank.methods import (
    METHODS,
    Method,
    TwoBranchMethod,
    ViewPairs,
    negative_cosine,
    over_pairs,
    regression_loss,
)
from fullrank.methods._two_branch import small_crops
from fullrank.methods.simsiam import simsiam_loss
from fullrank.networks.heads import mlp
from methods.shrunk import SIDE, method, views

MOMENTUM = ["byol", "directpred", "directcopy", "isoloss", "rdm_byol", "mocov3"]
STOPPED = ["simsiam", "nnsiam", "rdm_simsiam"]
every_momentum_method = pytest.mark.parametrize("name", MOMENTUM)
every_two_branch_method = pytest.mark.parametrize("name", MOMENTUM + STOPPED)


def rows(seed: int, n: int = 8, d: int = 4) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def squared(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().mean()


def encodings(views: str, offset: int) -> dict[int, Tensor]:
    """One per digit in `views`."""
    return {int(v): rows(int(v) + offset) for v in views}


def with_small(count: int, small: int, n: int = 16) -> list[Tensor]:
    """Views of which the last `small` are smaller, for backbones that pool."""
    sides = [2 * SIDE] * (count - small) + [SIDE] * small
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 3, side, side, generator=generator) for side in sides]


def pooled(name: str, **options: Any) -> Method:
    """A method whose backbone takes views of any size."""
    m = method(name, **options)
    for branch in (m, getattr(m, "target", None)):
        if branch is not None:
            branch.backbone = nn.Sequential(nn.AdaptiveAvgPool2d(SIDE), branch.backbone)
    return m


def gradient_free(view: Tensor) -> bool:
    return view.grad is None or not view.grad.any()


# pairs


@pytest.mark.parametrize(
    ("sources", "targets", "pairs"),
    [
        ("01", "01", ["01", "10"]),
        ("0", "1", ["01"]),
        ("0", "01", ["01"]),
        ("0", "12", ["01", "02"]),
        ("12", "0", ["10", "20"]),
        ("012", "01", ["01", "10", "20", "21"]),
        ("012", "012", ["01", "02", "10", "12", "20", "21"]),
    ],
)
def test_every_source_meets_every_target_of_another_view(
    sources: str, targets: str, pairs: list[str]
) -> None:
    p, z = encodings(sources, 0), encodings(targets, 10)
    by_hand = torch.stack([squared(p[int(ab[0])], z[int(ab[1])]) for ab in pairs]).mean()
    torch.testing.assert_close(over_pairs(squared, p, z), by_hand)


@pytest.mark.parametrize(
    ("count", "says"), [(1, "needs 2, got 1"), (2, "no source view meets a target view")]
)
def test_where_nothing_pairs_the_error_says_what_is_missing(count: int, says: str) -> None:
    p = {i: rows(i) for i in range(count)}
    with pytest.raises(UsageError, match=says) as raised:
        over_pairs(squared, p, {} if count == 2 else p)
    assert "\n" not in str(raised.value)


def test_small_crops_are_a_mean_of_their_own_which_is_added() -> None:
    p, z = encodings("01234", 0), encodings("01", 10)
    main = (squared(p[0], z[1]) + squared(p[1], z[0])) / 2
    extra = sum(squared(p[a], z[b]) for a in (2, 3, 4) for b in (0, 1)) / 6
    torch.testing.assert_close(over_pairs(squared, p, z, ViewPairs(small=[2, 3, 4])), main + extra)


def test_small_crops_of_the_target_are_added_in_the_same_way() -> None:
    p, z = encodings("01", 0), encodings("0123", 10)
    main = (squared(p[0], z[1]) + squared(p[1], z[0])) / 2
    extra = sum(squared(p[a], z[b]) for a in (0, 1) for b in (2, 3)) / 4
    torch.testing.assert_close(over_pairs(squared, p, z, ViewPairs(small=[2, 3])), main + extra)


def test_where_all_pairs_have_a_small_crop_their_mean_is_the_whole() -> None:
    p, z = encodings("12", 0), encodings("0", 10)
    by_hand = (squared(p[1], z[0]) + squared(p[2], z[0])) / 2
    torch.testing.assert_close(over_pairs(squared, p, z, ViewPairs(small=[1, 2])), by_hand)


@pytest.mark.parametrize(("sides", "small"), [((4, 4), []), ((8, 8, 4), [2]), ((4, 8, 2, 8), [0, 2])])
def test_small_crops_are_the_views_that_are_smaller_than_the_largest(
    sides: tuple[int, ...], small: list[int]
) -> None:
    assert small_crops([torch.zeros(1, 3, side, side) for side in sides]) == small


# mean encodings


def test_the_mean_of_targets_is_that_of_the_other_views() -> None:
    p, z = encodings("012", 0), encodings("012", 10)
    by_hand = (
        squared(p[0], (z[1] + z[2]) / 2) + squared(p[1], (z[0] + z[2]) / 2) + squared(p[2], (z[0] + z[1]) / 2)
    ) / 3
    torch.testing.assert_close(over_pairs(squared, p, z, ViewPairs(mean_encoding="target")), by_hand)


def test_one_source_meets_the_mean_of_two_targets() -> None:
    p, z = encodings("0", 0), encodings("12", 10)
    by_hand = squared(p[0], (z[1] + z[2]) / 2)
    torch.testing.assert_close(over_pairs(squared, p, z, ViewPairs(mean_encoding="target")), by_hand)


def test_the_mean_of_sources_meets_each_target() -> None:
    p, z = encodings("12", 0), encodings("03", 10)
    mean = (p[1] + p[2]) / 2
    by_hand = (squared(mean, z[0]) + squared(mean, z[3])) / 2
    torch.testing.assert_close(over_pairs(squared, p, z, ViewPairs(mean_encoding="source")), by_hand)


def test_the_mean_of_sources_leaves_out_the_targets_own_view() -> None:
    p, z = encodings("012", 0), encodings("012", 10)
    by_hand = sum(squared((sum(p.values()) - p[b]) / 2, z[b]) for b in range(3)) / 3
    torch.testing.assert_close(over_pairs(squared, p, z, ViewPairs(mean_encoding="source")), by_hand)


def test_mean_meets_mean_where_both_branches_are_averaged() -> None:
    p, z = encodings("01", 0), encodings("23", 10)
    by_hand = squared((p[0] + p[1]) / 2, (z[2] + z[3]) / 2)
    torch.testing.assert_close(over_pairs(squared, p, z, ViewPairs(mean_encoding="both")), by_hand)


@pytest.mark.parametrize("side", ["target", "source", "none"])
def test_with_two_views_a_mean_encoding_is_the_plain_loss(side: str) -> None:
    p, z = encodings("01", 0), encodings("01", 10)
    averaged = ViewPairs(mean_encoding=side)  # type: ignore[arg-type]
    torch.testing.assert_close(over_pairs(squared, p, z, averaged), over_pairs(squared, p, z))


def test_the_mean_is_taken_before_the_cosine_normalises() -> None:
    p, z = encodings("0", 0), {1: rows(11), 2: 100.0 * rows(12)}
    by_hand = negative_cosine(p[0], z[1] + z[2])
    torch.testing.assert_close(over_pairs(negative_cosine, p, z, ViewPairs(mean_encoding="target")), by_hand)


@every_two_branch_method
@pytest.mark.parametrize("side", ["source", "target", "both"])
def test_every_method_trains_with_a_mean_encoding(name: str, side: str) -> None:
    m = method(name, mean_encoding=side)
    m.loss(views(count=3)).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in m.backbone.parameters())


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_the_regression_gives_its_target_no_gradient(distance: str) -> None:
    p, z = rows(0).requires_grad_(), rows(1).requires_grad_()
    gradients = torch.autograd.grad(regression_loss(p, z, distance), [p, z], allow_unused=True)
    assert gradients[0].any()
    assert gradients[1] is None


# roles


@every_two_branch_method
@pytest.mark.parametrize(
    ("roles", "with_gradient"),
    [
        (("source", "target"), [0]),
        (("target", "source"), [1]),
        (("source", "target", "target"), [0]),
        (("target", "source", "source"), [1, 2]),
        (("both", "target"), [0]),
        (("both", "both", "source"), [0, 1, 2]),
    ],
)
def test_only_views_that_pass_the_source_branch_get_a_gradient(
    name: str, roles: tuple[str, ...], with_gradient: list[int]
) -> None:
    m = method(name)
    m.roles = roles
    batch = [view.requires_grad_() for view in views(count=len(roles))]
    m.loss(batch).loss.backward()
    assert [i for i, view in enumerate(batch) if not gradient_free(view)] == with_gradient


@pytest.mark.parametrize("roles", [("source", "target"), ("target", "source")])
def test_with_one_view_a_side_simsiam_is_one_direction(roles: tuple[str, ...]) -> None:
    m = method("simsiam").double()
    batch = [view.double() for view in views()]
    a = roles.index("source")
    with torch.no_grad():
        taps = [m.embed(view) for view in batch]
        by_hand = negative_cosine(taps[a]["predictor"], taps[1 - a]["projector"])
        m.roles = roles
        torch.testing.assert_close(m.loss(batch).loss, by_hand)


def test_with_one_view_a_side_byol_is_twice_one_direction() -> None:
    m = method("byol").double()
    a, b = (view.double() for view in views())
    with torch.no_grad():
        by_hand = 2.0 * regression_loss(m.embed(a)["predictor"], m.embed(b)["target"])
        m.roles = ("source", "target")
        torch.testing.assert_close(m.loss([a, b]).loss, by_hand)


@every_momentum_method
def test_a_view_of_the_target_alone_never_passes_the_online_network(name: str) -> None:
    m = method(name)
    m.roles = ("source", "target")
    seen: list[Tensor] = []
    m.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    a, b = views()
    m.loss([a, b])
    assert len(seen) == 1
    assert seen[0] is a


@every_two_branch_method
def test_small_crops_pass_the_source_branch_only_where_nobody_says_otherwise(name: str) -> None:
    m = pooled(name)
    assert isinstance(m, TwoBranchMethod)
    batch = with_small(4, small=2)
    assert (m.sources(batch), m.targets(batch)) == ([0, 1, 2, 3], [0, 1])


@every_two_branch_method
def test_small_crops_that_are_made_for_the_target_pass_it(name: str) -> None:
    m = pooled(name)
    assert isinstance(m, TwoBranchMethod)
    m.roles = ("both", "both", "target", "target")
    batch = with_small(4, small=2)
    assert (m.sources(batch), m.targets(batch)) == ([0, 1], [0, 1, 2, 3])
    assert m.loss(batch).loss.isfinite()


@every_two_branch_method
@pytest.mark.parametrize("small", [0, 2])
def test_roles_for_another_number_of_views_are_refused(name: str, small: int) -> None:
    m = pooled(name)
    m.roles = ("source", "target")
    with pytest.raises(UsageError, match="3 views came, but 2 have a role"):
        m.loss(with_small(3, small))


@every_two_branch_method
@pytest.mark.parametrize("role", ["source", "target"])
def test_a_branch_without_a_view_is_refused_in_one_line(name: str, role: str) -> None:
    m = method(name)
    m.roles = (role, role)
    missing = {"source": "target", "target": "source"}[role]
    with pytest.raises(UsageError, match=f"no view passes the {missing} branch: give one") as raised:
        m.loss(views())
    assert "\n" not in str(raised.value)


@every_momentum_method
def test_where_the_only_target_is_a_small_crop_for_both_sides_the_error_is_one_line(name: str) -> None:
    m = pooled(name)
    m.roles = ("source", "both")
    with pytest.raises(UsageError, match="no source view meets a target view") as raised:
        m.loss(with_small(2, small=1))
    assert "\n" not in str(raised.value)


def test_only_methods_with_two_branches_say_so() -> None:
    assert {name for name in METHODS if METHODS[name].two_branches} >= {*MOMENTUM, *STOPPED}
    assert not any(METHODS[name].two_branches for name in ("cplearn", "gedi", "simclr", "vicreg"))


# what the stop-gradient is for


def spread_after_training(seed: int, stop_gradient: bool, steps: int = 200) -> tuple[float, float]:
    """The last loss, and the spread of unit rows (1 is full), of SimSiam on a small network."""
    torch.manual_seed(seed)
    x, d = torch.randn(128, 16), 8
    net, predictor = mlp([16, 32, d]), mlp([d, 16, d])
    optimizer = torch.optim.SGD([*net.parameters(), *predictor.parameters()], lr=0.2, momentum=0.9)
    for _ in range(steps):
        z = [net(x + torch.randn_like(x)) for _ in range(2)]
        loss = simsiam_loss([predictor(view) for view in z], z, stop_gradient)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return loss.item(), F.normalize(net(x), dim=1).std(dim=0).mean().item() * d**0.5


@pytest.mark.parametrize("seed", range(3))
def test_without_the_stop_gradient_all_outputs_become_one_point(seed: int) -> None:
    loss, spread = spread_after_training(seed, stop_gradient=False)
    assert loss < -0.998
    assert spread < 0.06


@pytest.mark.parametrize("seed", range(3))
def test_with_the_stop_gradient_outputs_stay_apart(seed: int) -> None:
    loss, spread = spread_after_training(seed, stop_gradient=True)
    assert loss > -0.8
    assert spread > 0.8
