"""Words of a selection that the terminal and the page share."""

from __future__ import annotations

from fullrank.figures.style import number, percent
from fullrank.selection.ranking import Ranked, Selection

SHOWN = {
    "view_retrieval": "views found again",
    "participation_ratio": "participation ratio",
    "lidar": "LiDAR",
}
"""Measures that are shown of each: those that decide among checkpoints of a run."""

COLUMNS = ("encoder", "points", "90 % interval", "best of all", *SHOWN.values(), "verdict")

NOT_TESTED = (
    "no label was looked at. Points are expected k-NN accuracy against the picked one, from a score learnt "
    "on small encoders of shapes, digits and CIFAR-10 (docs/pick.md): other tasks than telling such classes "
    "apart were not tested"
)


def cells(ranked: Ranked, found: Selection) -> list[str]:
    """Cells of a row but for the verdict."""
    picked = ranked is found.pick
    measures = ranked.measured.measures
    return [
        ranked.candidate.name,
        "0" if picked else f"{ranked.points:+.1f}",
        "picked" if picked else f"{ranked.low:+.1f} to {ranked.high:+.1f}",
        percent(ranked.best),
        percent(measures["view_retrieval"]),
        number(measures["participation_ratio"], 3),
        number(measures["lidar"], 3),
    ]
