"""Judge the runs behind results.json with today's judge, by the panels in their records.

Usage: python benchmarks/cures/again.py FOLDER ...

The folders are what run.py was given as `--out`; a run that is in several is taken from the last. A row whose
run is in none stays as it is, and is named. What the new verdicts make due, run.py runs then.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from run import HERE, Row, as_lines, cases, read_grid

from fullrank.atomic import write_atomically
from fullrank.collapse import Panel, judge
from fullrank.collapse.monitor import CODES
from fullrank.cures.onset import FINE, collapsed_kinds, is_healthy
from fullrank.cures.plan import Arm
from fullrank.jobs.once import folder_of
from fullrank.report.run.reading import read_run
from fullrank.terminal import say
from fullrank.training.records import EpochRecord


def last_judged_again(path: Path, until: int) -> EpochRecord:
    """The last panel of a run until an epoch, with the verdicts of today; those on codes know no past."""
    history: dict[str, list[Panel]] = {}
    found: EpochRecord | None = None
    for record in read_run(path).epochs:
        if not record.epoch or record.epoch > until or not record.panels:
            continue
        verdicts: dict[str, Any] = dict(record.verdicts)
        for tap, fields in record.panels.items():
            panel = Panel.from_dict(fields)
            verdicts[tap] = judge(panel, history.setdefault(tap, [])).as_dict()
            history[tap].append(panel)
        main = verdicts.get(str(record.verdict["tap"]))
        codes = verdicts.get(CODES, {})
        if main is None or main is codes:
            main = verdicts["projector"]
        if main["kind"] == "healthy" and codes.get("kind", "healthy") not in FINE:
            main = codes
        found = EpochRecord(epoch=record.epoch, verdict=main, verdicts=verdicts)
    if found is None:
        raise SystemExit(f"{path} has no panel")
    return found


def judged_again(row: Row, path: Path, until: int) -> Row:
    """A row with the verdict of today."""
    last = last_judged_again(path, until)
    kinds = collapsed_kinds(last)
    kind = str(last.verdict["kind"])
    probability = last.verdict["probability"] if not kinds or kinds[0] == kind else None
    verdict = {"kind": kinds[0] if kinds else kind, "healthy": is_healthy(last), "probability": probability}
    return row | verdict


def main() -> None:
    """Judge every run that is there, and write the table anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    args = parser.parse_args()
    every = {(case.failure, case.data): case for case in cases(read_grid())}
    rows: list[Row] = json.loads((HERE / "results.json").read_text("utf-8"))
    changed = 0
    for at, row in enumerate(rows):
        job = every[row["failure"], row["data"]].job(Arm(row["arm"]), row["seed"])
        paths = [path for folder in args.folders if (path := folder_of(job, folder) / "run").is_dir()]
        if not paths:
            say(f"{job.name}: its run is not there")
            continue
        rows[at] = judged_again(row, paths[-1], job.config().epochs)
        if rows[at]["kind"] != row["kind"]:
            changed += 1
            say(f"{job.name}: {row['kind']} ({row['probability']:.2f}) is {rows[at]['kind']} now")
    write_atomically(HERE / "results.json", as_lines(rows).encode())
    say(f"{changed} of {len(rows)} verdicts changed")


if __name__ == "__main__":
    main()
