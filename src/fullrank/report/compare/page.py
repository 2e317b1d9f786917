"""The page of a comparison: tables, then figures with one colour an arm."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fullrank.figures.style import GREY, number, percent, typographic
from fullrank.report.compare import figures
from fullrank.report.compare.arms import COLLAPSED, Arm, Comparison, named_arms
from fullrank.report.compare.cautions import cautions, hints
from fullrank.report.compare.subjects import run_subject
from fullrank.report.compare.tables import Grid, tables
from fullrank.report.render import LiveBar, Section, card, pairs, render, section, write
from fullrank.report.run.page import choices
from fullrank.report.run.summary import Summary


def write_comparison(
    run_dirs: Sequence[Path],
    out: Path,
    title: str,
    intro: str = "",
    *,
    names: Sequence[str] | None = None,
    baselines: Mapping[str, float] | None = None,
) -> Path:
    """Write one page for several runs, as they were logged, each an arm of its own.

    Args:
        run_dirs: the run directories; the table links to each `report.html` that exists.
        out: the file to write, which is returned.
        title, intro: the page's heading, and a sentence or two under it.
        names: what to call the arms; by default their directories' names.
        baselines: k-NN accuracies to hold against, such as `{"raw pixels": 0.42, "untrained network": 0.47}`.

    Raises:
        UsageError: if there is no run, one of them is no run directory, or two arms share a name.
    """
    arms = named_arms([[run_subject(path)] for path in run_dirs], names)
    return write_arms(Comparison(arms, baselines=baselines or {}), out, title, intro)


def write_arms(comparison: Comparison, out: Path, title: str, intro: str = "") -> Path:
    """Write the page of a comparison to `out`, with a sentence or two under its title."""
    return write(out, page_of(comparison, title, intro, lambda arm: _href(arm, out)))


def page_of(
    comparison: Comparison,
    title: str,
    intro: str,
    href: Callable[[Arm], str],
    live: LiveBar | None = None,
) -> str:
    """The page of a comparison as text.

    Args:
        comparison: what it shows.
        title, intro: its heading, and a sentence or two under it.
        href: the address of an arm's own page; empty: it has none.
        live: the bar of a page that is served while its runs grow.
    """
    arms = comparison.arms
    methods = {str(run.config.get("method")) for arm in arms for run in arm.runs}
    best, below = headline(arms, methods=len(methods))
    bad = {arm.style.word: arm.style.colour for arm in arms if arm.style.word in COLLAPSED}
    first, *others = tables(comparison)
    return render(
        "comparison.html.j2",
        live=live,
        title=title,
        intro=intro,
        headline=best,
        below=f"{below} {_best_features(comparison)}".strip(),
        colour=bad.get("complete") or next(iter(bad.values()), GREY),
        about=comparison.images.about if comparison.images else "",
        cautions=cautions(comparison),
        notes=[*comparison.notes, *hints(comparison)],
        table=_filled(first, arms, href),
        tables=[_filled(grid, arms, href) for grid in others],
        reasons=[reason for arm in arms for reason in _reasons(arm)],
        sections=_sections(comparison),
        differences=_differences(arms),
    )


def headline(items: Sequence[Summary | Arm], *, methods: int = 1) -> tuple[str, str]:
    """Headline of a comparison, and the sentence under it.

    Losses of several `methods` are not compared.

    Example:
        >>> bad, good = Summary("no stop-gradient"), Summary("simsiam")
        >>> bad.losses, bad.verdict["kind"] = [-1.0], "complete"
        >>> good.losses, good.verdict["kind"] = [-0.9], "healthy"
        >>> headline([good, bad])[0]
        'The collapsed run has the best loss'
    """
    losses = {item.name: item.loss for item in items if item.loss is not None}
    collapsed = [item for item in items if item.style.word in COLLAPSED]
    listed = ", ".join(f"“{item.name}” ({item.style.title.lower()})" for item in collapsed)
    among = f"{len(collapsed)} of {len(items)} arms collapsed" if collapsed else "No arm collapsed"
    undecided = [f"“{item.name}”" for item in items if item.style.word == "not decidable"]
    if not losses and len(undecided) == len(items):
        return ("No arm has a loss yet" if methods else "No arm can be judged"), ""
    rest = f" Not decidable: {', '.join(undecided)}." if undecided else ""
    if not losses or methods > 1:
        return among, (f"Collapsed: {listed}." if collapsed else "") + rest
    best = min((item for item in items if item.name in losses), key=lambda item: losses[item.name])
    lowest = typographic(number(best.loss, 4))
    reached = f"“{best.name}” reaches {lowest}, the lowest loss of the {len(losses)} arms"
    if len(losses) == 1:
        reached = f"“{best.name}” alone has a loss, {lowest}"
    elif best in collapsed:
        title = f"{'The' if len(collapsed) == 1 else 'A'} collapsed run has the best loss"
        verdict = f"its verdict is {best.style.title.lower()}. The loss does not see collapse."
        return title, f"{reached}, and {verdict}{rest}"
    return among, (f"{reached}. Collapsed: {listed}." if collapsed else f"{reached}.") + rest


def _filled(grid: Grid, arms: Sequence[Arm], href: Callable[[Arm], str]) -> dict[str, Any]:
    """Rows of a table with their arms' colours and, where it is one run, its page."""
    rows, before = [], None
    for place, name, cells in grid.rows:
        again = place is not None and place == before
        colour = "" if place is None else figures.arm_colour(place)
        page = "" if place is None or again else href(arms[place])
        rows.append({"name": name, "colour": colour, "href": page, "again": again, "cells": cells})
        before = place
    return {**vars(grid), "rows": rows}


def _href(arm: Arm, out: Path) -> str:
    page = arm.runs[0].path / "report.html" if len(arm.runs) == 1 else None
    if page is None or not page.is_file():
        return ""
    return quote(Path(os.path.relpath(page.resolve(), out.resolve().parent)).as_posix())


def _best_features(comparison: Comparison) -> str:
    """A sentence on the features that name most labels, on the same images."""
    known = [(value, arm) for arm in comparison.arms if (value := arm.value("knn_same").mean) is not None]
    if len(known) < 2 or comparison.images is None:
        return ""
    share, best = max(known, key=lambda pair: pair[0])
    pixels = percent(comparison.images.raw)
    return f"k-NN on the features of “{best.name}” names most labels: {percent(share)}; raw pixels: {pixels}."


def _reasons(arm: Arm) -> list[tuple[str, str]]:
    """Reasons of the verdicts, by arm and seed."""
    several = len(arm.subjects) > 1
    return [
        (
            f"{arm.name}, seed {'?' if s.seed is None else s.seed}" if several else arm.name,
            s.judged.why,
        )
        for s in arm.subjects
        if s.judged and s.judged.why
    ]


def _sections(comparison: Comparison) -> list[Section]:
    arms = {arm.name: arm.runs for arm in comparison.arms}
    runs = [run for found in arms.values() for run in found]
    picker = choices(runs, next((arm.tap for arm in comparison.arms if arm.runs), ""))
    legend = [(name, figures.arm_colour(index)) for index, name in enumerate(arms)]
    trained = [pair for pair in legend if arms[pair[0]]]
    maps = [found for item, colour in figures.maps(arms) for found in card(item, colour)]
    sections = [
        section(
            "What the representations are worth",
            figures.probes(comparison),
            figures.feature_spectra(comparison),
            legend=legend,
        ),
        section(
            "The four curves",
            figures.loss(arms),
            figures.knn(arms, comparison.baselines),
            figures.level(arms),
            figures.ranks(arms),
            choices=[choice for choice in picker if choice.key == "tap"],
            legend=trained,
        ),
        Section(
            "Spectra over time",
            maps,
            lede="Each column is one epoch, each row one singular value relative to the largest. Bright to "
            "the bottom: all directions live. A completely collapsed arm shows only the shape of its noise.",
            layout="two" if len(maps) in (2, 4) else "three",
            choices=picker,
        ),
        section("Spectra at the end", figures.last_spectra(arms), legend=trained),
    ]
    return [found for found in sections if found.cards]


def _differences(arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """The config keys on which the arms differ, with every arm's value."""
    seeds = any(len(arm.subjects) > 1 for arm in arms)  # then a seed is no difference between arms
    flat = {arm.name: [dict(pairs(run.config)) for run in arm.runs] for arm in arms if arm.runs}
    keys = list(dict.fromkeys(key for configs in flat.values() for config in configs for key in config))
    named = {
        key: {
            name: ", ".join(dict.fromkeys(config.get(key, "–") for config in configs))
            for name, configs in flat.items()
        }
        for key in keys
        if key != "out" and not (seeds and key == "seed")
    }
    return [
        (key, "\n".join(f"{name}: {value}" for name, value in values.items()))
        for key, values in named.items()
        if len(set(values.values())) > 1
    ]
