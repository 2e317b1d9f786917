"""What a method does in two steps is what was recorded: a change of a number is made on purpose."""

from __future__ import annotations

import pytest

from methods.method_cases import CASES
from recorded import differences, plain, read

KNOWN = read("methods/recorded_methods")


def test_every_case_is_recorded_and_no_other() -> None:
    assert set(CASES) == set(KNOWN), "run `python -m recorded` in tests/"


@pytest.mark.parametrize("name", CASES)
def test_the_result_is_the_recorded_one(name: str) -> None:
    assert list(differences(plain(CASES[name]()), KNOWN[name])) == []
