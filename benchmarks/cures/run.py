"""Trains every failure, untreated and under its treatments, and tells which of these cure it.

Usage: python benchmarks/cures/run.py --out FOLDER [--part K/N] [--jobs N] [--collect]

Called again, it goes on; `--part 2/4` does the second quarter of the failures, on another machine perhaps.
What has ended is collected in FOLDER/results.json after every case; `--collect` does nothing else. Runs in
the results.json beside this file are kept, and not run again.
`python benchmarks/cures/table.py FOLDER/results.json` then writes docs/cures.md and the proofs that the
product's advice is ordered by.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullrank.atomic import write_atomically
from fullrank.coercion import load_yaml
from fullrank.cures.plan import UNTREATED, Arm
from fullrank.cures.result import read_outcome
from fullrank.jobs.job import Job
from fullrank.jobs.once import folder_of, result_of, run_once
from fullrank.labs.failures.analysis import Exhibit
from fullrank.labs.failures.lab import GALLERY
from fullrank.lock import sole_writer
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


def treatments_of(case: Case, rows: Sequence[Row]) -> list[Arm]:
    """The treatments of a case, the most promising first; none where most seeds have not collapsed."""
    untreated = [row for row in rows if row["arm"] == UNTREATED]
    kinds = [row["kind"] for row in untreated if row["kind"] not in ("healthy", "not decidable")]
    if 2 * len(kinds) <= len(untreated):
        return []
    found = prescriptions(case.job(Arm(UNTREATED), 0).config(), dict.fromkeys(kinds), {})
    return [Arm(one.treatment.name, dict(one.changes)) for one in found]


def due(case: Case, rows: Sequence[Row], grid: Mapping[str, Any]) -> list[Job]:
    """What is to be run next of a case; empty where nothing is."""
    by_arm: dict[str, dict[int, Row]] = {}
    for row in rows:
        by_arm.setdefault(row["arm"], {})[row["seed"]] = row
    base = by_arm.get(UNTREATED, {})

    def missing(*arms: Arm) -> list[Job]:
        return [
            case.job(arm, seed)
            for arm in arms
            for seed in grid["seeds"]
            if seed not in by_arm.get(arm.name, {})
        ]

    if jobs := missing(Arm(UNTREATED)):
        return jobs
    arms, first = treatments_of(case, rows), int(grid["most"])
    if jobs := missing(*arms[:first]):
        return jobs
    for arm in arms[first : int(grid["most_where_uncured"])]:
        if any(has_cured(found, base, len(grid["seeds"])) for found in by_arm.values()):
            break
        gains = [has_gained(row, base) for row in by_arm.get(arm.name, {}).values()]
        if all(gains) and (jobs := missing(arm)):
            return jobs[:1]
    return []


def has_gained(row: Row, base: Mapping[int, Row]) -> bool:
    """Whether a treated run is healthy, with k-NN above the untreated one of its seed."""
    return bool(row["healthy"] and row["knn"] > base[row["seed"]]["knn"])


def has_cured(found: Mapping[int, Row], base: Mapping[int, Row], seeds: int) -> bool:
    """Whether an arm has gained with every seed."""
    return len(found) == seeds and all(has_gained(row, base) for row in found.values())


def collect(every: Sequence[Case], out: Path, grid: Mapping[str, Any]) -> list[Row]:
    """A row for each run that has ended, here or before."""
    return [row for case in every for row in rows_of(case, out, grid)]


def rows_of(case: Case, out: Path, grid: Mapping[str, Any]) -> list[Row]:
    """Rows of a case: those that were kept, and those of its runs that have ended in `out`."""
    kept: list[Row] = json.loads((HERE / "results.json").read_text("utf-8"))
    found = {
        (row["arm"], row["seed"]): row
        for row in kept
        if (row["failure"], row["data"]) == (case.failure, case.data)
    }
    found |= _ended(case, [Arm(UNTREATED)], out, grid)
    found |= _ended(case, treatments_of(case, list(found.values())), out, grid)
    return list(found.values())


def _ended(case: Case, arms: Sequence[Arm], out: Path, grid: Mapping[str, Any]) -> dict[tuple[str, int], Row]:
    jobs = [case.job(arm, seed) for arm in arms for seed in grid["seeds"]]
    return {(job.arm, job.seed or 0): _row(case, job, out) for job in jobs if result_of(job, out)}


def _row(case: Case, job: Job, out: Path) -> Row:
    seed = job.seed or 0
    found = read_outcome(folder_of(job, out) / "run", seed, job.config().epochs)
    return {
        "failure": case.failure,
        "data": case.data,
        "arm": job.arm,
        "seed": seed,
        "kind": found.kind,
        "healthy": found.healthy,
        "probability": found.probability,
        "rank": found.rank,
        "knn": found.knn,
        "seconds": round(float((result_of(job, out) or {})["seconds"]), 1),
    }


def main() -> None:
    """Run what has no result yet, case by case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--collect", action="store_true")
    args = parser.parse_args()
    grid, (part, parts) = read_grid(), map(int, args.part.split("/"))
    every = cases(grid)
    names = list(dict.fromkeys(case.failure for case in every))
    mine = [case for case in every if names.index(case.failure) % parts == part - 1]
    with nullcontext() if args.collect else sole_writer(args.out):
        for case in [] if args.collect else mine:
            _run(case, args, grid)
            write_atomically(args.out / "results.json", as_lines(collect(every, args.out, grid)).encode())
    rows = collect(every, args.out, grid)
    write_atomically(args.out / "results.json", as_lines(rows).encode())
    say(f"{len(rows)} runs have ended")


def as_lines(rows: Sequence[Row]) -> str:
    """A JSON list with a line for each row, so that a change of it can be read."""
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"


def _run(case: Case, args: argparse.Namespace, grid: Mapping[str, Any]) -> None:
    """Run a case until nothing of it is due, or an arm has failed."""
    while jobs := due(case, rows_of(case, args.out, grid), grid):
        failed = run_once(jobs, args.out, args.jobs)
        for job in jobs:
            say(f"{job.name}: {failed.get(job.name) or _line(job, args.out)}")
        if failed:
            break


def _line(job: Job, out: Path) -> str:
    found = read_outcome(folder_of(job, out) / "run", job.seed or 0, job.config().epochs)
    return f"{found.kind}, k-NN {found.knn}, rank {found.rank}"


if __name__ == "__main__":
    main()
