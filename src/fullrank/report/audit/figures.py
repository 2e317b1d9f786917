"""The figures of an audit's page; each is None where there is nothing to draw in it.

Traces carry in `meta` the tap that they belong to; the page shows the chosen one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fullrank.report.audit.curves import (
    ceiling,
    distances,
    principal_map,
    references,
    relative,
    share_curve,
)
from fullrank.report.audit.terminal import AuditView
from fullrank.report.plot import figure, line, log_axis, spectrum_line
from fullrank.report.style import BLUE, GREEN, GREY, OCHRE, ORANGE, PALETTE, PURPLE, RED, count, number

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["against", "code_use", "cumulative", "depth", "pairwise", "principal", "spectra"]

Views = Mapping[str, AuditView]
CLASSES = (*PALETTE, RED, "#6b7fd7", "#8c6d46", "#7c9a2e")
DASHES = {"isotropic": "dash", "eigenvalues 1/k": "dot"}
FORMS = (("centred", "centred", BLUE), ("unit", "unit rows, not centred", OCHRE))
FLOOR = 1e-7  # relative singular values below are rounding


def spectra(views: Views) -> go.Figure | None:
    """Spectra with and without centring on one scale, beside both references and the ceiling of n."""
    fig = figure("index of the singular value (1 = largest)", "singular value, relative", 360)
    log_axis(fig)
    for tap, view in views.items():
        if view.panel is None:
            continue
        meta = {"tap": tap}
        for form, name, colour in FORMS:
            values = relative(view.panel.spectra[form])
            if values is not None:
                spectrum_line(fig, np.where(values > FLOOR, values, 0), name, colour, meta=meta)
        for name, values in references(view.n, view.d).items():
            spectrum_line(fig, values, name, GREY, dash=DASHES[name], width=1.4, meta=meta)
        if limit := ceiling(view.n, view.d):
            ends = [FLOOR * 10, 1.0]
            hover = f"{count(view.n)} rows show at most {count(limit)} directions"
            line(fig, [limit, limit], ends, f"n - 1 = {count(limit)}", ORANGE, hover, width=1.4, meta=meta)
    _ticks(fig)
    return fig if fig.data else None


def cumulative(views: Views) -> go.Figure | None:
    """Cumulative curve of the centred spectrum with its AUC, between the two references."""
    fig = figure("share of the directions", "share of the spectrum they hold", 360)
    fig.update_yaxes(tickformat=".0%", range=[0, 1.03])
    fig.update_xaxes(tickformat=".0%", range=[-0.01, 1.01])
    for tap, view in views.items():
        if view.panel is None:
            continue
        curves = {"rows": (view.panel.spectra["centred"], BLUE, "solid", 2.2)}
        for name, values in references(view.n, view.d).items():
            curves[name] = values, GREY, DASHES[name], 1.4
        for name, (values, colour, dash, width) in curves.items():
            found = share_curve(values, view.d)
            if found is None:
                continue
            xs, ys = _sparse(*found)
            area = f"{name}: AUC {number(float(found[1][1:].mean()))}"
            hover = f"{name}<br>%{{x:.1%}} of the directions hold %{{y:.1%}}"
            line(fig, xs, ys, area, colour, hover, dash=dash, width=width, meta={"tap": tap})
    return fig if fig.data else None


def principal(views: Views) -> go.Figure | None:
    """The sample on its first two principal axes, coloured by class where there are labels."""
    fig = figure("first principal axis", "second", 360)
    for tap, view in views.items():
        found = principal_map(view.sample)
        if found is None:
            continue
        places, (first, second) = found
        marker: dict[str, Any] = {"size": 4.5, "opacity": 0.65, "color": BLUE}
        hover = f"axes hold {first:.1%} and {second:.1%} of the variance"
        more: dict[str, Any] = {}
        if view.labels is not None:
            marker["color"] = _class_colours(view.labels.numpy())
            more["customdata"] = view.labels.tolist()
            hover = "class %{customdata}<br>" + hover
        fig.add_scatter(
            x=_short(places[:, 0]),
            y=_short(places[:, 1]),
            mode="markers",
            marker=marker,
            name=tap,
            showlegend=False,
            hovertemplate=hover + "<extra></extra>",
            meta={"tap": tap},
            **more,
        )
    return fig if fig.data else None


def pairwise(views: Views) -> go.Figure | None:
    """How far rows are from each other, beside Gaussian rows of the same covariance."""
    fig = figure("distance of two rows / mean distance", "share of the pairs", 360)
    fig.update_xaxes(type="log", tickvals=[0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5], tickformat="~g")
    fig.update_yaxes(tickformat=".0%", rangemode="tozero")
    for tap, view in views.items():
        found = None if view.panel is None else distances(view.sample)
        if found is None:
            continue
        for name, shares, colour, dash in (
            ("rows", found.rows, BLUE, "solid"),
            ("Gaussian rows of the same covariance", found.gaussian, GREY, "dash"),
        ):
            xs, ys = np.repeat(found.edges, 2)[1:-1], np.repeat(shares, 2)
            hover = f"{name}<br>%{{y:.2%}} of the pairs near %{{x:.3g}}"
            fill = {"fill": "tozeroy", "fillcolor": "rgba(43, 123, 186, .16)"} if name == "rows" else {}
            line(
                fig,
                _short(xs),
                _short(ys),
                name,
                colour,
                hover,
                dash=dash,
                width=1.6,
                meta={"tap": tap},
                **fill,
            )
    return fig if fig.data else None


def code_use(views: Views) -> go.Figure | None:
    """How much every code is used, the most used first, beside equal use."""
    fig = figure("codes, the most used first", "share of the assignments", 360)
    log_axis(fig)
    for tap, view in views.items():
        if view.use is None:
            continue
        use = view.use.sort(descending=True).values.numpy()
        xs, ys = _stairs(use)
        hover = "code %{x:.0f}: %{y:.3%} of the assignments"
        line(fig, xs, ys, tap, BLUE, hover, meta={"tap": tap})
        equal, words = [1 / view.d] * 2, f"equal use: 1/{count(view.d)}"
        line(fig, [0.5, view.d + 0.5], equal, words, GREY, words, dash="dash", width=1.4)
    _ticks(fig)
    return fig if fig.data else None


def depth(views: Views) -> go.Figure | None:
    """Level and ranks, as shares of d, over the taps in the order of depth."""
    measured = {tap: view for tap, view in views.items() if view.panel is not None}
    if len(measured) < 2:
        return None
    fig = figure("tap, from the image to the features", "share of d; level", 340)
    fig.update_xaxes(type="category")
    fig.update_yaxes(rangemode="tozero")
    taps = list(measured)
    for name, label, colour, share in (
        ("erank_centred", "effective rank / d", BLUE, True),
        ("rankme_unit", "RankMe of unit rows / d", OCHRE, True),
        ("participation_ratio", "participation ratio / d", PURPLE, True),
        ("level", "level", GREEN, False),
    ):
        ys, nulls = [], []
        for view in measured.values():
            measure = view.panel.measures[name] if view.panel else None
            size = view.d if share else 1
            ys.append(None if measure is None or measure.value is None else measure.value / size)
            nulls.append(None if measure is None or measure.null is None else measure.null / size)
        hover = f"%{{x}}<br>{label}: %{{y:.3f}}"
        line(fig, taps, ys, label, colour, hover, mode="lines+markers")  # type: ignore[arg-type]
        if name == "erank_centred":
            hover = "%{x}<br>isotropic rows of this n and d: %{y:.3f}"
            more = {"dash": "dash", "width": 1.3}
            line(fig, taps, nulls, "isotropic rank / d", GREY, hover, **more)  # type: ignore[arg-type]
    return fig


def against(view: AuditView, other: AuditView, names: tuple[str, str]) -> go.Figure | None:
    """The centred spectra of two embeddings over each other, relative, over the share of directions."""
    if view.panel is None or other.panel is None:
        return None
    fig = figure("share of the directions", "singular value, relative to the largest", 360)
    log_axis(fig)
    fig.update_xaxes(tickformat=".0%")
    for shown, name, colour in ((view, names[0], BLUE), (other, names[1], ORANGE)):
        assert shown.panel is not None
        values = shown.panel.spectra["centred"]
        if not len(values) or not values[0] > 0:
            continue
        kept = [float(v) if v > FLOOR else None for v in values / values[0]]
        hover = f"{name}<br>%{{x:.1%}} of {count(shown.d)}: %{{y:.4g}}"
        line(fig, [(k + 1) / shown.d for k in range(len(kept))], kept, name, colour, hover)
    _ticks(fig)
    return fig if fig.data else None


def _ticks(fig: go.Figure) -> None:
    """Labels at 1, 2 and 5 where a logarithmic axis spans hardly a power of ten."""
    values = [y for trace in fig.data for y in trace.y if y]
    if values and max(values) / min(values) < 50:
        fig.update_yaxes(dtick="D2", exponentformat="none")


def _class_colours(labels: np.ndarray) -> list[str]:
    """A colour for every row's class; grey where it has none. More classes than colours share them."""
    return [GREY if label < 0 else CLASSES[int(label) % len(CLASSES)] for label in labels]


def _stairs(values: np.ndarray) -> tuple[list[float], list[float | None]]:
    edges = np.repeat(np.arange(len(values) + 1) + 0.5, 2)[1:-1]
    heights = [float(v) if v > 0 else None for v in np.repeat(values, 2)]
    return edges.tolist(), heights


def _short(values: np.ndarray) -> list[float]:
    """Numbers of five digits: a page need not carry more."""
    return [float(f"{value:.5g}") for value in values]


def _sparse(xs: np.ndarray, ys: np.ndarray, most: int = 512) -> tuple[list[float], list[float | None]]:
    kept = np.unique(np.linspace(0, len(xs) - 1, min(len(xs), most)).round().astype(int))
    return _short(xs[kept]), list(_short(ys[kept]))
