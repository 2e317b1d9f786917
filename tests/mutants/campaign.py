"""Change the source in small ways and see whether a test fails: `make mutants`.

`python -m mutants --mutants 60` in `tests/` tries 60 changes of each target, drawn with a fixed seed, and
prints the share that tests catch, with a 95 % interval, and the diff of each that none caught. Results are
kept: the next call tries what is new, and with `--again` those that survived.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from mutants.changes import ROOT, Mutant, iterate_sources, mutants_of
from mutants.equivalent import EQUIVALENT
from mutants.forks import Replaced, Task, load_once, run_all, run_tests
from mutants.reach import digest, measure, tests_for

TARGETS = {
    "collapse": ("collapse/**/*.py",),
    "methods": ("methods/**/*.py",),
    "checkpoint": ("training/checkpoint*.py",),
}
# Coverage says which of these tests reach a line; the rest of the suite, slow for one line, is left out.
TESTS = {
    "collapse": ("tests/collapse/test_*.py", "tests/probes/test_*.py", "src/fullrank/collapse"),
    "methods": ("tests/methods/test_*.py", "tests/golden/test_golden.py", "src/fullrank/methods"),
    "checkpoint": (
        "tests/training/test_checkpoint*.py",
        *(f"tests/training/test_{name}.py" for name in ("resume", "rollback", "epoch_end")),
        *(f"tests/training/test_{name}.py" for name in ("run_dir_and_logs", "on_nan", "train_state")),
        "src/fullrank/training/checkpoint*.py",
    ),
}
BAR = 0.85


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--mutants", default="60", help="for each target, or all")
    parser.add_argument("--targets", default=",".join(TARGETS), help="with commas between")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="forks at a time")
    parser.add_argument(
        "--trace", type=float, default=60.0, help="seconds of each file of tests to try mutants with"
    )
    parser.add_argument("--seconds", type=float, default=90.0, help="of tests for one mutant, shortest first")
    parser.add_argument("--again", action="store_true", help="try those that survived once more")
    parser.add_argument("--folder", type=Path, default=Path(".mutants"), help="of results, reach and logs")
    args = parser.parse_args()
    folder, names = args.folder.resolve(), args.targets.split(",")
    drawn = {name: sample_mutants(name, args.mutants, args.seed) for name in names}
    load_once()
    results = Results(folder / "results.json")
    for name in names:
        sources = [str(path.relative_to(ROOT)) for path in iterate_sources(TARGETS[name])]
        tests = [
            str(path.relative_to(ROOT)) for pattern in TESTS[name] for path in sorted(ROOT.glob(pattern))
        ]
        reach = measure(tests, sources, folder, args.jobs, args.trace)
        todo = [mutant for mutant in drawn[name] if results.wants(mutant, args.again)]
        run_all(
            [_task(mutant, reach, folder, results, args.seconds) for mutant in todo], args.jobs, results.done
        )
    scores = [report(name, drawn[name], results) for name in names]
    return 0 if min(scores) >= BAR else 1


def sample_mutants(target: str, number: str, seed: int) -> list[Mutant]:
    """The first mutants of a target in an order that the seed fixes, without those listed as equivalent."""
    equivalent = {(e.path, e.before, e.after) for e in EQUIVALENT if e.after}
    families = [(e.path, e.before) for e in EQUIVALENT if not e.after]
    most = None if number == "all" else int(number)
    found = [m for path in iterate_sources(TARGETS[target]) for m in mutants_of(path, seed)]
    chosen = list[Mutant]()
    for mutant in sorted(found, key=lambda m: m.key):
        if len(chosen) == most:
            break
        lines = mutant.diff().splitlines()
        before = "\n".join(line[1:].strip() for line in lines if line.startswith("-"))
        after = "\n".join(line[1:].strip() for line in lines if line.startswith("+"))
        family = any(mutant.path == path and before.startswith(begins) for path, begins in families)
        if (mutant.path, before, after) not in equivalent and not family:
            chosen.append(mutant)
    return chosen


class Results:
    """What became of each mutant, kept in a file after each one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
        self.pending = dict[str, dict[str, Any]]()

    def wants(self, mutant: Mutant, again: bool) -> bool:
        """Whether a mutant has to be tried: never tried, of a file that changed since, or once more."""
        row = self.rows.get(mutant.key)
        return row is None or row["digest"] != digest(mutant.path) or (again and row["outcome"] == "survived")

    def done(self, task: Task, status: int | None, seconds: float) -> None:
        row = self.pending.pop(task.name)
        # 2 and 4: it cannot be imported, by a test or by conftest.py
        outcomes = {0: "survived", 1: "killed", 2: "killed", 4: "killed", 5: "survived", None: "timeout"}
        row["outcome"], row["took"] = outcomes.get(status, f"killed (status {status})"), round(seconds, 1)
        self.rows[task.name] = row
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.rows, indent=1))
        part.replace(self.path)
        print(
            f"{row['outcome']:<9} {row['path']}:{row['line']} {row['operator']} in {seconds:.0f} s",
            flush=True,
        )


def _task(mutant: Mutant, reach: dict[str, Any], folder: Path, results: Results, most: float) -> Task:
    tests, seconds = tests_for(reach, mutant.path, mutant.line, most)
    source, path = mutant.source(), ROOT / mutant.path
    parts = Path(mutant.path).with_suffix("").parts[1:]
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    results.pending[mutant.key] = {
        "path": mutant.path, "line": mutant.line, "operator": mutant.operator, "diff": mutant.diff(),
        "tests": len(tests), "digest": digest(mutant.path),
    }  # fmt: skip

    def work() -> int:
        return run_tests(ROOT, tests, Replaced(module, path, source)) if tests else 5

    return Task(mutant.key, work, 60 + 4 * seconds, folder / "logs" / f"{mutant.key}.txt")


def report(name: str, drawn: list[Mutant], results: Results) -> float:
    """Print a target's score and the diffs of its survivors; the score."""
    rows = [results.rows[m.key] for m in drawn if m.key in results.rows]
    killed = sum(row["outcome"] != "survived" for row in rows)
    low, high = interval(killed, len(rows))
    late = sum(row["outcome"] == "timeout" for row in rows)
    skipped = sum(e.target == name for e in EQUIVALENT)
    print(
        f"\n{name}: {killed} of {len(rows)} mutants caught = {killed / max(len(rows), 1):.1%}, "
        f"95 % interval {low:.0%} to {high:.0%}; {late} of them by time, {skipped} equivalent ones left out"
    )
    for row in rows:
        if row["outcome"] == "survived":
            print(f"  {row['path']}:{row['line']} {row['operator']}, {row['tests']} tests")
            print("\n".join(f"    {line}" for line in row["diff"].splitlines()))
    return float(killed / max(len(rows), 1))


def interval(hits: int, number: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if not number:
        return 0.0, 1.0
    z, share = 1.96, hits / number
    middle, scale = share + z * z / (2 * number), 1 + z * z / number
    half = z * math.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    return (middle - half) / scale, (middle + half) / scale
