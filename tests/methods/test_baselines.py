"""Facts about the baselines' losses that follow from the papers' formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.errors import UsageError
from fullrank.methods import Method, build_method, info_nce, nt_xent
from fullrank.methods.barlow_twins import barlow_loss
from fullrank.methods.directclr import DirectCLR, directclr_loss
from fullrank.methods.lejepa import LeJEPA, epps_pulley, lejepa_loss, random_directions, sigreg
from fullrank.methods.mocov3 import mocov3_loss
from fullrank.methods.vicreg import covariance, variance, vicreg_loss
from fullrank.methods.wmse import WMSE, whiten, wmse_loss

SIGNS = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)


def rows(seed: int, n: int = 16, d: int = 4) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(name: str, seed: int = 0, width: int = 12, **options: Any) -> Method:
    torch.manual_seed(seed)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, width))
    return build_method(name, backbone, width, options).double()


def images(count: int = 2, n: int = 16, side: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 3, side, side, generator=generator, dtype=torch.float64) for _ in range(count)]


def test_barlow_twins_is_content_with_identical_views_of_uncorrelated_channels() -> None:
    assert barlow_loss([SIGNS, SIGNS])["loss"].item() == pytest.approx(0, abs=1e-8)


def test_barlow_twins_charges_a_constant_view_one_per_channel() -> None:
    terms = barlow_loss([torch.ones(8, 5), torch.ones(8, 5)])
    assert (terms["invariance"].item(), terms["redundancy"].item()) == (5, 0)


def test_barlow_twins_charges_a_repeated_channel_on_both_sides_of_the_diagonal() -> None:
    z = SIGNS[:, [0, 0]]
    assert barlow_loss([z, z])["redundancy"].item() == pytest.approx(2, abs=1e-4)


def test_barlow_twins_does_not_see_scale_and_offset() -> None:
    z = [rows(0), rows(1)]
    torch.testing.assert_close(
        barlow_loss([3 * z[0] + 1, z[1]])["loss"], barlow_loss(z)["loss"], rtol=1e-4, atol=0
    )


def test_the_unbiased_standardisation_cannot_reach_a_diagonal_of_one() -> None:
    invariance = barlow_loss([SIGNS, SIGNS], standardise="unbiased")["invariance"].item()
    assert invariance == pytest.approx(3 * (1 - 3 / 4) ** 2, rel=1e-3)


def test_vicregs_variance_term_is_zero_where_every_channel_spreads_by_one() -> None:
    assert variance(SIGNS).item() == 0
    assert variance(0.5 * SIGNS).item() == pytest.approx(1 - math.sqrt(4 / 3 / 4 + 1e-4))


def test_vicregs_covariance_term_is_zero_for_uncorrelated_channels_only() -> None:
    assert covariance(SIGNS).item() == pytest.approx(0)
    assert covariance(SIGNS[:, [0, 0]]).item() == pytest.approx((4 / 3) ** 2)


def test_vicreg_is_zero_for_identical_views_of_uncorrelated_spread_channels() -> None:
    assert vicreg_loss([SIGNS, SIGNS])["loss"].item() == pytest.approx(0)


def test_vicregs_averaged_variance_is_half_the_summed_one() -> None:
    z = [0.1 * rows(0), 0.1 * rows(1)]
    summed, averaged = (vicreg_loss(z, variance_over_views=how) for how in ("sum", "mean"))
    torch.testing.assert_close(summed["variance"], 2 * averaged["variance"])
    torch.testing.assert_close(summed["covariance"], averaged["covariance"])


def test_whitening_gives_the_identity_covariance() -> None:
    skewed = rows(0, n=50) @ rows(1, n=4) + 7
    torch.testing.assert_close(whiten(skewed).T.cov(), torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(whiten(skewed).mean(dim=0), torch.zeros(4, dtype=torch.float64))


def test_whitening_with_eps_one_half_mixes_in_half_the_identity() -> None:
    z = rows(0, n=50)
    lower = torch.linalg.cholesky(0.5 * z.T.cov() + 0.5 * torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(whiten(z, 0.5) @ lower.T, z - z.mean(dim=0))


def test_wmse_is_zero_for_views_that_differ_by_scale_and_offset() -> None:
    z = rows(0)
    assert wmse_loss([z, 3 * z - 1]).item() == pytest.approx(0, abs=1e-12)


def test_wmse_whitens_each_sub_batch_by_itself_and_takes_up_the_remainder() -> None:
    z = [rows(0, n=19), rows(1, n=19)]
    order = torch.randperm(19, generator=torch.Generator().manual_seed(0))
    first, second = order[:10], order[10:]
    halves = [wmse_loss([view[part] for view in z]) for part in (first, second)]
    by_hand = (10 * halves[0] + 9 * halves[1]) / 19
    torch.testing.assert_close(wmse_loss(z, order, whitening_size=8), by_hand)


def test_wmse_gives_gradient_to_the_first_view_alone_unless_told_otherwise() -> None:
    for detach in (True, False):
        z = [rows(0).requires_grad_(), rows(1).requires_grad_()]
        wmse_loss(z, detach_second=detach).backward()
        assert z[0].grad is not None
        assert (z[1].grad is None) == detach


def test_wmse_refuses_sub_batches_that_are_not_larger_than_the_width() -> None:
    with pytest.raises(UsageError, match="whitening-size must be larger than proj-output-dim, which is 8"):
        built("wmse", proj_output_dim=8, whitening_size=8)


def test_wmse_with_eps_takes_batches_and_sub_batches_that_are_not_larger_than_the_width() -> None:
    method = built("wmse", proj_output_dim=8, whitening_size=4, whitening_eps=0.1)
    assert method.loss(images(n=8)).loss.isfinite()
    z = rows(0, n=4, d=8)
    mixed = 0.9 * z.T.cov() + 0.1 * torch.eye(8, dtype=z.dtype)
    white = whiten(z, 0.1)  # centred rows times the inverse of a root of the mixed covariance
    torch.testing.assert_close(white @ torch.linalg.cholesky(mixed).T, z - z.mean(dim=0))


@pytest.mark.parametrize("size", [0, 1])
def test_wmse_with_eps_refuses_sub_batches_of_one_row(size: int) -> None:
    with pytest.raises(UsageError, match="whitening-size must be at least 2"):
        built("wmse", whitening_size=size, whitening_eps=0.1)
    with pytest.raises(UsageError, match="takes more than 1 row, not 1: raise the batch size"):
        whiten(torch.ones(1, 4), eps=0.1)


def test_wmse_says_what_batch_it_needs_when_two_images_come() -> None:
    with pytest.raises(UsageError, match="takes more than 8 rows, not 2: raise the batch size"):
        built("wmse", proj_output_dim=8, whitening_size=16).loss(images(n=2))


def test_wmse_cannot_whiten_constant_projections_unless_eps_is_positive() -> None:
    with pytest.raises(UsageError, match="raise whitening-eps above 0"):
        whiten(torch.ones(16, 4))
    assert whiten(torch.ones(16, 4), eps=0.01).isfinite().all()


def test_wmse_averages_over_as_many_partitions_as_asked() -> None:
    method = built("wmse", proj_output_dim=4, whitening_size=8, whitening_iters=3)
    assert isinstance(method, WMSE)
    drawn = [torch.randperm(16, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    remaining = iter(drawn)
    method.permutation = lambda n: next(remaining)  # type: ignore[method-assign]
    loss = method.loss(images()).loss
    z = [method.projector(method.backbone(view)) for view in images()]
    torch.testing.assert_close(loss, torch.stack([wmse_loss(z, order, 8) for order in drawn]).mean())


def by_double_loop(z: Tensor, index: list[int], temperature: float) -> float:
    u, losses = F.normalize(z, dim=1), []
    for i in range(len(u)):
        others = [j for j in range(len(u)) if j != i]
        terms = {j: math.exp((u[i] @ u[j]).item() / temperature) for j in others}
        losses.append(-math.log(sum(terms[j] for j in others if index[j] == index[i]) / sum(terms.values())))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("count", [2, 3])
def test_nt_xent_equals_a_double_loop(count: int) -> None:
    z, index = rows(0, n=5 * count), list(range(5)) * count
    ours = nt_xent(z, torch.tensor(index), temperature=0.3).item()
    assert ours == pytest.approx(by_double_loop(z, index, 0.3))


def test_nt_xent_is_finite_at_a_temperature_of_5_in_1000() -> None:
    z = rows(0).float().requires_grad_()
    loss = nt_xent(z, torch.arange(8).repeat(2), temperature=0.005)
    loss.backward()
    assert loss.isfinite()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_nt_xent_of_a_constant_is_the_log_of_the_number_of_other_rows() -> None:
    loss = nt_xent(torch.ones(16, 4), torch.arange(8).repeat(2))
    assert loss.item() == pytest.approx(math.log(15))


def test_info_nce_equals_the_cross_entropy_of_finding_ones_own_key() -> None:
    q, k = F.normalize(rows(0), dim=1), F.normalize(rows(1), dim=1)
    by_hand = F.cross_entropy(q @ k.T / 0.1, torch.arange(16))
    torch.testing.assert_close(info_nce(5 * q, 2 * k, 0.1), by_hand)


def test_directclr_gives_no_gradient_to_channels_beyond_the_first_d0() -> None:
    h = [rows(0).requires_grad_(), rows(1).requires_grad_()]
    directclr_loss(h, [torch.arange(3)]).backward()
    gradient = h[0].grad
    assert gradient is not None
    assert gradient[:, :3].abs().sum() > 0
    assert gradient[:, 3].abs().sum() == 0


def test_directclr_is_the_mean_of_both_directions_of_info_nce() -> None:
    a, b = rows(0), rows(1)
    by_hand = (info_nce(a[:, :2], b[:, :2], 0.1) + info_nce(b[:, :2], a[:, :2], 0.1)) / 2
    torch.testing.assert_close(directclr_loss([a, b], [torch.arange(2)]), by_hand)


@pytest.mark.parametrize(("width", "d0"), [(2048, 360), (512, 90), (2, 1)])
def test_directclr_keeps_the_papers_share_of_the_channels(width: int, d0: int) -> None:
    method = built("directclr", width=width)
    assert isinstance(method, DirectCLR)
    assert [len(some) for some in method.channels()] == [d0]


def test_directclrs_groups_are_disjoint_and_drawn_anew() -> None:
    method = built("directclr", width=16, num_groups=4)
    assert isinstance(method, DirectCLR)
    first, second = method.channels(), method.channels()
    assert [len(some) for some in first] == [4] * 4
    assert sorted(torch.cat(first).tolist()) == list(range(16))
    assert torch.cat(first).tolist() != torch.cat(second).tolist()


@pytest.mark.parametrize(
    "options", [{"num_channels": 13}, {"num_channels": 5, "num_groups": 3}, {"num_groups": 13}]
)
def test_directclr_refuses_more_channels_than_there_are(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="the backbone has 12: lower num-channels or num-groups"):
        built("directclr", **options)


def test_moco_sums_two_directions_of_twice_the_temperature_times_info_nce() -> None:
    q, k = [rows(0), rows(1)], [rows(2), rows(3)]
    by_hand = 0.4 * (info_nce(q[0], k[1], 0.2) + info_nce(q[1], k[0], 0.2))
    torch.testing.assert_close(mocov3_loss(q, k), by_hand)


def test_mocos_keys_get_no_gradient() -> None:
    q, k = rows(0).requires_grad_(), rows(1).requires_grad_()
    mocov3_loss({0: q}, {1: k}).backward()
    assert q.grad is not None
    assert k.grad is None


def test_the_epps_pulley_statistic_of_normal_samples_has_its_null_mean() -> None:
    # under the null n E|phi_n - phi|^2 = 1 - exp(-t^2), so the mean is its integral against exp(-t^2 / 2)
    null = math.sqrt(2 * math.pi) * math.erf(3 / math.sqrt(2))
    null -= math.sqrt(2 * math.pi / 3) * math.erf(3 * math.sqrt(1.5))
    samples = torch.randn(500, 4000, generator=torch.Generator().manual_seed(0))
    assert epps_pulley(samples).mean().item() == pytest.approx(null, rel=0.05)


def test_the_epps_pulley_statistic_of_a_constant_grows_with_the_sample() -> None:
    small, large = (epps_pulley(torch.zeros(n, 1, dtype=torch.float64)).item() for n in (100, 200))
    assert small > 40
    assert large == pytest.approx(2 * small)


def test_sigreg_sees_a_dimension_that_is_gone() -> None:
    z, directions = rows(0, n=500, d=8), random_directions(8, 64, seed=0)
    flat = z * (torch.arange(8) < 4)
    assert sigreg(flat, directions) > 10 * sigreg(z, directions)


def test_lejepas_small_crops_meet_the_mean_of_the_full_views_but_do_not_shift_it() -> None:
    z, directions = [rows(i) for i in range(3)], random_directions(4, 8, seed=0)
    centre = (z[0] + z[1]) / 2
    by_hand = torch.stack([(view - centre).square().mean() for view in z]).mean()
    torch.testing.assert_close(lejepa_loss(z, directions, small=[2])["invariance"], by_hand)


def test_lejepa_tells_small_crops_by_their_size() -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 12))
    method = build_method("lejepa", backbone, 12, {"proj_hidden_dim": 8, "proj_output_dim": 4}).double()
    views = [*images(2, side=4), *images(1, side=2)]
    step = method.loss(views)
    z = [method.embed(view)["projector"] for view in views]
    centre = (z[0] + z[1]) / 2
    by_hand = torch.stack([(view - centre).square().mean() for view in z]).mean()
    torch.testing.assert_close(step.terms["invariance"], by_hand)


def test_lejepa_draws_new_directions_at_every_training_step_and_resumes_where_it_was() -> None:
    first, second = (built("lejepa", seed, proj_hidden_dim=8, proj_output_dim=4) for seed in (0, 1))
    losses = [first.loss(images()).loss.item() for _ in range(2)]
    assert losses[0] != losses[1]
    second.load_state_dict(first.state_dict())
    assert second.loss(images()).loss.item() == first.loss(images()).loss.item()


def test_lejepa_draws_nothing_in_eval_mode() -> None:
    method = built("lejepa", proj_hidden_dim=8, proj_output_dim=4).eval()
    assert isinstance(method, LeJEPA)
    method.loss(images())
    assert method.batches == 0


COPIES = {  # a loss on copies of two views, which must not depend on how many copies there are
    "barlow_twins": lambda z: barlow_loss(z)["loss"],
    "vicreg": lambda z: vicreg_loss(z)["loss"],
    "wmse": lambda z: wmse_loss(z),
    "directclr": lambda z: directclr_loss(z, [torch.arange(4)]),
    "mocov3": lambda z: mocov3_loss(z, z),
}


@pytest.mark.parametrize("name", COPIES)
def test_any_number_of_equal_views_has_the_loss_of_two(name: str) -> None:
    z = rows(0)
    torch.testing.assert_close(COPIES[name]([z] * 5), COPIES[name]([z] * 2))


@pytest.mark.parametrize("name", ["barlow_twins", "vicreg", "wmse"])
def test_three_views_are_the_mean_over_pairs(name: str) -> None:
    z = [rows(i) for i in range(3)]
    pairs = [COPIES[name]([z[a], z[b]]) for a, b in ((0, 1), (0, 2), (1, 2))]
    torch.testing.assert_close(COPIES[name](z), torch.stack(pairs).mean())


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("barlow_twins", {"invariance", "redundancy"}),
        ("vicreg", {"invariance", "variance", "covariance"}),
        ("lejepa", {"invariance", "sigreg"}),
    ],
)
def test_a_loss_of_several_terms_reports_each(name: str, terms: set[str]) -> None:
    step = built(name, proj_hidden_dim=8, proj_output_dim=4).loss(images())
    assert set(step.terms) == terms
    assert all(value.isfinite() for value in step.terms.values())
