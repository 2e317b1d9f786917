"""`fullrank list WHAT`: what there is, by name."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from fullrank.cli.arguments import parse
from fullrank.errors import UnknownNameError, UsageError

Row = dict[str, Any]


@dataclass(frozen=True)
class List:
    """List methods, data, views, backbones, recipes or labs.

    Example: fullrank list methods

    Attributes:
        what: methods, data, views, backbones, recipes, labs or metrics.
        json: print a list of objects, each with `name`.
        filter: only names that contain this (useful for timm's thousand backbones).
    """

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")]
    json: bool = False
    filter: str = ""


def methods() -> list[Row]:
    """Every registered method."""
    from fullrank.methods import METHODS

    return [
        {
            "name": name,
            "paper": f"arXiv {m.paper}" if re.fullmatch(r"\d{4}\.\d{4,5}", m.paper) else m.paper,
            "year": m.year,
            "mechanism": m.mechanism,
            "taps": _taps(name),
        }
        for name, m in METHODS.items()
    ]


def _taps(name: str) -> list[str]:
    """The taps of a method, from a small one."""
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


def data() -> list[Row]:
    """Every data set that is known by name."""
    from fullrank.images.named import DATA

    return [
        {
            "name": name,
            "images": d.images,
            "size": d.size or "varies",
            "classes": d.classes,
            "labelled": d.labelled,
            "download": "with --download" if d.needs_download else "comes along",
            "about": d.description,
        }
        for name, d in DATA.items()
    ]


def views() -> list[Row]:
    """Every preset of views."""
    from fullrank.views import VIEWS

    return [
        {"name": name, "views": len(v.views), "about": v.description, "source": v.source}
        for name, v in VIEWS.items()
    ]


def backbones() -> list[Row]:
    """Our narrow ResNets, then every timm name."""
    from fullrank.networks.backbones import OWN_BACKBONES, backbone_names

    return [
        {"name": name, "from": "fullrank" if name in OWN_BACKBONES else "timm"} for name in backbone_names()
    ]


def recipes() -> list[Row]:
    """Every recipe in the package."""
    from fullrank.training.recipes import load_recipe, recipe_names

    loaded = [load_recipe(name) for name in recipe_names()]
    return [{"name": r.name, "about": r.about, "aims at": r.aims_at, "source": r.source} for r in loaded]


def labs() -> list[Row]:
    """Every lab, with its presets and parts."""
    from fullrank.labs import LABS

    return [
        {
            "name": name,
            "title": lab.title,
            "presets": list(lab.presets),
            "parts": list(lab.parts),
            "paper": lab.paper,
        }
        for name, lab in LABS.items()
    ]


def metrics() -> list[Row]:
    """Every collapse metric, with what it sees and where it is from."""
    from fullrank.collapse.metrics import METRICS

    return [
        {
            "name": name,
            "label": metric.label,
            "range": f"{metric.low} to {metric.high}",
            "better": metric.better,
            "sees": metric.sees,
            "reference": metric.reference,
        }
        for name, metric in METRICS.items()
    ]


LISTS: dict[str, Callable[[], list[Row]]] = {
    "methods": methods, "data": data, "views": views, "backbones": backbones, "recipes": recipes,
    "labs": labs, "metrics": metrics,
}  # fmt: skip


def run(words: Sequence[str]) -> int:
    """Print a list."""
    args = parse(List, words, "fullrank list")
    if args.what not in LISTS:
        raise UnknownNameError("list", args.what, LISTS)
    rows = [row for row in LISTS[args.what]() if args.filter in row["name"]]
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        _print_table(rows)
    return 0


def _print_table(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for key in rows[0] if rows else ["name"]:
        table.add_column(key, overflow="fold", no_wrap=key == "name", style="cyan" if key == "name" else "")
    for row in rows:
        table.add_row(*(", ".join(v) if isinstance(v, list) else str(v) for v in row.values()))
    Console().print(table)
