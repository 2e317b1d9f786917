"""Control characters in names and texts from strangers are shown on a terminal, never sent to it."""

from __future__ import annotations

import ast
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.helpers import call
from fullrank.report.audit.terminal import AuditView
from fullrank.terminal import say, terminal

PACKAGE = Path(__file__).parents[2] / "src" / "fullrank"
EVIL = "a\x1b[31m\x9b2J\u202eb\x07\rc"  # colour, C1, direction, bell, back to the line's beginning
SHOWN = r"a\x1b[31m\x9b2J\u202eb\x07\rc"


def is_clean(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def test_an_error_shows_the_name_of_a_file_escaped(tmp_path: Path) -> None:
    (tmp_path / f"{EVIL}\n.npy").write_bytes(b"x")
    called = call("audit", str(tmp_path / f"{EVIL}\n.npy"))
    assert called.code == 2
    assert SHOWN in called.err.replace(" ", "") or r"\x1b[31m" in called.err
    assert is_clean(called.err) and called.err.count("\n") == 1


def test_what_a_command_prints_shows_names_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows: Any = {f"{EVIL}[/bold]": np.random.default_rng(0).standard_normal((60, 4))}
    np.savez(tmp_path / "z.npz", **rows)
    called = call("audit", "z.npz", "--no-page", "--metrics", "level", "--out", f"{EVIL}out")
    assert called.code == 0
    assert is_clean(called.out) and is_clean(called.err)


def test_a_console_escapes_all_it_renders() -> None:
    from rich.table import Table
    from rich.text import Text

    file = io.StringIO()
    console = terminal(file=file, width=80)
    table = Table(title=Text(EVIL))
    table.add_column(Text(EVIL))
    table.add_row(Text(f"{EVIL}\n{EVIL}"))
    console.print(table)
    console.print(EVIL, markup=False)
    assert is_clean(file.getvalue())
    assert r"\x1b[31m" in file.getvalue()


def test_a_name_cannot_forge_a_line() -> None:
    file = io.StringIO()
    say("note    a\nfullrank: all is well", file)
    assert file.getvalue() == "note    a\\nfullrank: all is well\n"


def test_no_text_with_a_name_in_it_is_printed_past_the_escaping() -> None:
    found = []
    texts = {path: path.read_text() for path in PACKAGE.rglob("*.py")}
    for path, text in texts.items():
        for node in ast.walk(ast.parse(text)) if re.search(r"print\(\s*f|\bConsole\(", text) else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                formed = node.args and isinstance(node.args[0], ast.JoinedStr)
                if formed and "{__version__}" not in ast.unparse(node) and "{held}" not in ast.unparse(node):
                    found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Console":
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: take fullrank.terminal.terminal")
    assert found == []


def test_a_view_of_an_audit_as_text_is_clean() -> None:
    import fullrank

    view = fullrank.audit(np.random.default_rng(0).standard_normal((60, 4)), metrics="level")
    assert isinstance(view, AuditView)
    assert is_clean(str(view))
