"""Sums that several processes hold: each takes the mean of all, and the scatters add up."""

from __future__ import annotations

import torch

from fullrank.collapse.row_sums import RowSums


def test_scatters_around_the_mean_of_all_parts_add_up_to_that_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(30, 4, generator=generator, dtype=torch.float64) + torch.arange(30)[:, None] / 5
    parts = [RowSums.of(part) for part in (rows[:5], rows[5:6], rows[6:])]
    counts = torch.tensor([part.count for part in parts])
    shifts, offsets = (torch.stack([getattr(p, name) for p in parts]) for name in ("shift", "offset"))
    for part in parts:
        part.merge_means(counts, shifts, offsets)
    whole = RowSums.of(rows)
    torch.testing.assert_close(sum(part.scatter for part in parts), whole.scatter)
    assert [part.count for part in parts] == [30, 30, 30]
    torch.testing.assert_close(torch.stack([part.mean for part in parts]), whole.mean.expand(3, 4))


def test_a_part_without_rows_takes_the_mean_of_the_others() -> None:
    full, empty = RowSums.of(torch.tensor([[1.0, 2.0], [3.0, 6.0]]).double()), RowSums(2)
    counts = torch.tensor([0, 2])
    shifts, offsets = torch.stack([empty.shift, full.shift]), torch.stack([empty.offset, full.offset])
    empty.merge_means(counts, shifts, offsets)
    assert (empty.count, empty.mean.tolist(), float(empty.scatter.abs().sum())) == (2, [2.0, 4.0], 0.0)


def test_a_constant_coordinate_has_a_variance_of_exactly_zero() -> None:
    rows = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[:, 1] = 1e6 / 3
    variances = RowSums.of(rows).variances
    assert variances[1] == 0.0
    torch.testing.assert_close(variances[[0, 2]], rows[:, [0, 2]].var(0))
