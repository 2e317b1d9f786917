"""An entry for each metric, from its definition, with a picture of what it reads on six made clouds."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fullrank.collapse.baselines import baseline
from fullrank.collapse.metrics import COLLAPSES, METRICS, NEEDS, Metric, class_name
from generator.svg import Dot, dot_rows

N, D, GROUPS = 512, 64, 8
TITLES = {
    "moments": "Level and mean",
    "spectrum": "Ranks and spectra",
    "unit spectrum": "Ranks at unit length",
    "points": "Samples of rows",
    "neighbours": "Intrinsic dimension",
    "clusters": "Tight clusters",
    "pairs": "Two views",
    "views": "Many views",
    "labels": "Classes",
    "classifier": "Classifiers",
    "scores": "Codes",
    "tokens": "Tokens",
}
# of functions with several results, whose first line is of all
FORMULAS = {
    "linked_share": "`tr S_w / tr S_t` of the clusters that end where sorted distances jump",
    "tight_clusters": "number of clusters that end where the sorted distances from a row jump",
    "code_entropy": "`H(mean_i p_i) / log K`",
    "code_perplexity": "`exp H(mean_i p_i)`",
    "dead_codes": "share of codes that are no row's first choice",
    "assignment_entropy": "`mean_i H(p_i) / log K`",
    "view_retrieval": "`mean_i [argmax_j cos(a_i, b_j) = i]`, of 200 images",
    "cluster_learnability": "`mean_i [cluster of i's nearest neighbour = cluster of i]`",
    "mean_cosine_centred": "`mean_cosine` of `z - mean z`",
    "self_cluster_centred": "`self_cluster` of `z - mean z`",
    "nc2_equinorm": "`std_c ||mu_c - mu|| / mean_c ||mu_c - mu||`",
    "nc4_nearest_class": "`mean_i [argmax_k (w_k z_i + b_k) != argmin_c ||z_i - mu_c||]`",
    "legacy_mixture_entropy": "`-E log p` in nats, of rows scaled by their extremes and padded with columns",
}


def pages() -> Iterator[tuple[str, str]]:
    """Path and text of the page of each kind of input, and of their index."""
    yield "metrics/index.md", index()
    for needs in NEEDS:
        found = [metric for metric in METRICS.values() if metric.needs == needs]
        if found:
            yield _path(needs), page(needs, found)


def _path(needs: str) -> str:
    return f"metrics/{needs.replace(' ', '_')}.md"


def index() -> str:
    """All metrics by name, with the collapses that each sees."""
    lines = [
        "# Metrics",
        "No metric sees every collapse: read them as a panel, and beside the value of an isotropic cloud of "
        "the same size. `fullrank list metrics` prints this list, `fullrank audit FILE` computes them, and "
        "`fullrank.collapse.metrics.METRICS[name](rows)` computes one. [All in one table](../metrics.md).",
        "\n".join(f"- **{letter}** {words}" for letter, words in COLLAPSES.items()),
        "The pictures show what a metric reads on six made clouds of "
        f"{N} rows and {D} dimensions: isotropic; eigenvalues `1/k`; 4 directions; {GROUPS} tight clusters; "
        "a constant with noise a thousandth of its length; and isotropic rows with a common mean ten times "
        "as long. A dashed line is the baseline.",
    ]
    for needs, words in NEEDS.items():
        found = [metric for metric in METRICS.values() if metric.needs == needs]
        file = _path(needs).removeprefix("metrics/")
        table = "| metric | sees | better | range |\n|---|---|---|---|" + "".join(
            f"\n| [`{m.name}`]({file}#{m.name}) | {' '.join(m.sees) or 'none'} | {m.better} | {_range(m)} |"
            for m in found
        )
        rows = [f"## {TITLES[needs]}", f"From {words}.", table]
        lines += rows if found else []
    return "\n\n".join(lines) + "\n"


def page(needs: str, found: list[Metric]) -> str:
    """The entries of the metrics of one kind of input."""
    lines = [f"# {TITLES[needs]}", f"Metrics from {NEEDS[needs]}."]
    for metric in found:
        lines += entry(metric)
    return "\n\n".join(lines) + "\n"


def entry(metric: Metric) -> list[str]:
    """One metric: formula, range, what it sees and does not, baseline, picture."""
    label = metric.label if metric.label != metric.name.replace("_", " ") else ""
    rows = {
        "formula": formula(metric),
        "of": metric.variant,
        "range": f"{_range(metric)}{f' {metric.unit}' if metric.unit else ''}; better: {metric.better}",
        "sees": ", ".join(COLLAPSES[letter].partition(":")[0] for letter in metric.sees) or "no collapse",
        "blind to, or misled by": metric.blind,
        "baseline": _baseline(metric),
        "unchanged by": ", ".join(sorted(metric.invariances)) or "nothing",
        "cost": f"{metric.cost}{' (minutes: named only)' if metric.slow else ''}",
        "judged by": f"`Thresholds.{metric.threshold}`" if metric.threshold else "",
        "paper": metric.reference,
        "streaming": f"`fullrank.collapse.streaming.{class_name(metric.name)}`",
    }
    table = "| property | value |\n|---|---|" + "".join(
        f"\n| {name} | {text.replace('|', chr(92) + '|')} |" for name, text in rows.items() if text
    )
    head = f"## `{metric.name}` {{: #{metric.name} }}"
    words = [f"{label[:1].upper()}{label[1:]}."] if label else []
    return [head, *words, table, picture(metric)]


def formula(metric: Metric) -> str:
    """The formula in the docstring of the metric's function, or in `FORMULAS`.

    Raises:
        ValueError: there is none in either place.
    """
    if metric.name in FORMULAS:
        return FORMULAS[metric.name]
    text = inspect.getdoc(inspect.unwrap(metric.function)) or ""
    head = text.splitlines()[0]
    tail = re.search(r"Formula: (.*?)(?:\n\n|Papers?:)", text, re.DOTALL)
    if tail:
        return " ".join(tail[1].split()).rstrip(" .")
    if "`" in head:
        return head.rstrip(".").partition(": ")[2] or head.rstrip(".")
    raise ValueError(f"the docstring of the metric {metric.name} has no formula, and FORMULAS neither")


def _range(metric: Metric) -> str:
    low, high = ("−∞" if metric.low == "-inf" else metric.low, "∞" if metric.high == "inf" else metric.high)
    return f"{low} … {high}"


def _baseline(metric: Metric) -> str:
    value = _baseline_value(metric)
    if metric.baseline == "measured":
        return "found together with the value"
    kinds = {"spectrum": "of the Marchenko-Pastur spectrum", "cloud": "of one isotropic Gaussian cloud"}
    words = kinds[metric.baseline] if isinstance(metric.baseline, str) else "a closed form of n and d"
    return words if value is None else f"{words}; {value:.4g} for {N} x {D}"


@cache
def _clouds() -> Mapping[str, tuple[Tensor, Tensor]]:
    """Rows and groups [n] of six clouds."""
    rows = torch.Generator().manual_seed(0)
    z = torch.randn(N, D, generator=rows, dtype=torch.float64)
    groups = torch.arange(N) % GROUPS
    centres = torch.randn(GROUPS, D, generator=rows, dtype=torch.float64)
    k = torch.arange(1, D + 1, dtype=torch.float64)
    unit = torch.zeros(D, dtype=torch.float64)
    unit[0] = 1.0
    low = torch.zeros(D, dtype=torch.float64)
    low[:4] = 1.0
    return {
        "isotropic": (z, groups),
        "eigenvalues 1/k": (z / k.sqrt(), groups),
        "4 directions": (z * low, groups),
        f"{GROUPS} tight clusters": (centres[groups] + 0.01 * z, groups),
        "constant and noise": (unit + 1e-3 * z / D**0.5, groups),
        "isotropic, common mean": (z + 10 * D**0.5 * unit, groups),
    }


@cache
def _noise() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _input(needs: str, z: Tensor, groups: Tensor) -> tuple[Any, ...]:
    """What a metric takes, made from a cloud: a view adds noise of a tenth of the spread."""
    view = z + 0.1 * (z - z.mean(0)).pow(2).mean().sqrt() * _noise()
    made: Mapping[str, Callable[[], tuple[Any, ...]]] = {
        "pairs": lambda: (z, view),
        "views": lambda: (torch.stack([z, view], dim=1),),
        "labels": lambda: (z, groups),
        "classifier": lambda: (z, groups, *_nearest_mean(z, groups)),
        "tokens": lambda: (z.reshape(-1, 16, z.shape[1]),),
    }
    return made[needs]() if needs in made else (z,)


def _nearest_mean(z: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    means = torch.stack([z[groups == c].mean(0) for c in range(GROUPS)])
    return means, -0.5 * means.square().sum(1)


def _baseline_value(metric: Metric) -> float | None:
    try:
        return baseline(metric.name, N, D)
    except (KeyError, TypeError, ValueError):
        return None


def picture(metric: Metric) -> str:
    """What the metric reads on the six clouds."""
    if metric.slow:
        return "*No picture: it takes minutes.*"
    rows = {}
    for name, (z, groups) in _clouds().items():
        torch.manual_seed(0)
        value = metric(*_input(metric.needs, z, groups))
        rows[name] = [] if value is None else [Dot(value, words=f"{value:.4g}")]
    rows = {name if dots else f"{name} (undefined)": dots for name, dots in rows.items()}
    if not any(rows.values()):
        return ""
    base = _baseline_value(metric)
    return dot_rows(
        rows, metric.label, f"{metric.label} on six clouds of {N} rows and {D} dimensions", at=base
    )
