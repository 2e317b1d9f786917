"""Write the baselines of metrics that compare rows, which the package comes with.

Usage: python docs/make_baselines.py

Needed after a change of such a metric, or for a new one, which is computed anew in each audit until then.
Takes a minute.
"""

from __future__ import annotations

import json

from fullrank.collapse.baselines import COMPARED, TABLE, TABLED_POINTS, compared
from fullrank.collapse.metrics import METRICS

WIDTHS = (128, 192, 256, 320, 384, 512, 640, 768, 1024, 1280, 1536, 2048)
"""Of backbones and projectors; narrower clouds take no time."""


def main() -> None:
    """Compute the table and write it."""
    names = [name for name, metric in METRICS.items() if metric.needs in COMPARED and not metric.slow]
    table: dict[str, dict[str, dict[str, float]]] = {}
    for kind in ("isotropic", "power-law"):
        for width in WIDTHS:
            for name in names:
                value = None
                if kind == "power-law" or METRICS[name].baseline == "cloud":
                    value = compared(name, TABLED_POINTS, width, kind)
                if value is not None:
                    table.setdefault(kind, {}).setdefault(name, {})[str(width)] = value
    TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
