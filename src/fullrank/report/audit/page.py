"""The output of an audit: `audit.json`, figures, and a page."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fullrank.collapse.thresholds import Thresholds
from fullrank.errors import UsageError
from fullrank.features.store import main_tap
from fullrank.figures import Lines
from fullrank.figures.style import count, duration, number, typographic
from fullrank.report.audit import figures as audit_figures
from fullrank.report.audit.view import Against, AuditFacts, Views
from fullrank.report.ceiling import ceiling_of
from fullrank.report.evidence import (
    COLUMNS,
    OF_AUDIT,
    OF_NOISE,
    Other,
    Tile,
    differences,
    evidence_rows,
    label_of,
    meaning,
    metric_rows,
    severity_of,
)
from fullrank.report.render import Choice, Section, pairs, plain_json, render, section, write
from fullrank.report.verdicts import advice_sentences, as_sentence, beside_kind, in_short, remarks


def as_object(views: Views, against: Against | None = None) -> dict[str, Any]:
    """The audit as JSON: the main tap's keys, and those of all taps.

    Example:
        >>> import torch, fullrank
        >>> view = fullrank.audit(torch.randn(100, 4), metrics=["level"])
        >>> sorted(as_object({view.tap: view}))[:5]
        ['advice', 'blemishes', 'd', 'evidence', 'metrics']
    """
    main = main_tap(views)
    found = views[main].as_dict()
    if len(views) > 1:
        found["taps"] = {tap: view.as_dict() for tap, view in views.items()}
    if against is not None:
        found["against"] = {
            "name": against.name,
            **against.view.as_dict(),
            "differences": [row._asdict() for row in differences(views[main], against.view)],
        }
    cleaned: dict[str, Any] = plain_json(found)
    return cleaned


def write_audit(
    views: Views,
    out: Path,
    *,
    title: str = "",
    subject: str = "",
    against: Against | None = None,
    thresholds: Thresholds | None = None,
    page: bool = True,
    figures: bool = True,
) -> Path:
    """Write an audit into a folder.

    Args:
        views: in the order of depth.
        out: the folder; files of the same names are replaced.
        subject: what tells it from others, for who would write into the same folder.
        title: the page's heading; by default where the rows are from.
        thresholds: what the verdict depended on.
        page, figures: whether `audit.html`, and SVG, PDF and PNG under `figures/`, are wanted.

    Returns:
        The page, or `audit.json` where none is wanted.

    Raises:
        UsageError: `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: take another --out")
    audited_before = (out / "audit.json").is_file()
    found = as_object(views, against) | ({"subject": subject} if subject else {})
    text = json.dumps(found, indent=1, allow_nan=False) + "\n"
    written = write(out / "audit.json", text)
    if figures or audited_before:
        for old in (out / "figures").glob("*.*"):  # of an earlier audit
            if old.suffix in (".svg", ".pdf", ".png"):
                old.unlink()
    if figures:
        from fullrank.figures.matplotlib import write_figures

        write_figures(audit_figures.paper_figures(views, against), out / "figures")
    if not page:
        return written
    main = views[main_tap(views)]
    text = render(
        "audit.html.j2",
        title=title or main.origin or main.tap,
        state=_state(main),
        notes=list(main.notes),
        style=main.style,
        place=main.tap if len(views) > 1 else "",
        severity=severity_of(main),
        certainty=beside_kind(main.verdict),
        remarks=remarks(main.verdict),
        reasons=[as_sentence(main.verdict.why), meaning(main.verdict, main.panel)],
        evidence=evidence_rows(main),
        columns=[(name, COLUMNS[name]) for name in OF_AUDIT],
        of_run=main.of_run,
        of_run_says=main.of_run.says(tuple(views)) if main.of_run else "",
        others=[Other.of(view.verdict) for tap, view in views.items() if view is not main],
        advice=advice_sentences(main.advice),
        advice_title=advice_title(main),
        tiles=_tiles(main),
        sections=_sections(views, main, against, title),
        differences=differences(main, against.view) if against else [],
        other_name=against.name if against else "",
        other_state=_state_of(against) if against else "",
        tables=[
            {"tap": view.tap, "rows": metric_rows(view)}
            for view in sorted(views.values(), key=lambda view: view is not main)
        ],
        thresholds=pairs(dataclasses.asdict(thresholds or Thresholds())),
    )
    return write(out / "audit.html", text)


def advice_title(view: AuditFacts) -> str:
    """Heading of the advice."""
    return "Likely mechanisms, and what to try first" if view.verdict.collapsed else "What would help"


def _state_of(against: Against) -> str:
    """The verdict on what the audit is against, with its blemishes."""
    verdict, title = against.view.verdict, against.view.style.title
    kind = in_short(verdict).replace(verdict.kind, title, 1)
    return " ".join([f"{kind}: {as_sentence(verdict.why)}", *(odd.says for odd in remarks(verdict))])


def _state(view: AuditFacts) -> str:
    took = duration(view.seconds).replace(" ", "\u00a0")
    size = f"{count(view.n)} rows of width {count(view.d)}, {view.tap}"
    return f"{size}. From {view.origin or 'memory'}, audited in {took}."


def _tiles(view: AuditFacts) -> list[Tile]:
    what = "code" if view.panel is None else "dimension"
    tiles = [
        Tile("Rows", count(view.n), f"{number(view.n / view.d)} for each {what}"),
        Tile("Width", count(view.d), f"{what}s"),
    ]
    if view.panel is None:
        return tiles + [
            Tile(label_of(item.metric).capitalize(), typographic(number(item.value)), item.says)
            for item in view.verdict.evidence[:3]
        ]
    ceiling = ceiling_of(view.panel.as_dict())
    for name in ("level", "erank_centred", "rankme_unit", "auc", "tight_clusters"):
        if measure := view.panel.measures.get(name):
            below = f"isotropic: {number(measure.null)}" if measure.null is not None else "linked rows"
            if name == "erank_centred":
                below = f"isotropic: {number(ceiling.baseline)}; {ceiling.says}"
            label = label_of(name)[0].upper() + label_of(name)[1:]
            tiles.append(Tile(label, typographic(number(measure.value)), typographic(below)))
    return tiles


def _sections(views: Views, main: AuditFacts, against: Against | None, title: str) -> list[Section]:
    options = [(tap, tap) for tap in views]
    picker = [Choice("tap", "Tap", options, main_tap(views))] if len(views) > 1 else []
    caution = OF_NOISE if main.verdict.kind == "complete" else ""
    main_first = sorted(views.items(), key=lambda item: item[1] is not main)

    def by_tap(figure: Callable[[AuditFacts], Lines]) -> dict[tuple[str, ...], Lines]:
        return {(tap,): shown for tap, view in main_first if not (shown := figure(view)).empty}

    sections = [
        section(
            "How does it change over the depth?",
            *audit_figures.depth(views),
            lede="Ranks as shares of the width of each layer output (tap), from the image to the features. A "
            "fall that the isotropic line does not share is where directions are lost.",
            layout="three",
        ),
        section(
            "How many directions are in use?",
            by_tap(audit_figures.spectra),
            by_tap(audit_figures.cumulative_curve),
            choices=picker,
            caution=caution,
        ),
        section(
            "How do the rows lie?",
            by_tap(audit_figures.principal),
            by_tap(audit_figures.pairwise),
            by_tap(audit_figures.code_use),
            caution=caution,
        ),
    ]
    if against is not None:
        figure = audit_figures.versus(main, against, title or main.tap)
        sections.append(section(f"Against {against.name}", figure))
    return [found for found in sections if found.cards]
