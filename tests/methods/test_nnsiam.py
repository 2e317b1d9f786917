"""NNSiam: the nearest entries of its queue, the queue itself, and where gradients stop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fullrank.errors import UsageError
from fullrank.methods import negative_cosine
from fullrank.methods.nnsiam import NNSiam, nearest
from fullrank.networks.momentum import Queue
from methods.shrunk import method, views


def rows(seed: int, n: int = 12, d: int = 5) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def nnsiam(**options: Any) -> NNSiam:
    built = method("nnsiam", **options)
    assert isinstance(built, NNSiam)
    return built


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_nearest_entries_are_those_that_brute_force_finds(seed: int, metric: str) -> None:
    z, queue = rows(seed), 2.0 * rows(seed + 10, n=50)
    if metric == "cosine":
        found = F.cosine_similarity(z[:, None], queue[None], dim=2).argmax(dim=1)
    else:
        found = (z[:, None] - queue[None]).square().sum(dim=2).argmin(dim=1)
    assert torch.equal(nearest(z, queue, metric), queue[found])


def test_entries_come_back_as_long_as_they_are_stored() -> None:
    queue = 3.0 * rows(1)
    assert torch.equal(nearest(queue, queue, "cosine"), queue)


def test_the_two_metrics_disagree_about_entries_of_other_lengths() -> None:
    z, queue = torch.tensor([[1.0, 0.0]]), torch.tensor([[9.0, 0.0], [0.8, 0.6]])
    assert nearest(z, queue, "cosine").tolist() == [[9.0, 0.0]]
    assert torch.equal(nearest(z, queue, "euclidean"), queue[1:])


def test_a_neighbour_carries_no_gradient() -> None:
    assert not nearest(rows(0).requires_grad_(), rows(1).requires_grad_()).requires_grad


def test_half_precision_projections_are_compared_in_single_precision() -> None:
    queue = rows(1, n=50).float()
    z = rows(0).to(torch.bfloat16)
    assert torch.equal(nearest(z, queue), nearest(z.float(), queue))


def test_the_queue_is_first_in_first_out_newest_first() -> None:
    queue = Queue(5, 1)
    for batch in ([1.0, 2.0], [3.0, 4.0], [5.0, 6.0]):
        queue.push(torch.tensor(batch)[:, None])
    assert queue.rows.flatten().tolist() == [5, 6, 3, 4, 1]


def test_a_batch_larger_than_the_queue_fills_it() -> None:
    queue = Queue(3, 1)
    queue.push(torch.arange(8.0)[:, None])
    assert queue.rows.flatten().tolist() == [0, 1, 2]


def test_the_queue_keeps_its_own_precision_and_no_graph() -> None:
    queue = Queue(4, 2)
    queue.push(torch.ones(2, 2, dtype=torch.bfloat16, requires_grad=True))
    assert queue.rows.dtype == torch.float32
    assert not queue.rows.requires_grad


def test_the_queue_starts_with_random_unit_rows() -> None:
    entries = nnsiam().queue.rows
    torch.testing.assert_close(entries.norm(dim=1), torch.ones(len(entries)))
    assert torch.linalg.matrix_rank(entries[:5]) == 5


def test_what_enters_the_queue_is_the_first_views_projections_unnormalised() -> None:
    m = nnsiam()
    before = m.queue.rows.clone()
    z = m.loss(views()).taps["projector"].detach()
    assert torch.equal(m.queue.rows, torch.cat([z, before])[: len(before)])


def test_with_roles_the_first_source_views_projections_enter() -> None:
    m = nnsiam()
    m.roles = ("target", "source")
    a, b = views()
    fresh = nnsiam()
    z = fresh.projector(fresh.backbone(b))
    m.loss([a, b])
    torch.testing.assert_close(m.queue.rows[:16], z)


def test_neighbours_are_looked_up_before_the_batch_enters() -> None:
    m, (a, b) = nnsiam().double(), [view.double() for view in views()]
    before = m.queue.rows.clone()
    with torch.no_grad():
        taps = [m.embed(view) for view in (a, b)]
        loss = m.loss([a, b]).loss
    z = [nearest(tap["projector"], before) for tap in taps]
    by_hand = (negative_cosine(taps[0]["predictor"], z[1]) + negative_cosine(taps[1]["predictor"], z[0])) / 2
    torch.testing.assert_close(loss, by_hand)


def test_the_queue_stays_as_it_is_in_eval_mode() -> None:
    m = nnsiam().eval()
    before = m.queue.rows.clone()
    m.loss(views())
    m.embed(views()[0])
    assert torch.equal(m.queue.rows, before)


def test_a_target_view_gets_no_gradient() -> None:
    m = nnsiam()
    m.roles = ("source", "target")
    a, b = (view.requires_grad_() for view in views())
    m.loss([a, b]).loss.backward()
    assert a.grad is not None
    assert b.grad is None


def test_an_empty_queue_is_refused() -> None:
    with pytest.raises(UsageError, match="queue-size must be positive"):
        nnsiam(queue_size=0)
