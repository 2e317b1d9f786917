"""Definition of a lab: its jobs, and the analysis of their results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from fullrank.coercion import load_yaml
from fullrank.errors import UsageError
from fullrank.jobs.job import Job, Settings
from fullrank.labs._common.findings import Findings
from fullrank.labs._common.results import Results
from fullrank.registry import Registry


class Lab(ABC):
    """An experiment of a paper: subclass it, fill in what follows, and register it.

    Attributes:
        title: a line.
        paper: whom to cite.
        says: what the paper claims, in a sentence or two.
        presets: settings by name, as JSON holds them: `laptop`, `paper`, and `tiny` for tests; those of a
            `presets.yaml` by `read_presets(__file__)`. A setting `data` is what `--data` overrides; `parts`
            are those done where none is asked for.
        parts: names of separate experiments within the lab, each with a line about it; none: there is one.
    """

    title: ClassVar[str]
    paper: ClassVar[str]
    says: ClassVar[str]
    presets: ClassVar[Mapping[str, Settings]]
    parts: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def jobs(self, preset: Settings, part: str, seed: int) -> Iterable[Job]:
        """Jobs of one part (empty where the lab has none) and one seed."""

    @abstractmethod
    def analyse(self, results: Results, preset: Settings) -> Findings:
        """What the finished jobs come to; some may be missing."""


LABS: Registry[type[Lab]] = Registry(
    "lab", group="fullrank.labs", required=("title", "paper", "says", "presets")
)


def read_presets(lab: str) -> Mapping[str, Settings]:
    """Presets in `presets.yaml` beside a lab's file, without shared bases (`_name`)."""
    found = load_yaml(Path(lab).with_name("presets.yaml").read_text(encoding="utf-8"))
    return {name: settings for name, settings in found.items() if not name.startswith("_")}


def plan_jobs(lab: Lab, preset: Settings, parts: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """All jobs, seed by seed, so that what is done first makes a whole page.

    Raises:
        UsageError: the names of two jobs are too alike.
    """
    jobs = [job for seed in seeds for part in parts or ("",) for job in lab.jobs(preset, part, seed)]
    folders = [job.folder for job in jobs]
    if len(set(folders)) < len(folders):
        twice = next(job for job in jobs if folders.count(job.folder) > 1)
        raise UsageError(f"two jobs would lie in one folder, {twice.folder}: give their arms other names")
    return jobs
