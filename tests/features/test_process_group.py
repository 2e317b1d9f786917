"""Processes that share a command end with the reason of the one that failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from processes import results_of

WORKER = Path(__file__).with_name("failing_worker.py")


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("data", "rank 1 of 2 failed: photos: 9 of 9 images cannot be decoded", "code 2"),
        ("memory", "rank 1 of 2 failed: MemoryError: 9 bytes", "9 bytes"),
    ],
)
def test_the_first_process_says_why_another_one_failed(
    kind: str, first: str, second: str, tmp_path: Path
) -> None:
    found = results_of(WORKER, 2, tmp_path / kind)
    assert [each["said"] for each in found] == [first, second]
