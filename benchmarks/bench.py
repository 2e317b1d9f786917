"""Everything about speed in one table: `make bench`, or python benchmarks/bench.py [--only step,views].

Every row is measured in one run in which ours and its peers take turns; the value of a row is the median over
the turns. A row that misses its bar ends in `short`. Each group of rows has a process to itself: memory,
threads and what peers leave behind do not reach the next. The table goes to the terminal and, with machine,
versions and date, to benchmarks/cpu.json; `--only` renews some groups there and keeps the others where the
machine and the versions are still the same.

A group is a module beside this file with `rows(repeats)`, which returns a list of `measuring.Row`, and its
name in GROUPS.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from measuring import Row, machine, table, versions

HERE = Path(__file__).parent
GROUPS = (
    "start",
    "views",
    "steps",
    "weak_scaling",
    "finite_checks",
    "losses",
    "monitor",
    "probes",
    "audit_file",
    "audit_large",
)


def measured(group: str, repeats: int) -> list[dict[str, Any]]:
    """The rows of a group, measured in a process of its own.

    Raises:
        SystemExit: it failed; with what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        words = [sys.executable, str(HERE / "group.py"), group, str(repeats), str(out)]
        print(f"{group} ...", end=" ", flush=True, file=sys.stderr)
        start = time.perf_counter()
        done = subprocess.run(words, capture_output=True, text=True)
        print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)
        if done.returncode:
            raise SystemExit(f"{done.stdout}{done.stderr}\n{group} failed, see above")
        today = date.today().isoformat()
        return [{"group": group, "date": today, **row} for row in json.loads(out.read_text())]


def merged(file: Path, about: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The new rows, and those of other groups that the file holds of the same machine and versions."""
    old = json.loads(file.read_text()) if file.exists() else {}
    renewed = {row["group"] for row in rows}
    if any(old.get(key) != about[key] for key in ("machine", "versions")):
        old = {}
    rows = [*(row for row in old.get("rows", ()) if row["group"] not in renewed), *rows]
    place = {group: k for k, group in enumerate(GROUPS)}
    return {**about, "rows": sorted(rows, key=lambda row: place.get(row["group"], len(GROUPS)))}


def main(words: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default=",".join(GROUPS), help="groups, with commas between them")
    parser.add_argument("--repeats", type=int, default=5, help="turns of every row")
    parser.add_argument("--json", type=Path, default=HERE / "cpu.json")
    args = parser.parse_args(words)
    about = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "repeats": args.repeats,
    }
    found: list[dict[str, Any]] = []
    for group in args.only.split(","):
        found += measured(group, args.repeats)
        args.json.write_text(json.dumps(merged(args.json, about, found), indent=1) + "\n")
    print(table([Row.from_dict(row) for row in found]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
