"""The page of a cure: why, what each arm was worth, and its curves."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from fullrank.cures.plan import CurePlan
from fullrank.cures.result import ArmResult, Cure, Outcome
from fullrank.cures.tables import begin_words, columns, few_seeds, onset_words, rows
from fullrank.figures import Dots, Figure, Lines, Series
from fullrank.figures.style import GREEN, GREY, ORANGE, colours_of
from fullrank.report.render import Section, card, render, write
from fullrank.report.run.page import write_page
from fullrank.report.verdicts import advice_sentences, as_sentence

UNTESTED = (
    "Not tested: other methods, backbones and data; longer training than to epoch {until}; and treatments "
    "that are not in the table. A gain over {seeds} has a wide interval: what decides is that all show it."
)


def write_cure_page(cure: Cure, out: Path) -> Path:
    """Write the page of a cure, and those of its runs; return its path."""
    for arm in cure.arms:
        for outcome in arm.outcomes:
            write_page(outcome.path)
    plan, config = cure.plan, cure.plan.config()
    text = render(
        "cure.html.j2",
        title=f"A cure for {plan.run.resolve().name}",
        onset=as_sentence(onset_words(plan)),
        plan=as_sentence(begin_words(plan)),
        headline=cure.headline,
        colour=GREEN if cure.winner else ORANGE,
        command=cure.command,
        why=as_sentence(plan.diagnosis.why),
        evidence=[as_sentence(line) for line in plan.diagnosis.evidence],
        notes=[as_sentence(line) for line in cure.notes],
        columns=columns(cure),
        rows=[
            {
                "name": row.arm.name,
                "cells": row.cells[1:],
                "styles": row.styles,
                "cured": row.cured,
                "href": _href(row.arm, out),
                "changes": row.arm.arm.words(config),
                "failed": [f"seed {seed}: {why}" for seed, why in row.arm.failed.items()],
                "few_seeds": few_seeds(row.arm),
            }
            for row in rows(cure)
        ],
        treatments=advice_sentences(advised for arm in cure.treated if (advised := arm.arm.advice)),
        sections=[_curves(cure)],
        untested=UNTESTED.format(until=plan.until, seeds=_seeds(plan)),
    )
    return write(out, text)


def _seeds(plan: CurePlan) -> str:
    return "one seed" if len(plan.seeds) == 1 else f"{len(plan.seeds)} seeds"


def _href(arm: ArmResult, out: Path) -> str:
    if not arm.outcomes:
        return ""
    page = arm.outcomes[0].path / "report.html"
    return quote(Path(os.path.relpath(page.resolve(), out.resolve().parent)).as_posix())


def _curves(cure: Cure) -> Section:
    names = [arm.name for arm in cure.arms]
    colours = colours_of(names)
    share = cure.compared_by == "knn"
    gains = {
        arm.name: [scale * value for value in arm.gain(cure.untreated, cure.compared_by).values]
        for arm in cure.treated
        for scale in [100.0 if share else 1.0]
    }
    unit = "points of k-NN accuracy" if share else "effective rank"
    items: list[Figure] = [
        Dots("Gain over the untreated arm", "A dot a seed, each against the same seed untreated.", unit,
             gains, {"untreated": 0.0}),
        Lines("k-NN", "Accuracy on held-out images.", "epoch", "accuracy",
              [_series(arm, "knn") for arm in cure.arms]),
        Lines("Effective rank", "Of the judged embedding, centred.", "epoch", "effective rank",
              [_series(arm, "rank") for arm in cure.arms]),
        Lines("Probability of a collapse", "By the verdict of each epoch.", "epoch", "probability",
              [_series(arm, "probability") for arm in cure.arms], y_range=(0.0, 1.05)),
    ]  # fmt: skip
    cards = [found for item in items for found in card(item, colours=colours, legend=False)]
    legend = [(name, colours.get(name, GREY)) for name in names]
    return Section("Epoch by epoch", cards, "Mean over seeds, with their range.", legend=legend)


def _series(arm: ArmResult, what: str) -> Series:
    curves = [_curve(outcome, what) for outcome in arm.outcomes]
    epochs = sorted({epoch for curve in curves for epoch in curve})
    return Series(arm.name, epochs, [[curve.get(epoch) for epoch in epochs] for curve in curves])


def _curve(outcome: Outcome, what: str) -> dict[int, float | None]:
    found: dict[int, float | None] = {}
    for record in outcome.run.epochs:
        if what == "knn":
            found[record.epoch] = record.accuracy("knn")
        elif what == "probability":
            found[record.epoch] = record.verdict.get("probability") if record.epoch else None
        else:
            tap = str(record.verdict.get("tap") or "projector")
            measures = (record.panels.get(tap) or {}).get("measures") or {}
            found[record.epoch] = (measures.get("erank_centred") or {}).get("value")
    return found
