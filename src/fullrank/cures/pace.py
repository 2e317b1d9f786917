"""Pace of the jobs of a cure, as measured while they run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

RECENT = 20  # epochs that the mean is over: load comes and goes
FEWEST = 2  # epochs below which nothing is estimated


class Pace:
    """What jobs and their epochs take on this machine, as it is now.

    Args:
        at_once: jobs that run at a time.
        clock: seconds.

    Example:
        >>> times = iter([0.0, 0.0, 5.0, 7.0, 9.0])
        >>> pace = Pace(1, lambda: next(times))
        >>> pace.begin("a")
        >>> for epoch in (0, 1, 2):
        ...     pace.reach("a", epoch)
        >>> pace.known, pace.epoch, pace.left([4, 4], begin=1)
        (True, 2.0, 21.0)
    """

    def __init__(self, at_once: int, clock: Callable[[], float]) -> None:
        self.at_once, self.clock = at_once, clock
        self.begun = clock()
        self._last = dict[str, tuple[int | None, float]]()
        self._epochs, self._begins = deque[float](maxlen=RECENT), deque[float](maxlen=RECENT)

    def begin(self, job: str) -> None:
        """Take in that a job begins."""
        self._last[job] = (None, self.clock())

    def reach(self, job: str, epoch: int) -> None:
        """Take in that a job has an epoch behind it."""
        before, since = self._last[job]
        now = self.clock()
        if before is None:
            self._begins.append(now - since)
        elif epoch > before:
            self._epochs.append((now - since) / (epoch - before))
        self._last[job] = (epoch, now)

    def reached(self, job: str) -> int | None:
        """The last epoch that a job has behind it; None where none has been heard of."""
        return self._last.get(job, (None, 0.0))[0]

    @property
    def known(self) -> bool:
        """Whether enough has been measured."""
        return len(self._epochs) >= FEWEST

    @property
    def epoch(self) -> float:
        """Mean seconds of an epoch of one job, beside the others."""
        return sum(self._epochs) / len(self._epochs)

    @property
    def elapsed(self) -> float:
        """Seconds since the first job."""
        return self.clock() - self.begun

    def left(self, epochs: Iterable[int], begin: int) -> float:
        """Seconds that jobs with so many epochs take, of which `begin` have not begun."""
        each = [self.epoch * count for count in epochs]
        opening = sum(self._begins) / len(self._begins) if self._begins else 0.0
        return max([(sum(each) + opening * begin) / self.at_once, *each])
