"""A verdict is shown with its probability, its border and its blemishes, in every view of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib.resources import files
from typing import Any, get_args

import numpy as np
import pytest
import torch

from fullrank.collapse.blemishes import Blemish
from fullrank.collapse.treatments import advice_on
from fullrank.collapse.verdict import Kind, Verdict, as_verdict
from fullrank.report.audit.page import write_audit
from fullrank.report.audit.subjects import AuditOptions, audit_subject
from fullrank.report.compare.page import write_comparison
from fullrank.report.run.arms import arms_text
from fullrank.report.run.page import write_page
from fullrank.report.run.reading import read_run
from fullrank.report.run.summary import summarise
from fullrank.report.run.terminal import closing_lines
from fullrank.report.verdicts import advice_sentences, as_sentence, beside_kind, probable
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


@pytest.mark.parametrize(
    ("shift", "rank", "said"), [(30.0, 24, True), (300.0, 24, True), (30.0, 3, False), (0.0, 24, False)]
)
def test_rows_near_their_mean_are_said_to_be_spread_without_it_where_they_are(
    shift: float, rank: int, said: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(300, rank, generator=generator) @ torch.eye(24)[:rank] + shift
    shown = " ".join(str(view(z)).split())
    assert ("Subtract the mean and audit again" in shown) is said
    assert ("Complete collapse" in shown) is (shift > 0)


def test_columns_that_live_stand_in_the_headline_of_every_view(tmp_path: Any) -> None:
    z = torch.randn(300, 24, generator=torch.Generator().manual_seed(0))
    z[:, 9:] = 0
    found = view(z)
    page = write_audit({"embedding": found}, tmp_path, figures=False).read_text()
    for shown in (str(found), found._repr_html_(), page):
        assert "of 9 living of 24 columns" in " ".join(shown.split())


@pytest.mark.parametrize("text", ["a rank is low", "rank is low", "Rank is low."])
def test_sentences_begin_with_a_capital(text: str) -> None:
    assert as_sentence(text)[0].isupper() and as_sentence(text).endswith("low.")


def test_outliers_of_files_are_named_with_their_file(tmp_path: Any) -> None:
    for part in range(2):
        rows = np.random.default_rng(part).normal(size=(100, 8))
        rows[5 + part] *= 100
        np.save(tmp_path / f"part-{part}.npy", rows)
    (found,) = audit_subject(str(tmp_path), AuditOptions(metrics="level")).values()
    assert found.outlier_rows == (5, 106)
    says = found.verdict.blemishes[0].says
    assert f"row 5 of {tmp_path / 'part-0.npy'}, row 6 of {tmp_path / 'part-1.npy'}" in says


def test_every_meaning_in_a_glossary_begins_with_a_capital() -> None:
    macros = files("fullrank.report").joinpath("templates", "macros.html.j2").read_text()
    meanings = re.findall(r'\("(?:both|run|audit)", "[^"]+", "([^"]+)"\)', macros)
    assert len(meanings) > 15
    assert [text for text in meanings if text[0].islower()] == []


@pytest.mark.parametrize("kind", get_args(Kind))
def test_advice_is_given_in_sentences(kind: str) -> None:
    shown = [item.mechanism for item in advice_sentences(advice_on([kind]))]
    assert [text for text in shown if text[0].islower()] == []


@pytest.mark.parametrize("dead", [16, 12, 3])
@pytest.mark.parametrize("kind", ["complete", "dimensional", "healthy", "not decidable"])
def test_living_columns_are_said_only_of_what_was_decided_and_lives(kind: Any, dead: int) -> None:
    odd = Blemish("dead dimensions", dead, 16, "", "")
    verdict = Verdict(kind, "projector", "", blemishes=(odd,))
    said = kind != "not decidable" and dead == 12
    assert ("living" in str(verdict)) == said and ("living" in beside_kind(verdict)) == said
