"""Write docs/methods.md from registry and measurements: python docs/make_methods_table.py."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

DOCS = Path(__file__).parent
PAGE, MEASURED = DOCS / "methods.md", DOCS / "methods-on-shapes.json"

HEAD = """\
# Methods

Every method that `fullrank train NAME` knows. `fullrank list recipes` names the published settings of each,
`fullrank train NAME --help` its options. Taps are the layer outputs that the monitor measures.
[Add a method](add_a_method.md) says how to bring your own.
"""
SHAPES = """
The k-NN accuracy is on held-out images of the generated shapes, after the method's recipe for them: mean and
standard deviation over three seeds, and in brackets the same before training. The verdict is the run's own.
"""
NONE = "-"


def listed() -> list[dict[str, Any]]:
    """The rows of `fullrank list methods`."""
    words = [sys.executable, "-m", "fullrank", "list", "methods", "--json"]
    rows: list[dict[str, Any]] = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    return rows


def page(rows: Sequence[Mapping[str, Any]], measured: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page.

    Args:
        rows: of `fullrank list methods --json`.
        measured: per method, over the seeds, `knn` and `knn_untrained` as shares, and `verdict`.

    Raises:
        ValueError: something was measured that is no method.
    """
    if unknown := set(measured) - {row["name"] for row in rows}:
        raise ValueError(
            f"{MEASURED.name} has {', '.join(sorted(unknown))}, which `fullrank list methods` has not"
        )
    columns = ["name", "paper", "year", "what keeps it from collapse", "taps"]
    cells = [
        [f"`{r['name']}`", _link(r["paper"]), r["year"], r["mechanism"], ", ".join(r["taps"])] for r in rows
    ]
    if measured:
        columns += ["k-NN on shapes (untrained)", "verdict"]
        for row, line in zip(rows, cells, strict=True):
            line += _outcome(measured.get(row["name"]))
    table = [columns, ["---"] * len(columns), *cells]
    lines = [f"| {' | '.join(map(str, line))} |" for line in table]
    return "\n".join([HEAD + (SHAPES if measured else ""), *lines]) + "\n"


def _link(paper: str) -> str:
    number = re.fullmatch(r"arXiv (\d{4}\.\d{4,5})", paper)
    return f"[{number[1]}](https://arxiv.org/abs/{number[1]})" if number else paper


def _outcome(entry: Mapping[str, Any] | None) -> list[str]:
    if entry is None:
        return [NONE, NONE]
    counts = Counter(entry["verdict"]).most_common()
    verdict = counts[0][0] if len(counts) == 1 else ", ".join(f"{n} x {kind}" for kind, n in counts)
    return [f"{_percent(entry['knn'])} ({_percent(entry['knn_untrained'])})", verdict]


def _percent(shares: Sequence[float]) -> str:
    spread = stdev(shares) if len(shares) > 1 else 0.0
    return f"{100 * fmean(shares):.1f} ± {100 * spread:.1f} %"


def main() -> None:
    """Write the page."""
    measured = json.loads(MEASURED.read_text()) if MEASURED.is_file() else {}
    PAGE.write_text(page(listed(), measured))


if __name__ == "__main__":
    main()
