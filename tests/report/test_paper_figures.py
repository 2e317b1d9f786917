"""Figures for a paper: in three formats, not blank, the same bytes twice, and none where there is nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fullrank
from fullrank.figures.matplotlib import FORMATS, plot, save, write_figures
from fullrank.report.audit import figures as of_audit
from fullrank.report.audit.view import Against
from fullrank.report.curves import compared_spectra, cumulative, spectrum, spectrum_over_time
from fullrank.report.run import figures as of_run
from fullrank.report.run.reading import read_run

pytestmark = pytest.mark.slow


def cloud(n: int = 200, d: int = 16) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0)) * torch.arange(1, d + 1) ** -0.5


def assert_drawn(stem: Path) -> None:
    """Three files of their kinds, and a picture with ink on more than its frame."""
    beginnings = {"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}
    for kind in FORMATS:
        assert Path(f"{stem}.{kind}").read_bytes().startswith(beginnings[kind])
    picture = np.asarray(Image.open(f"{stem}.png").convert("L"))
    assert min(picture.shape) > 500 and 0.005 < (picture < 250).mean() < 0.95


def test_the_figures_of_an_audit(tmp_path: Path) -> None:
    view = fullrank.audit(cloud(), metrics=["level"])
    other = fullrank.audit(cloud(d=8), metrics=["level"])
    written = write_figures(of_audit.paper_figures({"embedding": view}, Against("other", other)), tmp_path)
    names = {path.stem for path in written}
    assert names == {"spectrum", "cumulative", "covariance", "adjacency", "against"}
    assert len(written) == 3 * len(names) and {p.name for p in tmp_path.iterdir()} == {
        p.name for p in written
    }
    for name in names:
        assert_drawn(tmp_path / name)


def test_the_figures_of_a_depth(tmp_path: Path) -> None:
    views = {
        name: fullrank.audit(cloud(d=d), metrics=["level"]) for name, d in (("a/b", 8), ("features", 16))
    }
    names = {path.stem for path in write_figures(of_audit.paper_figures(views), tmp_path)}
    assert {"a-b-spectrum", "features-spectrum", "features-covariance", "depth"} <= names
    assert "a-b-covariance" not in names
    assert_drawn(tmp_path / "depth")


def test_the_figures_of_a_run(tmp_path: Path, fake_run: Any) -> None:
    run = fake_run("dimensional", epochs=4)
    names = {path.stem for path in of_run.write_run_figures(run)}
    assert {"panels", "projector-trajectories", "projector-spectra", "projector-spectrum"} <= names
    for name in ("panels", "projector-trajectories", "projector-spectra", "projector-cumulative"):
        assert_drawn(run / "figures" / name)


def test_the_same_drawing_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(plot(of_audit.adjacency(cloud())), tmp_path / name)
    for kind in FORMATS:
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_mixture_entropy_falls_with_components_where_rows_are_clusters(tmp_path: Path) -> None:
    centres = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    figure = of_audit.mixture_curve({"rows": centres.repeat(40, 1) + 0.05 * cloud(200, 4)}, (1, 2, 5))
    ys = figure.series[0].ys[0]
    assert (np.diff(np.asarray(ys, dtype=float)) < 0).all()
    save(plot(figure), tmp_path / "mixture")
    assert_drawn(tmp_path / "mixture")


def test_the_cumulative_curve_carries_its_auc() -> None:
    figure = cumulative({"rows": np.ones(4)}, 1000, 4)
    assert "rows, AUC 0.625" in plot(figure).axes[0].get_legend_handles_labels()[1]


def test_blocks_of_the_adjacency_are_the_classes() -> None:
    labels = torch.arange(60) % 3
    image = np.array(of_audit.adjacency(torch.eye(3)[labels], labels).z)
    assert image[:20, :20].min() == pytest.approx(1) and image[:20, 20:].max() == pytest.approx(-0.5)


def test_nothing_to_draw_is_empty(fake_run: Any) -> None:
    zeros = np.zeros(4)
    assert spectrum({"centred": zeros}, 100, 4).empty and cumulative({"rows": zeros}, 100, 4).empty
    assert compared_spectra({"rows": (zeros, 4)}).empty and spectrum_over_time({}).empty
    assert of_audit.covariance(torch.zeros(8, 4)).empty and of_audit.adjacency(torch.zeros(8, 4)).empty
    assert of_audit.mixture_curve({"rows": torch.zeros(8, 4)}, (1, 2)).empty
    assert of_run.trajectories({0: np.ones(4)}).empty and of_run.trajectories({0: zeros, 1: zeros}).empty
    assert of_audit.depth({}) == []
    assert of_run.panels(read_run(fake_run(epochs=0, ended=False)))


def test_pyplot_is_not_involved(tmp_path: Path) -> None:
    import subprocess
    import sys

    words = "import sys, torch, fullrank; fullrank.audit(torch.randn(99, 4), metrics=['level']).write('x')"
    code = f"{words}; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "False\n", done.stderr
