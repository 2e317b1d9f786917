"""Several processes measure what one does: here they are threads, so every line of them is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from collapse.inputs import drawn
from collapse.threads_of_peers import Run, Shared, Threads, alike, in_threads, part
from fullrank.collapse import CodeUsage, CollapseMonitor, Moments, Reservoir, peers, sampling, streaming
from fullrank.collapse.audit import audit
from fullrank.collapse.kmeans import kmeans
from fullrank.collapse.peers import Peers
from fullrank.collapse.sampling import Copies, row_hash
from fullrank.collapse.statistics import EmbeddingStatistics
from fullrank.errors import DataError

SIZES = (2, 3)


@pytest.fixture(params=SIZES)
def size(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def group(size: int, monkeypatch: pytest.MonkeyPatch) -> Threads:
    threads = Threads(size)
    monkeypatch.setattr(peers, "dist", threads)
    return threads


@pytest.fixture
def run(size: int, group: Threads) -> Run[Any]:
    def both(work: Callable[[int], Any]) -> list[Any]:
        return in_threads(size, work, group)

    return both


def test_ranks_and_sizes_are_those_of_the_group_unless_one_is_alone(run: Run[Any], size: int) -> None:
    assert run(lambda rank: (Peers().rank, Peers().size)) == [(rank, size) for rank in range(size)]
    assert run(lambda rank: (Peers(alone=True).rank, Peers(alone=True).size)) == [(0, 1)] * size
    assert (Peers().rank, Peers().size) == (0, 1)


@pytest.mark.parametrize(
    ("by", "expected"), [("sum", [3.0, 30.0, 6.0]), ("min", [0, 10, 1]), ("max", [2, 10, 3])]
)
def test_a_reduction_is_over_all_processes(
    monkeypatch: pytest.MonkeyPatch, by: Any, expected: list[float]
) -> None:
    group = Threads(3)
    monkeypatch.setattr(peers, "dist", group)
    given = [torch.tensor([float(rank), 10.0, 3.0 - rank]) for rank in range(3)]
    found = in_threads(3, lambda rank: Peers().reduce(given[rank], by).tolist(), group)
    assert found == [expected] * 3
    assert given[1].tolist() == [1.0, 10.0, 2.0]  # its own is left alone


def test_sums_of_numbers_take_one_collective(run: Run[Any], size: int, group: Threads) -> None:
    assert run(lambda rank: Peers().sums(rank, 2, 0.5)) == [[sum(range(size)), 2 * size, size / 2]] * size
    assert len(group.calls) == 1


def test_gathered_values_are_in_the_order_of_ranks(run: Run[Any], size: int) -> None:
    found = run(lambda rank: Peers().gather(torch.full((2, 3), rank)))
    for each in found:
        assert each.shape == (size, 2, 3)
        assert each[:, 0, 0].tolist() == list(range(size))


@pytest.mark.parametrize("at_once", [1, 100, 1 << 20])
@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_rows_of_unlike_numbers_come_in_the_order_of_ranks_in_rounds(
    run: Run[Any],
    size: int,
    group: Threads,
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
    shape: tuple[int, ...],
) -> None:
    monkeypatch.setattr(peers, "AT_ONCE", at_once)
    whole = torch.arange(23 * max(torch.Size(shape).numel(), 1)).reshape(23, *shape).double()
    for found in run(lambda rank: Peers().gather_rows(part(whole, rank, size))):
        assert torch.equal(found, whole)
    width = 8 * size * torch.Size(shape).numel()
    rounds = -(-16 // max(1, at_once // width))  # the last process has 16 rows
    assert sum(call.startswith("gather [1, ") for call in group.calls) == rounds + 1


def test_no_rows_at_all_are_gathered_as_none(run: Run[Any]) -> None:
    assert {tuple(found.shape) for found in run(lambda rank: Peers().gather_rows(torch.empty(0, 5)))} == {
        (0, 5)
    }


@pytest.mark.parametrize("grouped", [False, True])
def test_a_value_is_taken_from_one_rank(run: Run[Any], grouped: bool) -> None:
    given: Any = object() if grouped else None
    found = run(lambda rank: Peers(given).from_rank(torch.tensor([rank + 5]), 1).item())
    assert set(found) == {6}


def test_rows_are_handed_out_by_counts(run: Run[Any], size: int) -> None:
    counts = [1, 2, 3][:size]

    def work(rank: int) -> list[int]:
        rows = torch.arange(sum(counts))[:, None] + 100 * rank
        return Peers().exchange(rows, counts)[:, 0].tolist()

    begins = [0, 1, 3]
    for rank, found in enumerate(run(work)):
        assert found == [
            100 * other + begins[rank] + at for other in range(size) for at in range(counts[rank])
        ]


def test_words_of_all_are_told_by_rank(run: Run[Any], size: int) -> None:
    said = [{"rank": rank, "words": "\u00e4" * rank} for rank in range(size)]
    assert run(lambda rank: Peers().tell(said[rank])) == [said] * size


@pytest.mark.parametrize("pivots", [4, 256])
def test_the_kth_smallest_is_that_of_all_numbers(
    run: Run[Any], size: int, monkeypatch: pytest.MonkeyPatch, pivots: int
) -> None:
    monkeypatch.setattr(peers, "PIVOTS", pivots)
    numbers = torch.cat([drawn(40).abs() ** 5, torch.zeros(4), torch.full((3,), 2.5)]).double()
    for k in (0, 3, 4, 20, 46):
        expected = float(numbers.sort().values[k])

        def work(rank: int, k: int = k) -> float:
            return Peers().kth_smallest(part(numbers, rank, size), k)

        assert run(work) == [expected] * size


def test_nothing_is_sent_where_there_is_one_process() -> None:
    one, value = Peers(), torch.eye(2)
    assert all(
        found is value for found in (one.reduce(value), one.gather_rows(value), one.from_rank(value, 0))
    )
    assert one.exchange(value, [2]) is value
    assert one.gather(value).shape == (1, 2, 2)
    assert one.tell("a") == ["a"]


def test_usage_of_codes_adds_up(run: Run[Any], size: int) -> None:
    scores = 3 * drawn(40, 6)
    whole = CodeUsage(6)
    whole.update(scores)

    def work(rank: int) -> Any:
        usage = CodeUsage(6)
        usage.update(part(scores, rank, size))
        usage.all_reduce(Peers())
        return usage.result()

    for found in run(work):
        assert vars(found) == pytest.approx(vars(whole.result()), rel=1e-6)


def test_moments_add_up_also_of_rows_far_apart(run: Run[Any], size: int) -> None:
    rows = drawn(40, 5) + 1e4 * (torch.arange(40)[:, None] > 7)
    whole = Moments.of(rows)

    def work(rank: int) -> Moments:
        moments = Moments(5)
        moments.update(part(rows, rank, size))
        moments.all_reduce(Peers())
        return moments

    for found in run(work):
        assert found.count == 40
        for one, all_ in ((found, whole), (found.unit, whole.unit)):
            torch.testing.assert_close(one.mean, all_.mean)
            torch.testing.assert_close(one.scatter, all_.scatter, rtol=1e-9, atol=1e-6)


def test_samples_of_streams_become_one_of_their_union(run: Run[Any], size: int) -> None:
    rows, places = drawn(40, 3).float(), torch.arange(40)
    whole = Reservoir(3, 9)
    whole.add(rows)

    def work(rank: int) -> Any:
        sample = Reservoir(3, 9)
        sample.add(part(rows, rank, size), part(places, rank, size))
        sample.gather(Peers())
        return sample.count, sample.places.tolist(), sample.rows.tolist()

    assert run(work) == [(40, whole.places.tolist(), whole.rows.tolist())] * size


def test_no_sample_of_any_process_is_none(run: Run[Any]) -> None:
    def work(rank: int) -> Any:
        sample = Reservoir(3, 9)
        sample.gather(Peers())
        return sample.count, len(sample.rows)

    assert set(run(work)) == {(0, 0)}


@pytest.mark.parametrize("kept", [1 << 22, 100, 20])
def test_copies_are_counted_over_processes(
    run: Run[Any], size: int, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(sampling, "_KEPT", kept)
    rows = torch.cat([torch.arange(300), torch.full((50,), 3)])[:, None].double()

    def work(rank: int) -> Any:
        copies = Copies()
        for some in part(rows, rank, size).split(60):
            copies.add(row_hash(some))
        copies.gather(Peers())
        return copies.rows, copies.distinct, copies.most

    found = alike(run, work)
    assert found[0] == 350
    assert found[2] == 51
    assert found[1] == 300 if kept > 300 else abs(found[1] - 300) < 150


@pytest.mark.parametrize("kept", [10, 64])
def test_rows_beyond_those_whose_hashes_are_kept_are_estimated(
    monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(sampling, "_KEPT", kept)
    monkeypatch.setattr(sampling, "_COMMONEST", 3)
    copies = Copies()
    for some in torch.cat([torch.arange(4000), torch.full((90,), 7)]).split(25):
        copies.add(row_hash(some[:, None].double()))
    assert copies.rows == 4090
    assert copies.most in (90, 91)  # its first one may have been left out
    assert 0.5 < copies.distinct / 4000 < 1.8
    assert copies._share < 0.05
    assert len(copies._keys) <= 2 * kept + 6


@pytest.mark.parametrize("far", [2, 60])
def test_a_pass_over_parts_finds_what_one_pass_finds(run: Run[Any], size: int, far: int) -> None:
    rows = drawn(700, 6).float()
    rows[300 : 300 + far] *= 1e4
    whole = EmbeddingStatistics(6, capacity=50, expected=700)
    whole.update(rows)
    whole.finish()
    assert whole.middle is not None

    def work(rank: int) -> Any:
        places = part(torch.arange(700), rank, size)
        seen = EmbeddingStatistics(6, capacity=50, first=int(places[0]) if len(places) else 7, expected=700)
        seen.begin(*whole.middle)  # type: ignore[misc]
        for some in part(rows, rank, size).split(100):
            seen.update(some)
        seen.finish()
        return seen

    for found in run(work):
        assert found.facts.outliers == whole.facts.outliers
        assert found.facts.distinct == whole.facts.distinct
        assert found.facts.far == whole.facts.far
        assert found.facts.farthest == pytest.approx(whole.facts.farthest, rel=1e-6)
        assert found.outlier_rows == whole.outlier_rows
        assert found.sample.places.tolist() == whole.sample.places.tolist()
        assert found.moments.count == whole.moments.count
        torch.testing.assert_close(found.moments.covariance, whole.moments.covariance, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(found.sketch.rows.sort(0).values, whole.sketch.rows.sort(0).values)


def test_a_monitor_of_several_has_one_report_of_all_taps(run: Run[Any], size: int) -> None:
    rows, codes = drawn(90, 6).float(), 4 * drawn(90, 5).float()
    one = CollapseMonitor(capacity=2000, diagnostics_every=0)
    one.observe({"projector": rows, "codes": codes}, {"projector": (rows, rows + 0.1)})
    one.observe({"head": rows[:40, :3]})
    expected = one.close()

    def work(rank: int) -> Any:
        monitor = CollapseMonitor(capacity=2000, diagnostics_every=0)
        mine, scores = part(rows, rank, size), part(codes, rank, size)
        if len(mine):
            monitor.observe({"projector": mine, "codes": scores}, {"projector": (mine, mine + 0.1)})
        if rank == size - 1:  # a tap that one process alone has seen
            monitor.observe({"head": rows[:40, :3]})
        return monitor.close()

    for found in run(work):
        assert found.verdict.kind == expected.verdict.kind
        assert found.usage is not None
        assert vars(found.usage) == pytest.approx(vars(expected.usage), rel=1e-5)
        assert found.panels.keys() == expected.panels.keys()
        for tap, panel in found.panels.items():
            for name, measure in panel.measures.items():
                assert measure.n == expected.panels[tap].measures[name].n
                assert measure.value == pytest.approx(expected.panels[tap].value(name), rel=1e-4, abs=1e-4), (
                    name
                )


def test_an_audit_of_several_is_that_of_one(run: Run[Any], size: int) -> None:
    rows = drawn(400, 6).float()
    rows[350] *= 1e4
    names = ["level", "erank_centred", "uniformity"]
    whole = audit(rows, metrics=names, sample=60)
    seen: list[int] = []

    def work(rank: int) -> Any:
        return audit(Shared(rows, rank, size), metrics=names, sample=60, progress=seen.append)

    for found in run(work):
        assert found.verdict.kind == whole.verdict.kind
        assert found.outlier_rows == whole.outlier_rows == (350,)
        for name in names:
            assert found.metrics[name].value == pytest.approx(whole.metrics[name].value, rel=1e-5)
    assert max(seen) == 400


def test_an_audit_of_codes_of_several_is_that_of_one(run: Run[Any], size: int) -> None:
    scores = 4 * drawn(90, 5).float()
    whole = audit(scores, codes=True, sample=20)
    for found in run(lambda rank: audit(Shared(scores, rank, size), codes=True, sample=20)):
        assert found.verdict.why == whole.verdict.why
        assert found.places.tolist() == whole.places.tolist()


def test_an_error_of_one_process_ends_all_with_its_words(run: Run[Any], size: int) -> None:
    rows = drawn(60, 4).float()
    rows[33, 2] = float("nan")

    def work(rank: int) -> str:
        with pytest.raises(DataError) as caught:
            audit(Shared(rows, rank, size))
        return str(caught.value)

    said = alike(run, work)
    assert said.startswith("row 33: 1 of 30 embedding rows are not finite")


def test_rows_that_are_not_as_many_as_was_said_are_an_error_of_all(run: Run[Any], size: int) -> None:
    rows = drawn(60, 4).float()

    def work(rank: int) -> str:
        with pytest.raises(DataError) as caught:
            audit(Shared(rows, rank, size, said=8 if rank == 0 else 0))
        return str(caught.value)

    assert alike(run, work) == "the rows were said to be 8, and 7 came"


def test_clusters_of_several_are_those_of_one(run: Run[Any], size: int) -> None:
    rows = drawn(5, 3)[torch.arange(200) % 5] * 4 + 0.1 * drawn(200, 3, seed=1)
    one = kmeans(rows, 5, seed=2, restarts=3)

    def work(rank: int) -> Any:
        return kmeans(part(rows, rank, size), 5, seed=2, restarts=3, peers=Peers())

    found = run(work)
    for each in found:
        assert each.inertia == pytest.approx(one.inertia, rel=1e-6)
        torch.testing.assert_close(each.centres.sort(0).values, one.centres.sort(0).values)
    assert torch.equal(torch.cat([each.nearest for each in found]).bincount(), one.nearest.bincount())


@pytest.mark.parametrize(
    "name", ["ErankCentred", "RankmeUnit", "TwoNn", "WithinShare", "CodePerplexity", "Lidar"]
)
def test_a_streaming_metric_of_several_is_that_of_one(
    run: Run[Any], size: int, group: Threads, name: str
) -> None:
    z, labels = drawn(60, 4), torch.arange(60) % 3
    given: dict[str, tuple[dict[str, int], tuple[Tensor, ...]]] = {
        "CodePerplexity": ({"codes": 4}, (z,)), "WithinShare": ({"dim": 4, "capacity": 40}, (z, labels)),
        "Lidar": ({"dim": 4}, (z[:, None] + 0.1 * drawn(60, 3, 4, seed=1),)),
        "TwoNn": ({"dim": 4, "capacity": 40}, (z,)),
    }  # fmt: skip
    sizes, inputs = given.get(name, ({"dim": 4}, (z,)))
    one = getattr(streaming, name)(**sizes)
    one.update(*inputs)
    expected = float(one.compute())

    def gathered(value: Tensor, group: Any = None) -> list[Tensor]:
        return [each.clone() for each in threads.exchanged(value)]

    threads = group

    def work(rank: int) -> float:
        metric = getattr(streaming, name)(
            **sizes, dist_sync_fn=gathered, distributed_available_fn=lambda: True
        )
        mine = tuple(part(each, rank, size) for each in inputs)
        if len(mine[0]):
            metric.update(*mine)
        else:
            metric._update_count = 1
        return float(metric.compute())

    assert run(work) == pytest.approx([expected] * size, rel=1e-9)
