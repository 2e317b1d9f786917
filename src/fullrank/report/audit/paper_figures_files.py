"""Which figures an audit and a run leave, each as SVG, PDF and PNG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fullrank.report.audit import paper_figures as one
from fullrank.report.audit import paper_figures_series as series
from fullrank.report.audit.terminal import AuditView
from fullrank.report.paper_style import save
from fullrank.report.run.reading import read_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["audit_figures", "run_figures", "write_audit_figures", "write_run_figures"]

Named = Iterator[tuple[str, "Figure | None"]]


def write_audit_figures(
    views: Mapping[str, AuditView], folder: Path, against: tuple[str, AuditView] | None = None
) -> list[Path]:
    """Writes the figures of an audit; returns the files.

    Args:
        views: audits by tap; where there are several, a figure of one tap is called `TAP-FIGURE`.
        folder: where to.
        against: name and audit of another embedding.
    """
    figures = audit_figures(views, against)
    return [path for name, figure in figures if figure is not None for path in save(figure, folder / name)]


def audit_figures(views: Mapping[str, AuditView], against: tuple[str, AuditView] | None = None) -> Named:
    """The figures of an audit by name, None where there is nothing to draw.

    Where there are several taps, the images are of the main one. Mixture entropy against components takes
    minutes: it is drawn where the metric `mixture_entropy` was asked for.
    """
    main = views["features"] if "features" in views else list(views.values())[-1]
    for tap, view in views.items():
        if view.panel is None:
            continue
        name = f"{_file_name(tap)}-" if len(views) > 1 else ""
        yield f"{name}spectrum", one.log_spectrum(view.panel.spectra, view.n, view.d)
        centred = {"rows": view.panel.spectra["centred"]}
        yield f"{name}cumulative", one.cumulative_curves(centred, view.n, view.d)
        if view is not main:
            continue
        yield f"{name}covariance", one.covariance(view.sample)
        yield f"{name}adjacency", one.adjacency(view.sample, view.labels)
        if "mixture_entropy" in view.metrics:
            yield f"{name}mixture-entropy", one.mixture_curve({"rows": view.sample})
    yield "depth", series.panels_over_depth(views)
    if against is not None:
        name, other = against
        if main.panel is not None and other.panel is not None:
            pair = {"this": main, name: other}
            spectra = {key: view.panel.spectra["centred"] for key, view in pair.items() if view.panel}
            yield "against", one.compared_spectra(spectra, {key: view.d for key, view in pair.items()})


def write_run_figures(run_dir: Path | str) -> list[Path]:
    """Writes the figures of a run into its `figures/`; returns the files.

    Raises:
        UsageError: it is no run directory.

    Example:
        >>> write_run_figures("runs/simsiam")  # doctest: +SKIP
        [PosixPath('runs/simsiam/figures/panels.svg'), ...]
    """
    folder = Path(run_dir) / "figures"
    figures = run_figures(run_dir)
    return [path for name, figure in figures if figure is not None for path in save(figure, folder / name)]


def run_figures(run_dir: Path | str) -> Named:
    """The figures of a run by name: panels over time, and of every tap its spectra."""
    run = read_run(run_dir)
    yield "panels", series.panels_over_time(run)
    for tap in run.taps:
        spectra = run.spectra(tap, "centred")
        yield f"{_file_name(tap)}-trajectories", series.trajectories(spectra)
        yield f"{_file_name(tap)}-spectra", series.spectra_over_epochs(spectra)
        n, d = run.size(tap)
        if spectra and n and d:
            last = {
                form: found[max(found)] for form in ("centred", "unit") if (found := run.spectra(tap, form))
            }
            yield f"{_file_name(tap)}-spectrum", one.log_spectrum(last, n, d)
            ends = {f"epoch {epoch}": spectra[epoch] for epoch in sorted({min(spectra), max(spectra)})}
            yield f"{_file_name(tap)}-cumulative", one.cumulative_curves(ends, n, d)


def _file_name(tap: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in tap)
