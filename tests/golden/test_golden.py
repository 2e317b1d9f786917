"""Ours equals what the reference implementations computed, value by value, within the recorded tolerance."""

from pathlib import Path

import pytest

from golden import comparers
from golden.harness import COMPARERS, HERE, Case, golden_files

METHOD_CASES = set(comparers.METHOD_OF_CASE)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    directory = Path(metafunc.config.getoption("--golden") or HERE)
    paths = list(golden_files(directory))
    metafunc.parametrize("path", paths, ids=[path.stem for path in paths])


@pytest.mark.golden
def test_golden(path: Path) -> None:
    case = Case.load(path)
    if case.item not in COMPARERS:
        pytest.skip(f"nothing of ours answers to item {case.item} yet")
    if case.item == "13_trajectory" and case.about["case"] not in METHOD_CASES:
        pytest.skip(f"no method of ours for trajectory {case.about['case']} yet")
    COMPARERS[case.item](case)
    case.finish()
