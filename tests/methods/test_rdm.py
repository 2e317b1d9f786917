"""RDM: what the spectral filters do to singular values, on either branch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.errors import FullrankError, UsageError
from fullrank.methods import build_method, negative_cosine, regression_loss
from fullrank.methods._spectral import FilterConfig, filtered_pair
from fullrank.networks.correlation import filter_rows, gain, right_singular
from methods.shrunk import method, views

SHAPES = [(24, 6), (6, 24), (8, 8)]
every_shape = pytest.mark.parametrize(("n", "d"), SHAPES, ids=["n > d", "n < d", "n = d"])
every_solver = pytest.mark.parametrize("solver", ["svd", "gram"])


def rows(seed: int, n: int = 24, d: int = 6) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def standardised(n: int, d: int, dtype: torch.dtype) -> Tensor:
    """As behind a BN without affine parameters: of rank n - 1 where n <= d."""
    x = rows(0, n, d).to(dtype)
    return (x - x.mean(dim=0)) / x.std(dim=0, correction=0)


def pair(n: int, d: int, **options: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Online and target rows before the filter and after it."""
    p, z = rows(0, n, d), rows(1, n, d)
    return p, z, *filtered_pair(p, z, FilterConfig(**options))


@every_shape
@every_solver
@pytest.mark.parametrize("location", ["online", "target"])
def test_sigma_zero_is_the_identity(n: int, d: int, solver: str, location: str) -> None:
    p, z, *after = pair(n, d, sigma=0.0, pred_location=location, solver=solver)
    torch.testing.assert_close(after, [p, z])


def test_sigma_zero_with_statistics_of_the_other_view_projects_onto_its_rows() -> None:
    p, z, _, after = pair(6, 24, sigma=0.0, pred_location="target", stats="other")
    torch.testing.assert_close(after, z @ torch.linalg.pinv(p) @ p)


@every_shape
@every_solver
def test_sigma_one_online_multiplies_by_the_root_of_the_second_moment(n: int, d: int, solver: str) -> None:
    p, _, after, _ = pair(n, d, sigma=1.0, solver=solver)
    eigenvalues, v = torch.linalg.eigh(p.T @ p)
    root = (v * eigenvalues.clamp(min=0.0).sqrt()) @ v.T
    torch.testing.assert_close(after, p @ root)


@every_shape
@every_solver
def test_sigma_two_online_multiplies_by_the_second_moment(n: int, d: int, solver: str) -> None:
    p, _, after, _ = pair(n, d, sigma=2.0, solver=solver)
    torch.testing.assert_close(after, p @ p.T @ p)


@every_shape
@every_solver
def test_sigma_minus_one_on_the_target_leaves_unit_singular_values(n: int, d: int, solver: str) -> None:
    *_, after = pair(n, d, sigma=-1.0, pred_location="target", solver=solver)
    torch.testing.assert_close(torch.linalg.svdvals(after), torch.ones(min(n, d), dtype=torch.float64))


def test_whitened_targets_of_fewer_rows_than_dimensions_are_orthonormal_rows() -> None:
    *_, after = pair(6, 24, sigma=-1.0, pred_location="target")
    torch.testing.assert_close(after @ after.T, torch.eye(6, dtype=torch.float64))


@pytest.mark.parametrize("sigma", [-0.5, 0.5, 1.7])
@pytest.mark.parametrize("location", ["online", "target"])
def test_a_power_raises_every_singular_value_to_one_plus_sigma(sigma: float, location: str) -> None:
    p, z, *after = pair(24, 6, sigma=sigma, pred_location=location)
    before, after_it = (p, after[0]) if location == "online" else (z, after[1])
    wanted = torch.linalg.svdvals(before) ** (1 + sigma)
    torch.testing.assert_close(torch.linalg.svdvals(after_it), wanted.sort(descending=True).values)


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("poly", lambda s: s**1.5),
        ("log", torch.log),
        ("log_1", lambda s: torch.log(s + 1)),
        ("log_2", lambda s: torch.log(s**2 + 1)),
    ],
)
def test_each_kind_of_filter_has_its_own_gain(kind: str, formula: Any) -> None:
    s = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    torch.testing.assert_close(gain(s, kind, 1.5), formula(s))


@pytest.mark.parametrize("kind", ["poly", "log", "log_1", "log_2"])
@every_shape
def test_both_solvers_make_the_same_filter(n: int, d: int, kind: str) -> None:
    p = rows(0, n, d)
    ours = [filter_rows(p, *right_singular(p, solver), kind, 1.0) for solver in ("svd", "gram")]
    torch.testing.assert_close(*ours)


@every_shape
def test_both_solvers_agree_in_single_precision_on_well_conditioned_rows(n: int, d: int) -> None:
    x = torch.linalg.qr(rows(0, max(n, d), min(n, d)))[0] * torch.linspace(1, 4, min(n, d)).double()
    x = (x if n >= d else x.T).float()
    whitened = [filter_rows(x, *right_singular(x, solver), sigma=-1.0) for solver in ("svd", "gram")]
    torch.testing.assert_close(*whitened, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "d"), [(16, 16), (16, 40)])
@every_solver
def test_the_threshold_drops_the_direction_that_batch_normalisation_took(
    n: int, d: int, dtype: torch.dtype, solver: str
) -> None:
    s, v = right_singular(standardised(n, d, dtype), solver, rank_threshold=1e-5)
    assert s.count_nonzero() == n - 1
    assert v.shape == (d, n)
    assert (v[:, s == 0] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_a_threshold_the_svd_keeps_that_direction_as_the_reference_does(dtype: torch.dtype) -> None:
    s, _ = right_singular(standardised(16, 40, dtype), "svd")
    assert s.count_nonzero() == 16
    assert s[-1] < 1e-5 * s[0]


@pytest.mark.parametrize(("n", "d"), [(256, 512), (16, 32), (64, 64), (128, 64)])
@pytest.mark.parametrize("sigma", [-1.0, -2.0])
def test_the_gram_solver_drops_what_it_cannot_tell_from_zero(n: int, d: int, sigma: float) -> None:
    x = (rows(0, n, 3) @ rows(1, 3, d)).float()  # of rank 3
    s, v = right_singular(x, "gram")
    assert s.count_nonzero() == 3
    torch.testing.assert_close(v[:, :3].T @ v[:, :3], torch.eye(3), rtol=0, atol=1e-5)
    wanted = torch.linalg.svdvals(x)[:3] ** (1 + sigma)
    found = torch.linalg.svdvals(filter_rows(x, s, v, sigma=sigma))[:3]
    torch.testing.assert_close(found, wanted.sort(descending=True).values, rtol=1e-3, atol=0)


@every_solver
@pytest.mark.parametrize("location", ["online", "target"])
@pytest.mark.parametrize("kind", ["poly", "log", "log_1", "log_2"])
def test_rows_of_zeros_pass_as_zeros_with_a_finite_gradient(solver: str, location: str, kind: str) -> None:
    p = torch.zeros(8, 4, requires_grad=True)
    config = FilterConfig(pred_type=kind, pred_location=location, sigma=-1.0, solver=solver)  # type: ignore[arg-type]
    loss = negative_cosine(*filtered_pair(p, torch.zeros(8, 4), config))
    assert loss.item() == 0.0
    assert torch.autograd.grad(loss, p)[0].isfinite().all()


@every_solver
def test_rows_that_are_not_finite_say_that_training_diverged(solver: str) -> None:
    with pytest.raises(FullrankError, match="training has diverged: lower --lr"):
        right_singular(torch.full((4, 4), torch.nan), solver)


def test_the_online_gradient_is_that_of_a_constant_filter() -> None:
    p, z = rows(0).requires_grad_(), rows(1)
    config = FilterConfig(sigma=1.0)
    ours = torch.autograd.grad(negative_cosine(*filtered_pair(p, z, config)), p)[0]
    s, v = right_singular(p.detach())
    constant = (v * s) @ v.T
    torch.testing.assert_close(ours, torch.autograd.grad(negative_cosine(p @ constant, z), p)[0])


@pytest.mark.parametrize("stats", ["own", "other"])
def test_a_filtered_target_carries_no_gradient(stats: str) -> None:
    p, z = rows(0).requires_grad_(), rows(1).requires_grad_()
    after = filtered_pair(p, z, FilterConfig(pred_location="target", sigma=-1.0, stats=stats))[1]  # type: ignore[arg-type]
    assert not after.requires_grad


def test_statistics_of_the_other_view_filter_the_target_by_the_online_spectrum() -> None:
    p, z, _, after = pair(24, 6, sigma=2.0, pred_location="target", stats="other")
    torch.testing.assert_close(after, z @ p.T @ p)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rows_are_filtered_in_single_precision(dtype: torch.dtype) -> None:
    p, z = rows(0).to(dtype), rows(1).to(dtype)
    ours = filtered_pair(p, z, FilterConfig(sigma=3.0))[0]
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, filtered_pair(p.float(), z.float(), FilterConfig(sigma=3.0))[0])


@pytest.mark.parametrize("threshold", [-0.1, 1.0])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(UsageError, match=r"rank-threshold lies in \[0, 1\)"):
        build_method("rdm_simsiam", nn.Flatten(), 12, {"rank_threshold": threshold})


@pytest.mark.parametrize("location", ["online", "target"])
def test_rdm_simsiam_averages_the_filtered_cosine_over_both_directions(location: str) -> None:
    m, (a, b) = method("rdm_simsiam", pred_location=location).double(), (v.double() for v in views())
    with torch.no_grad():
        z = [m.embed(view)["projector"] for view in (a, b)]
        loss = m.loss([a, b]).loss
    config = m.config
    by_hand = sum(negative_cosine(*filtered_pair(z[i], z[1 - i], config)) for i in range(2)) / 2
    torch.testing.assert_close(loss, by_hand)


def test_rdm_byol_sums_the_filtered_regression_over_both_directions() -> None:
    m, (a, b) = method("rdm_byol").double(), (v.double() for v in views())
    with torch.no_grad():
        for p in m.target.parameters():  # type: ignore[union-attr]
            p.add_(torch.randn_like(p))
        taps = [m.embed(view) for view in (a, b)]
        loss = m.loss([a, b]).loss
    pairs = [filtered_pair(taps[i]["projector"], taps[1 - i]["target"], m.config) for i in range(2)]
    torch.testing.assert_close(loss, sum(regression_loss(*both) for both in pairs))


# what the filter is for


def effective_rank(z: Tensor) -> float:
    """exp of the entropy of the singular values' shares."""
    share = torch.linalg.svdvals(z - z.mean(dim=0))
    share = share / share.sum()
    return float(torch.special.entr(share).sum().exp())


def rank_after_training(seed: int, **options: Any) -> float:
    """Of the representation, after 150 steps on noisy views."""
    torch.manual_seed(seed)
    x = torch.randn(128, 16)
    m = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8), nn.BatchNorm1d(8, affine=False))
    optimizer = torch.optim.SGD(m.parameters(), lr=0.5, momentum=0.9)
    config = FilterConfig(**options)
    for _ in range(150):
        z = [m(x + 0.5 * torch.randn_like(x)) for _ in range(2)]
        loss = sum(negative_cosine(*filtered_pair(z[i], z[1 - i], config)) for i in range(2))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
    with torch.no_grad():
        return effective_rank(F.normalize(m(x), dim=1))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "filtered", [{"sigma": 1.0}, {"sigma": -1.0, "pred_location": "target"}], ids=["low pass", "high pass"]
)
def test_a_filter_on_either_branch_keeps_the_rank_that_a_stop_gradient_alone_loses(
    seed: int, filtered: dict[str, Any]
) -> None:
    assert rank_after_training(seed, sigma=0.0) < 5.5  # of 8
    assert rank_after_training(seed, **filtered) > 7.5
