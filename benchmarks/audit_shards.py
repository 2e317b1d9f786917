"""Audit of many files by one and by several processes: seconds, and whether they find the same.

Usage: python benchmarks/audit_shards.py [--shards 100] [--rows 10000] [--width 256] [--processes 1,2]
                                         [--repeats 1] [--folder FOLDER] [--json benchmarks/audit_shards.json]

1,000 shards of 10,000 x 256 are 10 GB. Files are made where they are not there. Each figure is of a fresh
`fullrank audit --processes N`, as a user waits for it, and of the pass over the rows with what follows, by
the audit's own clock. A process has one thread; the last row has as many threads in one process instead.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine, versions

from fullrank.collapse.metrics import METRICS


def write(folder: Path, shards: int, rows: int, width: int) -> None:
    """Gaussian rows with covariance eigenvalues 1/k, as float32; files that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    scale = np.arange(1, width + 1, dtype=np.float32) ** -0.5
    for k in range(shards):
        file = folder / f"part-{k:04}.npy"
        if not file.exists():
            rng = np.random.default_rng(k)
            np.save(file, rng.standard_normal((rows, width), dtype=np.float32) * scale)


def audited(folder: Path, processes: int, threads: int) -> dict[str, Any]:
    """Seconds of the whole command and of the audit, and what it found."""
    with tempfile.TemporaryDirectory() as out:
        words = [sys.executable, "-m", "fullrank", "audit", str(folder), "--out", out, "--no-page"]
        words += ["--processes", str(processes)] if processes > 1 else []
        start = time.perf_counter()
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        seconds = time.perf_counter() - start
        found = json.loads((Path(out) / "audit.json").read_text())
    values = {name: metric["value"] for name, metric in found["metrics"].items()}
    return {"command": seconds, "audit": found["seconds"], "values": values}


def apart(values: dict[str, Any], others: dict[str, Any]) -> float:
    """The largest difference of two audits, relative to what each metric reads.

    One that goes through 0 on a bounded range, as a cosine, is compared on that range: of spread rows it
    reads almost 0, the difference of two sums that are almost equal.
    """
    gaps = []
    for name, value in values.items():
        if value is None or others[name] is None:
            gaps.append(0.0 if value is others[name] else math.inf)
        else:
            gaps.append(abs(value - others[name]) / max(abs(value), scale(name), 1e-12))
    return float(max(gaps))


def scale(name: str) -> float:
    """The largest value of a metric whose range goes through 0; else 0."""
    known = METRICS.get(name)
    if known is None or not known.low.startswith("-") or not known.high.isdecimal():
        return 0.0
    return float(known.high)


def main() -> None:
    """Make the files, audit them in turns, print and keep the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default in (("shards", 100), ("rows", 10_000), ("width", 256), ("repeats", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--folder", default="")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("audit_shards.json"))
    args = parser.parse_args()
    counts = [int(count) for count in args.processes.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.folder or temporary) / "shards"
        write(folder, args.shards, args.rows, args.width)
        ways = {f"{n} processes": (n, 1) for n in counts} | {f"{counts[-1]} threads": (1, counts[-1])}
        turns: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
        for _ in range(args.repeats):
            for way, (processes, threads) in ways.items():
                turns[way].append(audited(folder, processes, threads))
    first, rows = next(iter(turns.values())), []
    for way, found in turns.items():
        row: dict[str, Any] = {"way": way}
        for clock in ("command", "audit"):
            row[clock] = statistics.median(each[clock] for each in found)
            row[f"{clock} speed-up"] = statistics.median(each[clock] for each in first) / row[clock]
        row["largest difference"] = apart(first[0]["values"], found[0]["values"])
        rows.append(row)
        print(json.dumps(row))
    about = {
        "date": date.today().isoformat(),
        "command": f"benchmarks/audit_shards.py --shards {args.shards} --rows {args.rows} "
        f"--width {args.width}"
        f" --processes {args.processes} --repeats {args.repeats}",
        "machine": machine(),
        "versions": versions(),
        "load": os.getloadavg()[0],
        "rows": rows,
    }
    args.json.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
