"""The time of a training step as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from fullrank.figures.style import BLUE, count, percent
from fullrank.report.run.terminal import bar
from fullrank.report.tables import plain_table

if TYPE_CHECKING:
    from fullrank.training.profile import Profile

WORDS = {
    "data": "waiting for images",
    "views": "views",
    "forward": "forward pass and loss",
    "backward": "backward pass",
    "probe": "online linear probe",
    "optimiser": "optimiser",
    "method": "after the step (EMA)",
    "logging": "logs and level",
    "watching": "panel, spread over its epoch",
    "knn": "k-NN and probe, likewise",
}


def profile_table(found: Profile) -> RenderableType:
    """Every phase of a training step in milliseconds and as a share.

    Example:
        >>> from pathlib import Path
        >>> from rich.console import Console
        >>> from fullrank.training.profile import Profile
        >>> phases = {"views": 0.01, "forward": 0.03, "backward": 0.06}
        >>> found = Profile(phases, 0.1, 0.001, 0.0, 640.0, 1e9, 2e10, 5, Path("trace.json"))
        >>> Console(width=80).print(profile_table(found))  # doctest: +ELLIPSIS
        one step   100.0 ms, 640 images/s...
    """
    table = plain_table(("Where the time goes", "ms", "Share", ""), left=("Where the time goes", ""))
    total = found.step + found.watching + found.knn
    for name, seconds in (*found.phases.items(), ("watching", found.watching), ("knn", found.knn)):
        filled, _ = bar(seconds / total, 24)
        table.add_row(WORDS[name], f"{1e3 * seconds:.2f}", percent(seconds / total), Text(filled, BLUE))
    gflop, rate = found.flops / 1e9, found.rate / 1e9
    step = f"{1e3 * found.step:.1f} ms, {count(found.images)} images/s, medians of {found.steps} steps"
    floor = (
        f"{1e3 * found.floor:.1f} ms: {gflop:.1f} GFLOP at the {rate:,.0f} GFLOP/s that this machine "
        f"reaches, of which the step has {percent(found.floor / found.step)}"
    )
    head = Text(f"one step   {step}\nits floor  {floor}\n")
    return Group(head, table)
