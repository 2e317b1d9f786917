"""Whether a change left every result as it was: record the outputs of two versions, then compare them.

    PYTHONPATH=OLD/src python benchmarks/unchanged.py record /tmp/old
    PYTHONPATH=NEW/src python benchmarks/unchanged.py record /tmp/new
    python benchmarks/unchanged.py compare /tmp/old /tmp/new

Recorded are the demo, an audit of each of twenty files, two epochs of every method, a comparison and a lab,
all through the command line. Numbers must agree to the last bit; text that differs is listed apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

TRAIN = (
    "--data", "shapes", "--limit", "192", "--batch-size", "48", "--epochs", "2", "--watch-images", "160",
    "--seed", "3", "--workers", "0",
)  # fmt: skip
VIT = ("teacher_student",)  # its default backbone is a ViT; a narrow ResNet is not its subject
VOLATILE = {
    "time", "seconds", "page", "out", "run", "path", "written", "trace", "file", "files", "platform",
    "command", "versions", "share_watching", "elapsed", "date", "images_per_second",
}  # fmt: skip
"""Keys whose values are times and places."""
RENAMED = {"study": "diagnostics", "study_every": "diagnostics_every"}
"""Keys of earlier versions, and what they are called now."""


def fullrank(*words: str, cwd: Path) -> str:
    """Run a command on one thread and return what it printed; exit code 3 (collapsed) is a result too."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-m", "fullrank", *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 3):
        return json.dumps({"exit": done.returncode, "error": done.stderr.strip().splitlines()[-1:]})
    return done.stdout


def embeddings() -> Iterator[tuple[str, np.ndarray]]:
    """Yield twenty clouds by name: healthy, each kind of collapse, odd widths, scales and dtypes."""
    draw = np.random.default_rng(7)

    def normal(n: int, d: int) -> np.ndarray:
        return draw.standard_normal((n, d))

    def points(count: int, n: int, d: int, spread: float) -> np.ndarray:
        return normal(count, d)[draw.integers(0, count, n)] + spread * normal(n, d)

    yield "isotropic", normal(1500, 64)
    yield "isotropic_wide", normal(400, 512)
    yield "isotropic_narrow", normal(3000, 4)
    yield "power_law", normal(2000, 128) / np.sqrt(np.arange(1, 129))
    yield "steep", normal(2000, 128) / np.arange(1, 129) ** 1.5
    yield "rank_4_of_64", normal(1000, 4) @ normal(4, 64)
    yield "rank_20_of_128", normal(1500, 20) @ normal(20, 128)
    yield "constant", np.ones((800, 32))
    yield "nearly_constant", 1 + 1e-3 * normal(800, 32)
    yield "offset", 100 + normal(1200, 48)
    yield "two_points", points(2, 1000, 32, 0.01)
    yield "ten_points", points(10, 1500, 64, 0.02)
    yield "hundred_points", points(100, 2000, 64, 0.05)
    yield "loose_clusters", points(8, 1500, 64, 0.6)
    yield "dead_half", normal(1000, 64) * (np.arange(64) < 32)
    yield "one_outlier", np.vstack([normal(999, 32), 1e4 * normal(1, 32)])
    yield "few_rows", normal(40, 256)
    yield "half_precision", normal(1000, 96).astype(np.float16)
    yield "single_precision", (5 * normal(1000, 24)).astype(np.float32)
    yield "heavy_tailed", draw.standard_t(3, (1500, 40))


def record(out: Path) -> None:
    """Write every output below `out`; what is there already is kept, so that a killed call goes on."""
    out.mkdir(parents=True, exist_ok=True)

    def once(name: str, make: Callable[[], str]) -> None:
        path = out / f"{name}.json"
        if not path.exists():
            text = make()
            path.write_text(text)
            print(name, flush=True)

    for name, z in embeddings():
        np.save(out / f"{name}.npy", z)
        once(f"audit-{name}", partial(fullrank, "audit", f"{name}.npy", "--json", "--no-page", cwd=out))
    methods = [row["name"] for row in json.loads(fullrank("list", "methods", "--json", cwd=out))]
    for method in methods:
        backbone = () if method in VIT else ("--backbone", "resnet8-w8")

        def trained(method: str = method, backbone: tuple[str, ...] = backbone) -> str:
            run = out / "runs" / method
            printed = fullrank("train", method, *TRAIN, *backbone, "--json", "--out", str(run), cwd=out)
            if not (run / "metrics.jsonl").exists():
                return printed
            lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            return json.dumps({"printed": json.loads(printed), "records": lines})

        once(f"train-{method}", trained)
    runs = [f"runs/{name}" for name in ("simsiam", "byol", "vicreg")]
    once("compare", lambda: fullrank("compare", *runs, "--json", "--out", "compared", cwd=out))
    for probe in ("linear", "knn", "cluster"):
        once(f"evaluate-{probe}", partial(fullrank, "evaluate", probe, "runs/simsiam", "--json", cwd=out))

    def lab() -> str:
        fullrank("lab", "eigenmodes", "--seeds", "0", "--no-figures", "--json", "--out", "lab", cwd=out)
        return (out / "lab" / "lab.json").read_text()

    once("lab-eigenmodes", lab)
    once("demo", lambda: fullrank("demo", "--json", "--epochs", "3", "--out", "demo-runs", cwd=out))


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of nested JSON with its path, but for times and places."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in VOLATILE:
                yield from flat(inner, f"{path}/{RENAMED.get(key, key)}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from flat(inner, f"{path}/{index}")
    else:
        yield path, value


def compare(old: Path, new: Path) -> int:
    """Print what differs; return 1 where a number does, or where something is missing."""
    failed = worded = same = 0
    for before in sorted(old.glob("*.json")):
        after = new / before.name
        if not after.exists():
            print(f"{before.stem}: missing")
            failed += 1
            continue
        a, b = (dict(flat(json.loads(path.read_text()))) for path in (before, after))
        for key in sorted({*a, *b}):
            if key in a and key in b and a[key] == b[key]:
                same += 1
            elif isinstance(a.get(key), str) and isinstance(b.get(key), str):
                worded += 1
                print(f"{before.stem}{key}: reworded: {a[key]!r} -> {b[key]!r}")
            else:
                failed += 1
                print(f"{before.stem}{key}: {a.get(key, 'absent')!r} -> {b.get(key, 'absent')!r}")
    print(f"{same} equal, {worded} reworded, {failed} different")
    return int(failed > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("record").add_argument("out", type=Path)
    comparing = commands.add_parser("compare")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    args = parser.parse_args()
    if args.command == "compare":
        sys.exit(compare(args.old, args.new))
    record(args.out.resolve())
