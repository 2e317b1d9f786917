"""What is measured and said of fixed rows is what was recorded: a change of a number is made on purpose."""

from __future__ import annotations

from typing import Any

import pytest

from collapse import declared_cases, metric_cases, part_cases, verdict_cases
from recorded import Case, differences, plain, read

KINDS = {
    "metrics": metric_cases.CASES,
    "verdicts": verdict_cases.CASES,
    "parts": part_cases.CASES | declared_cases.CASES,
}
KNOWN: dict[str, dict[str, Any]] = {kind: read(f"collapse/recorded_{kind}") for kind in KINDS}
CASES = [pytest.param(kind, case, id=name) for kind, cases in KINDS.items() for name, case in cases.items()]


@pytest.mark.parametrize("kind", KINDS)
def test_every_case_is_recorded_and_no_other(kind: str) -> None:
    assert set(KINDS[kind]) == set(KNOWN[kind]), "run `python -m recorded` in tests/"


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_the_result_is_the_recorded_one(kind: str, case: Case, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.id
    assert list(differences(plain(case()), KNOWN[kind][name])) == []
