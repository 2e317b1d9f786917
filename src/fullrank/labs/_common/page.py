"""The output of a lab: `lab.json`, `report.html`, and figures for a paper."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fullrank.figures import Dots, Image, Lines, Table, numbers_of
from fullrank.figures.style import (
    GREEN,
    GREY,
    ORANGE,
    VerdictStyle,
    colours_of,
    counted,
    duration,
    number,
    typographic,
)
from fullrank.jobs.job import Settings, slug
from fullrank.labs._common.findings import RULE, Chapter, Claim, spread
from fullrank.labs._common.lab import Lab
from fullrank.labs._common.results import Results
from fullrank.report.render import Section, card, data_uri, pairs, plain_json, render, write
from fullrank.training.run_dir import package_version

STYLES = {
    "confirmed": VerdictStyle("confirmed", "Confirmed", "●", GREEN),
    "not confirmed": VerdictStyle("not confirmed", "Not confirmed", "■", ORANGE),
    "not decidable": VerdictStyle("not decidable", "Not decidable", "○", GREY),
}
PACKAGES = ("fullrank", "torch", "numpy")


def write_lab(
    name: str,
    lab: Lab,
    plan: Settings,
    results: Results,
    missing: Mapping[str, str],
    out: Path,
    figures: bool = True,
) -> dict[str, Any]:
    """Analyse results and write `lab.json`, `report.html` and `figures/`.

    Args:
        name: of the lab.
        lab: analyses the results.
        plan: `preset` (its name), `settings` (the preset's), `parts` and `seeds`.
        results: of the finished jobs.
        missing: jobs without a result, with what is known of why.
        out: the lab's folder.
        figures: whether to draw those for a paper, too.

    Returns:
        What `lab.json` holds.
    """
    findings = lab.analyse(results, plan["settings"])
    found: dict[str, Any] = {
        "lab": name,
        "title": lab.title,
        "paper": lab.paper,
        "says": lab.says,
        **plan,
        "seen": findings.seen,
        "notes": list(findings.notes),
        "claims": [claim.as_dict() for claim in findings.claims],
        "figures": {slug(title): numbers_of(item) for title, item in findings.figures().items()},
        "tables": {slug(title): numbers_of(item) for title, item in findings.tables().items()},
        "cells": [
            {"part": r.part, "arm": r.arm, "seed": r.seed, "seconds": r.seconds, "numbers": dict(r.numbers)}
            for r in results
        ],
        "missing": dict(missing),
        "seconds": sum(result.seconds for result in results),
        "versions": {package: package_version(package) for package in PACKAGES},
    }
    parts = f", {' and '.join(plan['parts'])}" if plan["parts"] else ""
    seeds = counted(len(plan["seeds"]), "seed")
    text = render(
        "lab.html.j2",
        **found
        | {
            "state": f"Preset {plan['preset']}{parts}: {counted(len(results), 'job')} over {seeds}, "
            f"{duration(found['seconds'])} of computing",
            "headline": _headline(findings.claims),
            "colour": _tone(findings.claims),
            "claims": [(claim, STYLES[claim.verdict]) for claim in findings.claims],
            "rule": RULE,
            "chapters": [shown for chapter in findings.chapters if (shown := _chapter(chapter))["any"]],
            "settings": pairs(dict(plan["settings"])),
            "jobs": [
                (f"{r.part + ': ' if r.part else ''}{r.arm}, seed {r.seed}", duration(r.seconds))
                for r in results
            ],
        },
    )
    write(out / "lab.json", json.dumps(plain_json(found), indent=1, allow_nan=False))
    write(out / "report.html", text)
    if figures:
        from fullrank.figures.matplotlib import write_figures

        for chapter in findings.chapters:
            named = [(slug(item.title), item) for item in chapter.figures]
            write_figures(named, out / "figures", _colours(chapter))
    return found


def _headline(claims: Sequence[Claim]) -> str:
    """Count of the paper's claims that were seen.

    Example:
        >>> _headline([Claim("a", "confirmed", "", {}), Claim("b", "not decidable", "", {})])
        '1 of 2 claims confirmed, 1 not decidable'
    """
    if not claims:
        return "What was seen here"
    kinds = [claim.verdict for claim in claims]
    rest = [f"{kinds.count(kind)} {kind}" for kind in ("not confirmed", "not decidable") if kind in kinds]
    return ", ".join([f"{kinds.count('confirmed')} of {len(kinds)} claims confirmed", *rest])


def _tone(claims: Sequence[Claim]) -> str:
    kinds = {claim.verdict for claim in claims}
    if kinds == {"confirmed"}:
        return GREEN
    return ORANGE if "not confirmed" in kinds else GREY


def _chapter(chapter: Chapter) -> dict[str, Any]:
    colours = _colours(chapter)
    lines = [item for item in chapter.figures if isinstance(item, Lines)]
    names = list(dict.fromkeys(series.name for item in lines for series in item.series))
    shared = len(lines) > 1 and len(names) > 1
    cards = [found for item in chapter.figures for found in card(item, colours=colours, legend=not shared)]
    legend = [(name, colours[name]) for name in names] if shared else []
    section = Section(chapter.title, cards, chapter.lede, layout=chapter.layout, legend=legend)
    tables = [item for item in chapter.items if isinstance(item, Table) and item.rows]
    pictures = [item for item in chapter.items if isinstance(item, Image) and not item.empty]
    return {
        "any": bool(cards or tables or pictures),
        "section": section,
        "tables": [_table(item) for item in tables],
        "pictures": [{"title": p.title, "note": p.note, "data": data_uri(p.path)} for p in pictures],
    }


def _colours(chapter: Chapter) -> dict[str, str]:
    """Colours of arms: those of curves; dots without curves have one colour."""
    lines = [item for item in chapter.items if isinstance(item, Lines)]
    names = [series.name for item in lines for series in item.series]
    arms = [arm for item in chapter.items if isinstance(item, Dots) for arm in item.values]
    found = colours_of(names, chapter.ordered)
    return found if set(arms) & set(names) or names else {}


def _table(item: Table) -> dict[str, Any]:
    """A table as the template wants it; columns of words are set left."""
    numbers = [not any(isinstance(cell, str) for cell in column) for column in zip(*item.rows, strict=True)]
    return {**vars(item), "rows": [[_cell(cell) for cell in row] for row in item.rows], "numbers": numbers}


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, int | float):
        return typographic(number(value))
    return spread(value)
