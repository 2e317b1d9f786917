"""Measures one group of `bench.py` in this process. Usage: python benchmarks/group.py GROUP REPEATS FILE."""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from pathlib import Path


def main() -> None:
    """Writes the group's rows as JSON."""
    group, repeats, out = sys.argv[1:]
    warnings.simplefilter("ignore")
    found = importlib.import_module(group).rows(int(repeats))
    Path(out).write_text(json.dumps([row.as_dict() for row in found]))


if __name__ == "__main__":
    main()
