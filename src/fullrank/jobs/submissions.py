"""Record of what was submitted to SLURM, by job number, for `fullrank jobs`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fullrank.atomic import write_atomically
from fullrank.errors import DataError
from fullrank.jobs.submit import Command
from fullrank.untrusted.parsing import read_json

LONG_AGO = 30 * 86_400.0  # seconds after which an ended job is no longer on record


@dataclass(frozen=True)
class Submission:
    """A job, or an array of them.

    Attributes:
        number: SLURM's.
        name: of the job.
        folder: absolute, of its script, logs and exit codes.
        commands: of the array, in its order.
        submitted: seconds since 1970.
    """

    number: str
    name: str
    folder: str
    commands: tuple[Command, ...]
    submitted: float = 0.0

    @property
    def tasks(self) -> dict[str, Command]:
        """Commands by the job number of each, as SLURM writes it.

        Example:
            >>> Submission("7", "lr", "/runs/slurm", (Command("a", ()), Command("b", ()))).tasks["7_1"].name
            'b'
        """
        if len(self.commands) == 1:
            return {self.number: self.commands[0]}
        return {f"{self.number}_{index}": command for index, command in enumerate(self.commands)}

    def log(self, task: str) -> Path:
        """What a job prints."""
        return Path(self.folder, f"{task}.txt")

    def code(self, task: str) -> tuple[int | None, bool]:
        """Exit code that a job left, or None, and whether it was cancelled."""
        try:
            code, *more = Path(self.folder, f"{task}.code").read_text().split()
            return int(code), more == ["cancelled"]
        except (OSError, ValueError):
            return None, False

    def note_cancelled(self, task: str) -> None:
        """Note the end of a job that was cancelled before it began."""
        write_atomically(Path(self.folder, f"{task}.code"), b"143 cancelled\n")


def _registry() -> Path:
    state = os.environ.get("XDG_STATE_HOME", "")
    return Path(state or Path.home() / ".local" / "state") / "fullrank" / "slurm"


def remember_submission(number: str, name: str, folder: Path, commands: Sequence[Command]) -> Submission:
    """Put a submission on record, for any log-in node that shares the home."""
    now = time.time()
    found = Submission(number, name, str(folder), tuple(commands), now)
    write_atomically(_registry() / f"{int(now)}-{number}.json", json.dumps(asdict(found)).encode())
    return found


def submissions() -> list[Submission]:
    """Submissions of the last 30 days, the oldest first."""
    found = []
    for path in sorted(_registry().glob("*.json")) if _registry().is_dir() else []:
        try:
            values = read_json(path)
            submission = _read(values)
        except (DataError, TypeError, KeyError, ValueError):
            continue
        if time.time() - submission.submitted > LONG_AGO:
            path.unlink(missing_ok=True)
        else:
            found.append(submission)
    return sorted(found, key=lambda submission: submission.submitted)


def _read(values: dict[str, Any]) -> Submission:
    commands = tuple(
        Command(str(c["name"]), tuple(map(str, c["argv"])), str(c["run"])) for c in values["commands"]
    )
    if not commands:
        raise ValueError("a submission without commands")
    number, name, folder = (str(values[key]) for key in ("number", "name", "folder"))
    return Submission(number, name, folder, commands, float(values["submitted"]))
