"""Leave one method out: what is fitted on encoders fitted on those of all other methods, for every method.

The border of the decay is held by made rows of `k^-3`, and the others are conventions. Fitted are its width
and what is added to it where a run has lost nothing. A fit is the best log score on a grid, of both or of
the width alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fullrank.collapse import Panel, Thresholds, judge

UNFALLEN = tuple(round(0.1 * k, 1) for k in range(10))
WIDTHS = tuple(round(0.05 * k, 2) for k in range(1, 11))
LEAST = 1e-4  # probability that a log score takes for none, so that one encoder does not rule a fit
RUN = ["data", "method", "arm", "seed"]
Grid = Mapping[tuple[float, float], pd.DataFrame]


def log_score(rows: pd.DataFrame) -> float:
    """Mean logarithm of the probability that was given to what is so; the higher the better."""
    p = rows.probability.astype(float).clip(LEAST, 1 - LEAST)
    return float(np.log(p.where(rows.truth == "collapsed", 1 - p)).mean())


def judged_on_grid(table: pd.DataFrame, known: pd.DataFrame, unfallen: Sequence[float]) -> Grid:
    """The certain encoders, judged with each addition to the border and width.

    Args:
        table: all panels of all taps.
        known: the certain encoders after their last epoch, with `codes_probability`.
        unfallen: values of that threshold.
    """
    projectors = table[(table.tap == "projector") & table.panel.notna()].sort_values("epoch")
    panels = {
        key: [(row.epoch, Panel.from_dict(json.loads(row.panel))) for row in run.itertuples()]
        for key, run in projectors.groupby(RUN)
    }
    found = {}
    for addition in unfallen:
        for width in WIDTHS:
            verdicts = [
                _last(panels[tuple(key)], Thresholds(unfallen=addition, decay_width=width))
                for key in known[RUN].itertuples(index=False)
            ]
            found[addition, width] = with_codes(known.assign(**pd.DataFrame(verdicts, index=known.index)))
    return found


def _last(run: Sequence[tuple[int, Panel]], thresholds: Thresholds) -> dict[str, Any]:
    past = [panel for epoch, panel in run[:-1] if epoch]
    verdict = judge(run[-1][1], past, thresholds)
    return {"kind": verdict.kind, "probability": verdict.probability}


def with_codes(rows: pd.DataFrame) -> pd.DataFrame:
    """Verdicts on the projector joined with those on the codes, either of which may name a collapse."""
    sees = (rows.kind == "healthy") & (rows.codes_kind != "healthy")
    both = 1 - (1 - rows.probability.astype(float).fillna(0)) * (1 - rows.codes_probability)
    return rows.assign(kind=rows.kind.where(~sees, rows.codes_kind), probability=both)


def left_out_in_turn(grid: Grid) -> tuple[pd.DataFrame, dict[str, tuple[float, float]]]:
    """Every method judged with what is fitted on all others, and what was fitted for each."""
    any_of_them = next(iter(grid.values()))
    parts, fits = [], {}
    for method in sorted(set(any_of_them.method)):
        fits[method] = max(grid, key=lambda fit: log_score(grid[fit][grid[fit].method != method]))
        judged = grid[fits[method]]
        parts.append(judged[judged.method == method])
    return pd.concat(parts), fits
