"""Moments: sums that add up exactly, and spectra without noise rank."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.collapse import Moments, Reservoir, effective_rank
from fullrank.errors import UsageError

SIZES = {"n": st.integers(2, 40), "d": st.integers(1, 12), "seed": st.integers(0, 999)}


def rows(n: int, d: int, seed: int) -> torch.Tensor:
    return 3 + torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_same(a: Moments, b: Moments) -> None:
    for x, y in ((a, b), (a.unit, b.unit)):
        assert x.count == y.count
        torch.testing.assert_close(x.total, y.total, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(x.outer, y.outer, rtol=1e-10, atol=1e-12)


@given(**SIZES, chunk=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_chunks_and_merged_parts_equal_the_whole(n: int, d: int, seed: int, chunk: int) -> None:
    z = rows(n, d, seed)
    whole, chunked, merged = Moments.of(z), Moments(d), Moments(d)
    for part in z.split(chunk):
        chunked.update(part)
        merged.merge(Moments.of(part))
    assert_same(chunked, whole)
    assert_same(merged, whole)


@given(**SIZES)
@settings(max_examples=25, deadline=None)
def test_the_derived_values_are_those_of_numpy(n: int, d: int, seed: int) -> None:
    z = rows(n, d, seed)
    moments, x = Moments.of(z), z.numpy()
    np.testing.assert_allclose(moments.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(x.T).reshape(d, d), atol=1e-12)
    np.testing.assert_allclose(moments.variances, x.var(0, ddof=1), atol=1e-12)
    np.testing.assert_allclose(moments.second_moment, x.T @ x / n, rtol=1e-12)
    for centred in (True, False):
        sigma = np.linalg.svd(x - x.mean(0) * centred, compute_uv=False)
        np.testing.assert_allclose(moments.singular_values(centred), sigma, atol=1e-6 * sigma.max())


def test_the_large_chunk_is_cut_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    z = rows(100, 6, 0)
    whole = Moments.of(z)
    monkeypatch.setattr("fullrank.collapse.moments._CHUNK_ELEMENTS", 50)
    assert_same(Moments.of(z), whole)


@pytest.mark.parametrize("n", [2, 33, 1000, 20_000])
@pytest.mark.parametrize("d", [1, 2, 16, 100])
def test_a_constant_has_no_centred_spectrum_whatever_its_rounding(n: int, d: int) -> None:
    moments = Moments(d)
    for part in (3 * torch.rand(d, dtype=torch.float64)).expand(n, d).split(777):
        moments.update(part)
    for sums in (moments, moments.unit):
        assert not sums.singular_values().any()
        assert not sums.variances.any()
        assert sums.centred_share == 0
        assert effective_rank(sums.singular_values(centred=False)) == 1


def test_rank_one_reads_one() -> None:
    # Accumulated in float32 this matrix reads 1.12.
    z = rows(4096, 1, 0).float() @ rows(1, 512, 1).float()
    assert effective_rank(Moments.of(z).singular_values(centred=False)) == pytest.approx(1, abs=0.005)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_any_real_dtype_is_summed_in_float64(dtype: torch.dtype) -> None:
    z = (10 * rows(50, 4, 0)).to(dtype)
    assert_same(Moments.of(z), Moments.of(z.double()))
    assert Moments.of(z).total.dtype == torch.float64


def test_a_zero_row_stays_zero_at_unit_length() -> None:
    moments = Moments.of(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    torch.testing.assert_close(moments.unit.total, torch.tensor([0.6, 0.8], dtype=torch.float64))


def test_rows_that_are_not_finite_are_counted_and_not_taken_in() -> None:
    z = rows(10, 3, 0)
    moments = Moments.of(z)
    bad = z.clone()
    bad[2, 1], bad[7] = float("nan"), float("inf")
    with pytest.raises(UsageError, match=r"2 of 10 embedding rows are not finite"):
        moments.update(bad)
    assert_same(moments, Moments.of(z))


def test_finite_rows_whose_sum_is_not_are_taken_in() -> None:
    z = torch.full((4, 2), 3e38)
    assert Moments.of(z).count == 4


@pytest.mark.parametrize("n", [3, 40])
def test_the_rows_that_were_given_stay_as_they_are_and_may_change_afterwards(n: int) -> None:
    z = rows(n, 8, 0).double()
    before, moments = z.clone(), Moments.of(z)
    torch.testing.assert_close(z, before, rtol=0, atol=0)
    z.zero_()
    assert_same(moments, Moments.of(before))
    torch.testing.assert_close(
        torch.from_numpy(moments.singular_values()), torch.from_numpy(Moments.of(before).singular_values())
    )


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (5, 0)])
def test_what_is_no_matrix_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="matrix"):
        Moments.of(torch.zeros(shape))


def test_another_width_is_refused() -> None:
    with pytest.raises(UsageError, match="width 4"):
        Moments(3).update(torch.zeros(2, 4))
    with pytest.raises(UsageError, match="4 dimensions"):
        Moments(3).merge(Moments(4))
    with pytest.raises(UsageError, match="4 dimensions"):
        Moments(3).load_state_dict(Moments(4).state_dict())


def test_no_rows_is_an_error_and_one_row_has_no_spread() -> None:
    with pytest.raises(UsageError, match="no embedding rows"):
        _ = Moments(3).mean
    one = Moments.of(torch.ones(1, 3))
    assert one.covariance.tolist() == [[0.0] * 3] * 3
    assert not one.singular_values().any()


def test_the_state_comes_back() -> None:
    moments = Moments.of(rows(20, 5, 0))
    other = Moments(5)
    other.load_state_dict(moments.state_dict())
    assert_same(other, moments)
    other.update(rows(3, 5, 1))  # and is its own from then on
    assert (moments.count, other.count) == (20, 23)


@given(n=st.integers(1, 60), capacity=st.integers(1, 20), chunk=st.integers(1, 60))
@settings(max_examples=25, deadline=None)
def test_a_reservoir_does_not_depend_on_the_chunks(n: int, capacity: int, chunk: int) -> None:
    z = torch.arange(float(n))[:, None]
    whole, chunked = Reservoir(1, capacity), Reservoir(1, capacity)
    whole.add(z)
    for part in z.split(chunk):
        chunked.add(part)
    assert whole.rows.tolist() == chunked.rows.tolist()
    assert len({row[0] for row in whole.rows.tolist()}) == min(n, capacity)


def test_a_reservoir_sees_every_part_of_the_stream() -> None:
    sample = Reservoir(1, 1000)
    sample.add(torch.arange(20_000.0)[:, None])
    places = sample.rows[:, 0]
    assert abs(places.mean().item() - 10_000) < 4 * 5774 / 1000**0.5
    for period in (2, 10):  # classes that take turns are all sampled
        counts = (places % period).long().bincount(minlength=period)
        assert counts.min() > 0.7 * 1000 / period


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("n", [1, 5, 31, 32, 33, 60])
def test_few_rows_have_the_spectrum_that_the_sums_would_give(n: int, centred: bool) -> None:
    z = torch.randn(n, 32, generator=torch.Generator().manual_seed(n), dtype=torch.float64) + 2.0
    in_parts = Moments(32)
    for part in z.split(7):
        in_parts.update(part)
    in_parts.outer.trace()  # looking at the sums changes nothing
    summed = Moments(32)
    summed.merge(in_parts)  # which has the sums alone
    for found in (in_parts, summed):
        for sums, rows in ((found, z), (found.unit, z / z.norm(dim=1, keepdim=True))):
            wanted = torch.linalg.svdvals(rows - rows.mean(0) if centred else rows).numpy()
            np.testing.assert_allclose(sums.singular_values(centred), wanted, atol=1e-6)


def test_few_rows_that_are_all_the_same_have_no_centred_spectrum() -> None:
    assert (Moments.of(torch.full((20, 64), 0.1)).singular_values() == 0).all()
