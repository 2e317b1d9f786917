"""The page of a selection."""

from __future__ import annotations

from pathlib import Path

from fullrank.figures import Lines, Series
from fullrank.figures.style import BLUE, GREEN, ORANGE, style_of
from fullrank.report.render import render, section, write
from fullrank.selection.ranking import Ranked, Selection
from fullrank.selection.words import COLUMNS, NOT_TESTED, cells


def write_selection(found: Selection, out: Path) -> Path:
    """Write the page of a selection to `out`, which is returned."""
    rows = [
        {
            "name": row[0],
            "cells": list(zip(COLUMNS[1:-1], row[1:], strict=True)),
            "style": style_of(ranked.measured.verdict.kind) if ranked.measured.verdict else None,
            "picked": ranked is found.pick,
        }
        for ranked in found.ranked
        for row in [cells(ranked, found)]
    ]
    text = render(
        "pick.html.j2",
        title=f"Picked: {found.headline}",
        sureness=found.sureness,
        cost=found.cost,
        about=found.images.about,
        encoder=found.pick.candidate.spec,
        columns=COLUMNS,
        rows=rows,
        colour=GREEN,
        unusable=[(each.candidate.name, each.why) for each in found.unusable],
        notes=[*found.images.notes, NOT_TESTED],
        sections=[section("Over the epochs", points(found), agreement(found))]
        if found.relation == "run"
        else [],
    )
    return write(out, text)


def points(found: Selection) -> Lines:
    """Expected accuracy over the epochs of a run, against the picked one."""
    x, rows = _by_epoch(found)
    whiskers = [(row.high - row.low) / 2 for row in rows]
    series = [Series("expected", x, [[row.points for row in rows]], colour=BLUE, whiskers=whiskers)]
    note = "Expected k-NN accuracy less that of the picked epoch; bars are 90 % intervals."
    picked = {"picked": float(found.pick.candidate.epoch or 0)}
    return Lines("Expected accuracy", note, "epoch", "points", series, marks=picked)


def agreement(found: Selection) -> Lines:
    """What the views of images agree on, over the epochs of a run."""
    x, rows = _by_epoch(found)
    named = {
        "view_retrieval": ("views found again", ORANGE),
        "neighbour_coherence": ("neighbours kept", BLUE),
    }
    series = [
        Series(label, x, [[row.measured.measures[name] for row in rows]], colour=colour)
        for name, (label, colour) in named.items()
    ]
    note = "Views whose nearest row is of the same image, and neighbours that two views share."
    return Lines("Agreement of views", note, "epoch", "share", series, percent=True, y_range=(0, None))


def _by_epoch(found: Selection) -> tuple[list[float], list[Ranked]]:
    rows = sorted(found.ranked, key=lambda row: row.candidate.epoch or 0)
    return [float(row.candidate.epoch or 0) for row in rows], rows
