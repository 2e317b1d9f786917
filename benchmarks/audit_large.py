"""Time and peak memory of auditing a large memory-mapped file, beside singular value decompositions.

Usage: python benchmarks/audit_large.py [--rows 1000000] [--width 1024] [--file FILE.npy] [--json FILE]

Rows: ours reads the file once; `svdvals` and the RankMe of stable-pretraining's callback (singular values,
not centred, 1e-5 added to every share) decompose the first 1 / 20 of the rows, whose time is scaled by 20: a
decomposition is linear in rows where they outnumber columns, and all of them would not fit beside their copy.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

SHARE = 20

OURS = """
from fullrank.collapse.audit import audit
from fullrank.data.embeddings import open_embeddings
result = audit(open_embeddings({file!r}))
found = (result.verdict.kind, result.metrics["rankme_spt"].value)
"""
SVD = """
import numpy as np, torch
z = torch.from_numpy(np.load({file!r}, mmap_mode="r")[:{rows}].copy())
s = torch.linalg.svdvals(z)
p = s / s.sum()
found = ("", float(torch.exp(-torch.special.xlogy(p, p).sum())))
"""
RANKME = """
import numpy as np, torch
z = torch.from_numpy(np.load({file!r}, mmap_mode="r")[:{rows}].copy())
_, s, _ = torch.linalg.svd(z, full_matrices=False)
p = s / s.abs().sum() + 1e-5
found = ("", float(torch.exp(-(p * p.log()).sum())))
"""
CLOCK = """
import json, resource, time
start = time.perf_counter()
{code}
def anonymous():
    rows = open("/proc/self/status").read().splitlines()
    return int(next(row for row in rows if row.startswith("RssAnon")).split()[1]) / 2**20
print(json.dumps([time.perf_counter() - start, anonymous(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
/ 2**20, *found]))
"""


def timed(code: str) -> list[Any]:
    """Seconds, anonymous GB, peak GB with mapped pages, verdict and rank, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", CLOCK.format(code=code)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def write(file: Path, rows: int, width: int) -> None:
    """Gaussian rows with covariance eigenvalues 1/k, as float32."""
    out = np.lib.format.open_memmap(file, "w+", np.float32, (rows, width))
    rng, scale = np.random.default_rng(0), np.arange(1, width + 1, dtype=np.float32) ** -0.5
    for start in range(0, rows, 50_000):
        stop = min(start + 50_000, rows)
        out[start:stop] = rng.standard_normal((stop - start, width), dtype=np.float32) * scale
    out.flush()


def main() -> None:
    """Makes the file where there is none, times all three, prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--file", default="")
    parser.add_argument("--json", default="")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(args.file or Path(folder) / "rows.npy")
        if not file.exists():
            write(file, args.rows, args.width)
        few = args.rows // SHARE
        table = []
        for name, code, scaled in (
            ("fullrank audit", OURS, 1),
            ("svdvals", SVD, SHARE),
            ("RankMe", RANKME, SHARE),
        ):
            start = time.perf_counter()
            seconds, anonymous, peak, verdict, rank = timed(code.format(file=str(file), rows=few))
            row = {"what": name, "seconds": seconds * scaled, "measured": time.perf_counter() - start,
                   "anonymous GB": anonymous, "peak GB": peak, "rank": rank, "verdict": verdict}  # fmt: skip
            table.append(row)
            times = f"{row['seconds']:8.1f} s" + (f" (1/{SHARE}, scaled)" if scaled > 1 else "")
            print(f"{name:<16}{times:<26}{anonymous:6.2f} GB{peak:8.2f} GB peak   {rank:8.2f}   {verdict}")
        if args.json:
            about = {"date": date.today().isoformat(), "machine": platform.machine(), "rows": args.rows}
            Path(args.json).write_text(
                json.dumps({**about, "width": args.width, "table": table}, indent=1) + "\n"
            )


if __name__ == "__main__":
    main()
