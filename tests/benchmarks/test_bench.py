"""The one table of speed: what counts in a row, when it is short, and what the file holds."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).resolve().parents[2] / "benchmarks"

TINY = """
from measuring import Row, beside, in_turns

def rows(repeats):
    seconds, _ = in_turns(repeats, {"ours": lambda: sum(range(10)), "a loop": lambda: sum(range(300_000))})
    return [
        beside("sum", seconds, "a loop", 2.0),
        beside("sum", seconds, "a loop", 1e9),
        Row("start", "", (0.1,) * repeats, 0.5, at_most=True, unit="s"),
    ]
"""


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("measuring")


@pytest.fixture
def bench(measuring: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    (tmp_path / "tiny.py").write_text(TINY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return importlib.import_module("bench")


def measured(bench: ModuleType, out: Path, *words: str) -> dict[str, Any]:
    assert bench.main(["--only", "tiny", "--repeats", "3", "--json", str(out), *words]) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_a_row_counts_by_the_median_of_its_turns(measuring: ModuleType) -> None:
    row = measuring.beside("x", {"ours": [1.0, 2.0, 4.0], "peer": [3.0, 3.0, 4.0]}, "peer", 1.4, work=8)
    assert row.turns == (3.0, 1.5, 1.0)
    assert (row.value, row.ours, row.theirs, row.mark) == (1.5, 4.0, 8 / 3, "")


@pytest.mark.parametrize(
    ("value", "bar", "at_most", "mark"),
    [(1.2, 1.3, False, "short"), (1.3, 1.3, False, ""), (0.6, 0.5, True, "short"), (0.5, 0.5, True, ""),
     (0.0, None, False, "")],
)  # fmt: skip
def test_short_is_said_of_a_missed_bar_and_of_nothing_else(
    measuring: ModuleType, value: float, bar: float | None, at_most: bool, mark: str
) -> None:
    row = measuring.Row("x", "peer", (value,), bar, at_most)
    assert row.mark == mark
    assert ("mark" in row.as_dict()) == ("short" in measuring.table([row])) == bool(mark)
    assert measuring.Row.from_dict(row.as_dict()) == row


def test_every_turn_begins_with_another_way(measuring: ModuleType) -> None:
    order: list[str] = []
    ways = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds, found = measuring.in_turns(3, ways)
    assert order == [*"abc", *"bca", *"cab"]
    assert {len(times) for times in seconds.values()} == {len(times) for times in found.values()} == {3}


def test_the_file_holds_machine_versions_date_and_rows(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured(bench, tmp_path / "cpu.json")
    assert set(found["machine"]) == {"cpu", "cores", "memory_gb", "system"}
    assert found["machine"]["cores"] >= 1
    assert {"python", "torch", "scikit-learn"} <= set(found["versions"])
    assert found["date"] == found["rows"][0]["date"]
    assert [row.get("mark", "") for row in found["rows"]] == ["", "short", ""]
    assert all(row["group"] == "tiny" and len(row["turns"]) == 3 for row in found["rows"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith("short") for line in lines] == [False, False, True, False]


def test_other_groups_of_the_same_machine_and_versions_are_kept(bench: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "cpu.json"
    found = measured(bench, out)
    other = {**found["rows"][0], "group": "start"}
    out.write_text(json.dumps({**found, "rows": [other, *found["rows"]]}))
    assert [row["group"] for row in measured(bench, out)["rows"]] == ["start", "tiny", "tiny", "tiny"]
    out.write_text(json.dumps({**found, "versions": {"torch": "1.0"}, "rows": [other]}))
    assert {row["group"] for row in measured(bench, out)["rows"]} == {"tiny"}


def test_a_group_that_fails_says_why(bench: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text("import a_peer_that_is_not_there")
    with pytest.raises(SystemExit, match="a_peer_that_is_not_there"):
        measured(bench, tmp_path / "cpu.json")


def test_every_group_has_a_module(bench: ModuleType) -> None:
    assert all((HERE / f"{group}.py").is_file() for group in bench.GROUPS)
