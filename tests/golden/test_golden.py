"""Ours equals what the reference implementations computed, value by value, within the recorded tolerance."""

from importlib import import_module
from pathlib import Path

import pytest
import torch

from golden.harness import ANSWERS, COMPARERS, HERE, Case, golden_files

for module in HERE.glob("*.py"):
    if not module.stem.startswith("test_"):
        import_module(f"golden.{module.stem}")  # each files what it compares


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    directory = Path(metafunc.config.getoption("--golden") or HERE)
    paths = list(golden_files(directory))
    metafunc.parametrize("path", paths, ids=[path.stem for path in paths])


@pytest.mark.golden
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_golden(path: Path, dtype: torch.dtype) -> None:
    case = Case.load(path, dtype)
    if case.item not in COMPARERS:
        pytest.skip(f"nothing of ours answers to item {case.item} yet")
    if case.item == "13_trajectory" and case.about["case"] not in ANSWERS:
        pytest.skip(f"no method of ours for trajectory {case.about['case']} yet")
    COMPARERS[case.item](case)
    case.finish()
