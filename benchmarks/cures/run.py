"""Trains every failure, untreated and under its treatments, and tells which of these cure it.

Usage: python benchmarks/cures/run.py --out FOLDER [--part K/N] [--jobs N] [--collect]

Called again, it goes on; `--part 2/4` does the second quarter of the failures, on another machine perhaps.
What has ended is collected in FOLDER/results.json after every failure; `--collect` does nothing else. Cases
whose treatments are all in the results.json beside this file are passed over, and kept.
`python benchmarks/cures/table.py FOLDER/results.json` then writes docs/cures.md and the proofs that the
product's advice is ordered by.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullrank.atomic import write_atomically
from fullrank.coercion import load_yaml
from fullrank.cures.onset import diagnose
from fullrank.cures.plan import UNTREATED, Arm
from fullrank.cures.result import read_outcome
from fullrank.jobs.job import Job
from fullrank.jobs.once import folder_of, result_of, run_once
from fullrank.labs.failures.analysis import Exhibit
from fullrank.labs.failures.lab import GALLERY
from fullrank.lock import sole_writer
from fullrank.report.run.reading import read_run
from fullrank.terminal import say
from fullrank.training.contract import with_changes
from fullrank.training.treatments import prescriptions

HERE = Path(__file__).parent
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A failure on a data set."""

    failure: str
    data: str
    exhibit: Exhibit
    settings: Mapping[str, Any]

    def job(self, arm: Arm, seed: int) -> Job:
        """One run of an arm, from its start."""
        base = {"recipe": f"shapes/{self.exhibit.recipe}", "data": self.data, **self.settings}
        broken = Job(UNTREATED, seed, {**base, **self.exhibit.settings})
        train = with_changes(broken.config(), arm.changes).as_dict()
        del train["seed"]
        return Job(arm.name, seed, train, part=f"{self.failure} on {self.data}")


def read_grid() -> dict[str, Any]:
    """The settings of the benchmark."""
    return dict(load_yaml((HERE / "grid.yaml").read_text(encoding="utf-8")))


def cases(grid: Mapping[str, Any]) -> list[Case]:
    """All failures on all data sets, failure by failure."""
    broken = {name: exhibit for name, exhibit in GALLERY.items() if exhibit.change}
    broken |= {name: Exhibit(**values) for name, values in grid["more"].items()}
    return [
        Case(name, data, exhibit, _merged(grid["run"], own, exhibit))
        for name, exhibit in broken.items()
        for data, own in grid["data"].items()
    ]


def _merged(run: Mapping[str, Any], own: Mapping[str, Any], exhibit: Exhibit) -> dict[str, Any]:
    """Settings of a case; those that the failure itself changes are its own."""
    return {key: value for key, value in {**run, **own}.items() if key not in exhibit.settings}


def treatments_of(case: Case, out: Path, seeds: Sequence[int], most: int) -> list[Arm]:
    """The first treatments of a case whose untreated arms have ended, most of them collapsed."""
    runs = [case.job(Arm(UNTREATED), seed) for seed in seeds]
    if not all(result_of(job, out) for job in runs):
        return []
    found = [diagnose(read_run(folder_of(job, out) / "run")) for job in runs]
    kinds = dict.fromkeys(kind for each in found if each.state == "collapsed" for kind in each.kinds)
    if 2 * sum(each.state == "collapsed" for each in found) <= len(found):
        return []
    ordered = prescriptions(runs[0].config(), list(kinds), {})
    return [Arm(one.treatment.name, dict(one.changes)) for one in ordered[:most]]


def arms_of(case: Case, out: Path, grid: Mapping[str, Any]) -> list[Arm]:
    """The untreated arm and the treated ones that are known by now."""
    return [Arm(UNTREATED), *treatments_of(case, out, grid["seeds"], grid["most"])]


def collect(every: Sequence[Case], out: Path, grid: Mapping[str, Any]) -> list[Row]:
    """A row for each run that has ended, here or before."""
    found: list[Row] = []
    for case in every:
        here = [row for arm in arms_of(case, out, grid) for row in _rows(case, arm, out, grid)]
        before = _known(case)
        found += here if len(here) >= len(before) else before
    return found


def _known(case: Case) -> list[Row]:
    """Rows of a case in the results that were kept."""
    rows: list[Row] = json.loads((HERE / "results.json").read_text("utf-8"))
    return [row for row in rows if (row["failure"], row["data"]) == (case.failure, case.data)]


def _is_done(case: Case, grid: Mapping[str, Any]) -> bool:
    """Whether all treatments of a case, over all seeds, are in the results that were kept."""
    arms = {row["arm"] for row in _known(case)}
    return len(arms) > grid["most"] and len(_known(case)) == len(arms) * len(grid["seeds"])


def _rows(case: Case, arm: Arm, out: Path, grid: Mapping[str, Any]) -> Iterator[Row]:
    for seed in grid["seeds"]:
        job = case.job(arm, seed)
        if not (ended := result_of(job, out)):
            continue
        found = read_outcome(folder_of(job, out) / "run", seed, job.config().epochs)
        yield {
            "failure": case.failure,
            "data": case.data,
            "arm": arm.name,
            "seed": seed,
            "kind": found.kind,
            "healthy": found.healthy,
            "probability": found.probability,
            "rank": found.rank,
            "knn": found.knn,
            "seconds": round(float(ended["seconds"]), 1),
        }


def main() -> None:
    """Run what has no result yet: first each failure and its first treatment, then the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--collect", action="store_true")
    args = parser.parse_args()
    grid, (part, parts) = read_grid(), map(int, args.part.split("/"))
    every = cases(grid)
    names = list(dict.fromkeys(case.failure for case in every))
    mine = [c for c in every if names.index(c.failure) % parts == part - 1 and not _is_done(c, grid)]
    with nullcontext() if args.collect else sole_writer(args.out):
        for place in range(0 if args.collect else int(grid["most"]) + 1):
            for name in names:
                wanted = [case for case in mine if case.failure == name]
                _run(wanted, range(2) if not place else range(place, place + 1), args, grid)
                rows = collect(every, args.out, grid)
                write_atomically(args.out / "results.json", _as_lines(rows).encode())
    rows = collect(every, args.out, grid)
    write_atomically(args.out / "results.json", _as_lines(rows).encode())
    say(f"{len(rows)} runs have ended")


def _as_lines(rows: Sequence[Row]) -> str:
    """A JSON list with a line for each row, so that a change of it can be read."""
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"


def _run(
    wanted: Sequence[Case], places: Sequence[int], args: argparse.Namespace, grid: Mapping[str, Any]
) -> None:
    """Run the arms at these places of each case that have no result yet."""
    for place in places:
        jobs = [
            job
            for case in wanted
            for arm in arms_of(case, args.out, grid)[place : place + 1]
            for seed in grid["seeds"]
            if not result_of(job := case.job(arm, seed), args.out)
        ]
        if not jobs:
            continue
        failed = run_once(jobs, args.out, args.jobs)
        for job in jobs:
            say(f"{job.name}: {failed.get(job.name) or _line(job, args.out)}")


def _line(job: Job, out: Path) -> str:
    found = read_outcome(folder_of(job, out) / "run", job.seed or 0, job.config().epochs)
    return f"{found.kind}, k-NN {found.knn}, rank {found.rank}"


if __name__ == "__main__":
    main()
