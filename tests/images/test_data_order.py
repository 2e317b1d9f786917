"""Which images an epoch sees under each order, and that all orders cost the same."""

from __future__ import annotations

import hashlib
import math
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from fullrank.errors import DataError, UsageError
from fullrank.images.data_order import DataOrder, OrderKind, batches, load_ordering
from fullrank.images.loader import Batches
from fullrank.images.sources import MemorySource

KINDS = get_args(OrderKind)


def data_order(kind: OrderKind, **changes: Any) -> DataOrder:
    return DataOrder(**{"n": 103, "batch_size": 4, "epochs": 12, "kind": kind, "switch_epoch": 5} | changes)


def used(order: DataOrder, epoch: int) -> set[int]:
    return set(order.chunk(epoch).tolist())


@pytest.mark.parametrize(("chunk_size", "n_rounds"), [(1, 1), (2, 1), (3, 2), (5, 1)])
def test_chunks_of_a_single_pass_are_disjoint_and_together_all_images(chunk_size: int, n_rounds: int) -> None:
    order = data_order("single-pass", chunk_size=chunk_size, n_rounds=n_rounds)
    for sweep in range(n_rounds):
        first = sweep * order.epochs_per_round
        chunks = [used(order, e) for e in range(first, first + order.epochs_per_round, chunk_size)]
        assert set().union(*chunks) == set(range(103))
        assert all(a.isdisjoint(b) for a, b in combinations(chunks, 2))


def test_a_chunk_lasts_as_many_epochs_as_asked_for_and_comes_back_in_the_next_round() -> None:
    order = data_order("single-pass", chunk_size=2, n_rounds=2)
    assert [used(order, e) == used(order, e + 1) for e in range(5)] == [True, False, True, False, True]
    assert all(used(order, e) == used(order, e + 6) for e in range(6))


def test_chunks_of_a_cumulative_order_are_nested_and_the_last_is_everything() -> None:
    order = data_order("cumulative")
    chunks = [used(order, e) for e in range(12)]
    assert all(a < b for a, b in pairwise(chunks))
    assert chunks[-1] == set(range(103))
    single = data_order("single-pass")
    assert chunks[3] == set().union(*(used(single, e) for e in range(4)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps_per_epoch", [0, 3, 40])
@pytest.mark.parametrize("repeat_batch", [1, 3])
def test_every_order_costs_the_same(kind: OrderKind, steps_per_epoch: int, repeat_batch: int) -> None:
    order = data_order(kind, steps_per_epoch=steps_per_epoch, repeat_batch=repeat_batch)
    expected = (steps_per_epoch or 103 // 4) * 4
    for epoch in range(12):
        assert len(order(epoch)) == expected
        assert set(order(epoch).tolist()) <= used(order, epoch)


@pytest.mark.parametrize("chunk_size", [1, 5, 12])
def test_the_last_fraction_is_rounded_up_and_stays(chunk_size: int) -> None:
    order = data_order("last-fraction", chunk_size=chunk_size)
    assert len(order.chunk(0)) == math.ceil(103 * chunk_size / 12)
    assert all(used(order, e) == used(order, 0) for e in range(12))


def test_the_published_sizes() -> None:
    """100 chunks of 12,811 or 12,812 images of ImageNet, 33 and 67 of each; a last fifth of 256,234."""
    common = {"n": 1_281_167, "batch_size": 256, "epochs": 100, "ordering": np.arange(1_281_167)}
    order = data_order("single-pass", **common)
    sizes = [len(order.chunk(e)) for e in range(100)]
    assert (sizes.count(12_811), sizes.count(12_812), order.steps) == (33, 67, 5004)
    assert len(data_order("last-fraction", chunk_size=20, **common).chunk(0)) == 256_234


SHORT = r"the chunk of epoch 0 has \d images, less than a batch of 10; use a larger --chunk-size"


@pytest.mark.parametrize(
    ("kinds", "changes", "says"),
    [
        (KINDS, {"n": 3}, "batch size 4 is larger than the 3 training images"),
        (KINDS[1:], {"batch_size": 10}, SHORT),
        # chunks of 5 epochs in a round of 12: the third has two epochs' images
        (["single-pass"], {"chunk_size": 5, "batch_size": 20}, "the chunk of epoch 10 has 18 images"),
        (["hybrid"], {"n_rounds": 13}, "--rounds 13 are more than the run's 12 epochs"),
        (["hybrid"], {"chunk_size": 7, "n_rounds": 2}, "--chunk-size 7 is longer than a round of 6 epochs"),
        (["hybrid"], {"switch_epoch": 12}, "--switch-epoch lies within the run's 12 epochs, not at 12"),
        (["hybrid"], {"ordering": np.arange(100)}, "the ordering is of 100 images, but there are 103"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    kinds: list[OrderKind], changes: dict[str, Any], says: str
) -> None:
    for kind in kinds:
        with pytest.raises(UsageError, match=says):
            data_order(kind, **changes)


@pytest.mark.parametrize("kind", KINDS)
def test_seed_and_epoch_alone_decide(kind: OrderKind) -> None:
    order, again = data_order(kind, seed=3), data_order(kind, seed=3)
    assert all(np.array_equal(order(e), again(e)) for e in (7, 2, 7))
    assert not np.array_equal(order(7), order(8))
    assert not np.array_equal(order(7), data_order(kind, seed=4)(7))


def test_iid_is_the_order_that_runs_have_always_had() -> None:
    order = data_order("iid", seed=5)
    for epoch in range(3):
        permutation = np.random.default_rng(np.random.SeedSequence([5, epoch])).permutation(103)
        assert np.array_equal(order(epoch), permutation[:100])
    assert DataOrder(6, 1, epochs=1)(0).tolist() == [3, 2, 5, 4, 0, 1]  # a run from last year repeats
    assert (DataOrder(1000, 1, 9, seed=7)(5) != DataOrder(1000, 1, 9, seed=5)(7)).any()  # neither stands in
    generated = data_order("single-pass", n=6, batch_size=1, epochs=2).sequence
    assert generated.tolist() == [5, 3, 0, 1, 2, 4]  # of last year, too


def test_a_hybrid_is_a_single_pass_and_then_iid() -> None:
    hybrid, single, iid = (data_order(kind, seed=2) for kind in ("hybrid", "single-pass", "iid"))
    assert all(np.array_equal(hybrid(e), single(e)) for e in range(5))
    assert all(np.array_equal(hybrid(e), iid(e)) for e in range(5, 12))


def test_batches_are_repeated_in_a_row() -> None:
    once, thrice = data_order("single-pass"), data_order("single-pass", repeat_batch=3)
    expected = np.repeat(once(1).reshape(-1, 4), 3, axis=0)[: thrice.steps]
    assert np.array_equal(thrice(1).reshape(-1, 4), expected)


def test_every_image_of_a_chunk_is_seen_though_remainders_are_dropped() -> None:
    order = data_order("single-pass", batch_size=5, steps_per_epoch=60)
    assert set(order(3).tolist()) == used(order, 3)


def test_the_hash_tells_orderings_apart_and_iid_has_none() -> None:
    given = data_order("single-pass", ordering=np.arange(103, dtype=np.int32))
    assert given.sha256 == hashlib.sha256(np.arange(103, dtype="<i8").tobytes()).hexdigest()
    assert data_order("hybrid").sha256 == data_order("cumulative").sha256 != given.sha256
    assert data_order("hybrid", seed=1).sha256 != data_order("hybrid").sha256
    assert data_order("iid").sha256 == ""


def test_the_loader_gives_every_rank_its_part_of_the_same_batches() -> None:
    source = MemorySource(name="black", images=torch.zeros(103, 3, 2, 2, dtype=torch.uint8))
    order = data_order("hybrid")
    whole = list(Batches(source, 4, seed=0, order=order).epoch(4))
    parts = [list(Batches(source, 4, seed=0, rank=r, world_size=2, order=order).epoch(4)) for r in (0, 1)]
    for (_, (indices, _)), *ranks in zip(whole, *parts, strict=True):
        assert indices.tolist() == [i for _, (part, _) in ranks for i in part.tolist()]
    assert [i for _, (indices, _) in whole for i in indices.tolist()] == order(4).tolist()


def test_an_ordering_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "ordering.npy"
    np.save(path, np.array([2, 0, 1], dtype=np.uint16))
    ordering = load_ordering(path, 3)
    assert ordering.tolist() == [2, 0, 1]
    assert ordering.dtype == np.int64


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (np.arange(4), "orders 4 images, but there are 3 to train on"),
        (np.array([0, 1, 1]), "must hold each of 0 to 2 once"),
        (np.array([0.0, 1.0, 2.0]), "no .npy file of one vector of integers"),
        (np.zeros((3, 1), dtype=int), "no .npy file of one vector of integers"),
        (np.array([{}, 1, 2], dtype=object), "no .npy file of image numbers"),
    ],
)
def test_a_file_that_is_no_ordering_is_one_clear_line(tmp_path: Path, content: Any, says: str) -> None:
    path = tmp_path / "ordering.npy"
    np.save(path, content, allow_pickle=True)
    with pytest.raises(DataError, match=says) as refused:
        load_ordering(path, 3)
    assert "\n" not in str(refused.value)


def test_a_missing_ordering_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no ordering .*nowhere\.npy"):
        load_ordering(tmp_path / "nowhere.npy", 3)


def test_batches_drop_or_keep_the_last() -> None:
    assert [len(batch) for batch in batches(np.arange(10), 4)] == [4, 4]
    assert [len(batch) for batch in batches(np.arange(10), 4, drop_last=False)] == [4, 4, 2]
    assert [len(batch) for batch in batches(np.arange(3), 4, drop_last=False)] == [3]
    with pytest.raises(UsageError, match="batch size 0 is not positive"):
        batches(np.arange(300), 0)


def test_a_batch_is_not_repeated_beyond_its_epoch() -> None:
    order = data_order("iid", repeat_batch=2**31 - 1)  # of which no list could be made
    assert len(order(0)) == order.steps * order.batch_size and len(set(order(0).tolist())) == 4
