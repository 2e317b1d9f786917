"""A script that several processes run together, and what each of them found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def results_of(worker: Path, world: int, rendezvous: Path, seconds: float = 240) -> list[dict[str, Any]]:
    """What each of `world` processes prints as JSON, by rank."""
    words = [[sys.executable, str(worker), str(rank), str(world), str(rendezvous)] for rank in range(world)]
    processes = [subprocess.Popen(each, stdout=subprocess.PIPE, text=True) for each in words]
    results = [json.loads(process.communicate(timeout=seconds)[0] or "{}") for process in processes]
    assert all(process.returncode == 0 for process in processes)
    return results
