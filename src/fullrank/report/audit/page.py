"""Writes what an audit leaves: `audit.json`, figures, and a page that opens without network."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fullrank.collapse.thresholds import Thresholds
from fullrank.errors import UsageError
from fullrank.report.audit import figures as audit_figures
from fullrank.report.audit.subjects import main_tap
from fullrank.report.audit.terminal import AuditView
from fullrank.report.audit.wording import (
    MEANINGS,
    as_sentence,
    differences,
    evidence_rows,
    metric_rows,
    severity_of,
    without_infinities,
)
from fullrank.report.render import Choice, Section, card, pairs, render, typographic, write
from fullrank.report.run.page import OF_NOISE, TERMS
from fullrank.report.style import count, duration, number

__all__ = ["Against", "as_object", "write_audit"]

Views = Mapping[str, AuditView]

AUDIT_TERMS = (
    *(term for term in TERMS if term[0] not in ("Trend", "Untrained network", "k-NN", "Alignment")),
    (
        "95 % interval",
        "Where the value of other rows from the same source would lie, from halves of a sample.",
    ),
    (
        "1/k",
        "What Gaussian rows read whose covariance has the eigenvalues 1, 1/2, 1/3, ...: about as healthy "
        "encoders have.",
    ),
    (
        "Tight clusters",
        "Nearest neighbours are linked; where hardly any variance is left within what is linked, rows are "
        "points.",
    ),
    ("AUC", "Mean height of the cumulative curve: 0.5 for equal directions, 1 for a single one."),
)


@dataclasses.dataclass(frozen=True)
class Against:
    """Another embedding to compare with.

    Attributes:
        name: what to call it.
        view: its audit.
    """

    name: str
    view: AuditView


def as_object(views: Views, against: Against | None = None) -> dict[str, Any]:
    """The audit as JSON has it: the main tap's keys, and those of all taps where there are several.

    Example:
        >>> import torch, fullrank
        >>> view = fullrank.audit(torch.randn(100, 4), metrics=["level"])
        >>> sorted(as_object({view.tap: view}))[:5]
        ['advice', 'd', 'evidence', 'metrics', 'n']
    """
    main = main_tap(dict(views))
    found = views[main].as_dict()
    if len(views) > 1:
        found["taps"] = {tap: view.as_dict() for tap, view in views.items()}
    if against is not None:
        found["against"] = {
            "name": against.name,
            **against.view.as_dict(),
            "differences": [dataclasses.asdict(row) for row in differences(views[main], against.view)],
        }
    cleaned: dict[str, Any] = without_infinities(found)
    return cleaned


def write_audit(
    views: Views,
    out: Path,
    *,
    title: str = "",
    against: Against | None = None,
    thresholds: Thresholds | None = None,
    page: bool = True,
    figures: bool = True,
) -> Path:
    """Writes an audit into a folder.

    Args:
        views: audits by tap, in the order of depth.
        out: the folder; files of the same names are replaced.
        title: the page's heading; by default where the rows are from.
        against: another embedding to compare with.
        thresholds: what the verdict depended on.
        page: whether `audit.html` is wanted.
        figures: whether SVG, PDF and PNG under `figures/` are wanted.

    Returns:
        The page, or `audit.json` where none is wanted.

    Raises:
        UsageError: `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: take another --out")
    text = json.dumps(as_object(views, against), indent=1, allow_nan=False) + "\n"
    written = write(out / "audit.json", text)
    if figures:
        from fullrank.report.audit.paper_figures_files import write_audit_figures

        for old in (out / "figures").glob("*.*"):  # of an earlier audit
            if old.suffix in (".svg", ".pdf", ".png"):
                old.unlink()
        write_audit_figures(views, out / "figures", None if against is None else (against.name, against.view))
    if not page:
        return written
    main = views[main_tap(dict(views))]
    text = render(
        "audit.html.j2",
        title=title or main.origin or main.tap,
        state=_state(main),
        notes=list(main.notes),
        look=main.look,
        place=main.tap if len(views) > 1 else "",
        severity=severity_of(main),
        why=as_sentence(main.verdict.why),
        meaning=MEANINGS.get(main.verdict.kind, ""),
        evidence=evidence_rows(main),
        others=[
            {"tap": tap, "look": view.look, "why": as_sentence(view.verdict.why)}
            for tap, view in views.items()
            if view is not main
        ],
        advice=[
            advice._replace(mechanism=as_sentence(advice.mechanism), try_first=advice.try_first + ".")
            for advice in main.advice
        ],
        advice_title="Likely mechanisms, and what to try first"
        if main.verdict.collapsed
        else "What would help",
        tiles=_tiles(main),
        sections=_sections(views, main, against, title),
        differences=differences(main, against.view) if against else [],
        other_name=against.name if against else "",
        other_state=f"{against.view.look.title}: {against.view.verdict.why}." if against else "",
        tables=[
            {"tap": view.tap, "rows": metric_rows(view)}
            for view in sorted(views.values(), key=lambda view: view is not main)
        ],
        terms=AUDIT_TERMS,
        thresholds=pairs(dataclasses.asdict(thresholds or Thresholds())),
    )
    return write(out / "audit.html", text)


def _state(view: AuditView) -> str:
    took = duration(view.seconds).replace(" ", "\u00a0")
    size = f"{count(view.n)} rows of width {count(view.d)}, {view.tap}"
    return f"{size}. From {view.origin or 'memory'}, audited in {took}."


def _tiles(view: AuditView) -> list[dict[str, str]]:
    tiles = [
        (
            "Rows",
            count(view.n),
            f"{number(view.n / view.d)} for each {'code' if view.panel is None else 'dimension'}",
        ),
        ("Width", count(view.d), "codes" if view.panel is None else "dimensions"),
    ]
    if view.panel is not None:
        for name, label in (
            ("level", "Level"),
            ("erank_centred", "Effective rank"),
            ("rankme_unit", "RankMe, unit rows"),
            ("auc", "AUC"),
            ("tight_clusters", "Tight clusters"),
        ):
            if measure := view.panel.measures.get(name):
                below = f"isotropic: {number(measure.null)}" if measure.null is not None else "linked rows"
                tiles.append((label, number(measure.value), below))
    else:
        for item in view.verdict.evidence[:3]:
            tiles.append((item.metric.replace("_", " ").capitalize(), number(item.value), item.says))
    return [{"label": label, "value": typographic(value), "below": below} for label, value, below in tiles]


def _sections(views: Views, main: AuditView, against: Against | None, title: str) -> list[Section]:
    picker = []
    if len(views) > 1:
        picker = [Choice("tap", "Tap", [(tap, tap) for tap in views], main.tap)]
    constant = main.verdict.kind == "complete"
    classes = "" if main.labels is None else f" Coloured by {len(set(main.labels.tolist()))} classes."
    sections = [
        Section(
            "How does it change over the depth?",
            [
                *card(
                    "Depth",
                    "Ranks as shares of the width at each tap. A fall that the isotropic line does not share "
                    "is where directions are lost.",
                    audit_figures.depth(views),
                )
            ],
        ),
        Section(
            "How many directions are in use?",
            [
                *card(
                    "Log spectrum",
                    "Squares sum to 1: only shapes compare. A cliff marks directions that are lost; a first "
                    "value that stands alone without centring is a common mean.",
                    audit_figures.spectra(views),
                ),
                *card(
                    "Cumulative curve",
                    "Near the dashed line: directions are used alike. Near the upper left corner: few of "
                    "them hold everything.",
                    audit_figures.cumulative(views),
                ),
            ],
            choices=picker,
            caution=OF_NOISE if constant else "",
        ),
        Section(
            "How do the rows lie?",
            [
                *card(
                    "Principal map",
                    f"{count(len(main.sample))} rows on the two axes of most variance.{classes}",
                    audit_figures.principal(views),
                ),
                *card(
                    "Distances between rows",
                    "A hump at small distances that Gaussian rows have not: tight clusters.",
                    audit_figures.pairwise(views),
                ),
                *card(
                    "Use of codes",
                    "Flat at equal use: all codes serve. A cliff: the others are dead.",
                    audit_figures.code_use(views),
                ),
            ],
            caution=OF_NOISE if constant else "",
        ),
    ]
    if against is not None:
        names = (title or main.tap, against.name)
        sections.append(
            Section(
                f"Against {against.name}",
                [
                    *card(
                        "Two spectra",
                        "Centred, each relative to its largest value.",
                        audit_figures.against(main, against.view, names),
                    )
                ],
            )
        )
    return [section for section in sections if section.cards]
