"""The first hour on one's own images: plain defaults in little memory, on many backbones and sizes.

    python benchmarks/first_hour.py --folder /tmp/first-hour

Each case is `fullrank train METHOD --data FOLDER --backbone B` for one epoch, in a process that may take
`--gigabytes` of memory (RLIMIT_DATA) and `--minutes` of time. It ends well where it finishes with a verdict,
or is refused with exit code 2 and one line before any work. The peak of resident memory, workers included,
stands beside the estimate. Resumable: cases in benchmarks/first_hour.json are not repeated. The first 21
show every pair of values (each method with each backbone, each size with each number); then smallest first.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FILE = Path(__file__).with_name("first_hour.json")
METHODS = ("simsiam", "byol", "cplearn", "dino", "vicreg", "directpred", "teacher_student")
BACKBONES = ("resnet8-w8", "resnet18", "vit_tiny_patch16_224")
SIZES, COUNTS = (32, 64, 224), (40, 300, 3000)
Case = tuple[int, int, str, str]
CHILD = """
import os
import sys
from pathlib import Path
from fullrank.cli import main
from fullrank.training import fitting

fitting._is_small = lambda *_: False  # the estimate is what is measured
plain = fitting.estimate_footprint

def estimate(*args):
    resident = os.sysconf("SC_PAGE_SIZE") * int(Path("/proc/self/statm").read_text().split()[1])
    found = plain(*args)
    print("estimate", resident + found.total, file=sys.stderr, flush=True)
    return found

fitting.estimate_footprint = estimate
sys.exit(main(sys.argv[1:]))
"""


def cases() -> Iterator[Case]:
    """Images, their size, backbone and method: first such that every pair of values meets, then the rest."""
    left = [
        (count, size, backbone, method)
        for count, size in sorted(product(COUNTS, SIZES), key=lambda pair: pair[0] * pair[1] ** 2)
        for backbone in BACKBONES
        for method in METHODS
    ]
    met: set[tuple[int, Any, int, Any]] = set()
    while new := max(left, key=lambda case: len(_pairs(case) - met), default=None):  # the smallest of equals
        if _pairs(new) <= met:
            break
        met |= _pairs(new)
        left.remove(new)
        yield new
    yield from left


def _pairs(case: Case) -> set[tuple[int, Any, int, Any]]:
    return {(i, a, j, b) for (i, a), (j, b) in combinations(enumerate(case), 2)}


def make_images(folder: Path, count: int, size: int) -> Path:
    """Make a folder of JPEGs: smooth noise, of one size up to 64 pixels, else of several."""
    images = folder / f"{count}x{size}"
    if images.is_dir():
        return images
    rng, partial = np.random.default_rng(0), images.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for i in range(count):
        height = size + (i % 3 if size > 64 else 0)
        noise = Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8))
        noise.resize((size, height), Image.Resampling.BICUBIC).save(partial / f"{i:05d}.jpg")
    return partial.rename(images)


def measure(data: Path, backbone: str, method: str, gigabytes: float, minutes: float) -> dict[str, Any]:
    """Run one case in a process of its own."""
    out = data.parent / "run"
    shutil.rmtree(out, ignore_errors=True)
    words = ["train", method, "--data", str(data), "--backbone", backbone, "--epochs", "1", "--json"]
    limit = int(gigabytes * 1e9)
    started, workers, ended = time.perf_counter(), 0, ""
    with (data.parent / "stdout").open("w+") as printed, (data.parent / "stderr").open("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD, *words, "--out", str(out)],
            stdout=printed,
            stderr=errors,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
        )
        while not (waited := os.wait4(process.pid, os.WNOHANG))[0]:
            workers = max(workers, _unique_bytes_of_children(process.pid))
            if time.perf_counter() - started > 60 * minutes and not ended:
                ended = "ran out of time"
                process.kill()
            time.sleep(0.5)
        printed.seek(0)
        errors.seek(0)
        said, wrong = printed.read(), errors.read()
    code = os.waitstatus_to_exitcode(waited[1])
    lines = [line for line in wrong.splitlines() if line.startswith("fullrank: ")]
    if not ended and code == 0:
        ended = json.loads(said.splitlines()[-1])["verdict"]["kind"]
    elif not ended and code == 2 and len(lines) == 1 and not out.exists():
        ended = f"refused: {lines[0]}"
    ended = ended or f"exit code {code}: {(wrong.strip().splitlines() or [''])[-1][:200]}"
    return _row(ended, wrong, 1024 * waited[2].ru_maxrss + workers, started)


def _row(ended: str, errors: str, peak: int, started: float) -> dict[str, Any]:
    estimates = [int(number) for number in re.findall(r"^estimate (\d+)", errors, re.MULTILINE)]
    estimate = estimates[-1] if estimates else 0
    return {
        "ended": ended,
        "estimate": round(estimate / 1e6),
        "peak": round(peak / 1e6),
        "ratio": round(estimate / peak, 2) if peak else None,
        "seconds": round(time.perf_counter() - started),
    }


def _unique_bytes_of_children(pid: int) -> int:
    """Memory that the worker processes of a process share with nobody."""
    total = 0
    for child in _text(f"/proc/{pid}/task/{pid}/children").split():
        found = re.findall(r"^Private_\w+:\s+(\d+) kB", _text(f"/proc/{child}/smaps_rollup"), re.MULTILINE)
        total += 1024 * sum(map(int, found))
    return total


def _text(file: str) -> str:
    try:
        return Path(file).read_text()
    except OSError:  # it has ended
        return ""


def summary(done: Mapping[str, Mapping[str, Any]]) -> str:
    """How many ended well, and how far estimates were off."""
    well = [row for row in done.values() if not row["ended"].startswith(("exit code", "ran out"))]
    ratios = sorted(row["ratio"] for row in done.values() if row["ratio"] and "refused" not in row["ended"])
    within = sum(0.75 <= ratio <= 1.25 for ratio in ratios)
    spread = f"from {ratios[0]} to {ratios[-1]}" if ratios else "none"
    return (
        f"{len(well)} of {len(done)} ended well; estimate over peak {spread}, {within} of {len(ratios)} "
        f"within 25 %"
    )


def main() -> None:
    """Run what is not done, each in a process with a limit, and write each result at once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where images and runs are made")
    parser.add_argument("--gigabytes", type=float, default=6.0)
    parser.add_argument("--minutes", type=float, default=20.0, help="of one case")
    parser.add_argument("--counts", type=int, nargs="*", default=COUNTS)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--backbones", nargs="*", default=BACKBONES)
    parser.add_argument("--file", type=Path, default=FILE)
    args = parser.parse_args()
    done = json.loads(args.file.read_text()) if args.file.is_file() else {}
    for count, size, backbone, method in cases():
        key = f"{method}, {backbone}, {size} pixels, {count} images"
        wanted = count in args.counts and size in args.sizes
        if key in done or not wanted or method not in args.methods or backbone not in args.backbones:
            continue
        data = make_images(args.folder, count, size)
        done[key] = measure(data, backbone, method, args.gigabytes, args.minutes)
        args.file.write_text(json.dumps(done, indent=1) + "\n")
        print(key, done[key], flush=True)
    print(summary(done))


if __name__ == "__main__":
    main()
