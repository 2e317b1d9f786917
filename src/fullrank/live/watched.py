"""A watched run: whether it is there, goes on or has ended, and what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from fullrank.errors import UsageError
from fullrank.lock import is_being_written
from fullrank.training.record_files import has_ended
from fullrank.untrusted.paths import expand_user

Phase: TypeAlias = Literal["waiting", "running", "ended", "quiet"]
"""Not there yet; being written; with a closing record; without one, and nobody writes."""
Signature: TypeAlias = tuple[tuple[int, int, int] | None, ...]
PARTS = (
    "metrics.jsonl",
    "config.yaml",
    "environment.json",
    "figures/views.png",
    "spectra",
    "adaptation.json",
)


@dataclass(frozen=True)
class WatchedRun:
    """A run directory that is there, or will be.

    Example:
        >>> run = WatchedRun(Path("runs/not-yet"), "runs/not-yet")
        >>> run.phase, run.signature == WatchedRun(Path("runs/other"), "other").signature
        ('waiting', True)
    """

    path: Path
    name: str

    @property
    def is_there(self) -> bool:
        """Whether there is anything to show."""
        return any((self.path / part).is_file() for part in ("metrics.jsonl", "config.yaml"))

    @property
    def signature(self) -> Signature:
        """Sizes and times of what a page is made from; another one after every record."""
        return tuple(_stat_of(self.path / part) for part in PARTS)

    @property
    def phase(self) -> Phase:
        """How far the run is."""
        if not self.is_there:
            return "waiting"
        if is_being_written(self.path):
            return "running"
        log = self.path / "metrics.jsonl"
        return "ended" if log.is_file() and has_ended(log) else "quiet"


def _stat_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def watched_runs(words: Sequence[str]) -> list[WatchedRun]:
    """Open runs by their directories; one that is not there yet is waited for.

    A folder that holds runs, as a sweep's, stands for all that it holds.

    Raises:
        UsageError: a file, a folder of something else, or a run that is named twice.
    """
    paths = [path for word in words for path in _runs_of(Path(word))]
    resolved = [expand_user(path).resolve() for path in paths]
    twice = next((path for path in paths if resolved.count(expand_user(path).resolve()) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} is named twice")
    short = [path.name for path in resolved]
    return [
        WatchedRun(path, str(given) if short.count(path.name) > 1 else path.name)
        for path, given in zip(resolved, paths, strict=True)
    ]


def _runs_of(path: Path) -> list[Path]:
    place = expand_user(path)
    if place.exists() and not place.is_dir():
        raise UsageError(f"{path} is a file: watch takes run directories")
    if WatchedRun(place, "").is_there or not place.is_dir():
        return [path]
    inside = sorted({found.parent for found in place.glob("*/config.yaml")})
    if not inside and any(place.iterdir()) and not (place / "checkpoints").is_dir():
        raise UsageError(f"{path} holds no run: watch takes run directories, or a folder of them")
    return inside or [path]
