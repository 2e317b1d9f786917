"""Ours equals what the reference implementations computed, value by value, within the recorded tolerance."""

from pathlib import Path

import pytest
import torch

from golden.case import HERE, golden_files
from golden.harness import FINISHED, compare, failure


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    directory = Path(metafunc.config.getoption("--golden") or HERE)
    try:
        paths = list(golden_files(directory))
    except FileNotFoundError as error:
        raise pytest.UsageError(f"--golden: {error}") from error
    metafunc.parametrize("path", paths, ids=[path.stem for path in paths])


@pytest.mark.golden
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_golden(path: Path, dtype: torch.dtype) -> None:
    case = compare(path, dtype)
    FINISHED.append(case)
    assert not case.failures, failure(case)
