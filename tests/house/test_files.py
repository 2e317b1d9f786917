"""No file is too long to read, and no method or lab leans on another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "fullrank"
LIMIT = 400


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks", "examples", "docs"])
def test_no_file_has_more_than_400_lines(folder: str) -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert lengths
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > LIMIT} == {}


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _neighbours(room: str, file: Path, own: str) -> set[str]:
    """The entries of a room without underscore that a file imports, other than its own."""
    prefix = f"fullrank.{room}."
    public = {entry.stem for entry in (PACKAGE / room).iterdir() if not entry.name.startswith(("_", "."))}
    taken = {name.removeprefix(prefix).split(".")[0] for name in _imports(file) if name.startswith(prefix)}
    return (taken & public) - {own}


def test_no_method_imports_another() -> None:
    files = [*(PACKAGE / "methods").glob("*.py")]
    taken = {file.stem: _neighbours("methods", file, file.stem) for file in files}
    assert {name: others for name, others in taken.items() if others} == {}


def test_no_lab_imports_another() -> None:
    files = [*(PACKAGE / "labs").glob("*/*.py")]
    taken = {str(file): _neighbours("labs", file, file.parent.name) for file in files}
    assert {name: others for name, others in taken.items() if others} == {}
