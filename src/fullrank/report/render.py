"""Pages from templates, with figures inside the one file."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fullrank import __version__
from fullrank.atomic import write_atomically
from fullrank.figures import Dots, Figure, Heat, Lines
from fullrank.figures.style import one_line, typographic
from fullrank.figures.svg import Drawing, plot

HERE = Path(__file__).parent / "templates"
Choices: TypeAlias = Mapping[tuple[str, ...], Figure]
"""Figures of which the page shows the chosen, by tap, or by tap and form of spectrum."""


@dataclass(frozen=True)
class Card:
    """A figure with its title and the sentence that says how to read it.

    Where there are several drawings, the page shows the chosen.
    """

    title: str
    note: str
    drawings: Sequence[Drawing]
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


@dataclass(frozen=True)
class LiveBar:
    """What a page that is served says of itself, and where the others are.

    Attributes:
        page: its name on the server.
        version: of its content; another one as soon as there is something new.
        phase: of what it shows: waiting, running, ended or quiet.
        said: that in words.
        links: address, name and whether it is this page, of all that are served.
    """

    page: str
    version: str
    phase: str
    said: str
    links: Sequence[tuple[str, str, bool]] = ()


def section(title: str, *items: Figure | Choices, **more: Any) -> Section:
    """A heading with a card for each figure that has something to show."""
    return Section(title, [found for item in items for found in card(item)], **more)


def card(item: Figure | Choices, colour: str = "", **how: Any) -> Iterator[Card]:
    """One card in the colour of its arm, or none where the figure is empty.

    `how` goes to `figures.svg.plot`: colours and legend.
    """
    items: Choices = {(): item} if isinstance(item, Lines | Dots | Heat) else item
    if all(figure.empty for figure in items.values()):
        return
    first = next(iter(items.values()))
    drawings = [
        plot(figure, **how, of=dict(zip(("tap", "form"), key, strict=False)))
        for key, figure in items.items()
        if not figure.empty
    ]
    yield Card(first.title, first.note, drawings, colour)


def data_uri(picture: Path) -> str:
    """A PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")


def pairs(mapping: Mapping[str, Any], under: str = "") -> list[tuple[str, str]]:
    """A nested mapping as flat rows, keys joined by dots.

    Example:
        >>> pairs({"lr": 0.03, "options": {"width": 128}, "views": None})
        [('lr', '0.03'), ('options.width', '128'), ('views', '–')]
    """
    rows: list[tuple[str, str]] = []
    for key, value in mapping.items():
        nested = isinstance(value, dict) and value
        rows += pairs(value, f"{under}{key}.") if nested else [(f"{under}{key}", one_line(value))]
    return rows


def plain_json(value: Any) -> Any:
    """Convert to what JSON holds: no NaN or infinity, no numpy, no paths.

    Example:
        >>> plain_json({"a": [1.0, float("inf")], "b": Path("c"), "d": np.float32(0.5)})
        {'a': [1.0, None], 'b': 'c', 'd': 0.5}
    """
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def render(template: str, **values: Any) -> str:
    """Fill a template; style and script go into the page itself."""
    return str(_environment().get_template(template).render(**values))


@cache  # compiled templates stay in it
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["minus"] = typographic
    environment.globals.update(version=__version__, live=None)
    return environment


def write(file: Path, text: str) -> Path:
    """Write a file whole: a reader never sees half of one."""
    write_atomically(file, text.encode("utf-8"))
    return file
