"""Processes that share a command end with the reason of the one that failed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from fullrank.collapse.peers import Peers
from fullrank.errors import UsageError
from fullrank.features import process_group
from fullrank.features.embeddings import PART_BYTES, count_parts
from fullrank.features.process_group import sharing
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


def test_no_more_processes_are_started_than_there_are_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[int] = []

    @contextmanager
    def start(words: Sequence[str], number: int) -> Iterator[None]:
        started.append(number)
        yield

    monkeypatch.setattr(process_group, "_started", start)
    monkeypatch.setattr(process_group, "_met", lambda rank, size: iter([Peers(alone=True)]))
    for files in (1, 3, 8):
        (tmp_path / f"{files}.npy").touch()
        with sharing([], 6, lambda: count_parts(tmp_path)):
            pass
        (tmp_path / f"{files}b.npy").touch()
    assert started == [3, 5]
    said = capsys.readouterr().err
    assert "1 process reads this, not 6" in said and "3 processes read this, not 6" in said


def test_a_large_file_is_shared_and_a_small_or_missing_one_is_not(tmp_path: Path) -> None:
    small, large = tmp_path / "small.npy", tmp_path / "large.npy"
    small.touch()
    with large.open("wb") as file:
        file.truncate(3 * PART_BYTES)
    assert [count_parts(path) for path in (tmp_path / "none.npy", small, large)] == [0, 1, 3]


@pytest.mark.parametrize("number", [257, 100_000, 10**15])
def test_processes_that_no_machine_holds_are_refused(number: int) -> None:
    with pytest.raises(UsageError, match="256 on one machine are the most"), sharing([], number):
        pass
