"""`fullrank list WHAT`: what there is, by name."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Annotated, Any

import tyro

from fullrank.cli.arguments import parse
from fullrank.cli.quick import active, is_stand_in
from fullrank.errors import FullrankError, UnknownNameError, UsageError, missing_package
from fullrank.registry import Registry
from fullrank.terminal import say

Row = dict[str, Any]
PROBLEM = "problem"
"""Key of what is wrong with an entry of another package; the others do not have it."""
WIDTH = 10_000  # columns where no terminal says how many it has: in a pipe an entry is a line


@dataclass(frozen=True)
class List:
    """List methods, data, views, backbones, recipes, labs or metrics.

    Example: fullrank list methods

    Example: fullrank list recipes imagenet/simsiam

    Attributes:
        what: methods, data, views, backbones, recipes, labs or metrics.
        name: tell of one of them alone; of a recipe also its settings and the commands that train it.
        json: print a list of objects, each with `name`.
        filter: only names that contain this (useful for timm's thousand backbones).
    """

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")]
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]")] = ""
    json: bool = False
    filter: str = ""


def _paper(method: Any) -> str:
    return f"arXiv {method.paper}" if re.fullmatch(r"\d{4}\.\d{4,5}", method.paper) else str(method.paper)


def taps_of(method: Any) -> list[str]:
    """Layer outputs (taps) by `Taps:` in a method's docstring, else measured."""
    said = re.search(r"Taps: (.*?)(\n\n|$)", inspect.getdoc(method) or "", re.DOTALL)
    if said is None:
        if active():
            raise LookupError("the taps of a method without `Taps:` are measured, which needs torch")
        return _taps(method.name)
    listed = re.sub(r"\s*\([^)]*\)", "", said[1]).split(".")[0]
    return [word.split()[0] for word in listed.split(",")]


def _taps(name: str) -> list[str]:
    import torch

    from fullrank.methods import METHODS, build_method

    class OneToken(torch.nn.Linear):  # in timm's form
        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.flatten(1)).unsqueeze(1)

        def forward_head(self, tokens: torch.Tensor) -> torch.Tensor:
            return tokens.squeeze(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.forward_head(self.forward_features(x))

    backbone = OneToken(12, 8)
    small = {
        field.name: max(8, field.default // 8)
        for field in dataclasses.fields(METHODS[name].Config)
        if type(field.default) is int and field.default >= 64
    }
    try:
        method = build_method(name, backbone, 8, small)
    except UsageError:  # knobs that depend on each other
        method = build_method(name, backbone, 8)
    with torch.no_grad():
        return list(method.eval().embed(torch.zeros(2, 3, 2, 2)))


def _backbones() -> dict[str, Any]:
    from fullrank.networks.backbones import OWN_BACKBONES

    return dict.fromkeys(OWN_BACKBONES, "fullrank") | dict.fromkeys(timm_names(), "timm")


def timm_names() -> list[str]:
    """Names of timm's models from its source, which is read and not imported."""
    timm = PathFinder.find_spec("timm")
    if timm is None or not timm.submodule_search_locations:
        raise UsageError(missing_package("timm"))
    files = Path(timm.submodule_search_locations[0], "models").glob("*.py")
    registered = re.compile(r"^@register_model\s+def (\w+)", re.MULTILINE)
    return sorted(name for file in files for name in registered.findall(file.read_text(encoding="utf-8")))


def _recipes() -> dict[str, Any]:
    from fullrank.training.recipes import load_recipe, recipe_names

    return {name: load_recipe(name) for name in recipe_names()}


Column = str | tuple[str, Callable[[Any], Any]]

LISTS: dict[str, tuple[str | Callable[[], Mapping[str, Any]], tuple[Column, ...]]] = {
    "methods": (
        "fullrank.methods:METHODS",
        (("paper", _paper), "year", "mechanism", "caveat", ("taps", taps_of)),
    ),
    "data": (
        "fullrank.images.named:DATA",
        (
            "images",
            ("size", lambda data: data.size or "varies"),
            "classes",
            "labelled",
            ("download", lambda data: "with --download" if data.needs_download else "comes along"),
            ("about", attrgetter("description")),
        ),
    ),
    "views": (
        "fullrank.views:VIEWS",
        (("views", lambda preset: len(preset.views)), ("about", attrgetter("description")), "source"),
    ),
    "backbones": (_backbones, (("from", str),)),
    "recipes": (_recipes, ("about", ("aims at", attrgetter("aims_at")), "source")),
    "labs": (
        "fullrank.labs:LABS",
        (
            "title",
            ("presets", lambda lab: list(lab.presets)),
            ("parts", lambda lab: list(lab.parts)),
            "paper",
        ),
    ),
    "metrics": (
        "fullrank.collapse.metrics:METRICS",
        ("label", ("range", lambda metric: f"{metric.low} to {metric.high}"), "better", "sees", "reference"),
    ),
}
"""Tables by name: where the entries are, and the columns as attributes or functions of an entry."""


def listed(what: str) -> Mapping[str, Any]:
    """Entries of one of `LISTS` by name."""
    where = LISTS[what][0]
    if not isinstance(where, str):
        return where()
    module, _, table = where.partition(":")
    entries: Mapping[str, Any] = getattr(importlib.import_module(module), table)
    return entries


def list_rows(what: str) -> list[Row]:
    """Entries of one of `LISTS`, each with its name and columns."""
    columns, entries = LISTS[what][1], listed(what)
    getters = dict((column, attrgetter(column)) if isinstance(column, str) else column for column in columns)
    broken = dict(entries.broken) if isinstance(entries, Registry) else {}
    rows = []
    for name, entry in entries.items():
        try:
            rows.append({"name": name} | {key: get(entry) for key, get in getters.items()})
        except Exception as error:
            if active() or str(getattr(entry, "__module__", "fullrank")).partition(".")[0] == "fullrank":
                raise
            broken[name] = f"{what.removesuffix('s')} {name!r} of another package: {_line(error)}"
    for name, problem in broken.items():  # which costs the others nothing
        rows.append({"name": name} | dict.fromkeys(getters, "") | {PROBLEM: problem})
    if broken:
        rows.sort(key=itemgetter("name"))
    if any(is_stand_in(value) for row in rows for value in row.values()):
        raise LookupError(f"the list of {what} needs torch")
    return rows


def _line(error: Exception) -> str:
    """An error in a line, with its type where that is not the package's own."""
    text = " ".join(str(error).split())
    return text if isinstance(error, FullrankError) else f"{type(error).__name__}: {text}"


def run(words: Sequence[str]) -> int:
    """Print a list."""
    args = parse(List, words, "fullrank list")
    if args.what not in LISTS:
        raise UnknownNameError("list", args.what, LISTS)
    rows = [row for row in list_rows(args.what) if args.filter in row["name"]]
    if args.name:
        return _show_one(args, {row["name"]: row for row in rows})
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        _print_table(rows)
    return 0


def _show_one(args: List, rows: Mapping[str, Row]) -> int:
    """Tell of one entry, a line for each column."""
    if args.name not in rows:
        raise UnknownNameError(args.what.removesuffix("s"), args.name, rows)
    row = dict(rows[args.name])
    if PROBLEM in row:
        raise UsageError(row[PROBLEM])
    if args.what == "recipes":
        row |= _of_recipe(args.name)
    if args.json:
        print(json.dumps(row, indent=2))
        return 0
    for key, value in row.items():
        if isinstance(value, dict):
            say(f"{key}:")
            for inner, text in value.items():
                say(f"  {inner + ':':<22} {_plain(text)}")
        else:
            say(f"{key + ':':<24} {_plain(value)}")
    return 0


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _of_recipe(name: str) -> Row:
    from fullrank.training.recipe_commands import recipe_commands
    from fullrank.training.recipes import load_recipe

    settings = dict(load_recipe(name).settings)
    options = {f"options.{key}": value for key, value in dict(settings.pop("options", {})).items()}
    return {"settings": settings | options, "commands": recipe_commands(name, settings)}


def _print_table(rows: list[Row]) -> None:
    from rich.table import Table
    from rich.text import Text

    from fullrank.cli.arguments import make_console

    table = Table(box=None, header_style="bold", pad_edge=False)
    sound = [row for row in rows if PROBLEM not in row]
    for key in sound[0] if sound else ["name"]:
        short = key in ("name", "year")
        table.add_column(key, overflow="fold", no_wrap=short, style="cyan" if key == "name" else "")
    for row in sound:
        table.add_row(*(", ".join(v) if isinstance(v, list) else str(v) for v in row.values()))
    console = make_console(WIDTH)
    console.print(table)
    for row in rows:
        if PROBLEM in row:
            console.print(Text(f"{row['name']}  {row[PROBLEM]}", "bold"), soft_wrap=True)
