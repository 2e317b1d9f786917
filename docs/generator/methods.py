"""A page for each method: from its class, its recipes, our runs, and the words of methods.yaml."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from fullrank.cli.train_help import attribute_texts
from fullrank.methods import METHODS, explain_loss
from fullrank.training.recipes import load_recipe, recipe_names
from generator.svg import Dot, dot_rows

ROOT = Path(__file__).parents[2]
WORDS: Mapping[str, Mapping[str, Any]] = yaml.safe_load(Path(__file__).with_name("methods.yaml").read_text())
SHAPES = json.loads((ROOT / "docs" / "methods-on-shapes.json").read_text())
SOUND, COLLAPSED = "judged healthy", "judged collapsed"
HEADS = {
    "keeps": "What keeps it from collapse:",
    "differs": "Where reference and paper differ:",
    "taps": "Taps:",
}


def pages() -> Iterator[tuple[str, str]]:
    """Path and text of every method's page."""
    for name, method in METHODS.items():
        if method.__module__.startswith("fullrank."):
            yield f"methods/{name}.md", page(name, method)


def page(name: str, method: type[Any]) -> str:
    """The page of one method.

    Args:
        name: as the registry has it.
        method: its class.

    Raises:
        KeyError: methods.yaml has no words for it.
    """
    words, doc = WORDS[name], docstring_parts(method)
    module = inspect.getmodule(method)
    idea = (module.__doc__ or "").strip() if module else ""
    lines = [
        f"# {words['title']}",
        f"*{idea.partition(': ')[2].rstrip('.').capitalize()}.* {_paper(method)}",
        f"    fullrank train {name} --data FOLDER --out runs/{name}",
        f"**Take it where** {words['take'].strip()}.",
        "## Idea",
        doc["idea"],
        "## Equation",
        f"```math\n{words['equation'].strip()}\n```",
        words["symbols"],
        "## What keeps it from collapse",
        doc["keeps"],
        "## How it fails here",
        words["fails"].strip(),
        *_failures(name),
        *_fixed_points(name),
        "## On generated shapes",
        _on_shapes(name),
        "## Where paper, reference and this differ",
        doc["differs"],
        *[f"- {text}" for text in words.get("departures", ())],
        "## Recipes",
        _recipes(name),
        "## Options",
        _options(method),
        f"Layer outputs (taps) that the monitor measures: {doc['taps'].rstrip('.')}. "
        f"In Python: `fullrank.methods.{name}.{method.__name__}`.",
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def docstring_parts(method: type[Any]) -> dict[str, str]:
    """The docstring of a method by what its paragraphs say: idea, keeps, differs, taps.

    Raises:
        ValueError: it does not say what keeps it from collapse, or names no taps.
    """
    text = inspect.getdoc(method) or ""
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")[1:]]
    found = {"idea": "", "keeps": "", "differs": "", "taps": ""}
    for paragraph in paragraphs:
        if paragraph.startswith(("Example:", "Attributes:")):
            break
        key = next((key for key, head in HEADS.items() if paragraph.startswith(head)), "idea")
        rest = paragraph.removeprefix(HEADS.get(key, "")).strip()
        found[key] += ("\n\n" if found[key] else "") + rest[:1].upper() + rest[1:]
    if not found["keeps"] or not found["taps"]:
        raise ValueError(f"the docstring of {method.__name__} lacks one of {', '.join(HEADS.values())}")
    found["taps"] = found["taps"][:1].lower() + found["taps"][1:]
    return found


def _paper(method: type[Any]) -> str:
    number = re.search(r"\b(\d{4}\.\d{5})\b", inspect.getdoc(method) or "")
    return f"[arXiv {number[1]}](https://arxiv.org/abs/{number[1]})" if number else ""


@cache
def _encoders() -> list[dict[str, Any]]:
    """The last panel of the projector of every run of the benchmark of the verdict."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(ROOT / "benchmarks" / "encoders" / "encoders.parquet")
    columns = ["data", "method", "arm", "group", "seed", "epochs", "tap", "epoch", "now_knn", "untrained_knn"]
    columns += ["level", "erank_centred", "d", "kind"]
    rows: list[dict[str, Any]] = table.select(columns).to_pylist()
    return [row for row in rows if row["tap"] == "projector" and row["epoch"] == row["epochs"]]


@cache
def _settings() -> dict[str, str]:
    """What an arm of the benchmark changes, in words of the configuration."""
    grid = yaml.safe_load((ROOT / "benchmarks" / "encoders" / "grid.yaml").read_text())
    changed = {}
    for arm, entry in {**grid["broken"], **grid["halfway"]}.items():
        values = {
            **entry.get("settings", {}),
            **{f"options.{k}": v for k, v in entry.get("options", {}).items()},
        }
        changed[arm] = ", ".join(f"`{key}={value}`" for key, value in values.items())
    return changed


def _failures(name: str) -> list[str]:
    """Figure and table of the method's arms: as it should be, half-way, broken."""
    rows = [row for row in _encoders() if row["method"] == name]
    if not rows:
        return []
    arms: dict[str, list[dict[str, Any]]] = {}
    order = {"healthy": 0, "halfway": 1, "broken": 2}
    for row in sorted(rows, key=lambda row: (order[row["group"]], row["arm"])):
        arms.setdefault(row["arm"], []).append(row)
    dots = {
        arm: [
            Dot(
                100 * (row["now_knn"] - row["untrained_knn"]),
                "good" if row["kind"] == "healthy" else "bad",
                words=f"{row['data']}, seed {row['seed']}: {row['kind']}, level {row['level']:.2f}, "
                f"rank {row['erank_centred']:.1f} of {row['d']:.0f}",
            )
            for row in entries
        ]
        for arm, entries in arms.items()
    }
    title = f"k-NN of the projector at the end, less that of the untrained network, of {len(rows)} small runs"
    figure = dot_rows(dots, "gain in k-NN, points", title, {"good": SOUND, "bad": COLLAPSED}, at=0.0)
    head = (
        "| arm | changed | verdicts | level | rank / width | k-NN gain, points |\n|---|---|---|--:|--:|--:|"
    )
    table = [head]
    for arm, entries in arms.items():
        kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(e["kind"] for e in entries).most_common())
        level = fmean(e["level"] for e in entries)
        share = fmean(e["erank_centred"] / e["d"] for e in entries)
        gain = 100 * fmean(e["now_knn"] - e["untrained_knn"] for e in entries)
        changed = _settings().get(arm, "") or "nothing"
        table.append(f"| {arm} | {changed} | {kinds} | {level:.2f} | {share:.0%} | {gain:+.1f} |")
    note = (
        "Small ResNets on generated shapes, digits and CIFAR-10 at 16 pixels, 6 to 11 epochs, widths and "
        "seeds varied ([the verdict](../verdict.md) has how they were made); means over runs."
    )
    return [figure, "\n".join(table), note]


def _fixed_points(name: str) -> list[str]:
    points = explain_loss(0.0, name).fixed_points
    if not points:
        return []
    rows = [
        f"| {point['value']:.4g} | `{point['formula']}` | {point['state']} | "
        f"{', '.join(point['collapses']) or 'none'} |"
        for point in points
    ]
    head = "| loss | in symbols | embeddings are | collapse that ends here |\n|--:|---|---|---|"
    told = (
        f"Values at which the loss stands still, with the method's defaults and 256 images in a batch "
        f"(`fullrank explain loss VALUE --method {name}` takes yours):"
    )
    return ["### What the loss says", told, "\n".join([head, *rows])]


def _on_shapes(name: str) -> str:
    entry = SHAPES.get(name)
    if not entry:
        return ""
    rows = {
        "after its recipe": [Dot(100 * v, "good", words=f"{100 * v:.1f} %") for v in entry["knn"]],
        "untrained": [Dot(100 * v, "plain", words=f"{100 * v:.1f} %") for v in entry["knn_untrained"]],
    }
    title = f"k-NN accuracy on held-out generated shapes, three seeds of `{entry['recipe']}`".replace("`", "")
    verdicts = ", ".join(f"{n} {kind}" for kind, n in Counter(entry["verdict"]).most_common())
    line = (
        f"`fullrank train {entry['recipe']}`: {verdicts}; effective rank "
        f"{fmean(entry['rank']):.1f}; {fmean(entry['seconds']):.0f} s on two shared CPU cores."
    )
    return dot_rows(rows, "k-NN accuracy, %", title) + "\n" + line


def _recipes(name: str) -> str:
    rows = ["| recipe | what | aims at | source |", "|---|---|---|---|"]
    for recipe_name in recipe_names():
        recipe = load_recipe(recipe_name)
        if recipe.settings.get("method") == name:
            cells = (f"`{recipe_name}`", recipe.about, recipe.aims_at, recipe.source)
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if len(rows) == 2:
        return "No recipe of the literature; `fullrank train` takes [the defaults](../defaults.md)."
    return "\n".join(rows)


def _options(method: type[Any]) -> str:
    texts = attribute_texts(method.Config)
    rows = ["| option | default | what it is |", "|---|---|---|"]
    for field in dataclasses.fields(method.Config):
        default = str(field.default).replace("|", "\\|")
        text = texts.get(field.name, "").replace("|", "\\|")
        rows.append(f"| `--options.{field.name.replace('_', '-')}` | `{default}` | {text} |")
    return "\n".join(rows)
