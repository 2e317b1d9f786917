"""Order in which jobs begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fullrank.jobs.job import Job


class Agenda(Protocol):
    """Jobs that wait, and which of them begins next."""

    def __bool__(self) -> bool:
        """Whether a job waits; none may wait for ever."""

    def take(self) -> Job | None:
        """Take the job that begins next; None where it waits for one that is running."""


class InOrder:
    """Jobs one after another.

    Example:
        >>> agenda = InOrder([Job("a"), Job("b")])
        >>> agenda.take().name, agenda.take().name, agenda.take(), bool(agenda)
        ('a', 'b', None, False)
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._waiting = list(jobs)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self) -> Job | None:
        """Take the first one."""
        return self._waiting.pop(0) if self._waiting else None
