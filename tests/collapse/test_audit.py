"""An audit measures everything once, says what it is held against, and refuses what it cannot judge."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from fullrank.collapse.audit import Audit, audit
from fullrank.collapse.intervals import interval
from fullrank.collapse.metrics import METRICS, OF_MOMENTS
from fullrank.errors import UnknownNameError, UsageError


def gaussian(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


class Chunked:
    """Rows in chunks of their own choosing, as a file has them."""

    def __init__(self, rows: Tensor, size: int) -> None:
        self.whole, self.size = rows, size
        self.n, self.d = rows.shape

    def chunks(self, rows: int | None = None) -> Iterator[Tensor]:
        yield from self.whole.split(self.size)


@pytest.fixture(scope="module")
def healthy() -> Audit:
    return audit(gaussian(1500, 24), labels=torch.arange(1500) % 5)


def test_every_metric_of_rows_stands_beside_two_references(healthy: Audit) -> None:
    of_rows = [m for name, m in healthy.metrics.items() if name not in ("within_share", "cdnv")]
    assert len(of_rows) > 40
    named = [name for name, m in healthy.metrics.items() if m.null is None and not name.startswith("nc")]
    assert set(named) <= {"within_share", "cdnv"}


def test_an_isotropic_cloud_reads_its_null_within_its_interval(healthy: Audit) -> None:
    for name in ("level", "erank_centred", "rankme_unit", "auc", "stable_rank"):
        metric = healthy.metrics[name]
        assert metric.value is not None and metric.null is not None
        assert metric.low is not None and metric.high is not None
        width = max(metric.high - metric.low, 0.02 * abs(metric.null))
        assert abs(metric.value - metric.null) < 3 * width, name


def test_the_interval_holds_for_other_rows_from_the_same_source() -> None:
    truth = audit(gaussian(20000, 16, seed=1), metrics=["participation_ratio"]).metrics["participation_ratio"]
    inside = 0
    for seed in range(10):
        found = audit(gaussian(2000, 16, seed=seed), metrics=["participation_ratio"])
        metric = found.metrics["participation_ratio"]
        expected = 16 / (1 + 16 / 2000)  # the plug-in estimate is biased by as much
        assert metric.low is not None and metric.high is not None
        inside += metric.low - 0.02 <= expected <= metric.high + 0.02
    assert truth.value == pytest.approx(16, rel=0.01)
    assert inside >= 7


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.needs in OF_MOMENTS])
def test_no_interval_leaves_the_range_of_its_metric(name: str) -> None:
    least, largest = METRICS[name].bounds(200, 16)
    for value in (x for x in (least, largest) if np.isfinite(x)):
        low, high = interval(METRICS[name], value, 1e9, 200, 16)
        assert (low, high) == (max(least, value - 1e9), min(largest, value + 1e9))


def test_a_share_near_its_end_has_an_interval_up_to_there() -> None:
    rows = torch.cat([gaussian(200, 8), 30 * gaussian(4, 8)])
    found = audit(rows, metrics=["centred_share", "top_share"]).metrics
    for metric in found.values():
        assert metric.high is not None and metric.high <= 1


def test_chunks_give_the_numbers_of_the_whole() -> None:
    rows = gaussian(700, 12).double()
    whole, parts = audit(rows), audit(Chunked(rows, 61))
    for name, metric in whole.metrics.items():
        other = parts.metrics[name].value
        assert (metric.value is None) == (other is None)
        if metric.value is not None:
            assert other == pytest.approx(metric.value, rel=1e-9, abs=1e-9), name


def test_the_result_is_plain_data_for_machines(healthy: Audit) -> None:
    plain = json.loads(json.dumps(healthy.as_dict()))
    assert plain["verdict"] == "healthy"
    assert (plain["n"], plain["d"]) == (1500, 24)
    assert {row["metric"] for row in plain["evidence"]} >= {"level", "rankme_unit", "linked_share"}
    assert plain["metrics"]["erank_centred"]["null"] > 23


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        (torch.ones(300, 8), "complete"),
        (torch.zeros(300, 8), "complete"),
        (gaussian(300, 1) @ gaussian(1, 32), "dimensional"),
        (gaussian(3, 32)[torch.arange(300) % 3] + 0.01 * gaussian(300, 32), "cluster"),
        (gaussian(60, 32, 1)[torch.arange(600) % 60] + 0.01 * gaussian(600, 32), "intra-cluster"),
        (gaussian(20, 8), "not decidable"),
        (gaussian(1, 8), "not decidable"),
        (torch.randint(0, 9, (300, 8), generator=torch.Generator().manual_seed(0)), "healthy"),
    ],
    ids=["constant", "zeros", "rank one", "three points", "tight", "twenty rows", "one row", "integers"],
)
def test_degenerate_rows_are_judged_without_a_number_that_is_none(rows: Tensor, kind: str) -> None:
    found = audit(rows)
    assert found.verdict.kind == kind
    values = [m.value for m in found.metrics.values() if m.value is not None]
    assert all(np.isfinite(value) or value == float("inf") for value in values)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (torch.tensor([[1.0, float("nan")]] * 40), "NaN or infinite"),
        (torch.tensor([[1.0, float("inf")]] * 40), "NaN or infinite"),
        (torch.ones(5), "[n, d]"),
        (torch.ones(0, 5), "needs rows"),
        (np.array([["a", "b"]]), "must be numbers"),
        (torch.ones(4, 4, dtype=torch.complex64), "real"),
    ],
    ids=["nan", "infinite", "a vector", "no rows", "texts", "complex"],
)
def test_what_cannot_be_judged_is_refused_in_one_line(rows: Tensor, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        audit(rows)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_of_another_length_are_refused() -> None:
    with pytest.raises(UsageError, match="100 rows need 100 labels"):
        audit(gaussian(100, 4), labels=[0, 1])


def test_an_unknown_metric_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="erank_centred"):
        audit(gaussian(100, 4), metrics=["erank_centered"])


def test_codes_are_judged_by_their_use() -> None:
    assert audit(torch.zeros(200, 16), codes=True).verdict.kind == "uniform-assignment"
    assert audit(20.0 * torch.eye(16)[:1].repeat(200, 1), codes=True).verdict.kind == "cluster"
    assert audit(20.0 * torch.eye(16).repeat(20, 1), codes=True).verdict.kind == "healthy"


def test_a_collapse_comes_with_what_to_try() -> None:
    assert audit(torch.ones(300, 8)).advice[0].try_first


@pytest.mark.parametrize("n", [8, 20, 31])
def test_what_so_few_rows_cannot_decide_is_called_undecided_with_how_many_would_do(n: int) -> None:
    verdict = audit(gaussian(n, 16), metrics=["level"]).verdict
    said = {item.metric: item.says for item in verdict.evidence if item.threshold is not None}
    assert verdict.kind == "not decidable" and {"level", "erank_centred", "rankme_unit"} <= said.keys()
    assert set(said.values()) == {f"undecided: n = {n} rows; at least 32 are needed"}
    assert "undecided" not in " ".join(item.says for item in audit(gaussian(64, 16)).verdict.evidence)


@pytest.mark.parametrize(("spread", "number"), [(0.01, 10), (0.1, 10), (1.0, 1)])
def test_the_number_of_tight_clusters_stands_beside_the_jump_and_its_border(
    spread: float, number: int
) -> None:
    found = audit(gaussian(10, 32).repeat(40, 1) + spread * gaussian(400, 32, seed=1), metrics=["level"])
    (row,) = (item for item in found.verdict.evidence if item.metric == "tight_clusters")
    assert row.value == number and found.panel is not None and found.panel.clusters is not None
    jump = f"distances jump by {found.panel.clusters.jump:.2f} where they end, 0.75 is the border"
    assert row.says == f"number of tight clusters (1: none): {jump}, and 133 at most can be seen"


@pytest.mark.parametrize(
    ("living", "said"), [(20, "of 20 living of 128 columns"), (63, "of 63"), (64, ""), (128, "")]
)
def test_where_most_columns_are_dead_the_headline_says_of_how_many_it_is(living: int, said: str) -> None:
    rows = gaussian(400, 128)
    rows[:, living:] = 0
    headline = str(audit(rows, metrics=["level"]).verdict)
    assert (said in headline) if said else ("living" not in headline)


@pytest.mark.parametrize("far", [[7], [3, 90, 399], [399, 0, 5, 17, 256]])
def test_outliers_are_named_by_their_rows(far: list[int]) -> None:
    rows = gaussian(400, 16)
    rows[far] *= 100
    found = audit(rows, metrics=["level"])
    assert list(found.outlier_rows) == sorted(far) == found.as_dict()["outlier_rows"]
    (odd,) = found.verdict.blemishes
    assert all(str(row) in odd.says for row in sorted(far)[:3])
    assert ("and 2 more; all are outlier_rows of audit.json" in odd.says) is (len(far) > 3)
