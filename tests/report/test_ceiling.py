"""One ceiling of ranks wherever they are shown: the directions that a layer and constant columns leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fullrank.collapse.panel import Panel
from fullrank.collapse.statistics import EmbeddingStatistics
from fullrank.collapse.verdict import Verdict
from fullrank.report.audit.subjects import AuditOptions, audit_subject
from fullrank.report.ceiling import ceiling_of, judged_rank
from fullrank.report.compare.arms import gather
from fullrank.report.compare.subjects import TapSummary, run_subject
from fullrank.report.run.page import write_page
from fullrank.report.run.reading import read_run
from fullrank.report.run.summary import summarise
from fullrank.report.run.terminal import epoch_line
from fullrank.report.verdicts import doubt

NARROW = {"narrowest": 64, "narrowest_weight": 1.0}
DEAD = {"facts": {"n": 1000, "distinct": 1000, "most_copies": 1, "dead": 64}}


@pytest.fixture(params=[NARROW, DEAD], ids=["narrow layer", "dead columns"])
def narrow(request: Any, fake_run: Any) -> Path:
    """A run whose projector of 128 columns could span 64 directions."""
    run: Path = fake_run("healthy", epochs=3)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["event"] == "epoch":
            line["panels"]["projector"] |= request.param
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_line_tile_and_comparison_have_the_same_ceiling(narrow: Path) -> None:
    summary = summarise(read_run(narrow))
    assert summary.ceiling.possible == 64 and 55 < (summary.ceiling.baseline or 0) < 64
    assert "64 possible, d 128" in epoch_line(summary, 3, None)
    assert "64 possible, d 128" in (page := write_page(narrow).read_text()) and "/ 64" in page
    (judged,) = gather([run_subject(narrow)])[0].summaries("projector")
    assert (judged.possible, judged.baselines["erank_centred"]) == (64, summary.ceiling.baseline)


def test_the_ceiling_of_rows_with_all_their_columns_is_their_width(fake_run: Any) -> None:
    summary = summarise(read_run(fake_run("healthy", epochs=3)))
    assert "possible" not in epoch_line(summary, 3, None)
    assert summary.ceiling.baseline == summary.measure("erank_centred", "null")


def test_an_audit_and_a_comparison_of_it_have_that_ceiling_too() -> None:
    z = torch.randn(800, 128, generator=torch.Generator().manual_seed(0))
    z[:, 40:] = 1.0
    (view,) = audit_subject(z, AuditOptions(metrics="level")).values()
    assert TapSummary.of_audit(view, "").possible == 40
    assert "of 40 directions" in view.verdict.why


def test_the_judged_rank_stands_in_the_line_where_it_is_not_that_of_all_rows() -> None:
    z = torch.randn(1000, 64, generator=torch.Generator().manual_seed(0))
    z *= torch.distributions.HalfCauchy(1.0).sample((1000, 1))
    seen = EmbeddingStatistics(64)
    seen.update(z)
    seen.finish()
    panel = Panel.from_statistics("projector", seen).as_dict()
    measured, judged = panel["measures"]["erank_centred"]["value"], judged_rank(panel)
    assert judged is not None and judged > 2 * measured


@pytest.mark.parametrize(
    ("kind", "probability", "says"),
    [
        ("healthy", 0.02, ""),
        ("healthy", 0.12, ", probability of a collapse 12 %"),
        ("healthy", 0.49, ", probability of a collapse 49 %, near the border"),
        ("complete", 0.99, ""),
        ("complete", 0.55, ", near the border"),
        ("not decidable", None, ""),
    ],
)
def test_a_healthy_verdict_says_its_probability_from_a_tenth_on(
    kind: Any, probability: float | None, says: str
) -> None:
    assert doubt(Verdict(kind, "projector", "", probability=probability)) == says


def test_no_panel_has_no_ceiling() -> None:
    assert ceiling_of({}) == (None, None, None)
