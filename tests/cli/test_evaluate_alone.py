"""What one process evaluates is said once where a launcher has started several."""

from __future__ import annotations

from typing import Any

import pytest

from cli.helpers import Called, call
from fullrank.cli import evaluate
from fullrank.features import process_group, writing

ALONE = {
    "finetune": ("finetune",),
    "all": ("all",),
    **{f"linear --protocol {name}": ("linear", "--protocol", name) for name in ("simsiam", "solo", "li")},
}


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []

    def note(probe: str, *_: Any) -> int:
        found.append(probe)
        return 0

    monkeypatch.setattr(evaluate, "_evaluate", note)
    return found


def evaluate_as(monkeypatch: pytest.MonkeyPatch, rank: int, size: int, what: str) -> Called:
    for module in (process_group, writing):
        monkeypatch.setattr(module, "processes", lambda: (rank, size, size))
    return call("evaluate", *ALONE[what], "runs/first")


@pytest.mark.parametrize("what", ALONE)
def test_the_first_of_several_says_that_it_evaluates_alone(
    monkeypatch: pytest.MonkeyPatch, evaluated: list[str], what: str
) -> None:
    called = evaluate_as(monkeypatch, 0, 2, what)
    assert called.code == 0 and len(evaluated) == 1
    assert called.err == f"note    evaluate {what} is done by one process: the others are not needed\n"


@pytest.mark.parametrize("what", ALONE)
def test_the_others_of_several_end_without_a_word(
    monkeypatch: pytest.MonkeyPatch, evaluated: list[str], what: str
) -> None:
    called = evaluate_as(monkeypatch, 1, 2, what)
    assert (called.code, called.out, called.err, evaluated) == (0, "", "", [])


@pytest.mark.parametrize("what", ALONE)
def test_one_process_has_nothing_to_say(
    monkeypatch: pytest.MonkeyPatch, evaluated: list[str], what: str
) -> None:
    called = evaluate_as(monkeypatch, 0, 1, what)
    assert (called.code, called.err) == (0, "") and len(evaluated) == 1
