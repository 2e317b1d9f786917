"""Writes the page that sets several runs side by side: one table, then figures with one colour an arm."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fullrank.errors import UsageError
from fullrank.report import overlays
from fullrank.report.look import GREY, count, number, percent
from fullrank.report.page import TERMS
from fullrank.report.render import Section, card, choices, pairs, render, typographic, write
from fullrank.report.run import Run, read_run
from fullrank.report.summary import Summary, summarise

__all__ = ["headline", "write_comparison"]

COLLAPSED = frozenset({"complete", "dimensional", "cluster", "intra-cluster", "uniform-assignment"})


def write_comparison(
    run_dirs: Sequence[Path],
    out: Path,
    title: str,
    intro: str = "",
    *,
    names: Sequence[str] | None = None,
    baselines: Mapping[str, float] | None = None,
) -> Path:
    """Writes one page for several runs.

    Args:
        run_dirs: the run directories, one an arm; the table links to each `report.html` that exists.
        out: the file to write.
        title: the page's heading.
        intro: a sentence or two under it.
        names: what to call the arms; by default their directories' names.
        baselines: k-NN accuracies to hold against, such as `{"raw pixels": 0.42, "untrained network": 0.47}`.

    Returns:
        `out`.

    Raises:
        UsageError: if there is no run, one of them is no run directory, or two arms share a name.

    Example:
        >>> write_comparison([Path("runs/a"), Path("runs/b")], Path("demo.html"), "a and b")  # doctest: +SKIP
        PosixPath('demo.html')
    """
    runs = [read_run(path) for path in run_dirs]
    called = list(names) if names is not None else [run.name for run in runs]
    if not runs or len(called) != len(runs) or len(set(called)) != len(called):
        raise UsageError(
            f"a comparison needs runs and a name of its own for each: {len(runs)} runs, names {called}"
        )
    arms = dict(zip(called, runs, strict=True))
    summaries = [summarise(run, name) for name, run in arms.items()]
    best, below = headline(summaries)
    worst = [s.look for s in summaries if s.look.word in COLLAPSED]
    colour = next(
        (look.colour for look in worst if look.word == "complete"), worst[0].colour if worst else GREY
    )
    text = render(
        "comparison.html.j2",
        title=title,
        intro=intro,
        headline=best,
        below=below,
        colour=colour,
        arms=[_row(index, summary, runs[index], out) for index, summary in enumerate(summaries)],
        baselines=[(name, percent(value)) for name, value in (baselines or {}).items()],
        sections=_sections(arms, summaries, baselines or {}),
        terms=TERMS,
        differences=_differences(arms),
    )
    return write(out, text)


def headline(summaries: Sequence[Summary]) -> tuple[str, str]:
    """What the comparison comes to, and the sentence under it: as the numbers have it, not as one wishes.

    Example:
        >>> bad, good = Summary("no stop-gradient"), Summary("simsiam")
        >>> bad.losses, bad.verdict["kind"] = [-1.0], "complete"
        >>> good.losses, good.verdict["kind"] = [-0.9], "healthy"
        >>> headline([good, bad])[0]
        'The collapsed run has the best loss'
    """
    losses = {summary.name: summary.loss for summary in summaries if summary.loss is not None}
    collapsed = [summary for summary in summaries if summary.look.word in COLLAPSED]
    if not losses:
        return "No arm has a loss yet", ""
    best = min((s for s in summaries if s.name in losses), key=lambda s: losses[s.name])
    lowest = typographic(number(best.loss, 4))
    told = f"“{best.name}” reaches {lowest}, the lowest loss of the {len(losses)} arms"
    if best in collapsed:
        title = (
            "The collapsed run has the best loss"
            if len(collapsed) == 1
            else "A collapsed run has the best loss"
        )
        return title, f"{told}, and its verdict is {best.look.title.lower()}. The loss does not see collapse."
    if collapsed:
        listed = ", ".join(f"“{summary.name}” ({summary.look.title.lower()})" for summary in collapsed)
        return f"{len(collapsed)} of {len(summaries)} arms collapsed", f"{told}. Collapsed: {listed}."
    return "No arm collapsed", f"{told}."


def _row(index: int, summary: Summary, run: Run, out: Path) -> dict[str, Any]:
    page = run.path / "report.html"
    relative = os.path.relpath(page.resolve(), out.resolve().parent)
    return {
        "name": summary.name,
        "colour": overlays.arm_colour(index),
        "href": quote(Path(relative).as_posix()) if page.is_file() else "",
        "look": summary.look,
        "why": summary.why,
        "loss": typographic(number(summary.loss, 4)),
        "level": number(summary.level),
        "rank": "noise" if summary.constant else f"{number(summary.rank)} / {count(summary.width)}",
        "knn": percent(summary.knn),
        "untrained": percent(summary.knn_untrained),
    }


def _sections(
    arms: Mapping[str, Run], summaries: Sequence[Summary], baselines: Mapping[str, float]
) -> list[Section]:
    runs = list(arms.values())
    methods = {str(run.config.get("method")) for run in runs}
    several = (
        " The arms train different methods: their losses have different scales." if len(methods) > 1 else ""
    )
    maps = [
        item
        for index, (name, run) in enumerate(arms.items())
        for item in card(name, "", overlays.spectrum_over_time(run), overlays.arm_colour(index))
    ]
    curves = [
        *card(
            "Loss",
            "Not smoothed. The loss alone does not tell learning from collapse." + several,
            overlays.loss(arms),
        ),
        *card(
            "k-NN accuracy",
            "What the representation is worth, on held-out images.",
            overlays.knn(arms, baselines),
        ),
        *card("Level", "On held-out images. Falling to 0 is complete collapse.", overlays.level(arms)),
        *card(
            "Effective rank",
            "Centred. Under complete collapse it is the rank of the noise.",
            overlays.ranks(arms),
        ),
    ]
    legend = [(name, overlays.arm_colour(index)) for index, name in enumerate(arms)]
    picker = choices(runs, summaries[0].tap)
    sections = [
        Section(
            "The four curves",
            curves,
            choices=[choice for choice in picker if choice.key == "tap"],
            legend=legend,
        ),
        Section(
            "Spectra over time",
            maps,
            lede="Each column is one epoch, each row one singular value relative to the largest. Bright to "
            "the bottom: all directions live. A completely collapsed arm shows only the shape of its noise.",
            layout="two" if len(maps) in (2, 4) else "three",
            choices=picker,
        ),
        Section(
            "Spectra at the end",
            legend=legend,
            cards=[
                *card(
                    "Last spectrum of every arm",
                    "Absolute values: a low curve has lost its level, a cliff its rank.",
                    overlays.last_spectra(arms),
                )
            ],
        ),
    ]
    return [section for section in sections if section.cards]


def _differences(arms: Mapping[str, Run]) -> list[tuple[str, str]]:
    """The config keys on which the arms differ, with every arm's value."""
    flat = {name: dict(pairs(run.config)) for name, run in arms.items()}
    keys = list(dict.fromkeys(key for config in flat.values() for key in config if key != "out"))
    named = {key: {name: config.get(key, "–") for name, config in flat.items()} for key in keys}
    return [
        (key, "\n".join(f"{name}: {value}" for name, value in values.items()))
        for key, values in named.items()
        if len(set(values.values())) > 1
    ]
