"""The tool that tries mutants: it sees a change, a failure, a hang, and counts them right."""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from mutants.campaign import interval, sample_mutants
from mutants.changes import ROOT, statement_lines
from mutants.equivalent import EQUIVALENT
from mutants.forks import Replaced, Task, run_all, run_tests

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")
needs_cosmic_ray = pytest.mark.skipif(find_spec("cosmic_ray") is None, reason="needs fullrank[mutants]")


def _sleep() -> int:
    time.sleep(60)
    return 0


def _outcome(folder: Path, source: str, test: str) -> int | None:
    """Exit status of a test of a small module, which the fork sees with other source."""
    (folder / "doubled.py").write_text("def doubled(x):\n    return 2 * x\n")
    (folder / "test_doubled.py").write_text(f"from doubled import doubled\n\n\ndef test_it():\n    {test}\n")
    (folder / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    found = list[int | None]()

    def work() -> int:
        return run_tests(
            folder, ["test_doubled.py::test_it"], Replaced("doubled", folder / "doubled.py", source)
        )

    task = Task("it", work, 60.0, folder / "log.txt")
    run_all([task], 1, lambda task, status, seconds: found.append(status))
    return found[0]


def test_a_mutant_that_a_test_fails_on_is_killed(tmp_path: Path) -> None:
    assert _outcome(tmp_path, "def doubled(x):\n    return 2 / x\n", "assert doubled(3) == 6") == 1


def test_a_mutant_is_seen_where_doctests_of_its_file_are_tried_too(tmp_path: Path) -> None:
    source = 'def doubled(x):\n    """\n    >>> doubled(0)\n    0\n    """\n    return {} * x\n'
    (tmp_path / "doubled.py").write_text(source.format(2))
    (tmp_path / "test_doubled.py").write_text(
        "from doubled import doubled\n\n\ndef test_it():\n    assert doubled(3) == 6\n"
    )
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\npythonpath = .\naddopts = --doctest-modules --import-mode=importlib\n"
    )
    found = list[int | None]()

    def work() -> int:
        tests = ["doubled.py::doubled.doubled", "test_doubled.py::test_it"]
        return run_tests(tmp_path, tests, Replaced("doubled", tmp_path / "doubled.py", source.format(5)))

    run_all([Task("it", work, 60.0, tmp_path / "log.txt")], 1, lambda task, status, s: found.append(status))
    assert found == [1]


@pytest.mark.slow
def test_a_mutant_that_no_test_fails_on_survives(tmp_path: Path) -> None:
    assert _outcome(tmp_path, "def doubled(x):\n    return 2 + x\n", "assert doubled(2) == 4") == 0


@pytest.mark.slow
def test_a_mutant_that_cannot_be_imported_is_killed(tmp_path: Path) -> None:
    assert _outcome(tmp_path, "raise ValueError\n", "assert doubled(2) == 4") == 2


def test_a_mutant_that_does_not_end_is_ended_at_its_limit(tmp_path: Path) -> None:
    ended = list[int | None]()
    task = Task("sleeps", _sleep, 0.3, tmp_path / "log.txt")
    run_all([task], 1, lambda task, status, seconds: ended.append(status))
    assert ended == [None]


@pytest.mark.slow
def test_the_file_on_disk_stays_as_it_is(tmp_path: Path) -> None:
    _outcome(tmp_path, "def doubled(x):\n    return 0\n", "assert doubled(2) == 4")
    assert (tmp_path / "doubled.py").read_text() == "def doubled(x):\n    return 2 * x\n"


def test_a_line_belongs_to_its_whole_statement_and_a_default_to_its_function() -> None:
    source = "x = (\n    1,\n    2,\n)\nif x:\n    y = 1\n\n\ndef f(a=1):\n    b = 2\n    return a + b\n"
    assert list(statement_lines(source, 3)) == [1, 2, 3, 4]
    assert list(statement_lines(source, 5)) == [5]
    assert list(statement_lines(source, 9)) == [9, 10, 11]


def test_the_interval_is_that_of_wilson() -> None:
    assert interval(9, 10) == pytest.approx((0.596, 0.982), abs=1e-3)


@pytest.mark.parametrize("entry", EQUIVALENT, ids=lambda entry: f"{entry.path}: {entry.before}"[:100])
def test_the_source_still_has_the_lines_of_an_equivalent_mutant(entry: tuple[str, ...]) -> None:
    _, path, before, after, _ = entry
    lines = {line.strip() for line in (ROOT / path).read_text().splitlines()}
    if after:
        assert set(before.splitlines()) <= lines
    else:
        assert any(line.startswith(before) for line in lines)


@needs_cosmic_ray
def test_a_longer_draw_begins_with_a_shorter_one() -> None:
    assert sample_mutants("checkpoint", "12", 0)[:6] == sample_mutants("checkpoint", "6", 0)


@needs_cosmic_ray
def test_a_mutant_differs_from_its_file_in_one_place() -> None:
    for mutant in sample_mutants("checkpoint", "6", 0):
        assert 1 <= sum(line.startswith("-") for line in mutant.diff().splitlines()) <= 3
