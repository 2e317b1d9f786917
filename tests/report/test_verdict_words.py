"""A verdict is shown with its probability, its border and its blemishes, in every view of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fullrank.collapse.blemishes import Blemish
from fullrank.collapse.verdict import Verdict, as_verdict
from fullrank.report.audit.page import write_audit
from fullrank.report.compare.page import write_comparison
from fullrank.report.run.arms import arms_text
from fullrank.report.run.page import write_page
from fullrank.report.run.reading import read_run
from fullrank.report.run.summary import summarise
from fullrank.report.run.terminal import closing_lines
from fullrank.report.verdicts import probable
from report.test_audit_page import view

ODD = Blemish("copies", 150, 300, "150 of 300 rows are <copies> of others", "look for repeated images")


@pytest.fixture
def odd_run(fake_run: Any) -> Any:
    """A healthy run near the border whose rows have a blemish."""
    path = fake_run("healthy", epochs=4)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for verdict in [line.get("verdict"), *(line.get("verdicts") or {}).values()]:
            if verdict:
                verdict |= {"probability": 0.41, "blemishes": [ODD.as_dict()]}
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_logged_verdict_is_read_again() -> None:
    verdict = Verdict("healthy", "projector", "why", probability=0.4, blemishes=(ODD,))
    assert as_verdict(verdict.as_dict()) == verdict and verdict.near_border
    assert as_verdict({"kind": "complete"}) == Verdict("complete", "", "")


def test_no_probability_is_shown_as_certain() -> None:
    assert [probable(p) for p in (0.0, 0.5, 1.0)] == ["under 1 %", "50 %", "over 99 %"]


def test_the_views_of_an_audit(tmp_path: Any) -> None:
    found = view()
    found = replace(found, verdict=replace(found.verdict, probability=0.41, blemishes=(ODD,)))
    page = write_audit({"embedding": found}, tmp_path, figures=False).read_text()
    for text in (page, found._repr_html_()):
        assert "41 %, near the border" in text
        assert "150 of 300 rows are &lt;copies&gt; of others. " in text.replace("</b> <span>", " ")
        assert "Look for repeated images." in text
    said = str(found)
    assert "41 %, near the border" in said and "rows are <copies>" in said
    whole = json.loads((tmp_path / "audit.json").read_text())
    assert whole["probability"] == 0.41 and whole["near_border"] and whole["blemishes"][0]["name"] == "copies"


def test_the_views_of_a_run(odd_run: Any) -> None:
    page = write_page(odd_run).read_text()
    assert "41 %, near the border" in page and "rows are &lt;copies&gt;" in page
    summary = summarise(read_run(odd_run))
    assert "41 %, near the border" in (said := "\n".join(closing_lines(summary, {}))) and "rows are" in said
    assert "healthy, near the border; copies" in arms_text([summary])


def test_the_views_of_a_comparison(odd_run: Any, tmp_path: Any) -> None:
    page = write_comparison([odd_run], tmp_path / "c.html", "One").read_text()
    assert "41 %, near the border" in page and ">copies</td>" in page and "rows are &lt;copies&gt;" in page
