"""What SLURM says of jobs: their states, and their end."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fullrank.errors import FullrankError, UsageError, printable
from fullrank.jobs.submissions import Submission

FORMAT = "%i|%T|%M|%l|%N|%r"
WAITS = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD", "CONFIGURING")
RUNS = ("RUNNING", "COMPLETING", "SUSPENDED", "SIGNALING", "STOPPED", "STAGE_OUT", "RESIZING")
ENDS = {
    "CANCELLED": "it was cancelled",
    "TIMEOUT": "its time was up before it could checkpoint: raise --slurm-time or --slurm-signal-seconds",
    "OUT_OF_MEMORY": "it took more memory than it may: take a larger --slurm-mem",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node failed to start",
    "PREEMPTED": "it was preempted, and is not put into the queue again",
    "DEADLINE": "it did not end before its deadline",
}  # fmt: skip
SOON = 30.0  # seconds in which squeue answers


@dataclass(frozen=True)
class Queued:
    """A line of squeue.

    Attributes:
        state: in SLURM's word, as PENDING.
        elapsed: time that it has run, as SLURM writes it.
        limit: likewise.
        nodes: where it runs.
        reason: why it waits.
    """

    state: str
    elapsed: str = ""
    limit: str = ""
    nodes: str = ""
    reason: str = ""


@dataclass(frozen=True)
class JobState:
    """What a job is doing, and why.

    Attributes:
        state: `waiting`, `running`, `done`, `failed`, `cancelled` or `lost`.
        why: it waits, or has failed.
        queued: the line of squeue, while there is one.
    """

    state: str
    why: str = ""
    queued: Queued | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it will change no more by itself."""
        return self.state not in ("waiting", "running")


def read_queue() -> dict[str, Queued]:
    """Ask squeue for the jobs of this user, those that have just ended among them.

    Raises:
        UsageError: there is no squeue.
        FullrankError: it does not answer.
    """
    words = ["squeue", "--noheader", "--array", "--me", "--states=all", f"--format={FORMAT}"]
    return parse_queue(_ask(words))


def parse_queue(text: str) -> dict[str, Queued]:
    """Parse lines of squeue.

    Example:
        >>> parse_queue("7_1|RUNNING|0:05|10:00|node1|None\\n")["7_1"].nodes
        'node1'
    """
    rows = (printable(line).split("|", 5) for line in text.splitlines())
    return {row[0]: Queued(*map(str.strip, row[1:])) for row in rows if len(row) == 6}


def job_state(
    submission: Submission, task: str, queue: Mapping[str, Queued], fine: Sequence[int]
) -> JobState:
    """What a job is doing, by the queue and by what its script left.

    Args:
        submission: it belongs to.
        task: its number, as `7` or `7_1`.
        queue: as squeue tells it now.
        fine: exit codes that are no failure.

    Example:
        >>> gone = Submission("7", "lr", "/nowhere", ())
        >>> job_state(gone, "7", {"7": Queued("PENDING", reason="Priority")}, (0,)).state
        'waiting'
        >>> job_state(gone, "7", {}, (0,)).state
        'lost'
    """
    found = queue.get(task)
    state = found.state if found else ""
    if state in WAITS:
        return JobState("waiting", found.reason if found else "", found)
    if state in RUNS:
        return JobState("running", "", found)
    return _ended(submission, task, found, fine)


def _ended(submission: Submission, task: str, found: Queued | None, fine: Sequence[int]) -> JobState:
    """How a job that neither waits nor runs has ended."""
    code, cancelled = submission.code(task)
    lines = _last_life(submission.log(task))
    reason = found.state if found else _reason(lines) if cancelled or code is None else ""
    if reason in ENDS or cancelled:
        reason = reason if reason in ENDS else "CANCELLED"
        return JobState("cancelled" if reason in ("CANCELLED", "DEADLINE") else "failed", ENDS[reason], found)
    if code is not None:
        return JobState("done", "", found) if code in fine else JobState("failed", f"exit code {code}", found)
    if found:
        if found.state == "COMPLETED":
            return JobState("done", "", found)
        why = f"SLURM says {found.state}, and it left no exit code"
        if not lines:  # as where a node still ended its former life when it was to begin again
            why += f" and no line since it was to begin; `scontrol show job {task}` tells why"
        return JobState("failed", f"{why}; the same command submits it again", found)
    why = "it is no longer in the queue and left no exit code: its node, or SLURM, ended it"
    return JobState("lost", why + (f"; its last line: {lines[-1]}" if lines else "; it printed nothing"))


def _last_life(log: Path) -> list[str]:
    """Lines that a job printed since it last went back into the queue."""
    lines = _tail(log)
    again = [index for index, line in enumerate(lines) if line.endswith("goes back into the queue")]
    return [printable(line) for line in lines[again[-1] + 1 if again else 0 :]]


def _reason(lines: Sequence[str]) -> str:
    """Why SLURM ended a job, by what it wrote into the log; empty where it did not."""
    for line in lines:
        if "DUE TO TIME LIMIT" in line:
            return "TIMEOUT"
        if re.search(r"\*\*\* JOB \S+ ON \S+ CANCELLED AT \S+ \*\*\*", line):
            return "CANCELLED"
    return ""


def cancel_jobs(tasks: Sequence[str]) -> None:
    """Have SLURM end jobs, running and waiting ones.

    Raises:
        UsageError: there is no scancel.
        FullrankError: it refuses, in its own words.
    """
    _ask(["scancel", *tasks])


def last_message(log: Path) -> str:
    """The error that a job printed, or its last line; empty without any."""
    lines = _tail(log)
    ours = [line.removeprefix("fullrank: ") for line in lines if line.startswith("fullrank: ")]
    return printable((ours or lines or [""])[-1])


def _tail(log: Path, size: int = 1 << 16) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - size))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]


def _ask(words: Sequence[str]) -> str:
    if shutil.which(words[0]) is None:
        raise UsageError(f"there is no {words[0]} here: run it on a log-in node of a SLURM cluster")
    try:
        done = subprocess.run(words, capture_output=True, encoding="utf-8", errors="replace", timeout=SOON)
    except subprocess.TimeoutExpired as error:
        raise FullrankError(f"{words[0]} does not answer within {SOON:g} s") from error
    except OSError as error:  # a script without its first line, a program of another machine
        raise FullrankError(f"{words[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        said = printable(" ".join(done.stderr.split()))
        raise FullrankError(f"{words[0]}: {said or f'exit code {done.returncode}'}")
    return done.stdout
