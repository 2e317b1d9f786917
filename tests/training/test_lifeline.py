"""One process of a run that fails or is killed ends all of them, by name, and the run goes on afterwards."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.distributed import HashStore  # type: ignore[attr-defined]  # which the stubs leave out

from cli.helpers import WIDTHS, records
from fullrank.training import lifeline
from fullrank.training.lifeline import Failure, Lifeline, RankFailedError
from fullrank.training.meeting import Meeting, Peer

SMALL = ("--limit", "96", "--backbone", "resnet8-w16", "--batch-size", "48", "--level-every", "1", *WIDTHS)
LONGEST = 30.0  # seconds: what is promised
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(run: Path, epochs: int, *more: str) -> list[str]:
    words = ("train", "simsiam", *SMALL, "--epochs", str(epochs), "--accelerator", "cpu", "--quiet")
    return [sys.executable, "-m", "fullrank", *words, "--checkpoint-every", "1", "--out", str(run), *more]


def children_of(pid: int) -> list[int]:
    """Ranks that the first one has started, in their order."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):  # of one that has ended meanwhile
                parent = int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
                if parent == pid and b"fullrank" in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
    return sorted(found)


def ended(pid: int) -> bool:
    """Whether a process is gone, or is only still to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def wait_until(done: object, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


@contextmanager
def training(run: Path, processes: int, *more: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A run that has written its first steps, and the ids of its processes by rank."""
    words = command(run, 500, "--devices", str(processes), *more)
    first = subprocess.Popen(words, env=ENVIRONMENT, text=True, stderr=subprocess.PIPE)
    ranks = [first.pid]
    try:
        metrics = run / "metrics.jsonl"
        begun = wait_until(lambda: metrics.exists() and '"event": "step"' in metrics.read_text(), 180)
        assert begun, first.poll()
        ranks += children_of(first.pid)
        yield first, ranks
    finally:
        for pid in ranks:
            if not ended(pid):
                os.kill(pid, signal.SIGKILL)
        first.wait()


def kill_one(run: Path, processes: int, rank: int, delay: float) -> str:
    """Kill a rank after some seconds; what the others said when they had ended."""
    with training(run, processes) as (first, ranks):
        time.sleep(delay)
        os.kill(ranks[rank], signal.SIGKILL)
        killed = time.monotonic()
        assert wait_until(lambda: all(map(ended, ranks[1:])) and first.poll() is not None, LONGEST)
        assert time.monotonic() - killed < LONGEST
        assert first.returncode != 0
        return first.communicate()[1]


def goes_on(run: Path, processes: int, epochs: int) -> None:
    """Resume a run on so many processes, to its end."""
    words = ["resume", str(run), "--devices", str(processes), "--epochs", str(epochs), "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "fullrank", *words],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    last = records(run)[-1]
    assert (last["event"], last["epoch"]) == ("end", epochs)


def moments(count: int) -> Sequence[object]:
    """Ranks of two or three processes, and moments after the first step, that nobody chose."""
    numbers = random.Random(20)
    worlds = [2 + case % 2 for case in range(count)]
    return [(world, numbers.randrange(world), round(numbers.uniform(0, 3), 2)) for world in worlds]


@pytest.mark.parametrize(
    ("world", "rank", "delay"),
    [*[(2, 1, 0.4)], *[pytest.param(*moment, marks=pytest.mark.slow) for moment in moments(10)]],  # type: ignore[misc]
)
def test_a_killed_rank_is_named_by_all_others_which_end_and_the_run_goes_on(
    world: int, rank: int, delay: float, tmp_path: Path
) -> None:
    said = kill_one(tmp_path / "run", world, rank, delay)
    named = re.findall(
        rf"rank {rank} of {world} \(process \d+ on \S+\) died .*; rank (\d) ends with it", said
    )
    assert sorted(map(int, named)) == [other for other in range(world) if other != rank]
    reached = records(tmp_path / "run")[-1]["epoch"] + 1
    goes_on(tmp_path / "run", 1, reached)
    if world == 3:
        goes_on(tmp_path / "run", 3, reached + 1)


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_a_rank_that_hangs_is_named_by_all_others_which_end(world: int, tmp_path: Path) -> None:
    with training(tmp_path / "run", world, "--timeout-minutes", "0.2") as (first, ranks):
        os.kill(ranks[1], signal.SIGSTOP)
        assert wait_until(lambda: first.poll() is not None and all(map(ended, ranks[2:])), 12 + LONGEST)
        os.kill(ranks[1], signal.SIGKILL)
        said = first.communicate()[1]
    named = re.findall(
        rf"rank 1 of {world} \(process {ranks[1]} on \S+\) failed: it has not answered within "
        r"--timeout-minutes 0\.2; rank (\d) ends with it",
        said,
    )
    assert sorted(map(int, named)) == [rank for rank in range(world) if rank != 1]
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_rank_that_fails_is_named_with_its_error(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import fullrank\n"
        "from fullrank.training.loop import Loop\n"
        "step = Loop.optimise\n"
        "def optimise(self):\n"
        "    if self.fabric.global_rank == 1 and self.state.step == 1:\n"
        "        raise RuntimeError('the disk of this node is full')\n"
        "    return step(self)\n"
        "Loop.optimise = optimise\n"
        "from fullrank.cli import main\n"
        "raise SystemExit(main())\n"
    )
    words = command(tmp_path / "run", 3, "--devices", "2")
    done = subprocess.run(
        [sys.executable, str(program), *words[3:]],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 1
    assert "failed: RuntimeError: the disk of this node is full; rank 0 ends with it" in done.stderr


def test_an_error_that_all_have_is_said_once(tmp_path: Path) -> None:
    words = command(tmp_path / "run", 1, "--devices", "2", "--accumulate", "50")
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert done.stderr.count("--accumulate 50 batches") == 1


def test_a_failure_is_told_with_process_and_host() -> None:
    line = Failure(Peer(3, 70, "node7"), "ValueError: no").line(8)
    assert line == "rank 3 of 8 (process 70 on node7) failed: ValueError: no"


@pytest.mark.parametrize(("rank", "other"), [(0, 1), (1, 0)])
def test_who_is_gone_between_the_meeting_and_the_first_step_is_named(
    rank: int, other: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifeline, "CONNECTING", 0.2)
    peers = tuple(Peer(number, 70 + number, "node7") for number in range(2))
    strategy = SimpleNamespace(
        meeting=Meeting(HashStore(), peers), num_processes=2, longest=timedelta(minutes=30)
    )
    fabric = SimpleNamespace(world_size=2, global_rank=rank, strategy=strategy)
    named = rf"rank {other} of 2 \(process {70 + other} on node7\) .*; rank {rank} ends with it"
    with pytest.raises(RankFailedError, match=named):
        Lifeline(fabric, tmp_path / "run")  # type: ignore[arg-type]
    assert not lifeline.met.is_set()
