"""The page of a comparison over two runs of ours and somebody's checkpoint, looked at in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cli.helpers import SMALL, call
from encoders.foreign_layouts import dino, vit
from report.test_browser import browser, pytestmark, visit

__all__ = ["browser", "pytestmark"]  # fixtures and marks are found by their names


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page over two runs of ours, of different settings, and a checkpoint of DINO's."""
    folder = tmp_path_factory.mktemp("compare")
    runs = [folder / "simsiam", folder / "no-predictor"]
    for run, words in zip(runs, ((), ("--options.predictor", "none")), strict=True):
        assert call("train", "simsiam", *SMALL, *words, "--out", str(run)).code == 0
    torch.save(dino(vit()), folder / "dino.pth")
    words = (*map(str, runs), str(folder / "dino.pth"), "--queries", "250", "--bank", "200")
    called = call("compare", *words, "--out", str(folder / "compare.html"))
    assert called.code == 0, called.err
    return folder / "compare.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 900, 1440])
def test_every_figure_is_drawn_within_the_width_and_nothing_is_said_on_the_console(
    browser: Any, page: Any, width: int, scheme: str
) -> None:
    def inspect(tab: Any) -> None:
        rows = tab.locator("table.arms").first.locator("tbody tr").all_inner_texts()
        assert len(rows) == 4 and "dino.pth" in rows[2] and "raw pixels" in rows[3]
        inside = "[...document.querySelectorAll('.scroll')].map((box) => box.scrollWidth <= box.clientWidth)"
        assert all(tab.evaluate(inside)) or width == 900

    assert visit(browser, page, width, inspect, scheme) == 2 + 4 + 2 + 1  # probes, curves, maps, last spectra
