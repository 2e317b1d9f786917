"""Options of a cure, for Python and the command line alike."""

from __future__ import annotations

from dataclasses import dataclass

from fullrank.errors import UsageError
from fullrank.options import Options

MOST = 1_000_000  # minutes, epochs or jobs
MOST_RUNS = 1_000  # seeds, or treatments


@dataclass(frozen=True)
class CureOptions(Options):
    """How a collapsed run is treated.

    Attributes:
        most: treatments that are tried, the most promising first.
        seeds: times that each arm is trained, the run's own seed first.
        minutes: about how long all of it may take; 0: ten times an epoch of the run, and at least eight.
        epochs: that each arm is trained; 0: as many as the minutes allow, and at least three.
        jobs: arms at a time; 0: one a core, and one on a GPU.
    """

    most: int = 4
    seeds: int = 3
    minutes: float = 0.0
    epochs: int = 0
    jobs: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("most", "seeds"):
            if not 1 <= getattr(self, name) <= MOST_RUNS:
                raise UsageError(f"--{name} is from 1 to {MOST_RUNS:,}, and is {getattr(self, name)}")
        for name in ("minutes", "epochs", "jobs"):
            if not 0 <= getattr(self, name) <= MOST:
                raise UsageError(f"--{name} is from 0 to {MOST:,}, and is {getattr(self, name):g}")
