"""Neighbours are those of brute force in double precision, whichever way they are found."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fullrank.collapse.metrics.neighbours import distinct_rows, neighbour_distances
from fullrank.errors import UsageError
from fullrank.probes import nearest
from fullrank.probes import neighbours as module
from fullrank.probes.shortlist import Shortlister


def rows(n: int, d: int, seed: int, kind: str = "clusters") -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=generator)
    if kind == "clusters":
        centres = torch.randn(20, d, generator=torch.Generator().manual_seed(99))
        return 3 * centres[torch.randint(20, (n,), generator=generator)] + z
    if kind == "cone":  # what an untrained network puts out: nearly one direction
        return 30 + z
    if kind == "rectified":
        return z.relu() * torch.arange(1, d + 1) ** -0.5
    return z


def brute_force(queries: Tensor, bank: Tensor, metric: str) -> Tensor:
    """Similarities, or distances with a minus."""
    queries, bank = queries.double(), bank.double()
    if metric == "l2":
        return -torch.cdist(queries, bank, compute_mode="donot_use_mm_for_euclid_dist")
    queries, bank = (F.normalize(rows, dim=1) for rows in (queries, bank))
    return queries @ bank.mT


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("kind", ["clusters", "cone", "rectified", "gaussian"])
def test_the_shortlist_names_the_true_neighbours(
    metric: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHORTLIST_FROM", 0)
    monkeypatch.setattr(module, "processor_has_bfloat16", lambda: True)
    queries, bank = rows(70, 48, 1, kind), rows(3001, 48, 2, kind)
    values, found = nearest(queries, bank, 10, metric)  # type: ignore[arg-type]
    truth = brute_force(queries, bank, metric)
    best = truth.topk(10, dim=1).values
    sign = 1 if metric == "cosine" else -1
    torch.testing.assert_close(truth.gather(1, found), best, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sign * values.double(), best, rtol=1e-4, atol=1e-4)
    assert all(len(set(row)) == 10 for row in found.tolist())


def test_most_queries_are_proven_where_rows_differ() -> None:
    bank = rows(3001, 48, 2)
    proven = Shortlister(bank, -bank.square().sum(1) / 2).nearest(rows(70, 48, 1), 10)[2]
    assert proven.double().mean() > 0.9


def test_equal_rows_are_handed_back_not_guessed() -> None:
    bank = torch.ones(3000, 16)
    proven = Shortlister(bank, torch.zeros(3000)).nearest(torch.ones(5, 16), 3)[2]
    assert not proven.any()


def test_what_the_shortlist_hands_back_is_found_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHORTLIST_FROM", 0)
    monkeypatch.setattr(module, "processor_has_bfloat16", lambda: True)
    bank = torch.cat([torch.ones(3000, 16), torch.eye(16)])
    values, found = nearest(torch.cat([torch.eye(16), torch.ones(2, 16)]), bank, 1)
    assert found[:16, 0].tolist() == list(range(3000, 3016))
    torch.testing.assert_close(values, torch.ones(18, 1))


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_faiss_names_the_same_rows(metric: str) -> None:
    pytest.importorskip("faiss")
    queries, bank = rows(50, 24, 1), rows(800, 24, 2)
    values, found = nearest(queries, bank, 7, metric, backend="faiss")  # type: ignore[arg-type]
    expected, theirs = nearest(queries, bank, 7, metric, backend="plain")  # type: ignore[arg-type]
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(found, theirs)


def test_distances_of_near_rows_keep_their_digits() -> None:
    bank = 1000 + torch.arange(8.0)[:, None] * torch.tensor([[1e-3, 0.0]])
    values, _ = nearest(bank[:1], bank, 2, "l2")
    torch.testing.assert_close(values[0, 1], (bank[1] - bank[0]).norm())


def test_double_precision_stays() -> None:
    values, _ = nearest(rows(5, 4, 1).double(), rows(9, 4, 2).double(), 3, "l2")
    assert values.dtype == torch.float64


def test_no_queries_have_no_neighbours() -> None:
    values, found = nearest(torch.empty(0, 4), torch.eye(4), 2, "l2")
    assert values.shape == found.shape == (0, 2)


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(UsageError, match="cosine or l2"):
        nearest(torch.eye(3), torch.eye(3), 1, "cos")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not finite"):
        nearest(torch.eye(3), torch.eye(3) * torch.nan, 1)
    with pytest.raises(UsageError, match="matrices"):
        nearest(torch.ones(3), torch.eye(3), 1)


def test_missing_faiss_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(UsageError, match=r"fullrank\[faiss\]"):
        nearest(torch.eye(3), torch.eye(3), 1, backend="faiss")


def hard(kind: str, n: int, d: int, seed: int) -> Tensor:
    """Rows whose distances a matrix product in single precision loses."""
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    if kind == "common offset":
        return 1e4 + z.mul(0.1)
    if kind == "outliers":
        z[::97] *= 1e6
    elif kind == "many norms":
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        z *= 10 ** torch.linspace(-4, 4, n)[order, None]
    elif kind == "tight pairs":
        z[1::2] = z[::2][: len(z[1::2])] * (1 + 1e-6)
    elif kind == "repeated":
        z = z[torch.randint(max(1, n // 40), (n,), generator=torch.Generator().manual_seed(seed))]
    elif kind == "tiny":
        z *= 1e-25
    elif kind == "huge":
        z *= 1e25
    elif kind == "one point":
        z = z[:1].repeat(n, 1)
    return z


KINDS = ["common offset", "outliers", "many norms", "tight pairs", "repeated", "tiny", "huge", "one point"]


def assert_nearest(queries: Tensor, bank: Tensor, k: int, found: tuple[Tensor, Tensor]) -> None:
    """Distances and rows are those of subtraction in double precision, up to rows that are equally near."""
    distances, places = found
    truth = -brute_force(queries, bank, "l2")
    best = truth.topk(k, dim=1, largest=False).values
    torch.testing.assert_close(truth.gather(1, places), best, rtol=1e-6, atol=0)
    torch.testing.assert_close(distances.double(), best, rtol=1e-5, atol=0)
    assert all(len(set(row)) == k for row in places.tolist())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "d", "k"), [(300, 3, 1), (700, 48, 10), (20, 5, 20)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_of_any_scale_and_offset_have_their_true_neighbours(
    kind: str, n: int, d: int, k: int, dtype: torch.dtype
) -> None:
    bank = hard(kind, n, d, 1).to(dtype)
    queries = torch.cat([bank[:20], bank[5:25].mul(1.01)])
    assert_nearest(queries, bank, k, nearest(queries, bank, k, "l2"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_shortlist_does_not_hide_true_neighbours(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHORTLIST_FROM", 0)
    monkeypatch.setattr(module, "processor_has_bfloat16", lambda: True)
    bank = hard(kind, 1500, 24, 2)
    assert_nearest(bank[:30], bank, 3, nearest(bank[:30], bank, 3, "l2"))


def test_products_alone_settle_ordinary_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> tuple[Tensor, Tensor]:
        raise AssertionError("searched again")

    monkeypatch.setattr(module, "nearest_rows", never)
    queries, bank = rows(100, 48, 1), rows(3001, 48, 2)
    assert_nearest(queries, bank, 10, nearest(queries, bank, 10, "l2"))


@pytest.mark.parametrize("kind", KINDS)
def test_distances_for_local_dimensions_are_those_of_subtraction(kind: str) -> None:
    distinct = distinct_rows(hard(kind, 400, 12, 3))
    if len(distinct) > 5:
        truth = torch.cdist(distinct, distinct, compute_mode="donot_use_mm_for_euclid_dist")
        best = truth.fill_diagonal_(torch.inf).topk(4, dim=1, largest=False).values
        torch.testing.assert_close(neighbour_distances(distinct, 4), best, rtol=1e-9, atol=0)
