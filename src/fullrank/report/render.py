"""What both pages are built with: templates, the one copy of plotly.js, figures as data inside the page."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullrank import __version__
from fullrank.report.run.reading import Record, Run
from fullrank.report.style import plane

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = [
    "Card",
    "Choice",
    "Section",
    "card",
    "choices",
    "data_uri",
    "pairs",
    "render",
    "typographic",
    "write",
]

HERE = Path(__file__).parent / "templates"
FORMS = (("centred", "centred"), ("unit", "unit rows, uncentred"))


@dataclass(frozen=True)
class Card:
    """A figure with its title and the sentence that says how to read it."""

    title: str
    note: str
    spec: str
    height: int
    colour: str = ""


@dataclass(frozen=True)
class Choice:
    """A row of buttons: which tap, or which form of spectrum, the figures show."""

    key: str
    label: str
    options: list[tuple[str, str]]
    chosen: str


@dataclass(frozen=True)
class Section:
    """A heading with figures under it."""

    title: str
    cards: list[Card]
    lede: str = ""
    caution: str = ""
    layout: str = "two"
    choices: list[Choice] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)  # name and colour, once for all its figures


def card(title: str, note: str, fig: go.Figure | None, colour: str = "") -> Iterable[Card]:
    """One card, or none where there is no figure: for unpacking into a list of cards."""
    if fig is not None:
        spec = str(fig.to_json()).replace("<", "\\u003c")  # nothing inside may close the script element
        yield Card(title, note, spec, int(fig.layout.height), colour)


def choices(runs: Sequence[Run], tap: str) -> list[Choice]:
    """The buttons for what the runs hold; none for a question with one answer."""
    panels = [set(row.panels) for run in runs for row in run.epochs]
    taps = [
        name for name in dict.fromkeys(t for run in runs for t in run.taps) if any(name in p for p in panels)
    ]
    forms = [pair for pair in FORMS if any(run.spectra(name, pair[0]) for run in runs for name in taps)]
    found = []
    if taps:
        found.append(Choice("tap", "Tap", [(name, name) for name in taps], tap if tap in taps else taps[0]))
    if forms:
        found.append(Choice("form", "Spectrum", forms, forms[0][0]))
    return [choice for choice in found if len(choice.options) > 1]


def data_uri(picture: Path) -> str:
    """A PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")


def pairs(mapping: Record, under: str = "") -> list[tuple[str, str]]:
    """A nested mapping as flat rows, keys joined by dots.

    Example:
        >>> pairs({"lr": 0.03, "options": {"width": 128}, "views": None})
        [('lr', '0.03'), ('options.width', '128'), ('views', '–')]
    """
    rows: list[tuple[str, str]] = []
    for key, value in mapping.items():
        nested = isinstance(value, dict) and value
        rows += pairs(value, f"{under}{key}.") if nested else [(f"{under}{key}", plane(value))]
    return rows


def typographic(text: str) -> str:
    """A formatted number with a real minus sign."""
    return text.replace("-", "\u2212")


def render(template: str, **values: Any) -> str:
    """Fills a template; style, script and plotly.js go into the page itself."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["minus"] = typographic
    inlined = {
        "css": (HERE / "style.css").read_text(encoding="utf-8"),
        "js": (HERE / "page.js").read_text(encoding="utf-8"),
        "plotly_js": _plotly_js(),
        "version": __version__,
    }
    return environment.get_template(template).render(**inlined, **values)


def write(file: Path, text: str) -> Path:
    """Writes a file so that a reader sees the old one or the new one, never half of one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)
    return file


@cache
def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())
