"""The first line of a docstring is short, and a noun phrase or an imperative."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "fullrank"
ROOMS = sorted({path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")})
THIRD_PERSON = re.compile(
    r"(Adds|Asks|Builds|Calls|Checks|Compares|Computes|Draws|Finds|Gives|Keeps|Lists|Loads|Looks|Makes|Moves|"
    r"Opens|Prints|Puts|Reads|Returns|Runs|Saves|Says|Sends|Sets|Starts|Takes|Tells|Trains|Turns|Waits|Writes)\b"
)


def _first_lines(room: str) -> Iterator[tuple[str, str]]:
    """Where each docstring of a room stands, and its first line."""
    for path in [PACKAGE / room] if room.endswith(".py") else sorted((PACKAGE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            if doc := ast.get_docstring(node):
                yield f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 1)}", doc.splitlines()[0]


@pytest.mark.parametrize("room", ROOMS)
def test_first_lines_are_short_and_no_third_person(room: str) -> None:
    lines = dict(_first_lines(room))
    assert {place: len(line) for place, line in lines.items() if len(line) > 80} == {}
    assert {place: line for place, line in lines.items() if THIRD_PERSON.match(line)} == {}
