"""CPU time of `fullrank audit` on a file of 10,000 x 768, with and without its page, and the page's size.

Usage: python benchmarks/audit_file.py [--repeats 3]

Each turn is a process of its own with one thread, as a user starts it; the time is the CPU time of user code,
imports and all, less what `import torch` takes in the same turn. Modules are compiled before, as installed
ones are. `make bench` adds the rows to its table.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from measuring import Row

ROWS, WIDTH = 10_000, 768
BARS = {"no page": 3.0, "page": 6.0}  # seconds
MEGABYTES = 1.5


def cpu_seconds(compiled: Path, *words: str) -> float:
    """CPU time of user code in `python WORDS`, on one thread.

    Args:
        compiled: folder of the compiled modules.
        words: what follows `python`.

    Raises:
        SystemExit: it failed.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    environment |= {"PYTHONPYCACHEPREFIX": str(compiled), "PYTHONDONTWRITEBYTECODE": ""}
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    child = os.posix_spawn(sys.executable, [sys.executable, *words], environment, file_actions=silent)
    _, status, used = os.wait4(child, 0)
    if status:
        raise SystemExit(f"python {' '.join(words)} failed")
    return used.ru_utime


def embeddings(n: int, d: int) -> np.ndarray:
    """Rows whose covariance has the eigenvalues 1, 1/2, 1/3, ..., in a random basis."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    z: np.ndarray = (rng.standard_normal((n, d)) * np.arange(1, d + 1) ** -0.5) @ basis
    return z.astype(np.float32)


def rows(repeats: int) -> list[Row]:
    """Seconds without and with the page, and megabytes of it."""
    with tempfile.TemporaryDirectory() as name:
        file, out, compiled = (Path(name) / part for part in ("embeddings.npy", "out", "compiled"))
        np.save(file, embeddings(ROWS, WIDTH))
        words = ("-m", "fullrank", "audit", str(file), "--out", str(out))
        turns: dict[str, list[float]] = {key: [] for key in BARS}
        cpu_seconds(compiled, *words)
        for _ in range(repeats):
            imported = cpu_seconds(compiled, "-c", "import torch")
            for key, more in (("no page", ("--no-page",)), ("page", ())):
                turns[key].append(cpu_seconds(compiled, *words, *more) - imported)
        size = (out / "audit.html").stat().st_size / 1e6
    what = f"audit of {ROWS:,} x {WIDTH}, CPU time beyond import torch"
    found = [
        Row(f"{what}, {key}", "", tuple(turns[key]), bar, at_most=True, unit="s") for key, bar in BARS.items()
    ]
    return [*found, Row("its page", "", (size,), MEGABYTES, at_most=True, unit="MB")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    for row in rows(parser.parse_args().repeats):
        print(f"{row.what}: {row.value:.2f} {row.unit} (at most {row.bar:g})")
