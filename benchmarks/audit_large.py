"""Time and peak memory of auditing a large memory-mapped file, beside singular value decompositions.

Usage: python benchmarks/audit_large.py [--rows 1000000] [--width 1024] [--file FILE.npy] [--json FILE]

Ours reads the file once. `svdvals`, and the RankMe callback of stable-pretraining where it is installed,
decompose the first 1 / 20 of the rows, whose time is scaled by 20: a decomposition is linear in rows where
they outnumber columns, and all of them would not fit beside their copy. `make bench` takes as a floor reading
the same file once with one float64 rank-k update. Imports take no part.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import date
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Row, beside, in_turns, machine

SHARE = 20
ROWS, WIDTH = 1_000_000, 1024  # of `make bench`

OURS = """
from fullrank.collapse.audit import audit
from fullrank.features.embeddings import open_embeddings
from fullrank.malloc import keep_freed_memory
keep_freed_memory()  # as the command line does
start = time.perf_counter()
result = audit(open_embeddings({file!r}))
found = (result.verdict.kind, result.metrics["rankme_spt"].value)
"""
SVD = """
import numpy as np, torch
start = time.perf_counter()
z = torch.from_numpy(np.load({file!r}, mmap_mode="r")[:{rows}].copy())
s = torch.linalg.svdvals(z)
p = s / s.sum()
found = ("", float(torch.exp(-torch.special.xlogy(p, p).sum())))
"""
RANKME = """
from types import SimpleNamespace
import numpy as np, torch
from stable_pretraining.callbacks.rankme import RankMe
start = time.perf_counter()
callback = RankMe("rankme", "embedding", {rows}, {width})
z = torch.from_numpy(np.load({file!r}, mmap_mode="r")[:{rows}].copy())
logged, callback._target_queue = dict(), SimpleNamespace(data=z)
trainer, module = SimpleNamespace(global_rank=0), SimpleNamespace(log=logged.__setitem__)
callback.on_validation_batch_end(trainer, module, None, None, 0)
found = ("", logged["rankme"])
"""
FLOOR = """
import numpy as np, torch
z, gram = np.load({file!r}, mmap_mode="r"), torch.zeros({width}, {width}, dtype=torch.float64)
start = time.perf_counter()
for first in range(0, len(z), 4096):
    rows = torch.from_numpy(z[first:first + 4096].copy()).double()
    gram.addmm_(rows.T, rows)
found = ("", 0.0)
"""
CLOCK = """
import json, resource, time
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


def rows(repeats: int) -> list[Row]:
    """The audit of a file that fits in memory beside what cannot be spared, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.npy"
        write(file, ROWS, WIDTH)
        words = {"file": str(file), "rows": ROWS // SHARE, "width": WIDTH}
        codes = {"ours": OURS, "read + rank-k update": FLOOR, "stable-pretraining RankMe": RANKME}
        _, found = in_turns(
            repeats, {name: partial(timed, code.format(**words)) for name, code in codes.items()}
        )
    seconds = {name: [outcome[0] for outcome in outcomes] for name, outcomes in found.items()}
    peer = "stable-pretraining RankMe"
    seconds[peer] = [SHARE * value for value in seconds[peer]]
    what = f"audit, {ROWS:,} x {WIDTH}"
    return [
        beside(what, seconds, "read + rank-k update", 0.7, note="two updates: raw and unit rows"),
        beside(what, seconds, peer, note=f"1/{SHARE} of the rows, scaled"),
    ]


def _rankme() -> list[tuple[str, str, int]]:
    """stable-pretraining's, where it is installed."""
    return [("RankMe", RANKME, SHARE)] if find_spec("stable_pretraining") else []


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
        for name, code, scaled in (("fullrank audit", OURS, 1), ("svdvals", SVD, SHARE), *_rankme()):
            start = time.perf_counter()
            seconds, anonymous, peak, verdict, rank = timed(
                code.format(file=str(file), rows=few, width=args.width)
            )
            row = {"what": name, "seconds": seconds * scaled, "measured": time.perf_counter() - start,
                   "anonymous GB": anonymous, "peak GB": peak, "rank": rank, "verdict": verdict}  # fmt: skip
            table.append(row)
            times = f"{row['seconds']:8.1f} s" + (f" (1/{SHARE}, scaled)" if scaled > 1 else "")
            print(f"{name:<16}{times:<26}{anonymous:6.2f} GB{peak:8.2f} GB peak   {rank:8.2f}   {verdict}")
        if args.json:
            about = {"date": date.today().isoformat(), "machine": machine(), "rows": args.rows}
            Path(args.json).write_text(
                json.dumps({**about, "width": args.width, "table": table}, indent=1) + "\n"
            )


if __name__ == "__main__":
    main()
