"""Metrics: the tables of the literature, their symmetries, and no NaN on any finite input."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expect import known
from fullrank import collapse
from fullrank.collapse import Moments, Panel
from fullrank.errors import UsageError

Rows = Callable[..., torch.Tensor]
OF_ROWS = ("level", "centred_share", "mean_cosine", "rankme", "uniformity")


def of_rows(z: torch.Tensor) -> dict[str, float | None]:
    return {name: getattr(collapse, name)(z) for name in OF_ROWS}


def whole_panel(z: torch.Tensor) -> dict[str, float | None]:
    panel = Panel.from_moments("z", Moments.of(z), points=z)
    # Tight clusters have promises, and tests, of their own.
    return {
        name: panel.value(name) for name in panel.measures if name not in ("linked_share", "tight_clusters")
    }


@pytest.mark.parametrize(
    ("n", "rankme", "ratio", "auc"), [(256, 236, 170, 0.807), (512, 411, 255, 0.681), (1024, 474, 341, 0.612)]
)
def test_the_table_of_isotropic_clouds(
    gaussian: Rows, n: int, rankme: float, ratio: float, auc: float
) -> None:
    sigma = Moments.of(gaussian(n, 512)).singular_values()
    assert collapse.effective_rank(sigma) == pytest.approx(rankme, rel=0.02)
    assert collapse.participation_ratio(sigma**2) == pytest.approx(ratio, rel=0.02)
    assert collapse.auc(sigma, 512) == pytest.approx(auc, rel=0.02)


@pytest.mark.parametrize(
    ("rank", "level", "rankme", "uniformity"),
    [(64, 0.997, 64, -3.877), (8, 0.972, 8.0, -3.086), (2, 0.874, 2.0, -1.576), (1, 0.792, 1.0, -0.693)],
)
def test_the_table_of_low_ranks(
    low_rank: Rows, rank: int, level: float, rankme: float, uniformity: float
) -> None:
    # Averaged over coordinates of random directions, hence the 3 % on the level of rank 1 and 2.
    z = low_rank(4000, 512, rank, seed=3)
    assert collapse.level(z) == pytest.approx(level, rel=0.03)
    assert collapse.rankme(z) == pytest.approx(rankme, rel=0.02)
    assert collapse.uniformity(z[:1500]) == pytest.approx(uniformity, rel=0.03)


def test_the_exact_power_law() -> None:
    eigenvalues = 1 / np.arange(1, 513)
    assert collapse.effective_rank(eigenvalues**0.5) == pytest.approx(409.6, abs=0.1)
    assert collapse.participation_ratio(eigenvalues) == pytest.approx(28.3, abs=0.1)
    assert collapse.auc(eigenvalues**0.5) == pytest.approx(0.657, abs=0.001)


def test_the_eps_of_rankme_is_the_published_one() -> None:
    # The rank-one floor that spec 4.3 reports for an eps of 1e-5 on 2048 directions.
    rank_one = np.r_[1.0, np.zeros(2047)]
    assert collapse.effective_rank(rank_one, eps=1e-5) == pytest.approx(1.27, abs=0.01)
    assert collapse.effective_rank(rank_one) == 1.0


SHAPES = {"n": st.integers(3, 30), "d": st.integers(2, 10), "seed": st.integers(0, 999)}


def skewed(n: int, d: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * torch.linspace(2, 0.3, d) + 0.5


def assert_same(a: dict[str, float | None], b: dict[str, float | None]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert b[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name


@given(**SHAPES)
@settings(max_examples=20, deadline=None)
def test_rotation_changes_all_but_the_level(n: int, d: int, seed: int) -> None:
    z = skewed(n, d, seed)
    q = torch.linalg.qr(skewed(d, d, seed + 1)).Q
    a, b = whole_panel(z), whole_panel(z @ q)
    del a["level"], b["level"]  # a mean over coordinates, so not free of them
    assert_same(a, b)


@given(**SHAPES, scale=st.floats(1e-4, 1e4))
@settings(max_examples=20, deadline=None)
def test_scale_changes_nothing(n: int, d: int, seed: int, scale: float) -> None:
    z = skewed(n, d, seed)
    assert_same(whole_panel(z), whole_panel(z * scale))


@given(**SHAPES)
@settings(max_examples=20, deadline=None)
def test_order_changes_nothing(n: int, d: int, seed: int) -> None:
    z = skewed(n, d, seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    columns = torch.randperm(d, generator=torch.Generator().manual_seed(seed))
    assert_same(whole_panel(z), whole_panel(z[order][:, columns]))


@given(**SHAPES, times=st.integers(2, 4))
@settings(max_examples=20, deadline=None)
def test_replication_changes_no_metric_of_moments(n: int, d: int, seed: int, times: int) -> None:
    z = skewed(n, d, seed)
    once, more = whole_panel(z), whole_panel(z.repeat(times, 1))
    assert known(more.pop("uniformity")) >= known(once.pop("uniformity"))  # the one that compares rows
    more["level"] = known(more["level"]) * ((n - 1 / times) / (n - 1)) ** 0.5  # the unbiased std
    if n <= d:  # rounding noise of n - 1 or n directions must not count as more
        assert known(more["rankme_unit"]) <= n + 1e-6
    assert_same(once, more)


@given(**SHAPES)
@settings(max_examples=20, deadline=None)
def test_functions_of_rows_agree_with_the_panel_of_moments(n: int, d: int, seed: int) -> None:
    z = skewed(n, d, seed)
    rows, panel = of_rows(z), whole_panel(z)
    assert rows["level"] == pytest.approx(panel["level"], rel=1e-9)
    assert rows["centred_share"] == pytest.approx(panel["centred_share"], rel=1e-9)
    assert rows["rankme"] == pytest.approx(panel["rankme_uncentred"], rel=1e-9)
    u = torch.nn.functional.normalize(z, dim=1)
    off_diagonal = ~torch.eye(n, dtype=torch.bool)
    assert rows["mean_cosine"] == pytest.approx((u @ u.T)[off_diagonal].mean().item())
    kernel = torch.exp(-2 * torch.pdist(u).square()).mean().log().item()
    assert rows["uniformity"] == pytest.approx(kernel)


def test_a_constant_has_defined_values() -> None:
    z = torch.rand(300, 7).sub(2)[:1].expand(300, 7)
    assert of_rows(z) == {
        "level": 0.0,
        "centred_share": 0.0,
        "mean_cosine": pytest.approx(1),
        "rankme": 1.0,
        "uniformity": pytest.approx(0, abs=1e-12),
    }
    values = whole_panel(z)
    assert [values[m] for m in ("erank_centred", "participation_ratio", "auc")] == [None] * 3


def test_all_zero_rows_have_defined_values() -> None:
    assert of_rows(torch.zeros(5, 3)) == {
        "level": 0.0,
        "centred_share": 0.0,
        "mean_cosine": 0.0,
        "rankme": None,
        "uniformity": 0.0,
    }


def test_one_row_has_no_spread() -> None:
    values = of_rows(torch.ones(1, 3))
    assert values.pop("rankme") == 1.0
    assert set(values.values()) == {None}
    assert collapse.alignment(torch.empty(0, 3), torch.empty(0, 3)) is None


@pytest.mark.parametrize("name", OF_ROWS)
def test_nan_is_an_error_not_a_number(name: str) -> None:
    with pytest.raises(UsageError, match="1 of 4 embedding rows"):
        getattr(collapse, name)(torch.tensor([[1.0], [2.0], [float("nan")], [0.0]]))


def test_alignment_is_between_agreement_and_chance(gaussian: Rows) -> None:
    za, zb = gaussian(2000, 32), gaussian(2000, 32, seed=1)
    assert collapse.alignment(za, 3 * za) == pytest.approx(0, abs=1e-12)
    assert collapse.alignment(za, zb) == pytest.approx(2, abs=0.02)
    assert collapse.alignment(za, -za) == pytest.approx(4)
    with pytest.raises(UsageError, match="one shape"):
        collapse.alignment(za, zb[:5])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_moves_little(gaussian: Rows, dtype: torch.dtype) -> None:
    z = gaussian(800, 64) * torch.arange(1, 65).rsqrt()
    exact, half = whole_panel(z), whole_panel(z.to(dtype))
    for name, value in exact.items():
        assert half[name] == pytest.approx(value, rel=0.01), name


def test_uniformity_in_blocks_is_uniformity(gaussian: Rows) -> None:
    u = torch.nn.functional.normalize(gaussian(600, 5), dim=1)
    assert collapse.uniformity(u) == pytest.approx(torch.pdist(u).square().mul(-2).exp().mean().log().item())
