"""Which tests reach which lines, and how long they take, measured once with coverage."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mutants.changes import ROOT, runs_at_import, statement_lines
from mutants.forks import Task, run_all

READING = (
    "declared",
    "declaration",
    "default",
)  # in the names of tests that read what is declared, and run none of it


def measure(files: list[str], sources: list[str], folder: Path, width: int, seconds: float) -> dict[str, Any]:
    """Reach of the first seconds of each test file; what was measured before is taken over."""
    store = folder / "reach"
    store.mkdir(parents=True, exist_ok=True)
    tasks = [
        Task(
            name,
            partial(_trace, name, sources, _place(store, name), seconds),
            900,
            _place(folder / "logs", name),
        )
        for name in files
        if not _current(_place(store, name), seconds)
    ]

    def done(task: Task, status: int | None, took: float) -> None:
        said = "" if status in (0, 2, 5) else f"; status {status}, see {task.log}"
        print(f"reach of {task.name} in {took:.0f} s{said}", flush=True)

    run_all(tasks, width, done)
    found = {}
    for name in files:
        if _place(store, name).exists():
            found[name] = json.loads(_place(store, name).read_text())
    return found


def tests_for(reach: dict[str, Any], path: str, line: int, most: float) -> tuple[list[str], float]:
    """Tests that reach the statement of a line, shortest first, `most` seconds in all, and their seconds.

    No test reaches what runs at import: there those that read declarations come first, then those that reach
    the file, then all others.
    """
    source = (ROOT / path).read_text()
    lines = [str(n) for n in statement_lines(source, line)]
    near, anywhere, others = dict[str, float](), dict[str, float](), dict[str, float]()
    for entry in reach.values():
        others |= entry["seconds"]
        reached = entry["lines"].get(path, {})
        for number, tests in reached.items():
            for test in tests:
                if test in entry["seconds"]:
                    anywhere[test] = entry["seconds"][test]
                    if number in lines:
                        near[test] = entry["seconds"][test]
    chosen, total = [], 0.0
    declares = runs_at_import(source, line)
    reading = {test: s for test, s in others.items() if declares and any(word in test for word in READING)}
    found = reading | (near or others)

    def turn(test: str) -> tuple[bool, bool, float, str]:
        return test not in reading, test not in anywhere, found[test], test

    for test in sorted(found, key=turn):
        seconds = found[test]
        if total + seconds > most:
            break
        chosen.append(test)
        total += seconds
    return chosen, total


class _Contexts:
    """Plugin of pytest: a context of coverage for each test that passes, and its seconds."""

    def __init__(self, coverage: Any, limit: float) -> None:
        self.coverage, self.seconds, self.failed = coverage, dict[str, float](), set[str]()
        self.end = time.monotonic() + limit

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put the first case of every test first, then the second ones: each has a part of the time."""
        turn, number = dict[str, int](), Counter[str]()
        for item in items:
            function = item.nodeid.split("[")[0]
            number[function] += 1
            turn[item.nodeid] = number[function]
        items.sort(key=lambda item: turn[item.nodeid])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.coverage.switch_context(item.nodeid)
        begin = time.monotonic()
        result = yield
        self.seconds[item.nodeid] = round(time.monotonic() - begin, 3)
        self.coverage.switch_context("")
        if time.monotonic() > self.end:
            item.session.shouldstop = "the time is up"
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:  # a test that fails without a mutant kills none
            self.failed.add(report.nodeid)


def _trace(name: str, sources: list[str], place: Path, limit: float) -> int:
    from coverage import Coverage

    os.chdir(ROOT)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    coverage = Coverage(data_file=None, include=[str(ROOT / path) for path in sources], config_file=False)
    contexts = _Contexts(coverage, limit)
    coverage.start()
    status = pytest.main(["-q", "-p", "no:cacheprovider", "-m", "not slow", name], plugins=[contexts])
    coverage.stop()
    data, lines = coverage.get_data(), {}
    for path in sources:
        by_line = data.contexts_by_lineno(str(ROOT / path))
        if by_line:
            lines[path] = {str(line): sorted({c for c in tests if c}) for line, tests in by_line.items()}
    seconds = {test: s for test, s in contexts.seconds.items() if test not in contexts.failed}
    digests = {path: digest(path) for path in [name, *lines]}
    limit = limit if status == 2 else 1e9  # 1e9: all of its tests were traced
    place.write_text(json.dumps({"seconds": seconds, "digests": digests, "lines": lines, "limit": limit}))
    return int(status)


def digest(path: str) -> str:
    """Digest of a file of the repository; of a folder, whose files are counted with the lines, none."""
    file = ROOT / path
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else ""


def _current(place: Path, limit: float) -> bool:
    if not place.exists():
        return False
    entry = json.loads(place.read_text())
    same = all(digest(path) == was for path, was in entry["digests"].items())
    return same and entry.get("limit", limit) >= limit


def _place(folder: Path, name: str) -> Path:
    return folder / (name.replace("/", "+") + ".json")
