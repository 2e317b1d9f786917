"""A common mean a million times the spread costs no digits, however the rows are cut up."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collapse.inputs import Inputs, example, rows_of, value
from collapse.test_streaming import fed, number, shuffled
from fullrank.collapse import Moments
from fullrank.collapse.metrics import METRICS
from fullrank.collapse.row_sums import RowSums
from fullrank.errors import UsageError

RATIOS = (0.0, 1.0, 1e3, 1e6)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def rows(n: int, d: int, ratio: float, seed: int = 0) -> torch.Tensor:
    """Rows with a spread of about 1 in every direction and a mean of norm `ratio`."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(d, generator=generator, dtype=torch.float64)
    scale = torch.linspace(1, 0.4, d, dtype=torch.float64)
    noise = torch.randn(n, d, generator=generator, dtype=torch.float64)
    z: torch.Tensor = noise * scale + ratio * mean / mean.norm()
    return z


def chunked(z: torch.Tensor, chunk: int) -> Moments:
    moments = Moments(z.shape[1])
    for part in z.split(chunk):
        moments.update(part)
    return moments


def assert_exact(sums: RowSums, z: torch.Tensor, rel: float = 1e-9) -> None:
    """Every singular value, centred or not, is that of a decomposition of the rows themselves.

    Those at the rounding of `svd` itself are left out.
    """
    from_first = z - z[:1]
    centred = torch.linalg.svdvals(from_first - from_first.mean(0)).numpy()
    for found, exact in (
        (sums.singular_values(), centred),
        (sums.singular_values(centred=False), torch.linalg.svdvals(z).numpy()),
    ):
        assert len(found) == min(z.shape)
        sure = exact > max(1e-4 * centred[0], 1e-14 * exact[0])
        np.testing.assert_allclose(found[sure], exact[sure], rtol=rel)


def unit(z: torch.Tensor) -> torch.Tensor:
    u: torch.Tensor = z / torch.linalg.vector_norm(z, dim=1, keepdim=True)
    return u


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize(
    ("n", "d", "chunk"), [(2, 1, 1), (9, 4, 1), (40, 64, 7), (150, 128, 64), (300, 16, 300), (64, 512, 20)]
)
def test_every_singular_value_is_that_of_the_rows(n: int, d: int, chunk: int, ratio: float) -> None:
    z = rows(n, d, ratio)
    assert_exact(chunked(z, chunk), z)


@pytest.mark.parametrize("ratio", RATIOS)
def test_unit_rows_keep_their_digits_too(ratio: float) -> None:
    z = rows(200, 12, ratio)
    # The rows at unit length are themselves rounded, to 1e-16 of their length.
    assert_exact(chunked(z, 60).unit, unit(z), rel=1e-9 + 1e-15 * ratio)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ratio", [1.0, 1e3, 1e4])
def test_the_dtype_of_the_rows_does_not_matter(dtype: torch.dtype, ratio: float) -> None:
    z = rows(200, 12, ratio).to(dtype)
    assert_exact(chunked(z, 60), z.double())


@given(
    ratio=st.sampled_from(RATIOS),
    chunk=st.integers(1, 80),
    first=st.sampled_from(["an outlier", "constant", "as the others", "zero"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_odd_first_rows_and_any_order_cost_no_digits(ratio: float, chunk: int, first: str, seed: int) -> None:
    z = rows(80, 6, ratio, seed)
    if first == "an outlier":
        z[0] += 1000
    elif first == "constant":
        z[:40] = z[0].clone()
    elif first == "zero" and ratio < 1e4:
        z[0] = 0
    order = torch.randperm(80, generator=torch.Generator().manual_seed(seed))
    assert_exact(chunked(z, chunk), z)
    assert_exact(chunked(z[order], chunk), z)


@pytest.mark.parametrize("ratio", RATIOS)
def test_parts_with_other_shifts_merge_and_come_back_exactly(ratio: float) -> None:
    z = rows(120, 8, ratio)
    z[60:] += 50  # so that no row of one part lies in the middle of the other
    first, second = Moments.of(z[:60]), Moments.of(z[60:])
    loaded: Moments = Moments(8)
    loaded.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    loaded.merge(Moments(8))
    loaded.merge(pickle.loads(pickle.dumps(second)))
    assert_exact(loaded, z)
    assert_exact(loaded.unit, unit(z), rel=1e-9 + 1e-15 * ratio)


def test_what_was_summed_around_zero_is_loaded() -> None:
    z = rows(50, 4, 3.0).double()
    u, parts = unit(z), [torch.tensor([50.0]).double()]
    for each in (z, u):
        parts += [each.sum(0), (each.T @ each).flatten()]
    moments = Moments(4)
    moments.load_state_dict({"dim": 4, "sums": torch.cat(parts)})
    assert_exact(moments, z)
    assert_exact(moments.unit, u)


def test_a_state_without_its_parts_is_refused_in_one_line() -> None:
    state = Moments.of(rows(9, 4, 1.0)).state_dict()
    del state["unit_shift"]
    with pytest.raises(UsageError, match=r"saved moments have 'unit_shift', these have only dim, count"):
        Moments(4).load_state_dict(state)


def test_small_spread_in_single_precision_has_its_directions() -> None:
    z = rows(5000, 64, 1e5).float()  # summed around zero these read 0 in every direction
    assert (Moments.of(z).singular_values() > 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_constant_and_the_rounding_of_its_dtype_have_no_spectrum(dtype: torch.dtype) -> None:
    mean = rows(1, 32, 1.0)
    noise = torch.rand(500, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5
    z = (mean * (1 + torch.finfo(dtype).eps * noise)).to(dtype)
    moments = Moments.of(z)
    for sums in (moments, moments.unit):
        assert not sums.singular_values().any() and not sums.variances.any() and sums.centred_share == 0
        assert (sums.singular_values(centred=False) > 0).sum() == 1


def test_the_rank_of_few_directions_beside_a_large_mean_is_theirs() -> None:
    frame = torch.linalg.qr(rows(64, 3, 0.0)).Q.T
    z = rows(3000, 3, 0.0) @ frame + rows(1, 64, 1e4)
    moments = Moments.of(z)
    # The rows are rounded at 1e-16 of a mean that is 1e4: directions of 1e-12 are no rank.
    assert (moments.singular_values() > 1e-9 * moments.singular_values()[0]).sum() == 3
    uncentred = moments.singular_values(centred=False)
    assert (uncentred > 1e-9 * uncentred[1]).sum() == 4


def far(inputs: Inputs, count: int) -> Inputs:
    """The same rows with a common mean a million times their spread."""
    d = inputs[0].shape[-1]
    mean = 1e6 * torch.linspace(1, 2, d, dtype=torch.float64)
    moved = (part + mean if part.is_floating_point() else part for part in inputs[:count])
    return (*moved, *inputs[count:])


@pytest.mark.parametrize("name", list(METRICS))
def test_metrics_of_rows_far_from_zero_stream_to_their_value(name: str) -> None:
    entry = METRICS[name]
    inputs = far(example(entry, 60, 6, 0), rows_of(entry))
    whole = number(fed(name, inputs))
    rel, near_zero = 1e-5, 1e-9  # rows themselves are rounded at 1e-10 of their spread
    for metric in (fed(name, inputs, 7), fed(name, shuffled(name, inputs), 11)):
        assert number(metric) == (None if whole is None else pytest.approx(whole, rel=rel, abs=near_zero))
    if "permutation" in entry.invariances:
        expected = value(name, *inputs)
        assert whole == (None if expected is None else pytest.approx(expected, rel=rel, abs=near_zero))
