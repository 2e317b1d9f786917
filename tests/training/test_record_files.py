"""Very long records of runs: thinned evenly, said so, read from the end, and never whole in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fullrank.training import record_files
from fullrank.training.record_files import (
    follow,
    has_ended,
    last_step,
    lines_backwards,
    read_records,
    size_without_end,
)
from fullrank.training.records import EndRecord, EpochRecord, RunRecord, StepRecord

PER_EPOCH = 50


def step(number: int) -> bytes:
    row = {"event": "step", "epoch": (number - 1) // PER_EPOCH, "step": number, "loss": 1 / number, "lr": 0.1}
    return json.dumps(row).encode() + b"\n"


def epoch(number: int) -> bytes:
    row = {"event": "epoch", "epoch": number, "step": number * PER_EPOCH, "loss": 0.5, "verdict": {}}
    return json.dumps(row).encode() + b"\n"


END = b'{"event": "end", "epoch": 20, "step": 1000, "reason": "finished", "time": {}}\n'


def write(folder: Path, epochs: int = 20, end: bytes = END) -> Path:
    """The records of a run of `epochs` times 50 steps."""
    lines = [epoch(0)]
    for number in range(1, epochs + 1):
        lines += [step(PER_EPOCH * (number - 1) + k) for k in range(1, PER_EPOCH + 1)] + [epoch(number)]
    log = folder / "metrics.jsonl"
    log.write_bytes(b"".join(lines) + end)
    return log


def steps_of(records: tuple[RunRecord, ...]) -> list[int]:
    return [record.step for record in records if isinstance(record, StepRecord)]


@pytest.fixture(params=[97, 1024, 1 << 20], ids="blocks of {} bytes".format)
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines begin at every place of a block."""
    monkeypatch.setattr(record_files, "BLOCK", request.param)


@pytest.mark.usefixtures("_blocks")
def test_every_record_of_an_ordinary_run_is_read_in_order(tmp_path: Path) -> None:
    found = read_records(write(tmp_path))
    assert steps_of(found.records) == list(range(1, 1001))
    assert [r.epoch for r in found.records if isinstance(r, EpochRecord)] == list(range(21))
    assert [record.step for record in found.records] == sorted(record.step for record in found.records)
    assert (found.damaged, found.half, found.every, found.notes) == (0, False, 1, ())


@pytest.mark.usefixtures("_blocks")
def test_of_very_many_steps_every_kth_is_read_with_the_first_and_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_files, "MOST_STEPS", 100)
    found = read_records(write(tmp_path))
    assert steps_of(found.records) == [*range(1, 1001, 16), 1000] and found.every == 16
    assert found.notes == ("of 1,000 step records in metrics.jsonl one in 16 is read, evenly, and the last",)


@pytest.mark.usefixtures("_blocks")
def test_where_steps_are_thinned_every_epoch_and_the_end_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_files, "MOST_STEPS", 10)
    records = read_records(write(tmp_path)).records
    assert [r.epoch for r in records if isinstance(r, EpochRecord)] == list(range(21))
    assert isinstance(records[-1], EndRecord)


def test_of_very_many_epochs_every_kth_is_read_and_the_last_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_files, "MOST_EPOCHS", 6)
    found = read_records(write(tmp_path, epochs=22))
    assert [r.epoch for r in found.records if isinstance(r, EpochRecord)] == [0, 4, 8, 12, 16, 20, 22]
    assert found.notes == ("of 23 epoch records in metrics.jsonl one in 4 is read, evenly, and the last",)
    assert found.every == 1 and len(steps_of(found.records)) == 1100


def test_damaged_lines_among_thinned_steps_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_files, "MOST_STEPS", 10)
    log = write(tmp_path, end=b'{"event": "st\n\n{"a": 1}\n' + END)
    assert read_records(log).damaged == 2


def test_half_a_line_at_the_end_is_said_and_left_out(tmp_path: Path) -> None:
    found = read_records(write(tmp_path, end=step(1001)[:-9]))
    assert found.half and found.damaged == 0 and found.records[-1].step == 1000
    assert found.notes == ("metrics.jsonl ends in half a line, which is left out",)


def test_a_line_without_end_is_no_record_and_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_files, "MOST_LINE", 1000)
    log = write(tmp_path, epochs=1, end=step(51)[:-2] + b" " * 5000 + b"}\n" + step(52))
    assert steps_of(read_records(log).records) == [*range(1, 51), 52]
    assert list(lines_backwards(log))[:2] == [step(52), b""]


@pytest.mark.usefixtures("_blocks")
def test_lines_come_backwards_as_they_are(tmp_path: Path) -> None:
    log = write(tmp_path, end=END[:20])
    assert list(lines_backwards(log)) == log.read_bytes().splitlines(keepends=True)[::-1]


def test_the_last_step_is_that_of_the_last_whole_record(tmp_path: Path) -> None:
    assert last_step(write(tmp_path, end=b"no record\n" + step(1001)[:-1])) == 1000
    assert last_step(tmp_path / "none") == 0


@pytest.mark.parametrize(
    ("end", "ended"), [(END, True), (END[:-1], True), (END[:-2], False), (b"", False), (END + b"{", False)]
)
def test_a_run_has_ended_where_its_last_line_says_so(tmp_path: Path, end: bytes, ended: bool) -> None:
    assert has_ended(write(tmp_path, end=end)) is ended


def test_a_longer_run_keeps_all_but_the_end(tmp_path: Path) -> None:
    log = write(tmp_path)
    size = log.stat().st_size
    assert size_without_end(log, size) == size - len(END)
    assert size_without_end(log, size - len(END)) == size - len(END)


def test_following_a_file_that_is_not_there_waits(tmp_path: Path) -> None:
    assert follow(tmp_path / "none", 7, lambda record: pytest.fail(str(record))) == 7


MEASURED = """
import resource, sys
from pathlib import Path
from fullrank.training.record_files import has_ended, last_step, read_records, size_without_end
from fullrank.training.records import parse_record
import numpy
log = Path(sys.argv[1])
parse_record(b"{}")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert has_ended(log) and last_step(log) and size_without_end(log, log.stat().st_size)
small = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read_records(log)
print(small - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_file_of_300_megabytes_takes_a_tenth_of_it_in_memory(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    some = b"".join(step(number) for number in range(1, 10_001))
    padded = some.replace(b"}\n", b" " * 300 + b"}\n")
    with log.open("wb") as file:
        for _ in range(300_000_000 // len(padded)):
            file.write(padded)
        file.write(END)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(log)], capture_output=True, text=True, check=True
    )
    unit = 1 if sys.platform == "darwin" else 1024
    end_alone, records = (unit * int(word) for word in done.stdout.split())
    assert end_alone < 4_000_000 and records < 30_000_000
