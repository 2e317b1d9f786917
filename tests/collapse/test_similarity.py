"""Agreement of two embeddings: what a rotation leaves, and what has nothing in common."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from expect import known
from fullrank.collapse.metrics.agreement import neighbour_coherence
from fullrank.collapse.similarity import linear_cka, neighbour_sets, shared_neighbours, view_coherence
from fullrank.errors import UsageError


def rows(n: int = 120, d: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_a_rotation_and_a_scale_keep_all_neighbours() -> None:
    turned = 3 * rows() @ torch.linalg.qr(rows(6, 6, 1))[0]
    assert shared_neighbours(neighbour_sets(rows()), neighbour_sets(turned)).min() == 1.0


def test_unrelated_rows_share_neighbours_by_chance() -> None:
    shared = shared_neighbours(neighbour_sets(rows(400)), neighbour_sets(rows(400, seed=1)))
    assert float(shared.mean()) == pytest.approx(20 / 399, abs=0.01)


def test_a_twentieth_are_neighbours_and_nobody_is_its_own() -> None:
    near = neighbour_sets(rows())
    assert not near.diagonal().any()
    assert (near.sum(1) == 6).all()


def test_coherence_is_the_metric_on_average() -> None:
    views = rows()[:, None] + 0.5 * torch.randn(120, 2, 6, generator=torch.Generator().manual_seed(4))
    assert float(view_coherence(views).mean()) == pytest.approx(
        known(neighbour_coherence(views[:, 0], views[:, 1]))
    )


def test_two_rows_have_no_neighbours_to_compare() -> None:
    with pytest.raises(UsageError, match="three or more"):
        neighbour_sets(rows(2))


def test_coherence_falls_with_what_differs_between_views() -> None:
    noise = torch.randn(120, 4, 6, generator=torch.Generator().manual_seed(2))
    values = [float(view_coherence(rows()[:, None] + s * noise).mean()) for s in (0.0, 0.3, 3.0)]
    assert values[0] == 1.0
    assert values[0] > values[1] > values[2]


def test_cka_is_that_of_its_definition() -> None:
    x, y = rows().double(), rows(d=4, seed=3).double()
    x, y = x - x.mean(0), y - y.mean(0)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    expected = float((k * l).sum() / (k.norm() * l.norm()))
    assert known(linear_cka(x, y)) == pytest.approx(expected)


def test_cka_of_a_constant_is_not_defined() -> None:
    assert linear_cka(rows(), torch.ones(120, 3)) is None


def test_cka_needs_as_many_rows() -> None:
    with pytest.raises(UsageError, match="as many rows"):
        linear_cka(rows(), rows(5))
